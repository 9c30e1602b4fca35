//! `RECOVER NODE n`: asks whoever supervises the process to start it, and waits until the node is in sync again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use volt_engine::NodeId;

use crate::config::{RecoveryOrder, RecoverySource};
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::metadata::command::Command;
use crate::metadata::map::ClusterMap;
use crate::replication::Replicas;
use crate::replication::fill::progress::{self, Progress};
use crate::statement::RowSink;

/// Longest wait for a supervisor to start the process.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for the node to be in sync.
const SYNC_LIMIT: Duration = Duration::from_secs(1_800);
/// The map is looked at again so often, should nothing have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often the client hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Brings a node back; returns what was done, a line a step. `sink` hears meanwhile how far it is.
pub(crate) async fn recover_node(
    replicas: &Replicas,
    node: NodeId,
    order: RecoveryOrder,
    sink: &mut dyn RowSink,
) -> Result<Vec<String>, SqlError> {
    let metadata = &*replicas.metadata;
    let map = metadata.map();
    let Some(before) = map.nodes.get(&node) else {
        return Err(SqlError::new("42704", format!("node {node} does not exist")));
    };
    if order.source == Some(RecoverySource::FileSystem) && replicas.archive.get().is_none() {
        let error = SqlError::new("55000", "this cluster has no archive to recover a node from");
        return Err(error.hint("Nodes are started with --archive, or the source is network."));
    }
    if order.source == Some(RecoverySource::Database) && map.links.is_empty() {
        let error = SqlError::new("55000", "this cluster has no replication link to recover a node from");
        return Err(error.hint("CREATE REPLICATION LINK makes one, or the source is network."));
    }
    if before.state.is_alive() && in_sync(&map, node) {
        return Ok(vec![format!("node {node} is alive and in sync: nothing to do")]);
    }
    let began = Instant::now();
    let mut steps = Vec::new();
    let request = Command::RequestRecovery { node_id: node, order };
    metadata.propose(request).await.map_err(SqlError::from)?;
    if !before.state.is_alive() {
        let boot_id = before.boot_id;
        let limit = Instant::now() + START_LIMIT;
        wait_for(metadata, limit, |map| map.is_alive(node))
            .await
            .map_err(|()| {
                SqlError::new(
                    "57014",
                    format!("node {node} was not started within {} s", START_LIMIT.as_secs()),
                )
                .hint("The wish stands: `volt-node dev` or the operator starts the process; is one of them running?")
            })?;
        let same = metadata.map().is_current(node, boot_id);
        let how = if same {
            "was heard from again"
        } else {
            "was started again"
        };
        steps.push(format!("node {node} {how} after {} ms", began.elapsed().as_millis()));
    }
    let behind = metadata.map().roles(node).learners;
    let since = replicas.world.clock.unix_micros();
    let limit = Instant::now() + SYNC_LIMIT;
    let mut told = String::new();
    loop {
        let next = limit.min(Instant::now() + TELL_EVERY);
        if wait_for(metadata, next, |map| in_sync(map, node)).await.is_ok() {
            break;
        }
        if Instant::now() >= limit {
            let error = SqlError::new("57014", format!("node {node} is not in sync yet"));
            return Err(error.hint("It goes on by itself; see system.replicas and system.recoveries."));
        }
        let fills = replicas.fills_of(node).await.unwrap_or_default();
        let learners = metadata.map().roles(node).learners;
        let now = format!("node {node}: {}", how_far(&fills, learners, since));
        if now != told {
            told.clone_from(&now);
            sink.notice(now).await?;
        }
    }
    let _ = metadata.propose(Command::RecoveryDone { node_id: node }).await;
    let roles = metadata.map().roles(node);
    steps.push(format!(
        "node {node} is in sync again after {} ms: {} replicas ({} primary, {} backup), {behind} of them were caught up while waiting",
        began.elapsed().as_millis(),
        roles.primaries + roles.backups,
        roles.primaries,
        roles.backups,
    ));
    Ok(steps)
}

/// How far a node is whose fills these are: of those that began since, the newest of each partition counts.
fn how_far(fills: &[Progress], learners: u32, since_micros: i64) -> String {
    let mut newest = BTreeMap::new();
    // The clocks of two nodes may differ: what goes on counts in any case.
    for fill in fills
        .iter()
        .filter(|fill| fill.began_micros >= since_micros || fill.state == progress::FillState::Copying)
    {
        newest.insert(fill.partition, fill);
    }
    let waiting = format!("{learners} replicas are not in sync yet");
    if newest.is_empty() {
        return waiting;
    }
    let percent = newest.values().map(|fill| u64::from(fill.percent())).sum::<u64>() / newest.len() as u64;
    let left = newest.values().filter_map(|fill| fill.micros_left()).max();
    let left = left.filter(|micros| *micros > 0);
    let left = left.map_or_else(String::new, |micros| format!(", {} s left", micros / 1_000_000 + 1));
    format!(
        "{waiting}; {} are filled, {percent} % of their rows are there{left}",
        newest.len()
    )
}

/// True when the node is alive, nothing of it is still being filled, and no partition could use it as one more copy.
pub(crate) fn in_sync(map: &ClusterMap, node: NodeId) -> bool {
    let alive = map.nodes.values().filter(|info| info.state.is_alive()).count();
    map.is_alive(node)
        && map.partitions.values().all(|partition| {
            let members = map.in_sync(partition);
            let whole = members.len() >= map.copies_wanted(partition).min(alive);
            !partition.learners.contains(&node) && (whole || members.contains(&node))
        })
}

async fn wait_for(metadata: &Metadata, limit: Instant, done: impl Fn(&ClusterMap) -> bool) -> Result<(), ()> {
    let mut watch = metadata.watch();
    loop {
        if done(&watch.borrow_and_update()) {
            return Ok(());
        }
        if Instant::now() >= limit {
            return Err(());
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, watch.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RecoveryStrategy;
    use crate::replication::fill::progress::FillState;

    fn fill(partition: u32, began_micros: i64, state: FillState, rows: u64) -> Progress {
        Progress {
            partition,
            source: 1,
            medium: RecoverySource::Network,
            strategy: RecoveryStrategy::Automatic,
            state,
            began_micros,
            micros: 1_500_000,
            total_rows: 100,
            rows,
            received_bytes: 0,
            reused_bytes: 0,
        }
    }

    #[test]
    fn the_newest_fill_of_each_partition_tells_how_far_it_is() {
        assert_eq!(how_far(&[], 3, 10), "3 replicas are not in sync yet");
        let fills = [
            fill(1, 5, FillState::Done, 100),
            fill(2, 11, FillState::Failed("gone".to_owned()), 90),
            fill(2, 12, FillState::Copying, 50),
            fill(3, 13, FillState::Done, 100),
        ];
        assert_eq!(
            how_far(&fills, 2, 10),
            "2 replicas are not in sync yet; 2 are filled, 75 % of their rows are there, 2 s left"
        );
    }
}
