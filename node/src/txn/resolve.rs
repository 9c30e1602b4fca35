//! Every hold has an owner who ends it: the coordinator, or, should it be gone, the primary that is held, here.
//!
//! A hold without a vote is let go when its coordinator's process is dead, or it is old. One with a vote asks its home partition what was decided; the home partition
//! itself decides to abort what is old and undecided.

use std::sync::Arc;
use std::time::Duration;

use super::Coordinator;
use super::request::{Reply, Request};
use crate::world::PlantedBug;

/// How often old holds are looked for.
const EVERY: Duration = Duration::from_millis(250);
/// A hold without a vote is let go after this, though its coordinator lives: it may not hear the others' answers.
const UNVOTED_LIMIT_MS: u64 = 5_000;
/// A vote without a decision asks its home partition after this.
const ASK_AFTER_MS: u64 = 1_000;
/// The home partition decides to abort an undecided transaction after this.
pub(crate) const ABORT_AFTER_MS: u64 = 3_000;

/// Looks after the holds of this node's primaries, for as long as the process lives.
pub(crate) async fn run(coordinator: Arc<Coordinator>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut map = coordinator.replicas.metadata.watch();
    loop {
        // The map says which coordinators are dead.
        tokio::select! {
            _ = ticks.tick() => {}
            changed = map.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        coordinator.participant.expire_pins();
        for (partition, transaction, home) in coordinator.participant.old_holds(ASK_AFTER_MS) {
            let Some(home) = home else { continue };
            let ask = Request::Resolve { transaction, home };
            let answer = match coordinator.participant.has(PlantedBug::VoterAborts) {
                true => Ok(Reply::Decision(Some(false))),
                false => coordinator.ask_primary(home, ask).await,
            };
            let Ok(Reply::Decision(Some(commit))) = answer else {
                continue;
            };
            if partition != home {
                tracing::info!(
                    partition,
                    home,
                    commit,
                    "resolved a transaction whose coordinator is gone"
                );
                let decide = Request::Decide {
                    transaction,
                    partitions: vec![partition],
                    commit,
                };
                coordinator.participant.serve(decide).await;
            }
        }
        for (partition, transaction, home) in coordinator.participant.old_holds(UNVOTED_LIMIT_MS) {
            if home.is_none() {
                coordinator.participant.release(transaction, partition);
            }
        }
    }
}
