//! Where reads go, files that are to be loaded, and statements that are to be run.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where sessions read that say nothing of it. A session's `volt.read_from`, `volt.balance` and `volt.max_staleness` come first.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// `Primary` by default: strictly serialisable. `Backup`: what was committed a moment ago.
    #[serde(default)]
    pub read_from: ReadFrom,
    /// How one of several backups is chosen; `RoundRobin` by default.
    #[serde(default)]
    pub strategy: Strategy,
    /// How old a backup's answer may be: 1 to 86,400,000; 1,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_staleness_milliseconds: Option<i32>,
    /// A directory that all nodes share, whose CSV and JSON files they load into tables; absent by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spool>,
    /// The nodes run the statements that are put into the table volt_queue; absent by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

/// The table whose statements are run.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// How the node is chosen that runs a statement; `RoundRobin` by default.
    #[serde(default)]
    pub strategy: Strategy,
    /// Time between two looks at it: 10 to 1,000; 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1_000))]
    pub interval_milliseconds: Option<i32>,
}

/// The directory whose files are loaded.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spool {
    /// A PersistentVolumeClaim of the same namespace that all pods can write (`ReadWriteMany`): its root is the directory.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// How the node is chosen that loads a file; `RoundRobin` by default.
    #[serde(default)]
    pub strategy: Strategy,
    /// Time between two looks at it: 10 to 1,000; 500 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1_000))]
    pub interval_milliseconds: Option<i32>,
}

/// Which replicas are read.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
pub enum ReadFrom {
    /// The one that takes the writes.
    #[default]
    Primary,
    /// The others, while they are not too old.
    Backup,
}

/// How one of several is chosen.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// By lot.
    Random,
    /// By lot, by capacity and observed latency.
    Weighted,
}

impl Strategy {
    /// As volt-node has it.
    fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Weighted => "weighted",
        }
    }
}

impl Spool {
    /// As volt-node takes it from its environment, but for where the directory is.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let interval = self.interval_milliseconds;
        [("VOLT_SPOOL_BALANCE", self.strategy.name().to_owned())]
            .into_iter()
            .chain(interval.map(|time| ("VOLT_SPOOL_EVERY_MS", time.to_string())))
            .collect()
    }
}

impl Queue {
    /// As volt-node takes it from its environment.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let interval = self.interval_milliseconds;
        [
            ("VOLT_QUEUE", "true".to_owned()),
            ("VOLT_QUEUE_BALANCE", self.strategy.name().to_owned()),
        ]
        .into_iter()
        .chain(interval.map(|time| ("VOLT_QUEUE_EVERY_MS", time.to_string())))
        .collect()
    }
}

impl LoadBalancing {
    /// As volt-node takes it from its environment; not the spool directory's.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let from = match self.read_from {
            ReadFrom::Primary => "primary",
            ReadFrom::Backup => "backup",
        };
        let staleness = self.max_staleness_milliseconds;
        [("VOLT_READ_FROM", from), ("VOLT_BALANCE", self.strategy.name())]
            .map(|(name, value)| (name, value.to_owned()))
            .into_iter()
            .chain(staleness.map(|time| ("VOLT_MAX_STALENESS_MS", time.to_string())))
            .chain(self.queue.iter().flat_map(Queue::variables))
            .collect()
    }
}
