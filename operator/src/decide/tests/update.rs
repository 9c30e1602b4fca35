//! Pods of another template.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{START, Story, condition, pod};
use crate::crd::{Operation, OperationKind, Phase};
use crate::decide::Action;
use crate::observe::{PodSeen, SetSeen};

/// A pod of the template that a change has brought.
fn newer(ordinal: u32) -> PodSeen {
    PodSeen {
        revision: Some("r2".to_owned()),
        ..pod(ordinal)
    }
}

/// A pod whose image is nowhere to be had.
fn hopeless(ordinal: u32) -> PodSeen {
    PodSeen {
        ready: false,
        running_since: None,
        problem: Some("image nonsense:1: ErrImagePull: not found".to_owned()),
        ..newer(ordinal)
    }
}

/// Running, and its template has just become another one.
fn changed() -> Story {
    let mut story = Story::running("{}");
    story.has_template(Some("r2"));
    story
}

/// The same, where node 3 has been told to hold no primary, and holds none.
fn switched() -> Story {
    let mut story = changed();
    assert_eq!(story.goes_on().actions, [Action::SwitchPrimaries { node_id: 3 }]);
    story.switches(3, 1);
    story.node(3, |node| node.yields = true);
    story
}

#[track_caller]
fn deletes(story: &mut Story, node: u32) {
    let actions = story.goes_on().actions;
    assert!(
        matches!(&actions[..], [Action::DeletePod { node_id, at_once: false, .. }] if *node_id == node),
        "{actions:?}"
    );
}

#[test]
fn an_update_goes_node_by_node_and_waits_for_each() {
    let mut story = changed();
    let decision = story.goes_on();
    assert_eq!(decision.actions, [Action::SwitchPrimaries { node_id: 3 }]);
    assert_eq!(decision.status.phase, Phase::Updating);
    assert!(!decision.may_disrupt);
    assert_eq!(
        story.goes_on().actions,
        [Action::SwitchPrimaries { node_id: 3 }],
        "it still leads a partition"
    );
    story.switches(3, 1);
    story.node(3, |node| node.yields = true);
    deletes(&mut story, 3);

    story.pod(2).deleting = true;
    story.dies(3);
    assert_eq!(story.goes_on().actions, [], "one at a time");

    *story.pod(2) = newer(2);
    assert_eq!(story.goes_on().actions, [], "it is not back");
    story.returns(3);
    story.node(3, |node| node.yields = false);
    assert_eq!(story.goes_on().actions, [Action::SwitchPrimaries { node_id: 2 }]);
}

#[test]
fn a_pod_that_is_about_to_end_counts_as_gone_though_the_map_has_not_seen_it() {
    let mut story = switched();
    deletes(&mut story, 3);
    story.pod(2).deleting = true;
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert_eq!(story.begun(), Some((OperationKind::Update, 3)));
    story.world.pods.remove(&2);
    assert_eq!(story.goes_on().actions, [], "it is not made again yet");
    story.world.pods.insert(
        2,
        PodSeen {
            ready: false,
            ..newer(2)
        },
    );
    assert_eq!(story.goes_on().actions, [], "its probe has not passed");
    assert_eq!(story.begun(), Some((OperationKind::Update, 3)));
}

#[test]
fn an_image_that_does_not_exist_takes_one_pod_and_no_second() {
    let mut story = switched();
    deletes(&mut story, 3);
    *story.pod(2) = hopeless(2);
    story.dies(3);
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert!(condition(&decision, "Updated").1.contains("image nonsense:1"));

    story.pod(1).ready = false;
    story.dies(2);
    assert_eq!(story.goes_on().actions, [], "the old image is the better one");

    // the user takes it back
    story.has_template(Some("r1"));
    deletes(&mut story, 3);
}

#[test]
fn a_pod_that_does_not_work_is_replaced_before_those_that_do() {
    let mut story = changed();
    story.pod(0).ready = false;
    story.dies(1);
    story.pod(1).deleting = true;
    assert_eq!(story.decision().actions, [], "another one is on its way already");
    story.pod(1).deleting = false;
    deletes(&mut story, 1);
}

