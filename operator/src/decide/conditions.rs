//! What is said of the cluster: conditions and a phase. Each says why it is not so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::initialise::{CONDITION as INITIALISED, RESTORING, Restoration, first_problem, is_initialised, restoration};
use super::standby::{self, Standing, standing};
use super::{Scene, Work};
use crate::crd::{OperationKind, Phase, VoltClusterStatus};

/// The condition of a cluster that begins as another one was.
const RESTORED: &str = "Restored";

/// True, or why not.
type Verdict = Result<(), (&'static str, String)>;

pub(super) fn write(
    scene: &Scene<'_>,
    status: &mut VoltClusterStatus,
    founding: &Work,
    scaling: &Work,
    updating: &Work,
) {
    let ready = match (&scene.world.refused.child, &founding.remark) {
        (Some(why), _) => Err(("ApplyFailed", why.clone())),
        (None, Some(remark)) => Err(remark.clone()),
        (None, None) => ready(scene),
    };
    let replicated = replicated(scene);
    set(scene, status, INITIALISED, initialised(scene, founding));
    set(scene, status, "Ready", ready.clone());
    set(scene, status, "FullyReplicated", replicated.clone());
    set(scene, status, "Scaled", with_refusal(scene, scaled(scene, scaling)));
    let updated = updating.remark.clone().map_or(Ok(()), Err);
    set(scene, status, "Updated", with_refusal(scene, updated));
    restored(scene, status, founding);
    if let Some(said) = standby::write(scene, status, founding) {
        let word = if said.is_standby { "True" } else { "False" };
        put(scene, status, standby::CONDITION, (word, said.reason, said.message));
    }
    status.phase = phase(scene, status, ready.is_ok(), replicated.is_ok());
}

/// Said only of a cluster that began, or is to begin, as another one was; of a standby more is said.
fn restored(scene: &Scene<'_>, status: &mut VoltClusterStatus, founding: &Work) {
    if standing(scene) != Standing::None {
        return;
    }
    let verdict = match restoration(scene) {
        // Who does not answer has been restored all the same, if that was so.
        Restoration::None => return,
        Restoration::Asked if is_initialised(&scene.before) => return,
        Restoration::Done(_) => Ok(()),
        Restoration::Runs(why) => Err((RESTORING, why)),
        Restoration::Asked => with_refusal(
            scene,
            Err(founding
                .remark
                .clone()
                .unwrap_or((RESTORING, "what from is not on record yet".to_owned()))),
        ),
    };
    set(scene, status, RESTORED, verdict);
    if let Restoration::Done(micros) = restoration(scene)
        && let Ok(moment) = Timestamp::from_microsecond(micros)
        && let Some(condition) = status
            .conditions
            .iter_mut()
            .find(|condition| condition.type_ == RESTORED)
    {
        condition.message = format!("it began as the archived cluster was at {moment}");
    }
}

fn phase(scene: &Scene<'_>, status: &VoltClusterStatus, ready: bool, replicated: bool) -> Phase {
    if !is_initialised(status) {
        return match restoration(scene) {
            Restoration::Runs(_) => Phase::Restoring,
            _ => Phase::Creating,
        };
    }
    let all = scene
        .database
        .is_some_and(|database| database.partitions.iter().all(|partition| partition.primary != 0));
    match status.operation.as_ref().map(|operation| operation.kind) {
        _ if !all || standby::unreadable(scene).is_some() => Phase::Unavailable,
        Some(OperationKind::ScaleIn) => Phase::Scaling,
        Some(OperationKind::Update) => Phase::Updating,
        _ if status.replicas != scene.world.set.as_ref().map_or(0, |set| set.replicas) => Phase::Scaling,
        _ if ready && replicated && matches!(standing(scene), Standing::Is(_)) => Phase::Standby,
        _ if ready && replicated => Phase::Running,
        _ => Phase::Degraded,
    }
}

/// Once true it stays so: a cluster is initialised once.
fn initialised(scene: &Scene<'_>, founding: &Work) -> Verdict {
    if is_initialised(&scene.before) {
        return Ok(());
    }
    with_refusal(scene, founding.remark.clone().map_or(Ok(()), Err))
}

/// What is being done and was refused says so.
fn with_refusal(scene: &Scene<'_>, verdict: Verdict) -> Verdict {
    let Err((reason @ ("InProgress" | "Initialising" | RESTORING), why)) = verdict else {
        return verdict;
    };
    Err((reason, scene.with_refusal(&why)))
}

/// Every wanted node lives, and every partition is served.
fn ready(scene: &Scene<'_>) -> Verdict {
    let Some(database) = scene.database else {
        let why = first_problem(scene);
        let why = if why.is_empty() {
            "no node answers yet".to_owned()
        } else {
            why
        };
        return Err(("NoAnswer", why));
    };
    let unserved = database.partitions.iter().filter(|partition| partition.primary == 0);
    let unserved: Vec<u32> = unserved.map(|partition| partition.partition_id).collect();
    if !unserved.is_empty() {
        return Err((
            "PartitionsUnavailable",
            format!("partitions {unserved:?} have no primary"),
        ));
    }
    let lacking: Vec<String> = (1..=scene.wanted().unsigned_abs())
        .filter(|id| !database.nodes.iter().any(|node| node.node_id == *id && node.is_alive))
        .map(|id| {
            let pod = scene.pod_of(id);
            match pod.and_then(|pod| pod.problem.as_ref()) {
                Some(problem) => format!("node {id} (pod {}: {problem})", pod.map_or("", |pod| &pod.name)),
                None => format!("node {id}"),
            }
        })
        .collect();
    if !lacking.is_empty() {
        return Err(("NodesMissing", format!("not alive: {}", lacking.join(", "))));
    }
    let unready: Vec<&str> = scene
        .world
        .pods
        .iter()
        .filter(|(ordinal, pod)| **ordinal < scene.wanted().unsigned_abs() && !pod.ready)
        .map(|(_, pod)| pod.name.as_str())
        .collect();
    if !unready.is_empty() {
        return Err(("PodsNotReady", format!("not ready: {}", unready.join(", "))));
    }
    standby::unreadable(scene).map_or(Ok(()), |why| Err(("StandbyUnreadable", why)))
}

/// Every partition has all the copies that its tables ask for.
fn replicated(scene: &Scene<'_>) -> Verdict {
    let Some(database) = scene.database else {
        return Err(("NoAnswer", "no node answers yet".to_owned()));
    };
    let living = database.nodes.iter().filter(|node| node.is_alive).count();
    let needed = database.max_replication as usize + 1;
    let (whole, all) = scene.in_sync();
    if whole == all {
        return Ok(());
    }
    let lack = format!(
        "{} of {all} partitions have fewer copies in sync than REPLICATION asks for",
        all - whole
    );
    if living < needed {
        let backups = database.max_replication;
        let why = format!("{lack}: REPLICATION = {backups} needs {needed} nodes, and {living} live");
        return Err(("TooFewNodes", why));
    }
    Err(("CatchingUp", lack))
}

fn scaled(scene: &Scene<'_>, scaling: &Work) -> Verdict {
    if let Some(remark) = &scaling.remark {
        return Err(remark.clone());
    }
    let wanted = scene.wanted();
    let known = scene.nodes().filter(|node| node.is_alive).count();
    if usize::try_from(wanted).is_ok_and(|wanted| known == wanted) {
        return Ok(());
    }
    Err(("InProgress", format!("{known} nodes live, {wanted} are wanted")))
}

fn set(scene: &Scene<'_>, status: &mut VoltClusterStatus, type_: &str, verdict: Verdict) {
    let said = match verdict {
        Ok(()) => ("True", "AsWanted".to_owned(), String::new()),
        Err((reason, message)) => ("False", reason.to_owned(), message),
    };
    put(scene, status, type_, said);
}

/// A condition that stays what it was keeps its time.
fn put(
    scene: &Scene<'_>,
    status: &mut VoltClusterStatus,
    type_: &str,
    (word, reason, message): (&str, String, String),
) {
    let mut before = status.conditions.iter();
    let same = before.find(|condition| condition.type_ == type_ && condition.status == word);
    let condition = Condition {
        type_: type_.to_owned(),
        status: word.to_owned(),
        reason,
        message,
        observed_generation: scene.cluster.metadata.generation,
        last_transition_time: same.map_or(Time(scene.now), |condition| condition.last_transition_time.clone()),
    };
    match status.conditions.iter_mut().find(|known| known.type_ == type_) {
        Some(known) => *known = condition,
        None => status.conditions.push(condition),
    }
}
