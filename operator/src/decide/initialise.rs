//! A cluster is initialised once. Its UUID is written down first, and only then given to the first node; after that no
//! empty data directory, the first node's included, makes a cluster again: it can only join.

use std::collections::BTreeMap;

use super::{Action, Scene, Work, names};
use crate::crd::VoltClusterStatus;
use crate::observe::Ordinal;

pub(super) const CONDITION: &str = "Initialised";

pub(super) fn is_initialised(status: &VoltClusterStatus) -> bool {
    let mut found = status
        .conditions
        .iter()
        .filter(|condition| condition.type_ == CONDITION);
    found.next().is_some_and(|condition| condition.status == "True")
}

pub(super) fn initialise(scene: &Scene<'_>, status: &mut VoltClusterStatus) -> Work {
    let Some(ours) = scene.before.cluster_uuid.clone() else {
        return match identity(scene) {
            Ok(uuid) => {
                status.cluster_uuid = Some(uuid);
                waits("WaitingForPods", "its UUID is being written down".to_owned())
            }
            Err((reason, why)) => waits(reason, why),
        };
    };
    if identities(scene).any(|(_, uuid)| uuid != ours) {
        let why = format!(
            "this is cluster {ours}, but volumes say otherwise: {}; nothing is done with them",
            listed(scene)
        );
        return waits("ForeignVolume", why);
    }
    if is_initialised(&scene.before) || identities(scene).next().is_some() {
        return Work::default();
    }
    if !scene.world.answers.contains_key(&0) {
        return waits("WaitingForPods", missing(scene, &[0]));
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

/// Of the nodes whose volumes have one.
fn identities<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = (Ordinal, &'a str)> {
    let answers = scene.world.answers.iter();
    let named = answers.filter(|(_, answer)| !answer.cluster_uuid.is_empty());
    named.map(|(ordinal, answer)| (*ordinal, answer.cluster_uuid.as_str()))
}

/// `node 1 is of 4f..., node 2 is of 9c...`.
fn listed(scene: &Scene<'_>) -> String {
    let each = identities(scene).map(|(ordinal, uuid)| format!("node {} is of {uuid}", ordinal + 1));
    let each: Vec<String> = each.collect();
    each.join(", ")
}

/// The identity that volumes of an earlier VoltCluster of this name brought, if more than half of the nodes have it, or
/// all that have any. A new one only if every node has said that its volume is empty: one that has not answered yet may
/// hold the data. Else why there is none yet.
fn identity(scene: &Scene<'_>) -> Result<String, (&'static str, String)> {
    let pods = scene.world.set.as_ref().map_or(scene.wanted(), |set| set.replicas);
    let silent: Vec<Ordinal> = (0..pods.unsigned_abs())
        .filter(|ordinal| !scene.world.answers.contains_key(ordinal))
        .collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, uuid) in identities(scene) {
        *counts.entry(uuid).or_default() += 1;
    }
    let most = |count: usize| usize::try_from(pods).is_ok_and(|pods| count > pods / 2);
    let found: Vec<(&str, usize)> = counts.into_iter().collect();
    match found[..] {
        [] if silent.is_empty() => Ok(scene.world.fresh_uuid.clone()),
        [(uuid, count)] if silent.is_empty() || most(count) => Ok(uuid.to_owned()),
        [] | [_] => Err(("WaitingForPods", missing(scene, &silent))),
        _ => Err((
            "ForeignVolume",
            format!(
                "the volumes are of several clusters: {}; nothing is done with them",
                listed(scene)
            ),
        )),
    }
}

/// Who has not answered, and what is known of why.
fn missing(scene: &Scene<'_>, silent: &[Ordinal]) -> String {
    let names = names(scene, silent.iter().copied());
    let problem = first_problem(scene);
    match problem.is_empty() {
        true => format!("waits for an answer of {names}"),
        false => format!("waits for an answer of {names}; {problem}"),
    }
}

fn waits(reason: &'static str, why: String) -> Work {
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