#[test]
fn when_no_pod_works_they_are_replaced_one_after_the_other() {
    let mut story = changed();
    for node_id in 1..=3 {
        story.pod(node_id - 1).ready = false;
        story.dies(node_id);
    }
    deletes(&mut story, 1);
    *story.pod(0) = PodSeen {
        ready: false,
        running_since: Some(START + 3595),
        ..newer(0)
    };
    assert_eq!(story.goes_on().actions, [], "its template has not shown that it runs");
    story.pod(0).running_since = Some(START + 3500);
    deletes(&mut story, 2);
}

#[test]
fn nothing_is_updated_while_the_database_does_not_serve_or_somebody_is_silent() {
    let mut story = changed();
    story.database(|database| database.serving = false);
    assert_eq!(story.decision().actions, []);

    let mut story = switched();
    story.world.heard.get_mut(&0).expect("heard").silent_for = std::time::Duration::from_secs(6);
    let actions = story.goes_on().actions;
    assert!(
        matches!(&actions[..], [Action::ReportFailure { node_id: 1, .. }]),
        "{actions:?}"
    );
    assert_eq!(story.begun(), Some((OperationKind::Update, 3)));
}

#[test]
fn a_partition_with_one_copy_has_nowhere_to_go() {
    let mut story = changed();
    story.database(|database| {
        let last = &mut database.partitions[2];
        (last.replication, last.in_sync) = (0, vec![3]);
    });
    deletes(&mut story, 3);

    let mut story = changed();
    story.database(|database| database.partitions[2].in_sync = vec![1, 2, 3]);
    story.node(1, |node| node.yields = true);
    story.node(2, |node| node.state = volt_proto::v1::NodeState::Draining.into());
    deletes(&mut story, 3);
}

#[test]
fn a_node_takes_its_primaries_again_when_the_update_is_taken_back() {
    let mut story = switched();
    story.has_template(Some("r1"));
    let rejoin = Action::Rejoin {
        node_id: 3,
        boot_id: 103,
    };
    assert_eq!(story.goes_on().actions, std::slice::from_ref(&rejoin));
    assert_eq!(story.goes_on().actions, [rejoin], "until the map says so");
    assert_eq!(story.begun(), Some((OperationKind::Update, 3)));
    story.node(3, |node| node.yields = false);
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(story.begun(), None);
}

#[test]
fn a_node_that_yields_for_another_reason_is_left_alone() {
    let mut story = Story::running("{}");
    story.node(3, |node| node.yields = true);
    assert_eq!(story.decision().actions, [], "perhaps its process is stopping");
}

#[test]
fn an_update_that_makes_way_for_other_work_leaves_no_node_behind() {
    let mut story = switched();
    story.dies(2);
    story.pod(1).running_since = Some(START);
    story.database(|database| database.recovering = vec![2]);
    let rejoin = Action::Rejoin {
        node_id: 3,
        boot_id: 103,
    };
    assert_eq!(story.goes_on().actions, [rejoin]);
    story.node(3, |node| node.yields = false);
    let actions = story.goes_on().actions;
    assert!(
        matches!(&actions[..], [Action::DeletePod { node_id: 2, .. }]),
        "{actions:?}"
    );
}

#[test]
fn an_update_is_not_forgotten_while_the_newest_template_is_unknown() {
    let mut story = switched();
    story.has_template(None);
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(story.begun(), Some((OperationKind::Update, 3)));
}

#[test]
fn a_refused_scale_in_does_not_lower_what_is_waited_for() {
    let mut story = changed();
    story.cluster.spec.replicas = 1;
    story.dies(2);
    story.database(|database| {
        for partition in &mut database.partitions {
            (partition.primary, partition.in_sync) = (1, vec![1, 3]);
        }
    });
    assert_eq!(story.decision().actions, []);
}

#[test]
fn an_update_that_was_begun_is_gone_on_with_by_the_next_operator() {
    let mut story = changed();
    story.cluster.status.as_mut().expect("status").operation = Some(Operation {
        kind: OperationKind::Update,
        node_id: 1,
        since: Time(Timestamp::UNIX_EPOCH),
    });
    let decision = story.decision();
    assert_eq!(decision.actions, [Action::SwitchPrimaries { node_id: 1 }]);
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
    story.has_template(Some("r2"));
    deletes(&mut story, 1);
}
