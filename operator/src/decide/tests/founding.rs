//! A cluster is initialised once, and never twice.

use volt_proto::v1::{GetStatusResponse, Restoration};

use super::{Story, condition, pod};
use crate::crd::Phase;
use crate::decide::{Action, RestoreFrom};

/// A node with an empty volume.
fn empty() -> GetStatusResponse {
    GetStatusResponse::default()
}

pub(super) fn of(cluster_uuid: &str) -> GetStatusResponse {
    GetStatusResponse {
        cluster_uuid: cluster_uuid.to_owned(),
        ..GetStatusResponse::default()
    }
}

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

    for ordinal in 0..3 {
        story.world.pods.insert(ordinal, pod(ordinal));
        story.world.answers.insert(ordinal, empty());
    }
    let decision = story.goes_on();
    assert_eq!(decision.status.cluster_uuid.as_deref(), Some("fresh"));
    assert_eq!(decision.actions, [], "it is not written down yet");

    let initialise = Action::Initialise {
        ordinal: 0,
        cluster_uuid: "fresh".to_owned(),
        partitions: 4,
        restore: None,
    };
    assert_eq!(story.goes_on().actions, std::slice::from_ref(&initialise));
    assert_eq!(story.goes_on().actions, [initialise], "until the node says so");

    let answer = story.world.answers.get_mut(&0).expect("the node");
    answer.cluster_uuid = "fresh".to_owned();
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(condition(&story.decision(), "Initialised").0, "True/AsWanted");

    story.world.answers.insert(0, empty());
    assert_eq!(
        story.goes_on().actions,
        [],
        "an empty directory makes no second cluster"
    );
}

#[test]
fn no_cluster_is_made_before_every_volume_is_known_to_be_empty() {
    let mut story = Story::new("{}");
    story.goes_on();
    story.world.pods = (0..3).map(|ordinal| (ordinal, pod(ordinal))).collect();
    story.world.answers.insert(0, empty());
    story.pod(2).problem = Some("image nonsense:1: ErrImagePull: not found".to_owned());
    let decision = story.goes_on();
    assert_eq!(decision.status.cluster_uuid, None, "the others may hold the data");
    let (word, why) = condition(&decision, "Initialised");
    assert_eq!(word, "False/WaitingForPods");
    assert!(
        why.contains("demo-1, demo-2") && why.contains("image nonsense:1"),
        "{why}"
    );

    story.world.answers.insert(1, of("old"));
    assert_eq!(story.goes_on().status.cluster_uuid, None, "it may be a stray volume");
    story.world.answers.insert(2, of("old"));
    assert_eq!(story.goes_on().status.cluster_uuid.as_deref(), Some("old"));
}

#[test]
fn volumes_that_were_left_are_taken_up_again() {
    let mut story = Story::new("{}");
    story.goes_on();
    story.world.answers.insert(1, of("old"));
    story.world.answers.insert(2, of("old"));
    assert_eq!(
        story.goes_on().status.cluster_uuid.as_deref(),
        Some("old"),
        "two of three are enough"
    );
    assert_eq!(story.goes_on().actions, []);

    let mut story = Story::new("{}");
    story.goes_on();
    story.world.answers = [(0, empty()), (1, of("old")), (2, empty())].into();
    assert_eq!(
        story.goes_on().status.cluster_uuid.as_deref(),
        Some("old"),
        "all have answered, and nobody else has any"
    );
}

#[test]
fn volumes_of_several_clusters_are_listed_and_none_is_chosen() {
    let mut story = Story::new("{}");
    story.goes_on();
    story.world.answers = [(0, of("a")), (1, of("b")), (2, of("b"))].into();
    let decision = story.goes_on();
    assert_eq!(decision.status.cluster_uuid, None);
    let (word, why) = condition(&decision, "Initialised");
    assert_eq!(word, "False/ForeignVolume");
    assert!(why.contains("node 1 is of a, node 2 is of b, node 3 is of b"), "{why}");
}

#[test]
fn a_volume_of_another_cluster_is_named() {
    let mut story = Story::running("{}");
    story.world.answers.get_mut(&2).expect("a node").cluster_uuid = "other".to_owned();
    let decision = story.decision();
    let (word, why) = condition(&decision, "Ready");
    assert_eq!(word, "False/ForeignVolume");
    assert!(why.contains("node 3 is of other"), "{why}");
    assert!(!why.contains("delete"), "the data may be in that very volume: {why}");
    assert_eq!(condition(&decision, "Initialised").0, "True/AsWanted");
}

