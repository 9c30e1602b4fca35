//! RECOVER NODE: a node that is dead for the cluster gets a new process. Where there is no pod, or its container is
//! being started, Kubernetes is at it already; a process that runs and yet is dead is replaced.

use super::{Action, STARTING_S, Scene, Work};
use crate::crd::OperationKind;

pub(super) fn restart(scene: &Scene<'_>) -> Work {
    let wished = |node_id: &u32| {
        scene
            .database
            .is_some_and(|database| database.recovering.contains(node_id))
    };
    let stuck = scene.nodes().filter(|node| !node.is_alive && wished(&node.node_id));
    let mut stuck = stuck.filter_map(|node| {
        let pod = scene.pod_of(node.node_id)?;
        let since = pod.running_since?;
        let is_starting = scene.now.as_second() - since < STARTING_S;
        (!pod.deleting && !is_starting).then_some((node, pod))
    });
    let Some((node, pod)) = stuck.next() else {
        return Work::default();
    };
    Work {
        operation: Some(scene.operation(OperationKind::Restart, node.node_id)),
        actions: vec![Action::DeletePod {
            node_id: node.node_id,
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            // It has nothing to hand over, and perhaps it hears nothing.
            at_once: true,
            why: "RECOVER NODE was asked for a process that is dead for the cluster".to_owned(),
        }],
        remark: None,
    }
}
