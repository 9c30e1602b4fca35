//! More nodes and fewer.

use std::collections::BTreeMap;

use volt_proto::v1::NodeState;

use super::{Story, condition, node, pod};
use crate::crd::{OperationKind, Phase};
use crate::decide::Action;

#[test]
fn scaling_out_is_pods_first() {
    let mut story = Story::running("{replicas: 5}");
    story.world.set.as_mut().expect("set").replicas = 3;
    let decision = story.decision();
    assert_eq!((decision.replicas, decision.actions.len()), (5, 0));
    assert_eq!(condition(&decision, "Scaled").0, "False/InProgress");
}

/// A cluster of four that is to have three.
fn four_to_three() -> Story {
    let mut story = Story::running("{replicas: 3}");
    story.world.set.as_mut().expect("set").replicas = 4;
    story.world.pods.insert(3, pod(3));
    story.database(|database| database.nodes.push(node(4)));
    story
}

#[test]
fn scaling_in_drains_then_stops_then_forgets() {
    let mut story = four_to_three();
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (4, vec![Action::Drain { node_id: 4 }])
    );
    assert_eq!(decision.status.phase, Phase::Scaling);

    story.node(4, |node| node.state = NodeState::Draining.into());
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions.len()), (4, 0));
    assert!(condition(&decision, "Scaled").1.contains("3 replicas are left"));

    story.node(4, |node| {
        node.state = NodeState::Drained.into();
        (node.primaries, node.backups) = (0, 0);
    });
    assert_eq!(story.goes_on().replicas, 3);
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions.len()),
        (3, 0),
        "its pod still runs"
    );
    assert_eq!(story.begun(), Some((OperationKind::ScaleIn, 4)));

    story.world.pods.remove(&3);
    story.dies(4);
    assert_eq!(story.goes_on().actions, [Action::RemoveNode { node_id: 4 }]);
    story.database(|database| drop(database.nodes.pop()));
    let decision = story.goes_on();
    assert_eq!(
        (decision.status.phase, decision.status.operation),
        (Phase::Running, None)
    );
}

#[test]
fn a_scale_in_that_is_taken_back_gives_the_node_its_share_again() {
    let mut story = four_to_three();
    story.goes_on();
    story.node(4, |node| node.state = NodeState::Draining.into());
    story.cluster.spec.replicas = 4;
    let rejoin = Action::Rejoin {
        node_id: 4,
        boot_id: 104,
    };
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions), (4, vec![rejoin.clone()]));
    assert_eq!(story.goes_on().actions, [rejoin], "until the map says so");
    assert_eq!(story.begun(), Some((OperationKind::ScaleIn, 4)));
    story.node(4, |node| node.state = NodeState::Active.into());
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(story.begun(), None);
}

#[test]
fn a_node_whose_pod_is_being_stopped_is_forgotten_before_more_are_made() {
    let mut story = four_to_three();
    story.goes_on();
    story.node(4, |node| {
        node.state = NodeState::Drained.into();
        (node.primaries, node.backups) = (0, 0);
    });
    assert_eq!(story.goes_on().replicas, 3);
    story.cluster.spec.replicas = 5;
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions.len()), (3, 0));
    assert!(condition(&decision, "Scaled").1.contains("pod demo-3 is being stopped"));
    story.world.pods.remove(&3);
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (3, vec![Action::RemoveNode { node_id: 4 }])
    );
    story.database(|database| drop(database.nodes.pop()));
    assert_eq!(story.goes_on().replicas, 5);
}

#[test]
fn a_drain_that_somebody_else_asked_for_is_left_alone() {
    let mut story = Story::running("{}");
    story.node(2, |node| node.state = NodeState::Draining.into());
    assert_eq!(story.goes_on().actions, []);
    story.cluster.spec.replicas = 2;
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Scaled").0, "False/BelowReplication");
    assert_eq!(decision.actions, []);
}

#[test]
fn a_dead_node_is_drained_too() {
    let mut story = four_to_three();
    story.dies(4);
    story.node(4, |node| (node.primaries, node.backups, node.learners) = (0, 0, 3));
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (4, vec![Action::Drain { node_id: 4 }])
    );
    story.node(4, |node| node.learners = 0);
    assert_eq!(story.goes_on().replicas, 3);
}