const RESTORE: &str = "{partitions: 4, restore: {url: 's3://backups/shop', until: '2026-01-31T12:00:00Z'}}";

/// A VoltCluster whose UUID is written down, and whose nodes have empty volumes.
pub(super) fn named(spec: &str) -> Story {
    let mut story = Story::new(spec);
    story.goes_on();
    for ordinal in 0..3 {
        story.world.pods.insert(ordinal, pod(ordinal));
        story.world.answers.insert(ordinal, empty());
    }
    story.goes_on();
    story
}

/// The nodes say this of themselves.
pub(super) fn say(story: &mut Story, answer: &GetStatusResponse) {
    for node in story.world.answers.values_mut() {
        node.clone_from(answer);
    }
}

#[test]
fn a_cluster_that_is_restored_is_not_made_before_that_is_over() {
    let mut story = named(RESTORE);
    let initialise = Action::Initialise {
        ordinal: 0,
        cluster_uuid: "fresh".to_owned(),
        partitions: 4,
        restore: Some(RestoreFrom {
            url: "s3://backups/shop".to_owned(),
            until_micros: 1_769_860_800_000_000,
            is_standby: false,
        }),
    };
    assert_eq!(story.goes_on().actions, std::slice::from_ref(&initialise));

    // It has its name, and what it begins as is not on record: a crash may lie between the two.
    let mut answer = of("fresh");
    answer.nodes = vec![super::node(1)];
    answer.awaits_restoration = true;
    say(&mut story, &answer);
    let decision = story.goes_on();
    assert_eq!(decision.actions, [initialise]);
    assert_eq!(condition(&decision, "Initialised").0, "False/Restoring");
    assert_eq!(condition(&decision, "Restored").0, "False/Restoring");

    answer.awaits_restoration = false;
    answer.restored_micros = 5_000_000;
    let restoration = |left, problem: &str| Restoration {
        partitions: 4,
        left,
        problem: problem.to_owned(),
    };
    answer.restoration = Some(restoration(3, ""));
    say(&mut story, &answer);
    let one = story.world.answers.get_mut(&1).expect("a node");
    one.restoration = Some(restoration(3, "object x is damaged"));
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert_eq!(decision.status.phase, Phase::Restoring);
    for type_ in ["Initialised", "Ready", "Restored"] {
        let (word, why) = condition(&decision, type_);
        assert_eq!(word, "False/Restoring", "{type_}");
        assert_eq!(
            why, "3 of 4 partitions are not restored yet: object x is damaged",
            "{type_}"
        );
    }

    answer.restoration = None;
    say(&mut story, &answer);
    let decision = story.goes_on();
    assert_eq!(condition(&decision, "Initialised").0, "True/AsWanted");
    let (word, why) = condition(&decision, "Restored");
    assert_eq!(word, "True/AsWanted");
    assert!(why.contains("1970-01-01T00:00:05Z"), "{why}");

    // It stays restored, whoever answers.
    story.world.answers.clear();
    assert_eq!(condition(&story.decision(), "Restored").0, "True/AsWanted");
}

#[test]
fn a_first_node_that_lost_its_volume_makes_no_second_cluster_out_of_an_archive() {
    let mut story = named(RESTORE);
    story.goes_on();
    let mut answer = of("fresh");
    answer.nodes = vec![super::node(1)];
    answer.awaits_restoration = true;
    say(&mut story, &answer);
    story.world.answers.insert(0, empty());
    let decision = story.goes_on();
    assert_eq!(decision.actions, []);
    assert_eq!(condition(&decision, "Initialised").0, "False/Restoring");
}

#[test]
fn why_nothing_can_be_restored_is_said() {
    let mut story = named(RESTORE);
    story.goes_on();
    story.world.refused.action = Some("the archive has no moment before that".to_owned());
    let decision = story.goes_on();
    for type_ in ["Initialised", "Restored"] {
        let (word, why) = condition(&decision, type_);
        assert_eq!(word, "False/Restoring", "{type_}");
        assert!(why.contains("no moment before that"), "{why}");
    }
    let asked = |action: &Action| matches!(action, Action::Initialise { restore: Some(_), .. });
    assert!(decision.actions.iter().all(asked) && !decision.actions.is_empty());
}

#[test]
fn who_begins_with_nothing_says_nothing_of_restoring() {
    let mut story = Story::running("{}");
    let decision = story.goes_on();
    let types = decision.status.conditions.iter().map(|condition| &condition.type_);
    assert!(
        !types.clone().any(|type_| type_ == "Restored"),
        "{:?}",
        types.collect::<Vec<_>>()
    );
}
