//! A rolling update: one node after the other, and only while the cluster is whole. Primaries are switched away before
//! a pod is stopped, so that no write waits for a failure detector.

use super::{Action, Scene, Work};
use crate::crd::OperationKind;
use crate::observe::{Ordinal, PodSeen};

/// `busy`: other disruptive work is under way.
pub(super) fn update(scene: &Scene<'_>, busy: bool) -> Work {
    let Some(revision) = scene.world.set.as_ref().and_then(|set| set.revision.as_deref()) else {
        return Work::default();
    };
    let outdated: Vec<(Ordinal, &PodSeen)> = scene
        .world
        .pods
        .iter()
        .filter(|(_, pod)| pod.revision.as_deref() != Some(revision) && !pod.deleting)
        .map(|(ordinal, pod)| (*ordinal, pod))
        .collect();
    let going_on = scene
        .before
        .operation
        .as_ref()
        .filter(|operation| operation.kind == OperationKind::Update);
    if outdated.is_empty() {
        return last_one_returns(scene);
    }
    if busy {
        return waits(format!("{} pods wait until other work is done", outdated.len()));
    }
    let alive = |ordinal: Ordinal| scene.nodes().any(|node| node.node_id == ordinal + 1 && node.is_alive);
    // A pod that doesn't work loses nothing, and its old template may be why.
    if let Some((ordinal, pod)) = outdated.iter().find(|(ordinal, pod)| !pod.ready && !alive(*ordinal)) {
        return replace(scene, *ordinal, pod, Vec::new());
    }
    let begun = going_on.and_then(|operation| outdated.iter().find(|(ordinal, _)| ordinal + 1 == operation.node_id));
    let Some((ordinal, pod)) = begun.or(outdated.last()) else {
        return Work::default();
    };
    if !scene.is_whole() {
        return waits(format!(
            "{} pods wait for every node to be alive and every replica to be in sync",
            outdated.len()
        ));
    }
    let can_switch = scene.database.is_some_and(|database| {
        let node_id = ordinal + 1;
        let mut held = database
            .partitions
            .iter()
            .filter(|partition| partition.primary == node_id);
        held.any(|partition| partition.in_sync.len() > 1)
    });
    let first = can_switch.then_some(Action::SwitchPrimaries { node_id: ordinal + 1 });
    replace(scene, *ordinal, pod, first.into_iter().collect())
}

fn replace(scene: &Scene<'_>, ordinal: Ordinal, pod: &PodSeen, mut actions: Vec<Action>) -> Work {
    actions.push(Action::DeletePod {
        node_id: ordinal + 1,
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        why: "it is of an older template".to_owned(),
    });
    Work {
        operation: Some(scene.operation(OperationKind::Update, ordinal + 1)),
        actions,
        remark: Some(("InProgress", format!("pod {} is being replaced", pod.name))),
    }
}

/// The pod that was replaced last is still on its way back.
fn last_one_returns(scene: &Scene<'_>) -> Work {
    match &scene.before.operation {
        Some(operation) if operation.kind == OperationKind::Update && !scene.is_whole() => Work {
            operation: Some(operation.clone()),
            actions: Vec::new(),
            remark: Some(("InProgress", format!("node {} is on its way back", operation.node_id))),
        },
        _ => Work::default(),
    }
}

fn waits(why: String) -> Work {
    Work {
        remark: Some(("Waiting", why)),
        ..Work::default()
    }
}
