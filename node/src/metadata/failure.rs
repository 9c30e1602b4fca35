//! Failures: of whom something was found, by which strategy and through which medium, with which evidence, and what came
//! of it. The map keeps the newest of them, so that every node tells the same story.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use volt_engine::{NodeId, PartitionId};

/// How many failures `ClusterMap::failures` keeps.
pub const MAX_FAILURES_KEPT: usize = 256;
/// Evidence may come from outside, and is kept: it is cut after so many bytes.
pub const MAX_EVIDENCE_BYTES: usize = 500;
/// Lagging replicas of one node that are found within this are one failure: a slow disk or link is behind in all of them.
pub(super) const SAME_LAG_MICROS: i64 = 10_000_000;

/// By what a failure was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strategy {
    /// Silence, weighed by how regularly the node spoke before (phi accrual).
    Heartbeat,
    /// Probes at fixed intervals, and a number of them missed in a row.
    Interval,
    /// A replica that lags, or whose rows differ from its primary's at the same LSN.
    DataChange,
    /// A connection that broke, and an address that refuses another one.
    Connection,
    /// Somebody's word: the operator's.
    Operator,
}

impl fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Heartbeat => "heartbeat",
            Self::Interval => "interval",
            Self::DataChange => "data change",
            Self::Connection => "connection",
            Self::Operator => "operator",
        })
    }
}

/// Through what it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Medium {
    /// Messages and connections.
    Network,
    /// Files: of a directory that the nodes share, or of the node's own.
    FileSystem,
    /// Rows of a database that the nodes share.
    Database,
}

impl fmt::Display for Medium {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Network => "network",
            Self::FileSystem => "file system",
            Self::Database => "database",
        })
    }
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// By what.
    pub strategy: Strategy,
    /// Through what.
    pub medium: Medium,
    /// What was seen, with the numbers.
    pub evidence: String,
    /// Microseconds from the last sign of life, or of health, to the verdict.
    pub silence_micros: u64,
    /// Who saw it.
    pub observer: NodeId,
}

impl Finding {
    /// With no more evidence than is kept.
    pub fn new(
        (strategy, medium): (Strategy, Medium),
        evidence: impl Into<String>,
        silence: Duration,
        observer: NodeId,
    ) -> Self {
        let mut evidence = evidence.into();
        if evidence.len() > MAX_EVIDENCE_BYTES {
            evidence.truncate(evidence.floor_char_boundary(MAX_EVIDENCE_BYTES));
        }
        Self {
            strategy,
            medium,
            evidence,
            silence_micros: u64::try_from(silence.as_micros()).unwrap_or(u64::MAX),
            observer,
        }
    }
}

/// Why a primary goes on without a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// What was found.
    pub finding: Finding,
    /// Microseconds since 1970 on the primary's clock.
    pub at_micros: i64,
    /// Its rows can't be trusted: it must be filled anew.
    pub in_doubt: bool,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number; grows.
    pub failure_id: u64,
    /// When the verdict was made, microseconds since 1970 on the clock of who proposed it.
    pub at_micros: i64,
    /// Whose.
    pub node_id: NodeId,
    /// Of a replica of this partition alone; None: of the node's process.
    pub partition: Option<PartitionId>,
    /// What it rests on.
    pub finding: Finding,
    /// Partitions that got another primary for it, so far.
    pub promoted: u32,
    /// Replicas that left their in-sync set for it, so far.
    pub removed: u32,
    /// How it ended, once it has.
    pub end: Option<FailureEnd>,
}

/// How a failure ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureEnd {
    /// The same process was heard again.
    Revived,
    /// The node came back as another process.
    Restarted,
    /// The cluster forgot the node.
    Removed,
    /// The replica is in sync again.
    InSync,
    /// A later verdict on the same node took its place: its process is known to have ended.
    Confirmed,
}

impl fmt::Display for FailureEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Revived => "the same process was heard again",
            Self::Restarted => "the node came back as a new process",
            Self::Removed => "the node was removed",
            Self::InSync => "in sync again",
            Self::Confirmed => "the process has ended since",
        })
    }
}

impl Failure {
    /// What came of it, in words.
    pub fn outcome(&self) -> String {
        let count = |count: u32, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let parts = [
            count(self.promoted, "new primary", "new primaries"),
            count(
                self.removed,
                "replica left its in-sync set",
                "replicas left their in-sync sets",
            ),
            self.end.map(|end| end.to_string()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => "none yet".to_owned(),
            false => parts.join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_cut_between_characters() {
        let long = "ä".repeat(MAX_EVIDENCE_BYTES);
        let finding = Finding::new((Strategy::Operator, Medium::Network), long, Duration::ZERO, 1);
        assert_eq!(finding.evidence, "ä".repeat(MAX_EVIDENCE_BYTES / 2));
        let odd = format!("x{}", "ä".repeat(MAX_EVIDENCE_BYTES));
        let finding = Finding::new((Strategy::Operator, Medium::Network), odd, Duration::ZERO, 1);
        assert_eq!(finding.evidence.len(), MAX_EVIDENCE_BYTES - 1);
    }
}
