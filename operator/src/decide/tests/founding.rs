//! A cluster is initialised once, and never twice.

use volt_proto::v1::GetStatusResponse;

use super::{Story, condition, pod};
use crate::crd::Phase;
use crate::decide::Action;

#[test]
fn a_new_cluster_is_initialised_once_and_its_uuid_is_written_first() {
    let mut story = Story::new("{partitions: 4}");
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions), (3, vec![]));
    assert_eq!(decision.status.phase, Phase::Creating);
    assert_eq!(
        decision.status.cluster_uuid, None,
        "no node has answered that it is new"
    );

    story.world.pods.insert(0, pod(0));
    story.world.answers.insert(0, GetStatusResponse::default());
    let decision = story.goes_on();
    assert_eq!(decision.status.cluster_uuid.as_deref(), Some("fresh"));
    assert_eq!(decision.actions, [], "it is not written down yet");

    let initialise = Action::Initialise {
        ordinal: 0,
        cluster_uuid: "fresh".to_owned(),
        partitions: 4,
    };
    assert_eq!(story.goes_on().actions, std::slice::from_ref(&initialise));
    assert_eq!(story.goes_on().actions, [initialise], "until the node says so");

    let answer = story.world.answers.get_mut(&0).expect("the node");
    answer.cluster_uuid = "fresh".to_owned();
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(condition(&story.decision(), "Initialised").0, "True/AsWanted");

    story.world.answers.insert(0, GetStatusResponse::default());
    assert_eq!(
        story.goes_on().actions,
        [],
        "an empty directory makes no second cluster"
    );
}

#[test]
fn volumes_that_were_left_are_taken_up_again() {
    let mut story = Story::new("{}");
    story.world.answers.insert(
        1,
        GetStatusResponse {
            cluster_uuid: "old".to_owned(),
            ..GetStatusResponse::default()
        },
    );
    assert_eq!(story.goes_on().status.cluster_uuid.as_deref(), Some("old"));
    assert_eq!(story.goes_on().actions, []);
}

#[test]
fn a_volume_of_another_cluster_is_named() {
    let mut story = Story::running("{}");
    story.world.answers.get_mut(&2).expect("a node").cluster_uuid = "other".to_owned();
    let decision = story.decision();
    assert_eq!(condition(&decision, "Ready").0, "False/ForeignVolume");
    assert_eq!(condition(&decision, "Initialised").0, "True/AsWanted");
}
