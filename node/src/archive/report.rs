//! What each node knows of the archive: rows of `system.archive`, asked of all nodes.

use std::sync::Weak;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tonic::Status;
use volt_engine::{Lsn, NodeId, PartitionId};
use volt_proto::v1;

use super::Archiver;
use super::restore::led_and_left;
use crate::replication::Replicas;

/// A node that takes longer to answer is left out.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// What one node knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The archive that it writes to.
    pub url: Option<String>,
    /// The newest cut that it has archived since it started.
    pub newest_cut_micros: Option<i64>,
    /// Of each partition led here.
    pub archived: Vec<Archived>,
    /// Partitions led here that are still to be restored, and why that did not work the last time.
    pub restoring: Vec<(PartitionId, Option<String>)>,
    /// How far this standby is, told by the leader of the metadata group.
    pub following: Option<Following>,
}

/// How far a standby is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Following {
    /// The moment as of which it is read, in microseconds since 1970; None: of none, it is on its way to one.
    pub as_of_micros: Option<i64>,
    /// How long ago that was, by this node's clock.
    pub lag_micros: Option<u64>,
    /// The newest moment in the archive, whole or not.
    pub newest_micros: Option<i64>,
    /// Records up to that moment that it does not have.
    pub behind_records: u64,
    /// Why the last try to go on failed, if the one after it has not succeeded.
    pub problem: Option<String>,
}

/// How far a partition is archived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Archived {
    /// Which.
    pub partition: PartitionId,
    /// All up to here is archived; None: it is not known yet.
    pub sealed: Option<Lsn>,
    /// All up to here is committed.
    pub committed: Lsn,
    /// For how long there has been something to archive.
    pub behind_micros: u64,
    /// When the last object was written by this process.
    pub last_object_micros: Option<i64>,
    /// Why the last try failed, if the one after it has not succeeded.
    pub error: Option<String>,
}

/// What this node knows.
pub(crate) fn own(replicas: &Replicas) -> Report {
    let archiver = replicas.archiver.get().and_then(Weak::upgrade);
    let archiver = archiver.as_deref();
    let map = replicas.metadata.map();
    let left = led_and_left(replicas, &map);
    let problems = replicas.restoration_problems();
    let restoring = left
        .iter()
        .map(|(partition, _)| (*partition, problems.get(partition).cloned()));
    Report {
        url: archiver.map(Archiver::url),
        newest_cut_micros: archiver.and_then(Archiver::newest_cut_micros),
        archived: archiver.map(Archiver::archived_here).unwrap_or_default(),
        restoring: restoring.collect(),
        following: replicas.following().map(|following| Following {
            lag_micros: following.as_of_micros.map(|as_of| {
                let now_micros = replicas.world.clock.unix_micros();
                now_micros.saturating_sub(as_of).max(0).cast_unsigned()
            }),
            ..following
        }),
    }
}

/// This node's answer to another one.
pub(crate) fn serve(report: &Report) -> Result<v1::ArchiveResponse, Status> {
    let report = postcard::to_stdvec(report).map_err(|error| Status::internal(error.to_string()))?;
    Ok(v1::ArchiveResponse { report: report.into() })
}

/// What each living node that answers knows.
pub(crate) async fn of_all(replicas: &Replicas) -> Vec<(NodeId, Report)> {
    let map = replicas.metadata.map();
    let others = map
        .nodes
        .values()
        .filter(|node| node.state.is_alive() && node.node_id != replicas.node_id);
    let asked = others.map(|node| async { Some((node.node_id, of(replicas, node.node_id).await?)) });
    let answers = join_all(asked).await;
    let mut told: Vec<(NodeId, Report)> = answers.into_iter().flatten().collect();
    told.push((replicas.node_id, own(replicas)));
    told.sort_by_key(|(node, _)| *node);
    told
}

async fn of(replicas: &Replicas, node: NodeId) -> Option<Report> {
    let mut client = replicas.peers.client(node).ok()?;
    let answer = timeout(ANSWER_WAIT, client.archive(v1::ArchiveRequest {}));
    postcard::from_bytes(&answer.await.ok()?.ok()?.into_inner().report).ok()
}
