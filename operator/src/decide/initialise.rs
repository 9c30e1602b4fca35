//! A cluster is initialised once. Its UUID is written down first, and only then given to the first node; after that no
//! empty data directory, the first node's included, makes a cluster again: it can only join.

use super::{Action, Scene, Work};
use crate::crd::VoltClusterStatus;

pub(super) const CONDITION: &str = "Initialised";

pub(super) fn is_initialised(status: &VoltClusterStatus) -> bool {
    let mut found = status
        .conditions
        .iter()
        .filter(|condition| condition.type_ == CONDITION);
    found.next().is_some_and(|condition| condition.status == "True")
}

pub(super) fn initialise(scene: &Scene<'_>, status: &mut VoltClusterStatus) -> Work {
    let identities = || {
        let answers = scene.world.answers.values();
        answers
            .map(|answer| &answer.cluster_uuid)
            .filter(|uuid| !uuid.is_empty())
    };
    let Some(ours) = scene.before.cluster_uuid.clone() else {
        // Volumes that an earlier VoltCluster of this name left have an identity already.
        let found = identities().next().cloned();
        if found.is_none() && !scene.world.answers.contains_key(&0) {
            return waits("WaitingForPods", first_problem(scene));
        }
        status.cluster_uuid = Some(found.unwrap_or_else(|| scene.world.fresh_uuid.clone()));
        return waits("WaitingForPods", "its UUID is being written down".to_owned());
    };
    if let Some(other) = identities().find(|uuid| **uuid != ours) {
        let why = format!(
            "a volume belongs to another cluster: this one is {ours}, a node says that it is of {other}; \
             delete that node's PersistentVolumeClaim and pod"
        );
        return waits("ForeignVolume", why);
    }
    if is_initialised(&scene.before) || identities().next().is_some() {
        return Work::default();
    }
    if !scene.world.answers.contains_key(&0) {
        return waits("WaitingForPods", first_problem(scene));
    }
    Work {
        actions: vec![Action::Initialise {
            ordinal: 0,
            cluster_uuid: ours,
            partitions: scene.cluster.spec.partitions.unsigned_abs(),
        }],
        ..waits("Initialising", "the first node is being initialised".to_owned())
    }
}

fn waits(reason: &'static str, why: String) -> Work {
    let why = match why.is_empty() {
        true => "the first node does not answer yet".to_owned(),
        false => why,
    };
    Work {
        remark: Some((reason, why)),
        ..Work::default()
    }
}

/// What keeps the pods from running.
pub(super) fn first_problem(scene: &Scene<'_>) -> String {
    let mut problems = scene
        .world
        .pods
        .values()
        .filter_map(|pod| Some(format!("pod {}: {}", pod.name, pod.problem.as_ref()?)));
    problems.next().unwrap_or_default()
}
