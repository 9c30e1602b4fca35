//! What is said of the cluster.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::{START, Story, condition};
use crate::crd::Phase;
use crate::decide::{Decision, LATER, decide};

#[test]
fn a_running_cluster_is_left_alone() {
    let decision = Story::running("{}").decision();
    assert_eq!(decision.actions, []);
    assert_eq!((decision.replicas, decision.may_disrupt), (3, true));
    assert_eq!(decision.status.phase, Phase::Running);
    assert_eq!(decision.status.partitions.as_deref(), Some("3/3"));
    assert_eq!(decision.status.observed_generation, Some(7));
    for type_ in ["Initialised", "Ready", "FullyReplicated", "Scaled", "Updated"] {
        assert_eq!(condition(&decision, type_).0, "True/AsWanted", "{type_}");
    }
}

#[test]
fn a_dead_node_degrades_and_stops_evictions() {
    let mut story = Story::running("{}");
    story.dies(2);
    story.database(|database| {
        for partition in &mut database.partitions {
            partition.in_sync = vec![1, 3];
            partition.primary = 1;
        }
    });
    let decision = story.decision();
    assert_eq!(decision.status.phase, Phase::Degraded);
    assert!(!decision.may_disrupt);
    assert_eq!(decision.actions, [], "Kubernetes restarts it");
    assert_eq!(condition(&decision, "Ready").1, "not alive: node 2");
    let (word, why) = condition(&decision, "FullyReplicated");
    assert_eq!(word, "False/TooFewNodes");
    assert!(why.contains("REPLICATION = 2 needs 3 nodes, and 2 live"), "{why}");
}

#[test]
fn a_condition_keeps_its_time() {
    let mut story = Story::running("{}");
    let time = |decision: &Decision| decision.status.conditions[0].last_transition_time.clone();
    let first = time(&story.goes_on());
    let later = Timestamp::from_second(START + 9999).expect("a time");
    assert_eq!(time(&decide(&story.cluster, &story.world, later)), first);
}

#[test]
fn a_child_that_kubernetes_does_not_take_is_told() {
    let mut story = Story::new("{}");
    story.world.refused.child = Some("StatefulSet: image must not have leading spaces".to_owned());
    let decision = story.goes_on();
    let (word, why) = condition(&decision, "Ready");
    assert_eq!(word, "False/ApplyFailed");
    assert!(why.contains("leading spaces"), "{why}");

    let mut story = Story::running("{}");
    story.world.refused.child = Some("StatefulSet: no".to_owned());
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Ready").0, "False/ApplyFailed");
    assert!(decision.again_after < LATER, "it is tried again");
}

#[test]
fn what_is_under_way_says_what_was_refused() {
    let refusal = "SwitchPrimaries: node 3 still has 2 primaries";
    let mut story = Story::running("{}");
    story.has_template(Some("r2"));
    story.world.refused.action = Some(refusal.to_owned());
    let why = condition(&story.decision(), "Updated").1;
    assert!(
        why.contains("node 3 are being switched away") && why.contains(refusal),
        "{why}"
    );

    let mut story = Story::running("{replicas: 2}");
    story.database(|database| database.max_replication = 1);
    story.world.set.as_mut().expect("set").replicas = 3;
    story.world.refused.action = Some("Drain: not now".to_owned());
    let why = condition(&story.decision(), "Scaled").1;
    assert!(
        why.contains("is being drained") && why.contains("Drain: not now"),
        "{why}"
    );
}

#[test]
fn the_next_look_is_soon_while_a_pod_is_not_ready_or_a_stream_is_silent() {
    assert_eq!(Story::running("{}").decision().again_after, LATER);
    let mut story = Story::running("{}");
    story.pod(1).ready = false;
    assert!(story.decision().again_after < LATER);

    let mut story = Story::running("{}");
    story.world.heard.get_mut(&1).expect("heard").silent_for = Duration::from_secs(3);
    let decision = story.decision();
    assert_eq!(decision.actions, [], "it is no evidence yet");
    assert!(decision.again_after < LATER);
    story.world.heard.remove(&1);
    assert!(story.decision().again_after < LATER, "nothing was heard at all");
}
