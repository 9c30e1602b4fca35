//! What is said of the cluster.

use k8s_openapi::jiff::Timestamp;

use super::{START, Story, condition};
use crate::crd::Phase;
use crate::decide::{Decision, decide};

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