#[test]
fn the_only_copy_of_a_partition_waits_for_its_node() {
    let mut story = four_to_three();
    story.dies(4);
    story.node(4, |node| (node.primaries, node.backups, node.learners) = (1, 0, 0));
    story.database(|database| {
        let last = &mut database.partitions[2];
        (last.primary, last.in_sync) = (0, vec![4]);
    });
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions.len()), (4, 0));
    let why = condition(&decision, "Scaled").1;
    assert!(why.contains("only copy of partitions [2]"), "{why}");
}

#[test]
fn a_dead_node_whose_pod_is_gone_is_drained_and_then_forgotten() {
    let mut story = four_to_three();
    story.world.set.as_mut().expect("set").replicas = 3;
    story.world.pods.remove(&3);
    story.dies(4);
    story.node(4, |node| (node.primaries, node.backups, node.learners) = (0, 0, 2));
    assert_eq!(story.goes_on().actions, [Action::Drain { node_id: 4 }]);
    story.node(4, |node| node.learners = 0);
    assert_eq!(story.goes_on().actions, [Action::RemoveNode { node_id: 4 }]);

    story.node(4, |node| node.learners = 2);
    story.cluster.spec.replicas = 4;
    story.cluster.status.as_mut().expect("status").operation = None;
    assert_eq!(story.goes_on().actions, [], "its pod is about to come back");
}

#[test]
fn a_drained_node_is_stopped_only_when_it_has_no_vote() {
    let mut story = four_to_three();
    story.node(4, |node| {
        node.state = NodeState::Drained.into();
        (node.primaries, node.backups) = (0, 0);
    });
    story.database(|database| database.metadata_voters = vec![1, 2, 4]);
    let decision = story.goes_on();
    assert_eq!(decision.replicas, 4);
    assert!(condition(&decision, "Scaled").1.contains("vote"));

    for ordinal in [0, 1] {
        let answer = story.world.answers.get_mut(&ordinal).expect("a node");
        answer.metadata_voters = vec![1, 2, 3];
    }
    assert_eq!(story.goes_on().replicas, 4, "node 3 has not heard of it");
    let answer = story.world.answers.get_mut(&2).expect("a node");
    answer.metadata_voters = vec![1, 2, 3];
    assert_eq!(story.goes_on().replicas, 3);
}

#[test]
fn a_stateful_set_that_was_deleted_comes_back_as_large_as_it_was() {
    let mut story = Story::running("{}");
    story.cluster.spec.replicas = 1;
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Scaled").0, "False/BelowReplication");
    story.world.set = None;
    assert_eq!(story.goes_on().replicas, 3);
    assert_eq!(
        Story::new("{replicas: 2}").decision().replicas,
        2,
        "nothing has run yet"
    );
}

#[test]
fn a_pod_is_not_stopped_while_another_is_restarted() {
    let mut story = four_to_three();
    story.node(4, |node| {
        node.state = NodeState::Drained.into();
        (node.primaries, node.backups) = (0, 0);
    });
    story.dies(2);
    story.database(|database| database.recovering = vec![2]);
    let decision = story.goes_on();
    assert_eq!(story.begun(), Some((OperationKind::Restart, 2)));
    assert_eq!(decision.replicas, 4);
}

#[test]
fn fewer_nodes_than_replication_needs_are_refused() {
    let mut story = Story::running("{replicas: 3}");
    story.cluster.spec.replicas = 2;
    let decision = story.decision();
    assert_eq!((decision.replicas, decision.actions.len()), (3, 0));
    let (word, why) = condition(&decision, "Scaled");
    assert_eq!(word, "False/BelowReplication");
    assert!(why.contains("REPLICATION = 2 needs 3"), "{why}");
}

#[test]
fn nothing_is_scaled_in_that_does_not_answer() {
    let mut story = Story::running("{replicas: 3}");
    story.cluster.spec.replicas = 1;
    story.world.answers = BTreeMap::new();
    let decision = story.decision();
    assert_eq!(decision.replicas, 3);
    assert_eq!(condition(&decision, "Scaled").0, "False/NoAnswer");
}
