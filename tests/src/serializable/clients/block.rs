//! `BEGIN ... COMMIT`, with savepoints and rollbacks.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::single::item;
use super::{Failure, Session, Told, outcome};
use crate::serializable::history::{Level, Outcome, Step, Transaction};

/// Statements of a block, at most.
const STATEMENTS: usize = 5;

impl Session {
    /// A block of some statements, at any of the levels.
    pub(super) async fn block(&self, random: &mut StdRng, transaction: &mut Transaction) -> Told<()> {
        // Until COMMIT is sent nothing can have happened.
        transaction.outcome = Outcome::Aborted;
        let (begin, level) = match random.random_range(0..10) {
            0 => ("BEGIN READ ONLY", Level::Serializable),
            1 => ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", Level::Serializable),
            2..4 => ("BEGIN ISOLATION LEVEL REPEATABLE READ", Level::Snapshot),
            _ => ("BEGIN", Level::Serializable),
        };
        transaction.level = level;
        self.answer(self.client.batch_execute(begin)).await?;
        // What happened until here it must see, and its snapshot is of later.
        transaction.began = self.recorder.moment();
        let is_read_only = begin.ends_with("READ ONLY");
        let told = self.statements(random, is_read_only, &mut transaction.steps).await;
        match told {
            Err(Failure::Unknown) => return told,
            Err(Failure::Refused) => return self.roll_back(told).await,
            Ok(()) if random.random_range(0..12) == 0 => return self.roll_back(Ok(())).await,
            Ok(()) => {}
        }
        let told = self.answer(self.client.batch_execute("COMMIT")).await;
        transaction.outcome = outcome(&told);
        told
    }

    async fn roll_back(&self, told: Told<()>) -> Told<()> {
        self.answer(self.client.batch_execute("ROLLBACK")).await?;
        told
    }

    async fn statements(&self, random: &mut StdRng, is_read_only: bool, steps: &mut Vec<Step>) -> Told<()> {
        let thinks = !self.thinks.is_zero() && random.random_range(0..2) == 0;
        for _ in 0..random.random_range(1..=STATEMENTS) {
            if thinks {
                sleep(random.random_range(Duration::ZERO..=self.thinks)).await;
            }
            match random.random_range(0..12) {
                _ if is_read_only => self.look_around(random, steps).await?,
                0..4 => self.statement(random, steps).await?,
                4..6 => self.append_text(random, steps).await?,
                6..8 => self.rewrite_text(random, steps).await?,
                8..11 => self.add_row(random, steps).await?,
                _ => self.undone(random, steps).await?,
            }
        }
        Ok(())
    }

    async fn look_around(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        match random.random_range(0..2) {
            0 => self.read_text(self.text(random), steps).await,
            _ => self.read_rows(self.rows(random), steps).await,
        }
    }

    /// Reads a text and writes all of it again: whatever came in between would be lost.
    async fn rewrite_text(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (list, value) = (self.text(random), self.recorder.unique());
        self.read_text(list, steps).await?;
        let Some(Step::Read { values, .. }) = steps.last() else {
            return Ok(());
        };
        let text: String = values.iter().chain([&value]).map(|value| item(*value)).collect();
        steps.push(Step::Append { list, value });
        let set = &self.statements.set_text;
        let changed = self.execute(set, &[&(list as i64), &text]).await?;
        assert_eq!(changed, 1, "invariant 1: texts are never removed");
        Ok(())
    }

    /// Looks at a range and adds a row behind it.
    async fn add_row(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        let (list, value) = (self.rows(random), self.recorder.unique());
        self.read_rows(list, steps).await?;
        let Some(Step::Read { values, .. }) = steps.last() else {
            return Ok(());
        };
        let position = values.len() as i64 + 1;
        steps.push(Step::Append { list, value });
        let add = &self.statements.add_row;
        self.execute(add, &[&(list as i64), &position, &(value as i64)]).await?;
        Ok(())
    }

    /// Writes something and takes it back; what was read remains read.
    async fn undone(&self, random: &mut StdRng, steps: &mut Vec<Step>) -> Told<()> {
        self.answer(self.client.batch_execute("SAVEPOINT s")).await?;
        steps.push(Step::Savepoint);
        match random.random_range(0..2) {
            0 => self.append_text(random, steps).await?,
            _ => self.add_row(random, steps).await?,
        }
        self.answer(self.client.batch_execute("ROLLBACK TO SAVEPOINT s"))
            .await?;
        steps.push(Step::Undo);
        Ok(())
    }
}
