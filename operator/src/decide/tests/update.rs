//! Pods of another template.

use k8s_openapi::jiff::Timestamp;
use volt_proto::v1::NodeState;

use super::{Story, condition, pod};
use crate::crd::{Operation, OperationKind, Phase};
use crate::decide::Action;
use crate::observe::{PodSeen, SetSeen};

#[test]
fn an_update_goes_node_by_node_and_waits_for_each() {
    let mut story = Story::running("{}");
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    let decision = story.goes_on();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 3 });
    assert!(matches!(&decision.actions[1], Action::DeletePod { node_id: 3, .. }));
    assert_eq!(decision.actions.len(), 2);
    assert_eq!(decision.status.phase, Phase::Updating);
    assert!(!decision.may_disrupt);

    story.pod(2).deleting = true;
    story.dies(3);
    assert_eq!(story.goes_on().actions, [], "one at a time");

    *story.pod(2) = PodSeen {
        revision: Some("r2".to_owned()),
        ..pod(2)
    };
    assert_eq!(story.goes_on().actions, [], "it is not back");
    story.node(3, |node| {
        node.is_alive = true;
        node.state = NodeState::Active.into();
    });
    let decision = story.goes_on();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 2 });
}

#[test]
fn an_update_that_was_begun_is_gone_on_with_by_the_next_operator() {
    let mut story = Story::running("{}");
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    story.cluster.status.as_mut().expect("status").operation = Some(Operation {
        kind: OperationKind::Update,
        node_id: 1,
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
    });
    let decision = story.decision();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 1 });
    assert_eq!(
        decision.status.operation.map(|operation| operation.since.0),
        Some(Timestamp::UNIX_EPOCH)
    );
}

#[test]
fn a_pod_that_cannot_start_is_replaced_at_once_and_its_problem_is_told() {
    let mut story = Story::new("{replicas: 1}");
    story.world.set = Some(SetSeen {
        replicas: 1,
        revision: Some("r1".to_owned()),
    });
    story.world.pods.insert(
        0,
        PodSeen {
            ready: false,
            ip: None,
            problem: Some("image nonsense:1: ErrImagePull: not found".to_owned()),
            ..pod(0)
        },
    );
    let decision = story.goes_on();
    assert!(condition(&decision, "Ready").1.contains("image nonsense:1"));
    assert_eq!(decision.actions, []);
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    assert!(matches!(
        &story.decision().actions[..],
        [Action::DeletePod { node_id: 1, .. }]
    ));
}
