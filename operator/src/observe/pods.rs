//! A pod, as far as it matters here.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;

use super::Ordinal;
use crate::resources::CONTAINER;

/// The label by which a StatefulSet's controller tells templates apart.
const REVISION: &str = "controller-revision-hash";

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Tells one life of it from the next.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<String>,
    /// Its readiness probe passes.
    pub ready: bool,
    /// Somebody has asked for its end.
    pub deleting: bool,
    /// The template that it was made from.
    pub revision: Option<String>,
    /// Since when its container runs, in seconds since 1970.
    pub running_since: Option<i64>,
    /// What keeps it from running.
    pub problem: Option<String>,
    /// Lives of its container that are over.
    pub ended: Vec<Ended>,
}

/// A life of a container that is over, by the clock of the machine that it ran on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Seconds since 1970.
    pub started_at: i64,
    /// Seconds since 1970.
    pub finished_at: i64,
    /// `OOMKilled, exit code 137`.
    pub why: String,
}

impl Ended {
    /// Whether a process that started at this second was this life of the container. A later one started when this one
    /// had finished, so at the same second at the earliest: that second says nothing.
    pub fn was(&self, process_started_at: i64) -> bool {
        self.started_at <= process_started_at && process_started_at < self.finished_at
    }

    fn of(state: &ContainerStateTerminated) -> Option<Self> {
        let reason = state.reason.as_deref().unwrap_or("it ended");
        Some(Self {
            started_at: state.started_at.as_ref()?.0.as_second(),
            finished_at: state.finished_at.as_ref()?.0.as_second(),
            why: format!("{reason}, exit code {}", state.exit_code),
        })
    }
}

/// `demo-2` of `demo` is 2.
pub(super) fn ordinal(cluster: &str, pod: &str) -> Option<Ordinal> {
    pod.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
}

impl PodSeen {
    pub(super) fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let container = status
            .and_then(|status| status.container_statuses.as_deref())
            .unwrap_or_default()
            .iter()
            .find(|container| container.name == CONTAINER);
        let unscheduled = conditions
            .iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| format!("it is not scheduled: {}", condition.message.clone().unwrap_or_default()));
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ip: status.and_then(|status| status.pod_ip.clone()),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            revision: pod.labels().get(REVISION).cloned(),
            running_since: container.and_then(running_since),
            problem: container.and_then(problem).or(unscheduled),
            ended: container.map(ended).unwrap_or_default(),
        }
    }
}

fn running_since(container: &ContainerStatus) -> Option<i64> {
    let running = container.state.as_ref()?.running.as_ref()?;
    Some(running.started_at.as_ref()?.0.as_second())
}

/// Waiting is normal, except for these reasons.
fn problem(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if matches!(reason, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let message = waiting.message.clone().unwrap_or_default();
    Some(format!("image {}: {reason}: {message}", container.image))
}

fn ended(container: &ContainerStatus) -> Vec<Ended> {
    [&container.state, &container.last_state]
        .into_iter()
        .filter_map(|state| Ended::of(state.as_ref()?.terminated.as_ref()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals() {
        assert_eq!(ordinal("demo", "demo-11"), Some(11));
        assert_eq!(ordinal("demo", "demo-x-1"), None);
        assert_eq!(ordinal("demo", "demonstration-1"), None);
    }

    #[test]
    fn an_end_is_of_one_process_only() {
        let end = Ended {
            started_at: 100,
            finished_at: 110,
            why: String::new(),
        };
        assert!(end.was(100) && end.was(109));
        assert!(!end.was(99), "an older process");
        assert!(!end.was(110), "perhaps the next one");
    }

    #[test]
    fn a_pod_that_cannot_pull_its_image_says_so() {
        let text = "
metadata: {name: demo-0, uid: u, labels: {controller-revision-hash: demo-1}}
status:
  conditions: [{type: Ready, status: 'False'}]
  containerStatuses:
  - {name: volt-node, image: 'nonsense:1', imageID: '', ready: false, restartCount: 0,
     state: {waiting: {reason: ErrImagePull, message: not found}}}";
        let seen = PodSeen::of(&serde_yaml::from_str(text).expect("a pod"));
        assert_eq!(
            seen.problem.as_deref(),
            Some("image nonsense:1: ErrImagePull: not found")
        );
        assert!(!seen.ready);
    }

    #[test]
    fn a_container_that_was_restarted_shows_its_last_end() {
        let text = "
metadata: {name: demo-0}
status:
  podIP: 10.0.0.1
  containerStatuses:
  - {name: volt-node, image: i, imageID: '', ready: true, restartCount: 1,
     state: {running: {startedAt: '2026-01-01T00:01:00Z'}},
     lastState: {terminated: {exitCode: 137, reason: OOMKilled, startedAt: '2026-01-01T00:00:00Z', finishedAt: '2026-01-01T00:00:59Z'}}}";
        let seen = PodSeen::of(&serde_yaml::from_str(text).expect("a pod"));
        assert_eq!(seen.ended.len(), 1);
        assert_eq!(seen.ended[0].why, "OOMKilled, exit code 137");
        assert_eq!(seen.running_since.map(|at| at - seen.ended[0].started_at), Some(60));
    }
}
