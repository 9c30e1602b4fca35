//! What `kubectl describe` shows of what happened. An event that can't be written is logged: it must not keep the
//! operator from its work.

use kube::Resource;
use kube::runtime::events::{Event, EventType};

use crate::controller::Context;
use crate::crd::{VoltCluster, VoltClusterStatus};
use crate::decide::Action;

/// What Kubernetes takes.
const NOTE_BYTES: usize = 1000;

/// Nodes that died and came, conditions that changed.
pub(super) async fn transitions(context: &Context, cluster: &VoltCluster, after: &VoltClusterStatus) {
    let before = cluster.status.clone().unwrap_or_default();
    for node in &after.nodes {
        let was = before.nodes.iter().find(|known| known.node_id == node.node_id);
        let (was_dead, is_dead) = (was.is_some_and(|node| node.state == "Dead"), node.state == "Dead");
        let name = format!("node {} ({})", node.node_id, node.name);
        match was {
            _ if is_dead && !was_dead => {
                let note = format!("{name} is dead; its partitions have other primaries");
                warning(context, cluster, "NodeDied", note).await;
            }
            None => normal(context, cluster, "NodeJoined", format!("{name} joined")).await,
            Some(_) if was_dead && !is_dead => {
                normal(context, cluster, "NodeRejoined", format!("{name} is back")).await
            }
            Some(_) => {}
        }
    }
    for condition in &after.conditions {
        let was = before.conditions.iter().find(|known| known.type_ == condition.type_);
        if was.is_some_and(|was| was.status == condition.status && was.reason == condition.reason) {
            continue;
        }
        let note = format!("{}: {}", condition.type_, condition.message);
        match (condition.status.as_str(), condition.reason.as_str()) {
            ("True", _) if was.is_some() => {
                normal(
                    context,
                    cluster,
                    &condition.type_,
                    format!("{} is so again", condition.type_),
                )
                .await;
            }
            ("True", _) => normal(context, cluster, &condition.type_, format!("{} is so", condition.type_)).await,
            (_, "BelowReplication" | "ForeignVolume" | "PartitionsUnavailable" | "TooFewNodes") => {
                warning(context, cluster, &condition.reason, note).await;
            }
            _ => {}
        }
    }
}

/// Something is about to be done.
pub(super) async fn action(context: &Context, cluster: &VoltCluster, action: &Action) {
    let note = match action {
        Action::Initialise { cluster_uuid, .. } => format!("initialising cluster {cluster_uuid}"),
        Action::ReportFailure { node_id, evidence, .. } => format!("node {node_id}: {evidence}"),
        Action::Promote {
            partition_id, node_id, ..
        } => format!("asking for node {node_id} as the primary of partition {partition_id}"),
        Action::Drain { node_id } => format!("moving every replica away from node {node_id}"),
        Action::Rejoin { node_id, .. } => format!("node {node_id} takes its share again"),
        Action::RemoveNode { node_id } => format!("node {node_id} is forgotten"),
        Action::SwitchPrimaries { node_id } => format!("moving every primary away from node {node_id}"),
        Action::DeletePod { name, why, .. } => format!("replacing pod {name}: {why}"),
    };
    match action {
        Action::ReportFailure { .. } => warning(context, cluster, action.name(), note).await,
        _ => normal(context, cluster, action.name(), note).await,
    }
}

async fn normal(context: &Context, cluster: &VoltCluster, reason: &str, note: String) {
    publish(context, cluster, EventType::Normal, reason, note).await;
}

/// Something a person may want to look at.
pub(super) async fn warning(context: &Context, cluster: &VoltCluster, reason: &str, note: String) {
    publish(context, cluster, EventType::Warning, reason, note).await;
}

async fn publish(context: &Context, cluster: &VoltCluster, type_: EventType, reason: &str, mut note: String) {
    tracing::info!(reason, "{note}");
    let end = (0..=NOTE_BYTES.min(note.len()))
        .rev()
        .find(|at| note.is_char_boundary(*at));
    note.truncate(end.unwrap_or(0));
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: reason.to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::warn!(%error, reason, "the event was not written");
    }
}
