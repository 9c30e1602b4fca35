//! The session's transaction block: BEGIN, COMMIT, ROLLBACK, savepoints, and what they mean in each state, as PostgreSQL has it.
//!
//! In a block that has failed only ROLLBACK, COMMIT (which rolls back too) and ROLLBACK TO do anything.

use volt_engine::idempotency::IdempotencyKey;
use volt_engine::value::ValueRef;

use super::codec;
use super::messages;
use super::output::Settled;
use super::session::{Failure, Session};
use crate::error::SqlError;
use crate::statement::{Completion, Control, ModeChange, Options, Transaction, TransactionModes};

use std::sync::Arc;

/// Savepoints that may be open in one block.
const MAX_SAVEPOINTS: usize = 10_000;

/// An open block.
pub(crate) struct Block {
    pub(crate) transaction: Box<dyn Transaction>,
    modes: TransactionModes,
    /// The names, and where to come back to; the same name may be there again.
    savepoints: Vec<(String, usize)>,
    /// A statement has run in it.
    pub(crate) used: bool,
    failed: bool,
}

impl Session {
    /// As ReadyForQuery says it: no block, in one, in one that has failed.
    pub(crate) fn status(&self) -> u8 {
        match &self.block {
            None => b'I',
            Some(block) if block.failed => b'E',
            Some(_) => b'T',
        }
    }

    /// A statement failed: the block that it was in goes no further.
    pub(crate) fn fail_block(&mut self) {
        if let Some(block) = &mut self.block {
            block.failed = true;
        }
    }

