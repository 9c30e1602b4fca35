//! `RECOVER NODE n`: asks whoever supervises the process to start it, and waits until the node is in sync again.

use std::time::Duration;

use tokio::time::Instant;
use volt_engine::NodeId;

use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::metadata::command::Command;
use crate::metadata::map::ClusterMap;

/// Longest wait for a supervisor to start the process.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for the node to be in sync.
const SYNC_LIMIT: Duration = Duration::from_secs(1_800);
/// The map is looked at again so often, should nothing have changed.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Brings a node back; returns what was done, a line a step.
pub(crate) async fn recover_node(metadata: &Metadata, node: NodeId) -> Result<Vec<String>, SqlError> {
    let map = metadata.map();
    let Some(before) = map.nodes.get(&node) else {
        return Err(SqlError::new("42704", format!("node {node} does not exist")));
    };
    if before.state.is_alive() && in_sync(&map, node) {
        return Ok(vec![format!("node {node} is alive and in sync: nothing to do")]);
    }
    let began = Instant::now();
    let mut steps = Vec::new();
    if !before.state.is_alive() {
        let boot_id = before.boot_id;
        metadata
            .propose(Command::RequestRecovery { node_id: node })
            .await
            .map_err(SqlError::from)?;
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
    wait_for(metadata, Instant::now() + SYNC_LIMIT, |map| in_sync(map, node))
        .await
        .map_err(|()| {
            SqlError::new("57014", format!("node {node} is not in sync yet"))
                .hint("It goes on by itself; see system.replicas.")
        })?;
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

/// True when the node is alive, nothing of it is still being filled, and no partition could use it as one more copy.
fn in_sync(map: &ClusterMap, node: NodeId) -> bool {
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
