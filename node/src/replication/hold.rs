//! Who has a partition to himself: transactions over several partitions, in order of wound-wait by age.
//!
//! An older transaction takes the partition from a younger one that has not voted (Rosenkrantz, Stearns and Lewis
//! 1978): a transaction votes only when it holds all its partitions, so nobody who has voted waits, and there is no
//! deadlock. Whoever lost a hold learns it at his next step, and starts again with the same age. Pure: waiting is
//! the caller's; this says who has it and whom to wake.

use tokio::sync::oneshot;
use volt_engine::effects::{Effects, TransactionId};
use volt_engine::{Lsn, PartitionId};

use std::collections::BTreeMap;

/// The transaction that has the partition.
#[derive(Debug)]
pub(crate) struct Holder {
    /// Which.
    pub(crate) transaction: TransactionId,
    /// What it will do here, once it has run.
    pub(crate) effects: Option<Effects>,
    /// It has voted: only its decision ends the hold. The partition that holds the decision, and its own prepared record.
    pub(crate) voted: Option<(PartitionId, Lsn)>,
    /// Milliseconds on the boot clock when it began.
    pub(crate) since_ms: u64,
}

/// What asking for a hold gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The partition is the asker's.
    Granted,
    /// Somebody older, or somebody who has voted, has it.
    Busy,
}

/// The hold on one partition, and who waits for its end.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    holder: Option<Holder>,
    waiting_statements: Vec<oneshot::Sender<()>>,
    waiting_transactions: BTreeMap<TransactionId, oneshot::Sender<()>>,
    /// So many waiters, and those that have given up are looked for.
    prune_at: usize,
}

/// Fewer waiters than this are not looked through for those that have given up.
const PRUNE_FROM: usize = 64;

impl Hold {
    /// The transaction that has the partition.
    pub(crate) fn holder(&self) -> Option<&Holder> {
        self.holder.as_ref()
    }

    /// The same, if it is this one.
    pub(crate) fn held_by(&mut self, transaction: TransactionId) -> Option<&mut Holder> {
        self.holder.as_mut().filter(|holder| holder.transaction == transaction)
    }

    /// Asks for the partition. A younger holder that has not voted loses it.
    pub(crate) fn ask(&mut self, transaction: TransactionId, now_ms: u64) -> Asked {
        let granted = match &self.holder {
            None => true,
            Some(holder) if holder.transaction == transaction => return Asked::Granted,
            Some(holder) => holder.voted.is_none() && transaction < holder.transaction,
        };
        if !granted {
            return Asked::Busy;
        }
        self.holder = Some(Holder {
            transaction,
            effects: None,
            voted: None,
            since_ms: now_ms,
        });
        Asked::Granted
    }

    /// A new primary found a prepared transaction without a decision: it goes on holding.
    pub(crate) fn restore(
        &mut self,
        transaction: TransactionId,
        effects: Effects,
        home: PartitionId,
        lsn: Lsn,
        now_ms: u64,
    ) {
        self.holder = Some(Holder {
            transaction,
            effects: Some(effects),
            voted: Some((home, lsn)),
            since_ms: now_ms,
        });
    }

    /// Ends the hold of `transaction`, if it has it, and wakes who waits. True if it had it. If it waits itself, it gets no
    /// turn any more: its waiter hears nothing, ever.
    pub(crate) fn release(&mut self, transaction: TransactionId) -> bool {
        self.waiting_transactions.remove(&transaction);
        if self.held_by(transaction).is_none() {
            return false;
        }
        self.holder = None;
        self.wake();
        true
    }

    /// Ends any hold: the replica is no longer a primary.
    pub(crate) fn clear(&mut self) {
        self.holder = None;
        self.wake();
        while let Some((_, waiter)) = self.waiting_transactions.pop_first() {
            let _ = waiter.send(());
        }
    }

    /// A statement waits for the end of the hold.
    pub(crate) fn wait_statement(&mut self) -> oneshot::Receiver<()> {
        self.prune();
        let (sender, receiver) = oneshot::channel();
        self.waiting_statements.push(sender);
        receiver
    }

