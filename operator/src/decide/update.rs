//! A rolling update: one node after the other, and only while the cluster is whole. Primaries are switched away before
//! a pod is stopped, so that no write waits for a failure detector; the pod is stopped by a later look, which has seen
//! that they are gone.

use volt_proto::v1::{NodeState, NodeStatus};

use super::{Action, STARTING_S, Scene, Work, names};
use crate::crd::{Operation, OperationKind};
use crate::observe::{Ordinal, PodSeen};

/// The pods, as the newest template tells them apart.
struct Pods<'a> {
    outdated: Vec<(Ordinal, &'a PodSeen)>,
    /// What of 0..wanted doesn't work: absent, about to end, or not ready.
    lacking: Vec<Ordinal>,
}

impl<'a> Pods<'a> {
    fn of(scene: &'a Scene<'_>, revision: &str) -> Self {
        let pods = &scene.world.pods;
        let outdated = pods
            .iter()
            .filter(|(_, pod)| pod.revision.as_deref() != Some(revision) && !pod.deleting)
            .map(|(ordinal, pod)| (*ordinal, pod))
            .collect();
        let works = |ordinal: &Ordinal| pods.get(ordinal).is_some_and(|pod| !pod.deleting && pod.ready);
        let lacking = scene.ordinals().filter(|ordinal| !works(ordinal)).collect();
        Self { outdated, lacking }
    }

    fn is_outdated(&self, ordinal: Ordinal) -> bool {
        self.outdated.iter().any(|(known, _)| *known == ordinal)
    }
}

/// `busy`: other disruptive work is under way. `uneasy`: something is wrong, and is being reported.
pub(super) fn update(scene: &Scene<'_>, busy: bool, uneasy: bool) -> Work {
    let Some(revision) = scene.world.set.as_ref().and_then(|set| set.revision.as_deref()) else {
        // The StatefulSet's controller will soon say which template is the newest; what was begun is not forgotten.
        let begun = begun(scene).cloned();
        let remark = begun.as_ref().map(|_| waiting("the template has just changed"));
        return Work {
            operation: begun,
            remark,
            ..Work::default()
        };
    };
    let pods = Pods::of(scene, revision);
    if busy && !pods.outdated.is_empty() {
        return goes_on(
            scene,
            format!("{} pods wait until other work is done", pods.outdated.len()),
        );
    }
    if let Some((ordinal, pod)) = broken(scene, &pods) {
        return replace(scene, ordinal, pod);
    }
    if let Some(work) = last_one_returns(scene, &pods) {
        return work;
    }
    let ours = begun(scene).and_then(|operation| {
        let mut outdated = pods.outdated.iter();
        outdated.find(|(ordinal, _)| ordinal + 1 == operation.node_id)
    });
    let Some((ordinal, pod)) = ours.or(pods.outdated.last()) else {
        return Work::default();
    };
    if uneasy {
        return goes_on(scene, "a node or a partition is in trouble".to_owned());
    }
    if !pods.lacking.is_empty() {
        let lacking = names(scene, pods.lacking.iter().copied());
        return goes_on(scene, format!("{} pods wait for {lacking}", pods.outdated.len()));
    }
    if !scene.is_whole() {
        let why = format!(
            "{} pods wait for every node to be alive and every replica to be in sync",
            pods.outdated.len()
        );
        return goes_on(scene, why);
    }
    let node_id = ordinal + 1;
    if has_primaries_to_give(scene, node_id) {
        return Work {
            operation: Some(scene.operation(OperationKind::Update, node_id)),
            actions: vec![Action::SwitchPrimaries { node_id }],
            remark: Some((
                "InProgress",
                format!("the primaries of node {node_id} are being switched away"),
            )),
        };
    }
    replace(scene, *ordinal, pod)
}

fn begun<'a>(scene: &'a Scene<'_>) -> Option<&'a Operation> {
    let operation = scene.before.operation.as_ref();
    operation.filter(|operation| operation.kind == OperationKind::Update)
}

