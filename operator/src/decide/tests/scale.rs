//! More nodes and fewer.

use std::collections::BTreeMap;

use volt_proto::v1::NodeState;

use super::{Story, condition, node, pod};
use crate::crd::Phase;
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
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (
            4,
            vec![Action::Rejoin {
                node_id: 4,
                boot_id: 104
            }]
        )
    );
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
