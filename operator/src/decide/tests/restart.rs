//! RECOVER NODE.

use super::{START, Story};
use crate::crd::OperationKind;
use crate::decide::Action;

#[test]
fn recover_node_replaces_a_process_that_runs_and_is_dead() {
    let mut story = Story::running("{}");
    story.dies(2);
    assert_eq!(story.decision().actions, []);
    story.database(|database| database.recovering = vec![2]);
    let decision = story.goes_on();
    assert!(matches!(
        &decision.actions[..],
        [Action::DeletePod {
            node_id: 2,
            at_once: true,
            ..
        }]
    ));
    assert_eq!(
        decision.status.operation.map(|operation| operation.kind),
        Some(OperationKind::Restart)
    );
    story.pod(1).deleting = true;
    assert_eq!(story.decision().actions, []);
    story.pod(1).deleting = false;
    story.pod(1).running_since = Some(START + 3595);
    assert_eq!(story.decision().actions, [], "it has just been started");
}
