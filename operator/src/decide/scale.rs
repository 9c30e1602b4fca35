//! More nodes: pods first; a node that joins takes its share by itself. Fewer: the highest is drained, then its pod is
//! stopped, then the cluster forgets it; one node at a time, and never fewer than REPLICATION needs.

use volt_proto::v1::{NodeState, NodeStatus};

use super::{Action, Scene, Work};
use crate::crd::OperationKind;

/// How many pods there shall be now, and what is done besides.
pub(super) fn scale(scene: &Scene<'_>) -> (i32, Work) {
    let wanted = scene.wanted();
    let Some(set) = &scene.world.set else {
        // It was deleted, or never made. What has run is made again as it was: fewer nodes need a drain.
        let ran = scene.before.cluster_uuid.as_ref().map_or(0, |_| scene.before.replicas);
        return (wanted.max(ran), Work::default());
    };
    let forgotten = forget(scene, set.replicas);
    if forgotten.operation.is_some() {
        return (set.replicas, forgotten);
    }
    if let Some(ending) = ending(scene, set.replicas) {
        return (set.replicas, ending);
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
            Work {
                remark: Some(("BelowReplication", why)),
                ..take_back(scene, set.replicas)
            },
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

/// A node whose drain was begun here and that stays after all gets its share again. A drain that somebody else asked for
/// is left alone.
fn take_back(scene: &Scene<'_>, stay: i32) -> Work {
    let begun = scene.before.operation.as_ref().filter(|operation| {
        let stays = i32::try_from(operation.node_id).is_ok_and(|id| id <= stay);
        operation.kind == OperationKind::ScaleIn && stays
    });
    let left = begun.and_then(|operation| {
        let node = scene.nodes().find(|node| node.node_id == operation.node_id)?;
        (node.state() != NodeState::Active).then_some((operation, node))
    });
    let Some((operation, node)) = left else {
        return Work::default();
    };
    Work {
        operation: Some(operation.clone()),
        actions: vec![scene.rejoin(node)],
        remark: Some(("InProgress", format!("node {} takes its share again", node.node_id))),
    }
}

/// A node whose drain was begun here and whose pod has not ended yet. That is waited for, also when more nodes are wanted
/// by now: a pod of its name can't be made before, and it would come back as a node that was sent away.
fn ending(scene: &Scene<'_>, pods: i32) -> Option<Work> {
    let operation = scene.before.operation.as_ref()?;
    let goes = i32::try_from(operation.node_id).is_ok_and(|id| id > pods);
    let pod = scene
        .pod_of(operation.node_id)
        .filter(|_| goes && operation.kind == OperationKind::ScaleIn)?;
    Some(Work {
        operation: Some(operation.clone()),
        actions: Vec::new(),
        remark: Some(("InProgress", format!("pod {} is being stopped", pod.name))),
    })
}

fn replicas(node: &NodeStatus) -> u32 {
    node.primaries + node.backups + node.learners
}

/// A node whose pod is gone for good. What a dead one still held is moved away first.
fn forget(scene: &Scene<'_>, pods: i32) -> Work {
    let gone = |node: &&NodeStatus| {
        let has_no_pod = i32::try_from(node.node_id).is_ok_and(|id| id > pods) && scene.pod_of(node.node_id).is_none();
        has_no_pod && matches!(node.state(), NodeState::Drained | NodeState::Dead)
    };
    let work = |node: &NodeStatus, action: Action, doing: &str| Work {
        operation: Some(scene.operation(OperationKind::ScaleIn, node.node_id)),
        actions: vec![action],
        remark: Some(("InProgress", format!("node {} {doing}", node.node_id))),
    };
    let mut empty = scene.nodes().filter(gone).filter(|node| replicas(node) == 0);
    if let Some(node) = empty.next() {
        let node_id = node.node_id;
        return work(node, Action::RemoveNode { node_id }, "is being forgotten");
    }
    let comes_back = |node: &&NodeStatus| i32::try_from(node.node_id).is_ok_and(|id| id <= scene.wanted());
    let mut left = scene.nodes().filter(gone).filter(|node| !comes_back(node));
    match left.find(|node| has_other_copies(scene, node)) {
        Some(node) => {
            let node_id = node.node_id;
            work(
                node,
                Action::Drain { node_id },
                "is gone; its replicas are being moved away",
            )
        }
        None => Work::default(),
    }
}

/// Of a partition that is in sync on this node and nowhere else, nothing can be moved away while the node is dead.
fn only_copies(scene: &Scene<'_>, node_id: u32) -> Vec<u32> {
    let partitions = scene.partitions().iter();
    let only = partitions.filter(|partition| partition.in_sync == [node_id]);
    only.map(|partition| partition.partition_id).collect()
}

fn has_other_copies(scene: &Scene<'_>, node: &NodeStatus) -> bool {
    replicas(node) as usize > only_copies(scene, node.node_id).len()
}

/// Whether it may still be needed for the metadata group's majority: a member says that it votes, or none says anything.
fn may_vote(scene: &Scene<'_>, node_id: u32) -> bool {
    let ours = scene.before.cluster_uuid.as_deref();
    let others = scene.world.answers.iter().filter(|(ordinal, answer)| {
        **ordinal + 1 != node_id && !answer.nodes.is_empty() && ours.is_none_or(|ours| ours == answer.cluster_uuid)
    });
    let mut votes = others
        .map(|(_, answer)| answer.metadata_voters.contains(&node_id))
        .peekable();
    votes.peek().is_none() || votes.any(|votes| votes)
}

/// The highest node is on its way out.
fn drain_one(scene: &Scene<'_>, pods: i32) -> (i32, Work) {
    let node_id = pods.unsigned_abs();
    let node = scene.nodes().find(|node| node.node_id == node_id);
    let (stops, actions, remark) = match node {
        None => (
            true,
            Vec::new(),
            format!("node {node_id} never joined; it is being stopped"),
        ),
        Some(node) => leave(scene, node),
    };
    let work = Work {
        operation: Some(scene.operation(OperationKind::ScaleIn, node_id)),
        actions,
        remark: Some(("InProgress", remark)),
    };
    (pods - i32::from(stops), work)
}

/// Whether its pod is stopped now, what is done before, and how far it is.
fn leave(scene: &Scene<'_>, node: &NodeStatus) -> (bool, Vec<Action>, String) {
    let (node_id, left) = (node.node_id, replicas(node));
    let drain = || vec![Action::Drain { node_id }];
    match node.state() {
        NodeState::Active | NodeState::Unspecified => (false, drain(), format!("node {node_id} is being drained")),
        NodeState::Draining => {
            let remark = format!("node {node_id} is being drained: {left} replicas are left");
            (false, Vec::new(), remark)
        }
        NodeState::Dead if left > 0 => {
            let only = only_copies(scene, node_id);
            let remark = match only.is_empty() {
                true => format!("node {node_id} is dead: {left} replicas are being moved away"),
                false => format!(
                    "node {node_id} is dead and has the only copy of partitions {only:?}: they wait for it to come back"
                ),
            };
            let actions = if has_other_copies(scene, node) {
                drain()
            } else {
                Vec::new()
            };
            (false, actions, remark)
        }
        NodeState::Drained | NodeState::Dead if may_vote(scene, node_id) => {
            let remark = format!("node {node_id} holds nothing; its vote in the metadata group is being moved");
            (false, Vec::new(), remark)
        }
        NodeState::Drained | NodeState::Dead => {
            let remark = format!("node {node_id} holds nothing; its pod is being stopped");
            (true, Vec::new(), remark)
        }
    }
}
