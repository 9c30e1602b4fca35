//! A cluster is initialised once. Its UUID is written down first, and only then given to the first node; after that no
//! empty data directory, the first node's included, makes a cluster again: it can only join.

use std::collections::BTreeMap;

use super::{Action, RestoreFrom, Scene, Work, names};
use crate::crd::{VoltClusterSpec, VoltClusterStatus};
use crate::observe::Ordinal;
use crate::resources::RESTORE as MOUNTED_RESTORE;

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
    if is_initialised(&scene.before) {
        return Work::default();
    }
    let is_founded = identities(scene).next().is_some();
    let standing = restoration(scene);
    let remark = match standing {
        // A cluster that is to be restored is made when it says so, whatever it is by then.
        Restoration::None if is_founded => return Work::default(),
        Restoration::Done(_) => return Work::default(),
        Restoration::Runs(why) => return waits(RESTORING, why),
        Restoration::None => ("Initialising", "the first node is being initialised".to_owned()),
        Restoration::Asked => (RESTORING, "the archive is being looked at".to_owned()),
    };
    let Some(first) = scene.world.answers.get(&0) else {
        return waits("WaitingForPods", missing(scene, &[0]));
    };
    if is_founded && first.cluster_uuid != ours {
        let why =
            "it was made, but the first node's volume is empty: what it was to begin as can't be told to it any more";
        return waits(RESTORING, why.to_owned());
    }
    Work {
        actions: vec![Action::Initialise {
            ordinal: 0,
            cluster_uuid: ours,
            partitions: scene.cluster.spec.partitions.unsigned_abs(),
            restore: restore_from(&scene.cluster.spec),
        }],
        remark: Some(remark),
        ..Work::default()
    }
}

/// What a new cluster begins as.
fn restore_from(spec: &VoltClusterSpec) -> Option<RestoreFrom> {
    let restore = spec.restore.as_ref().map(|restore| RestoreFrom {
        url: restore.url(MOUNTED_RESTORE),
        until_micros: restore.until_micros(),
        is_standby: false,
    });
    let standby = spec.standby.as_ref().map(|standby| RestoreFrom {
        url: standby.url(MOUNTED_RESTORE),
        until_micros: 0,
        is_standby: true,
    });
    restore.or(standby)
}

/// The reason of a condition while the cluster becomes what another one was.
pub(super) const RESTORING: &str = "Restoring";

/// How far a cluster is that begins as another one was.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Restoration {
    /// It begins with nothing.
    None,
    /// It is to be told what to begin as, again if need be.
    Asked,
    /// Its partitions take what the archive has; how far they are.
    Runs(String),
    /// It is what it was at this moment, in microseconds since 1970.
    Done(i64),
}

pub(super) fn restoration(scene: &Scene<'_>) -> Restoration {
    let database = scene.database;
    if let Some(running) = database.and_then(|database| database.restoration.as_ref()) {
        let problems = scene.world.answers.values();
        let problems = problems.filter_map(|answer| Some(answer.restoration.as_ref()?.problem.as_str()));
        let how_far = format!(
            "{} of {} partitions are not restored yet",
            running.left, running.partitions
        );
        return Restoration::Runs(match problems.filter(|problem| !problem.is_empty()).min() {
            Some(problem) => format!("{how_far}: {problem}"),
            None => how_far,
        });
    }
    match database.map_or(0, |database| database.restored_micros) {
        0 if database.is_some_and(|database| database.awaits_restoration) => Restoration::Asked,
        0 if restore_from(&scene.cluster.spec).is_some() => Restoration::Asked,
        0 => Restoration::None,
        moment => Restoration::Done(moment),
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
