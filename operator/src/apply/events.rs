//! What `kubectl describe` shows of what happened. An event that can't be written is logged: it must not keep the
//! operator from its work.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use crate::controller::Context;
use crate::crd::{VoltCluster, VoltClusterStatus};
use crate::decide::Action;
use crate::decide::standby::{NOT_FOLLOWING, PROMOTED};

/// What Kubernetes takes.
const NOTE_BYTES: usize = 1000;

/// Why a condition is what it is, if somebody should hear of that.
const ALARMS: [&str; 6] = [
    "ApplyFailed",
    "BelowReplication",
    "ForeignVolume",
    NOT_FOLLOWING,
    "PartitionsUnavailable",
    "TooFewNodes",
];

/// Something to tell.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    type_: EventType,
    reason: String,
    note: String,
    /// The node that it is about. Events that have everything but their note in common are counted as one, with the
    /// first one's note: two nodes must not become one.
    node_id: Option<u32>,
}

impl Told {
    fn normal(reason: &str, note: String) -> Self {
        Self {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note,
            node_id: None,
        }
    }

    /// Something that a person may want to look at.
    fn warning(reason: &str, note: String) -> Self {
        Self {
            type_: EventType::Warning,
            ..Self::normal(reason, note)
        }
    }

    fn of(self, node_id: u32) -> Self {
        Self {
            node_id: Some(node_id),
            ..self
        }
    }
}

/// Nodes that died and came, conditions that changed.
pub(super) fn transitions(before: &VoltClusterStatus, after: &VoltClusterStatus) -> Vec<Told> {
    let mut told = nodes(before, after);
    told.extend(conditions(before, after));
    told
}

fn nodes(before: &VoltClusterStatus, after: &VoltClusterStatus) -> Vec<Told> {
    let told = after.nodes.iter().filter_map(|node| {
        let was = before.nodes.iter().find(|known| known.node_id == node.node_id);
        let (was_dead, is_dead) = (was.is_some_and(|node| node.state == "Dead"), node.state == "Dead");
        let name = format!("node {} ({})", node.node_id, node.name);
        let told = match was {
            _ if is_dead && !was_dead => Told::warning("NodeDied", format!("{name} is dead")),
            None if !is_dead => Told::normal("NodeJoined", format!("{name} joined")),
            Some(_) if was_dead && !is_dead => Told::normal("NodeRejoined", format!("{name} is back")),
            _ => return None,
        };
        Some(told.of(node.node_id))
    });
    told.collect()
}

fn conditions(before: &VoltClusterStatus, after: &VoltClusterStatus) -> Vec<Told> {
    let told = after.conditions.iter().filter_map(|condition| {
        let was = before.conditions.iter().find(|known| known.type_ == condition.type_);
        if was.is_some_and(|was| was.status == condition.status && was.reason == condition.reason) {
            return None;
        }
        let (type_, reason) = (&condition.type_, condition.reason.as_str());
        let note = format!("{type_}: {}", condition.message);
        match reason {
            _ if ALARMS.contains(&reason) => Some(Told::warning(reason, note)),
            PROMOTED => Some(Told::normal(reason, note)),
            _ if condition.status == "True" => Some(Told::normal(type_, format!("{type_} is so"))),
            _ => None,
        }
    });
    told.collect()
}

/// Something is about to be done.
pub(super) fn action(action: &Action) -> Told {
    let name = action.name();
    match action {
        Action::Initialise { cluster_uuid, .. } => Told::normal(name, format!("initialising cluster {cluster_uuid}")),
        Action::ReportFailure { node_id, evidence, .. } => {
            Told::warning(name, format!("node {node_id}: {evidence}")).of(*node_id)
        }
        Action::Promote {
            partition_id, node_id, ..
        } => {
            let note = format!("asking for node {node_id} as the primary of partition {partition_id}");
            Told::normal(name, note).of(*node_id)
        }
        Action::Drain { node_id } => {
            Told::normal(name, format!("moving every replica away from node {node_id}")).of(*node_id)
        }
        Action::Rejoin { node_id, .. } => {
            Told::normal(name, format!("node {node_id} takes its share again")).of(*node_id)
        }
        Action::RemoveNode { node_id } => Told::normal(name, format!("node {node_id} is forgotten")).of(*node_id),
        Action::SwitchPrimaries { node_id } => {
            Told::normal(name, format!("moving every primary away from node {node_id}")).of(*node_id)
        }
        Action::PromoteStandby { is_immediate } => {
            let how = if *is_immediate { " with what it has" } else { "" };
            Told::normal(name, format!("promoting the standby to a cluster of its own{how}"))
        }
        Action::DeletePod {
            node_id,
            name: pod,
            why,
            ..
        } => Told::normal(name, format!("replacing pod {pod}: {why}")).of(*node_id),
    }
}

/// The pod that a node is.
fn pod(cluster: &VoltCluster, node_id: u32) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(format!("{}-{}", cluster.name_any(), node_id.saturating_sub(1))),
        namespace: cluster.namespace(),
        ..ObjectReference::default()
    }
}