    /// A transaction waits for its turn.
    pub(crate) fn wait_transaction(&mut self, transaction: TransactionId) -> oneshot::Receiver<()> {
        self.prune();
        let (sender, receiver) = oneshot::channel();
        self.waiting_transactions.insert(transaction, sender);
        receiver
    }

    /// Who looks again by himself leaves a waiter behind each time. They go when the list has doubled, so that a look
    /// costs nothing on average and the list is never longer than twice those who wait.
    fn prune(&mut self) {
        if self.waiting() < self.prune_at.max(PRUNE_FROM) {
            return;
        }
        self.waiting_statements.retain(|waiter| !waiter.is_closed());
        self.waiting_transactions.retain(|_, waiter| !waiter.is_closed());
        self.prune_at = 2 * self.waiting();
    }

    /// How many wait; at most twice as many are counted, and `PRUNE_FROM`, for some may have given up.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting_statements.len() + self.waiting_transactions.len()
    }

    /// Wakes all statements, which need the partition for a moment only, then the oldest transaction that still waits.
    fn wake(&mut self) {
        for waiter in self.waiting_statements.drain(..) {
            let _ = waiter.send(());
        }
        while let Some((_, waiter)) = self.waiting_transactions.pop_first() {
            if waiter.send(()).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(began_micros: i64) -> TransactionId {
        TransactionId {
            began_micros,
            node: 1,
            boot: 1,
            sequence: 1,
        }
    }

    #[test]
    fn the_older_takes_it_from_the_younger() {
        let mut hold = Hold::default();
        assert_eq!(hold.ask(transaction(20), 0), Asked::Granted);
        assert_eq!(hold.ask(transaction(30), 0), Asked::Busy);
        assert_eq!(hold.ask(transaction(10), 0), Asked::Granted);
        assert!(
            hold.held_by(transaction(20)).is_none(),
            "the younger one learns that it was wounded"
        );
        assert!(!hold.release(transaction(20)));
    }

    #[test]
    fn nobody_takes_it_from_one_that_has_voted() {
        let mut hold = Hold::default();
        hold.ask(transaction(20), 0);
        hold.held_by(transaction(20)).unwrap().voted = Some((1, 1));
        assert_eq!(hold.ask(transaction(10), 0), Asked::Busy);
        assert!(hold.release(transaction(20)));
        assert_eq!(hold.ask(transaction(10), 0), Asked::Granted);
    }

    #[test]
    fn those_who_gave_up_do_not_fill_the_list() {
        let mut hold = Hold::default();
        hold.ask(transaction(1), 0);
        let patient: Vec<_> = (0..100).map(|_| hold.wait_statement()).collect();
        for _ in 0..100_000 {
            drop(hold.wait_statement());
        }
        assert!(hold.waiting() <= 2 * patient.len() + PRUNE_FROM, "{}", hold.waiting());
        hold.release(transaction(1));
        assert!(patient.into_iter().all(|mut waiter| waiter.try_recv().is_ok()));
    }

    #[test]
    fn who_is_let_go_while_he_waits_gets_no_turn() {
        let mut hold = Hold::default();
        hold.ask(transaction(1), 0);
        let mut gone = hold.wait_transaction(transaction(2));
        let mut third = hold.wait_transaction(transaction(3));
        assert!(!hold.release(transaction(2)));
        assert_eq!(gone.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        hold.release(transaction(1));
        assert!(third.try_recv().is_ok());
    }

    #[test]
    fn a_release_wakes_every_statement_and_the_oldest_transaction_still_there() {
        let mut hold = Hold::default();
        hold.ask(transaction(1), 0);
        let mut statement = hold.wait_statement();
        drop(hold.wait_transaction(transaction(2)));
        let mut third = hold.wait_transaction(transaction(3));
        let mut fourth = hold.wait_transaction(transaction(4));
        hold.release(transaction(1));
        assert!(statement.try_recv().is_ok() && third.try_recv().is_ok());
        assert!(fourth.try_recv().is_err());
    }
}