/// A node that was asked to hold no primary, by an update that will not come to it: its pod is of the newest template, or
/// other work goes first. It gets its share again before anything else is done.
pub(super) fn abandoned(scene: &Scene<'_>, busy: bool) -> Work {
    if !scene.database.is_some_and(|database| database.serving) {
        // Nothing can be asked for now, and what could help must not wait for this.
        return Work::default();
    }
    let revision = scene.world.set.as_ref().and_then(|set| set.revision.as_deref());
    let left = begun(scene).and_then(|operation| {
        let node = scene.nodes().find(|node| node.node_id == operation.node_id)?;
        let pod = scene.pod_of(node.node_id)?;
        let is_current = revision.is_some() && pod.revision.as_deref() == revision;
        // A pod that is not ready may be the next one already, of whose process the map knows nothing yet.
        let stays = node.yields && node.state() == NodeState::Active && pod.ready && !pod.deleting;
        (stays && (is_current || busy)).then_some((operation, node))
    });
    let Some((operation, node)) = left else {
        return Work::default();
    };
    Work {
        operation: Some(operation.clone()),
        actions: vec![scene.rejoin(node)],
        remark: Some(("InProgress", format!("node {} takes its primaries again", node.node_id))),
    }
}

/// A pod of an old template that doesn't work loses nothing by being replaced, and its template may be why. But a
/// template under which no pod stands yet must not take a second one.
fn broken<'a>(scene: &Scene<'_>, pods: &Pods<'a>) -> Option<(Ordinal, &'a PodSeen)> {
    let stands = |ordinal: Ordinal| match scene.world.pods.get(&ordinal) {
        None => false,
        Some(pod) if pod.deleting => false,
        Some(_) if pods.is_outdated(ordinal) => true,
        Some(pod) => pod.ready || runs(scene, pod),
    };
    if !scene.ordinals().all(stands) {
        return None;
    }
    let alive = |ordinal: Ordinal| scene.nodes().any(|node| node.node_id == ordinal + 1 && node.is_alive);
    let mut broken = pods
        .outdated
        .iter()
        .filter(|(ordinal, pod)| !pod.ready && !alive(*ordinal));
    broken.next().copied()
}

/// For long enough to say that its template is no nonsense; whether it serves may hang on the others.
fn runs(scene: &Scene<'_>, pod: &PodSeen) -> bool {
    pod.running_since
        .is_some_and(|since| scene.now.as_second() - since >= STARTING_S)
}

/// Partitions whose primary it is and that another living member could take without a failure.
fn has_primaries_to_give(scene: &Scene<'_>, node_id: u32) -> bool {
    let able = |member: &u32| {
        let takes = |node: &NodeStatus| node.node_id == *member && node.state() == NodeState::Active && !node.yields;
        *member != node_id && scene.nodes().any(takes)
    };
    let mut partitions = scene.partitions().iter();
    partitions.any(|partition| partition.primary == node_id && partition.in_sync.iter().any(able))
}

fn replace(scene: &Scene<'_>, ordinal: Ordinal, pod: &PodSeen) -> Work {
    Work {
        operation: Some(scene.operation(OperationKind::Update, ordinal + 1)),
        actions: vec![Action::DeletePod {
            node_id: ordinal + 1,
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            at_once: false,
            why: "it is of an older template".to_owned(),
        }],
        remark: Some(("InProgress", format!("pod {} is being replaced", pod.name))),
    }
}

/// The pod that was replaced last is still on its way back: nothing else is touched.
fn last_one_returns(scene: &Scene<'_>, pods: &Pods<'_>) -> Option<Work> {
    let operation = begun(scene)?;
    let ordinal = operation.node_id.checked_sub(1)?;
    let is_wanted = scene.ordinals().any(|wanted| wanted == ordinal);
    let is_back = !pods.lacking.contains(&ordinal) && scene.is_whole();
    if !is_wanted || pods.is_outdated(ordinal) || is_back {
        return None;
    }
    let problem = scene.world.pods.get(&ordinal).and_then(|pod| pod.problem.as_deref());
    let why = match problem {
        Some(problem) => format!("node {} can't come back: {problem}", operation.node_id),
        None => format!("node {} is on its way back", operation.node_id),
    };
    Some(Work {
        operation: Some(operation.clone()),
        actions: Vec::new(),
        remark: Some(("InProgress", why)),
    })
}

/// Nothing is done now; an update that was begun stays begun.
fn goes_on(scene: &Scene<'_>, why: String) -> Work {
    Work {
        operation: begun(scene).cloned(),
        actions: Vec::new(),
        remark: Some(waiting(why)),
    }
}

fn waiting(why: impl Into<String>) -> (&'static str, String) {
    ("Waiting", why.into())
}