    /// An error in a block that has failed, unless this statement leads out of it.
    pub(crate) fn check_block(&self, control: Option<&Control>) -> Result<(), SqlError> {
        let leads_out = matches!(
            control,
            Some(Control::Commit(_) | Control::Rollback(_) | Control::RollbackTo(_))
        );
        match &self.block {
            Some(block) if block.failed && !leads_out => Err(SqlError::new(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            _ => Ok(()),
        }
    }

    /// Does what a statement says about the transaction.
    pub(crate) async fn control(
        &mut self,
        control: &Control,
        key: Option<&IdempotencyKey>,
        formats: &[i16],
    ) -> Result<(), Failure> {
        self.check_block(Some(control))?;
        let mut completion = Completion::default();
        match control {
            Control::Begin { change, tag } => {
                completion.tag = tag;
                self.begin(*change, &mut completion).await?;
            }
            Control::Commit(chain) => return self.commit(*chain, key).await,
            Control::Rollback(chain) => {
                completion.tag = "ROLLBACK";
                match self.block.take() {
                    None => no_block(&mut completion),
                    Some(block) => {
                        self.key = None;
                        self.chain(*chain, block.modes);
                    }
                }
            }
            Control::Savepoint(_) | Control::Release(_) | Control::RollbackTo(_) => {
                completion.tag = self.savepoint(control)?;
            }
            Control::SetTransaction(change) => {
                completion.tag = "SET";
                self.set_transaction(*change, &mut completion)?;
            }
            Control::SetDefault(change) => {
                completion.tag = "SET";
                self.defaults = change.of(self.defaults);
            }
            Control::SetKey(key) => {
                completion.tag = if key.is_some() { "SET" } else { "RESET" };
                self.key = key.clone();
            }
            Control::SetReading(change, is_reset) => {
                completion.tag = if *is_reset { "RESET" } else { "SET" };
                self.values.reads.change(*change);
            }
            Control::ShowReading(setting) => {
                completion.tag = "SHOW";
                let value = self.values.reads.show(*setting);
                codec::data_row(&mut self.output.bytes, &[ValueRef::Text(&value)], formats);
            }
            Control::ResetAll => {
                completion.tag = "RESET";
                self.values.reads.reset();
                self.key = None;
                self.defaults = TransactionModes::default();
            }
            Control::Show(setting) => {
                completion.tag = "SHOW";
                let value = self.setting(setting).to_owned();
                codec::data_row(&mut self.output.bytes, &[ValueRef::Text(&value)], formats);
            }
        }
        messages::completion(&mut self.output.bytes, &completion, None);
        Ok(())
    }

    async fn begin(&mut self, change: ModeChange, completion: &mut Completion) -> Result<(), Failure> {
        if self.block.is_some() {
            let message = "there is already a transaction in progress".to_owned();
            completion.notices.push(("WARNING", "25001", message));
            return Ok(());
        }
        // A statement before it in the same group must not fail any more when it is open.
        if self.settle().await == Settled::GroupFailed {
            return Err(Failure::Told);
        }
        self.open(change.of(self.defaults));
        Ok(())
    }

    fn open(&mut self, modes: TransactionModes) {
        self.block = Some(Block {
            transaction: Arc::clone(&self.database).begin(modes, Arc::clone(&self.values)),
            modes,
            savepoints: Vec::new(),
            used: false,
            failed: false,
        });
    }

    fn chain(&mut self, chain: bool, modes: TransactionModes) {
        if chain {
            self.open(modes);
        }
    }

    /// A key names one transaction: this one, whatever comes of it.
    async fn commit(&mut self, chain: bool, key: Option<&IdempotencyKey>) -> Result<(), Failure> {
        let mut completion = Completion {
            tag: "COMMIT",
            ..Completion::default()
        };
        let start = self.output.bytes.len();
        match self.block.take() {
            None => no_block(&mut completion),
            Some(block) => {
                let set = self.key.take();
                let options = Options {
                    idempotency_key: key.cloned().or(set),
                };
                if block.failed {
                    completion.tag = "ROLLBACK";
                } else if let Some(wait) = block.transaction.commit(options).await? {
                    self.output.wait_for(wait, start);
                }
                self.chain(chain, block.modes);
            }
        }
        messages::completion(&mut self.output.bytes, &completion, None);
        Ok(())
    }

    fn savepoint(&mut self, control: &Control) -> Result<&'static str, SqlError> {
        let (name, tag) = match control {
            Control::Savepoint(name) => (name, "SAVEPOINT"),
            Control::Release(name) => (name, "RELEASE"),
            Control::RollbackTo(name) => (name, "ROLLBACK"),
            _ => return Err(SqlError::internal("no statement about a savepoint")),
        };
        let Some(block) = &mut self.block else {
            let statement = match control {
                Control::Savepoint(_) => "SAVEPOINT",
                Control::Release(_) => "RELEASE SAVEPOINT",
                _ => "ROLLBACK TO SAVEPOINT",
            };
            let message = format!("{statement} can only be used in transaction blocks");
            return Err(SqlError::new("25P01", message));
        };
        if let Control::Savepoint(_) = control {
            if block.savepoints.len() >= MAX_SAVEPOINTS {
                return Err(SqlError::new("54000", "too many savepoints in this transaction"));
            }
            let place = block.transaction.savepoint();
            block.savepoints.push((name.clone(), place));
            return Ok(tag);
        }
        let Some(found) = block.savepoints.iter().rposition(|(known, _)| known == name) else {
            let message = format!("savepoint \"{name}\" does not exist");
            return Err(SqlError::new("3B001", message));
        };
        if let Control::Release(_) = control {
            block.savepoints.truncate(found);
            return Ok(tag);
        }
        block.transaction.rewind(block.savepoints[found].1)?;
        block.savepoints.truncate(found + 1);
        block.failed = false;
        Ok(tag)
    }

    fn set_transaction(&mut self, change: ModeChange, completion: &mut Completion) -> Result<(), SqlError> {
        let Some(block) = &self.block else {
            let message = "SET TRANSACTION can only be used in transaction blocks".to_owned();
            completion.notices.push(("WARNING", "25P01", message));
            return Ok(());
        };
        let modes = change.of(block.modes);
        if modes == block.modes {
            return Ok(());
        }
        if block.used {
            let message = "SET TRANSACTION must be called before any query of the transaction";
            return Err(SqlError::new("25001", message));
        }
        let savepoints = block.savepoints.clone();
        self.open(modes);
        if let Some(block) = &mut self.block {
            block.savepoints = savepoints;
        }
        Ok(())
    }

    fn setting(&self, setting: &str) -> &str {
        if setting == "volt.idempotency_key" {
            return self.key.as_ref().map_or("", IdempotencyKey::as_str);
        }
        let modes = match &self.block {
            Some(block) if !setting.starts_with("default") => block.modes,
            _ => self.defaults,
        };
        match (setting.ends_with("read_only"), modes.read_only) {
            (true, true) => "on",
            (true, false) => "off",
            (false, _) => modes.isolation.name(),
        }
    }
}

fn no_block(completion: &mut Completion) {
    let message = "there is no transaction in progress".to_owned();
    completion.notices.push(("WARNING", "25P01", message));
}
