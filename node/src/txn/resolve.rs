//! Every hold has an owner who ends it: the coordinator, or, should it be gone or its word be lost, the primary that is
//! held, here.
//!
//! A hold without a vote is let go when its coordinator's process is dead, or says that the transaction has ended, or
//! the hold is old. One with a vote asks its home partition what was decided; the home partition itself decides to abort
//! what is old and undecided.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use volt_engine::PartitionId;
use volt_engine::effects::TransactionId;

use super::Coordinator;
use super::calls::CallError;
use super::request::{Reply, Request};
use crate::world::PlantedBug;

/// How often old holds are looked for.
const EVERY: Duration = Duration::from_millis(250);
/// A hold without a vote is let go after this, though its coordinator lives: it may be out of reach.
const UNVOTED_LIMIT_MS: u64 = 5_000;
/// A hold older than this asks: with a vote its home partition, without one its coordinator.
const ASK_AFTER_MS: u64 = 1_000;
/// Who is asked may take so long, and a decision to be committed; then the others are looked after, and he is asked anew.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// The home partition decides to abort an undecided transaction after this.
pub(crate) const ABORT_AFTER_MS: u64 = 3_000;

/// A hold that is older than most, or whose coordinator is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OldHold {
    pub(crate) partition: PartitionId,
    pub(crate) transaction: TransactionId,
    /// Its home partition, if it has voted.
    pub(crate) home: Option<PartitionId>,
    pub(crate) age_ms: u64,
    /// The process that coordinates it is dead.
    pub(crate) is_orphan: bool,
}

/// What is done about a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Ask the home partition what was decided.
    AskHome(PartitionId),
    /// Ask the coordinator whether the transaction goes on.
    AskCoordinator,
    /// Let it go.
    LetGo,
}

impl OldHold {
    fn step(&self) -> Step {
        match self.home {
            Some(home) => Step::AskHome(home),
            None if self.is_orphan || self.age_ms > UNVOTED_LIMIT_MS => Step::LetGo,
            None => Step::AskCoordinator,
        }
    }
}

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
        let old = coordinator.participant.old_holds(ASK_AFTER_MS);
        join_all(old.into_iter().map(|hold| coordinator.look_after(hold))).await;
    }
}

impl Coordinator {
    async fn look_after(&self, hold: OldHold) {
        let OldHold {
            partition, transaction, ..
        } = hold;
        match hold.step() {
            Step::LetGo => self.let_go(hold, "its coordinator is dead, or says nothing"),
            Step::AskCoordinator => {
                let asked = self.ask_briefly(self.ask(transaction.node, Request::IsHolding { transaction }));
                if matches!(asked.await, Some(Reply::Holding(false))) {
                    self.let_go(hold, "it has ended");
                }
            }
            Step::AskHome(home) => {
                let answer = match self.has(PlantedBug::VoterAborts) {
                    true => Some(Reply::Decision(Some(false))),
                    false => {
                        self.ask_briefly(self.ask_primary(home, Request::Resolve { transaction, home }))
                            .await
                    }
                };
                let Some(Reply::Decision(Some(commit))) = answer else {
                    return;
                };
                if partition == home {
                    return;
                }
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
                // It is on record at once; others do not wait until it is committed.
                let _ = tokio::time::timeout(ASK_LIMIT, self.participant.serve(decide)).await;
            }
        }
    }

    /// The answer, if it comes soon.
    async fn ask_briefly(&self, asked: impl Future<Output = Result<Reply, CallError>>) -> Option<Reply> {
        tokio::time::timeout(ASK_LIMIT, asked).await.ok()?.ok()
    }

    fn let_go(&self, hold: OldHold, why: &str) {
        let OldHold {
            partition,
            transaction,
            age_ms,
            ..
        } = hold;
        if self.participant.release(transaction, partition) {
            tracing::info!(
                partition,
                node = transaction.node,
                age_ms,
                why,
                "let go of a transaction"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_asks_who_knows_and_ends_by_itself() {
        let hold = OldHold {
            partition: 3,
            transaction: TransactionId {
                began_micros: 1,
                node: 2,
                boot: 1,
                sequence: 1,
            },
            home: None,
            age_ms: ASK_AFTER_MS + 1,
            is_orphan: false,
        };
        assert_eq!(hold.step(), Step::AskCoordinator);
        assert_eq!(
            OldHold {
                is_orphan: true,
                ..hold
            }
            .step(),
            Step::LetGo
        );
        let age_ms = UNVOTED_LIMIT_MS + 1;
        assert_eq!(OldHold { age_ms, ..hold }.step(), Step::LetGo);
        // Whoever has voted waits for the decision, however long.
        let voted = OldHold {
            home: Some(1),
            age_ms,
            is_orphan: true,
            ..hold
        };
        assert_eq!(voted.step(), Step::AskHome(1));
    }
}
