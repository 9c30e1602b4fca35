//! Reports of what was seen, and promotions.

use std::time::Duration;

use super::{START, Story};
use crate::decide::Action;
use crate::observe::Ended;

#[test]
fn the_end_of_a_container_is_proof_of_its_own_process_only() {
    let mut story = Story::running("{}");
    story.pod(1).ended = vec![Ended {
        started_at: START - 1,
        finished_at: START + 10,
        why: "OOMKilled, exit code 137".to_owned(),
    }];
    let report = Action::ReportFailure {
        node_id: 2,
        boot_id: 102,
        evidence: "its container ended: OOMKilled, exit code 137".to_owned(),
        process_ended: true,
    };
    assert_eq!(story.decision().actions, [report]);

    // the next process, of which the cluster knows already
    story.world.heard.get_mut(&1).expect("heard").started_at = Some(START + 11);
    assert_eq!(story.decision().actions, []);
    // a process that the cluster doesn't mean
    let heard = story.world.heard.get_mut(&1).expect("heard");
    (heard.boot_id, heard.started_at) = (99, Some(START));
    assert_eq!(story.decision().actions, []);
}

#[test]
fn silence_is_an_opinion_and_manual_failover_has_none() {
    let mut story = Story::running("{}");
    story.world.heard.get_mut(&0).expect("heard").silent_for = Duration::from_secs(6);
    let actions = story.decision().actions;
    assert!(
        matches!(
            &actions[..],
            [Action::ReportFailure {
                node_id: 1,
                process_ended: false,
                ..
            }]
        ),
        "{actions:?}"
    );
    let mut manual = Story::running("{failover: {mode: Manual}}");
    manual.world.heard = story.world.heard;
    assert_eq!(manual.decision().actions, []);
}

#[test]
fn a_partition_without_a_primary_gets_the_member_with_the_least_to_do() {
    let mut story = Story::running("{}");
    story.dies(2);
    story.node(1, |node| node.primaries = 2);
    story.database(|database| {
        (database.partitions[1].primary, database.partitions[1].epoch) = (0, 6);
        (database.partitions[2].primary, database.partitions[2].in_sync) = (0, vec![2]);
    });
    let promote = Action::Promote {
        partition_id: 1,
        epoch: 6,
        node_id: 3,
    };
    assert_eq!(
        story.decision().actions,
        [promote],
        "of partition 2 nobody living has it all"
    );
    story.cluster.spec.failover.mode = crate::crd::FailoverMode::Manual;
    assert_eq!(story.decision().actions, []);
}