fn event(cluster: &VoltCluster, told: Told) -> Event {
    let mut note = told.note;
    let end = (0..=NOTE_BYTES.min(note.len()))
        .rev()
        .find(|at| note.is_char_boundary(*at));
    note.truncate(end.unwrap_or(0));
    Event {
        type_: told.type_,
        action: told.reason.clone(),
        reason: told.reason,
        note: Some(note),
        secondary: told.node_id.map(|node_id| pod(cluster, node_id)),
    }
}

/// Writes it down, if it can.
pub(super) async fn publish(context: &Context, cluster: &VoltCluster, told: Told) {
    tracing::info!(reason = told.reason, "{}", told.note);
    let event = event(cluster, told);
    if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::warn!(%error, reason = event.reason, "the event was not written");
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::crd::NodeSummary;

    fn status(nodes: &[(u32, &str)], conditions: &[(&str, &str, &str)]) -> VoltClusterStatus {
        let nodes = nodes.iter().map(|(node_id, state)| NodeSummary {
            node_id: *node_id,
            name: format!("demo-{}", node_id - 1),
            state: (*state).to_owned(),
            primaries: 0,
            backups: 0,
            learners: 0,
        });
        let conditions = conditions.iter().map(|(type_, status, reason)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: "why".to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        });
        VoltClusterStatus {
            nodes: nodes.collect(),
            conditions: conditions.collect(),
            ..VoltClusterStatus::default()
        }
    }

    fn demo() -> VoltCluster {
        let text = "{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {name: demo, namespace: shop}, spec: {}}";
        serde_yaml::from_str(text).expect("a VoltCluster")
    }

    #[test]
    fn two_deaths_are_two_events_each_about_its_own_pod() {
        let alive = status(&[(2, "Active"), (3, "Active")], &[]);
        let told = transitions(&alive, &status(&[(2, "Dead"), (3, "Dead")], &[]));
        let events: Vec<Event> = told.into_iter().map(|told| event(&demo(), told)).collect();
        let notes: Vec<_> = events.iter().map(|event| event.note.as_deref().unwrap_or("")).collect();
        assert_eq!(notes, ["node 2 (demo-1) is dead", "node 3 (demo-2) is dead"]);
        let pods: Vec<_> = events
            .iter()
            .map(|event| event.secondary.as_ref().expect("a pod").name.as_deref().unwrap_or(""))
            .collect();
        assert_eq!(pods, ["demo-1", "demo-2"]);
        assert!(events.iter().all(|event| event.type_ == EventType::Warning));
    }

    #[test]
    fn nodes_that_come_and_come_back_are_told_once() {
        let before = status(&[(1, "Dead")], &[]);
        let after = status(&[(1, "Active"), (2, "Active")], &[]);
        let told = transitions(&before, &after);
        let reasons: Vec<&str> = told.iter().map(|told| told.reason.as_str()).collect();
        assert_eq!(reasons, ["NodeRejoined", "NodeJoined"]);
        assert_eq!(transitions(&after, &after), []);
    }

    #[test]
    fn conditions_are_told_when_they_turn_and_alarms_when_they_begin() {
        let fine = status(&[], &[("Scaled", "True", "AsWanted"), ("Ready", "True", "AsWanted")]);
        let refused = status(
            &[],
            &[
                ("Scaled", "False", "BelowReplication"),
                ("Ready", "False", "PodsNotReady"),
            ],
        );
        let told = transitions(&fine, &refused);
        assert_eq!(told, [Told::warning("BelowReplication", "Scaled: why".to_owned())]);
        assert_eq!(transitions(&refused, &refused), []);
        let told = transitions(&refused, &fine);
        let reasons: Vec<&str> = told.iter().map(|told| told.reason.as_str()).collect();
        assert_eq!(reasons, ["Scaled", "Ready"]);
    }

    #[test]
    fn a_standby_that_does_not_get_on_is_an_alarm_and_its_promotion_is_told() {
        let follows = status(&[], &[("Standby", "True", "Following")]);
        let stuck = status(&[], &[("Standby", "True", "NotFollowing")]);
        let promoted = status(&[], &[("Standby", "False", "Promoted")]);
        let note = || "Standby: why".to_owned();
        assert_eq!(transitions(&follows, &stuck), [Told::warning("NotFollowing", note())]);
        assert_eq!(transitions(&stuck, &promoted), [Told::normal("Promoted", note())]);
        let told = action(&Action::PromoteStandby { is_immediate: true });
        assert_eq!((told.reason.as_str(), told.node_id), ("PromoteStandby", None));
        assert!(told.note.ends_with("with what it has"), "{}", told.note);
    }

    #[test]
    fn an_action_is_told_of_its_node_and_a_long_note_is_cut() {
        let report = |evidence: String| Action::ReportFailure {
            node_id: 2,
            boot_id: 1,
            evidence,
            process_ended: true,
        };
        let short = event(&demo(), action(&report("it ended".to_owned())));
        assert_eq!(short.note.as_deref(), Some("node 2: it ended"));
        assert_eq!(short.secondary.and_then(|pod| pod.name).as_deref(), Some("demo-1"));
        let long = event(&demo(), action(&report("ä".repeat(NOTE_BYTES))));
        assert!(
            long.note
                .is_some_and(|note| note.len() <= NOTE_BYTES && note.ends_with('ä'))
        );
    }
}
