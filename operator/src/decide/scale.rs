//! More nodes: pods first; a node that joins takes its share by itself. Fewer: the highest is drained, then its pod is
//! stopped, then the cluster forgets it; one node at a time, and never fewer than REPLICATION needs.

use volt_proto::v1::NodeState;

use super::{Action, Scene, Work};
use crate::crd::OperationKind;

/// How many pods there shall be now, and what is done besides.
pub(super) fn scale(scene: &Scene<'_>) -> (i32, Work) {
    let wanted = scene.wanted();
    let Some(set) = &scene.world.set else {
        return (wanted, Work::default());
    };
    let forgotten = forget(scene, set.replicas);
    if forgotten.operation.is_some() {
        return (set.replicas, forgotten);
    }
    if wanted >= set.replicas {
        return (wanted, take_back(scene, wanted));
    }
    let Some(database) = scene.database else {
        if scene.before.cluster_uuid.is_none() {
            // There is no database yet, so that nothing can be lost.
            return (wanted, Work::default());
        }
        let why = format!("no node answers, so none of the {} can be drained", set.replicas);
        return (set.replicas, stuck("NoAnswer", why));
    };
    let needed = i32::try_from(database.max_replication)
        .unwrap_or(i32::MAX)
        .saturating_add(1);
    if wanted < needed {
        let backups = database.max_replication;
        let why = format!(
            "{wanted} nodes are fewer than REPLICATION needs: a table with REPLICATION = {backups} needs {needed}; \
             there stay {}",
            set.replicas
        );
        return (
            set.replicas,
            with_rejoins(scene, set.replicas, stuck("BelowReplication", why)),
        );
    }
    drain_one(scene, set.replicas)
}

fn stuck(reason: &'static str, why: String) -> Work {
    Work {
        remark: Some((reason, why)),
        ..Work::default()
    }
}

/// Nodes that were to go and now stay get their share again.
fn take_back(scene: &Scene<'_>, wanted: i32) -> Work {
    with_rejoins(scene, wanted, Work::default())
}

fn with_rejoins(scene: &Scene<'_>, stay: i32, work: Work) -> Work {
    let leaving = scene.nodes().filter(|node| {
        let leaves = matches!(node.state(), NodeState::Draining | NodeState::Drained);
        leaves && i32::try_from(node.node_id).is_ok_and(|id| id <= stay)
    });
    let actions = leaving.map(|node| Action::Rejoin {
        node_id: node.node_id,
        boot_id: node.boot_id,
    });
    Work {
        actions: actions.collect(),
        ..work
    }
}

/// A node whose pod is gone for good.
fn forget(scene: &Scene<'_>, pods: i32) -> Work {
    let mut gone = scene.nodes().filter(|node| {
        let has_no_pod = i32::try_from(node.node_id).is_ok_and(|id| id > pods) && scene.pod_of(node.node_id).is_none();
        let is_over = matches!(node.state(), NodeState::Drained | NodeState::Dead);
        let holds_nothing = node.primaries + node.backups + node.learners == 0;
        has_no_pod && is_over && holds_nothing
    });
    let Some(node) = gone.next() else {
        return Work::default();
    };
    Work {
        operation: Some(scene.operation(OperationKind::ScaleIn, node.node_id)),
        actions: vec![Action::RemoveNode { node_id: node.node_id }],
        remark: Some(("InProgress", format!("node {} is being forgotten", node.node_id))),
    }
}

/// The highest node goes first: a StatefulSet takes its pods away in that order.
fn drain_one(scene: &Scene<'_>, pods: i32) -> (i32, Work) {
    let node_id = pods.unsigned_abs();
    let operation = Some(scene.operation(OperationKind::ScaleIn, node_id));
    let node = scene.nodes().find(|node| node.node_id == node_id);
    let Some(node) = node else {
        // It never joined.
        let remark = Some(("InProgress", format!("node {node_id} is being stopped")));
        return (
            pods - 1,
            Work {
                operation,
                actions: Vec::new(),
                remark,
            },
        );
    };
    let replicas = node.primaries + node.backups + node.learners;
    let (stay, actions, remark) = match node.state() {
        NodeState::Drained => (
            pods - 1,
            Vec::new(),
            format!("node {node_id} is drained; its pod is being stopped"),
        ),
        NodeState::Draining => (
            pods,
            Vec::new(),
            format!("node {node_id} is being drained: {replicas} replicas are left"),
        ),
        NodeState::Dead if replicas == 0 => (
            pods - 1,
            Vec::new(),
            format!("node {node_id} is dead and holds nothing"),
        ),
        NodeState::Dead => (
            pods,
            Vec::new(),
            format!("node {node_id} is dead and can't be drained: {replicas} replicas wait for it to come back"),
        ),
        NodeState::Active | NodeState::Unspecified => {
            let refusal = scene.world.refusal.clone();
            let remark = refusal.unwrap_or_else(|| format!("node {node_id} is being drained"));
            (pods, vec![Action::Drain { node_id }], remark)
        }
    };
    let remark = Some(("InProgress", remark));
    (
        stay,
        Work {
            operation,
            actions,
            remark,
        },
    )
}
