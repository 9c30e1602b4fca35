//! Partitioned procedures: all statements of a call against the newest state and its own writes, in one go.

use super::Partition;
use super::run::{Failed, Outcome, Run};
use super::view::{Newest, Serial};
use crate::effects::{Effects, MAX_EFFECTS_BYTES};
use crate::error::StatementError;
use crate::placement::partition_index;
use crate::plan::StatementContext;
use crate::plan::eval::{Scope, cast_value};
use crate::procedure::{Collector, Execution, Machine, Next, Notice, Procedure, RowsTaken, Statement};
use crate::transaction::Writes;
use crate::value::{Value, ValueRef};
use crate::{Lsn, SequenceId};

/// Which partition of its replication group this is: a procedure's rows must belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its place in the group.
    pub index: u32,
    /// The group's partitions.
    pub count: u32,
}

/// What a call did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// Rows returned, and all effects of its statements as one.
    pub outcome: Outcome,
    /// What RAISE told.
    pub notices: Vec<Notice>,
}

/// A call on its way.
struct Call<'a> {
    partition: &'a Partition,
    procedure: &'a Procedure,
    home: Home,
    context: &'a StatementContext,
    observed: Lsn,
    /// What its statements have written, without the last one's.
    writes: Writes,
    /// What the last one that wrote has written: a call that writes with one statement needs no merging.
    last: Option<Effects>,
    bytes: usize,
}

impl Partition {
    /// Runs a partitioned procedure that is code, as `call_by` does.
    pub fn call(
        &self,
        procedure: &Procedure,
        arguments: &[Value],
        home: Home,
        context: &StatementContext,
        sequences: &mut dyn FnMut(SequenceId) -> Option<i64>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<Called, Failed> {
        let execution = Execution::new(procedure, arguments, *context);
        let mut execution = execution.map_err(|error| Failed { observed: 0, error })?;
        self.call_by(&mut execution, procedure, home, context, sequences, sink)
    }

    /// Runs a partitioned procedure, which must be valid, by a machine that was made for the call; the rows that it returns
    /// go to `sink`, one at a time. Rows given before an error don't count. `sequences` gives the next value of a sequence;
    /// None: there is none at hand, and the call fails with `NoValueAtHand`.
    pub fn call_by(
        &self,
        machine: &mut dyn Machine,
        procedure: &Procedure,
        home: Home,
        context: &StatementContext,
        sequences: &mut dyn FnMut(SequenceId) -> Option<i64>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<Called, Failed> {
        let mut call = Call {
            partition: self,
            procedure,
            home,
            context,
            observed: 0,
            writes: Writes::default(),
            last: None,
            bytes: 0,
        };
        match call.run(machine, sequences, sink) {
            Ok((affected, notices)) => Ok(Called {
                outcome: Outcome {
                    observed: call.observed,
                    affected,
                    effects: call.into_effects(),
                },
                notices,
            }),
            Err(error) => Err(Failed {
                observed: call.observed,
                error,
            }),
        }
    }
}

impl Call<'_> {
    fn run(
        &mut self,
        machine: &mut dyn Machine,
        sequences: &mut dyn FnMut(SequenceId) -> Option<i64>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<(u64, Vec<Notice>), StatementError> {
        let mut kept = Collector::default();
        let mut next_value = |sequence| sequences(sequence).ok_or(StatementError::NoValueAtHand { sequence });
        loop {
            match machine.advance()? {
                Next::Value { sequence, slot } => machine.put(slot, next_value(sequence)?)?,
                Next::Execute { statement, rows } => {
                    let called = self.procedure.statements.get(statement);
                    for &(sequence, slot) in called.map_or(&[][..], |one| &one.sequences) {
                        machine.put(slot, next_value(sequence)?)?;
                    }
                    let affected = self.execute(statement, machine.frame(), rows, &mut kept, sink)?;
                    machine.executed(affected, &mut kept)?;
                }
                Next::Pause => {}
                Next::Row => machine.give_row(sink)?,
                Next::Done => return Ok((machine.returned(), machine.take_notices())),
            }
        }
    }

    fn execute(
        &mut self,
        statement: usize,
        frame: &[Value],
        rows: RowsTaken,
        kept: &mut Collector,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<u64, StatementError> {
        let statement = self.procedure.statements.get(statement);
        let statement = statement.ok_or_else(|| malformed("a statement is out of range"))?;
        self.check_home(statement, frame)?;
        match rows {
            RowsTaken::Caller => self.run_program(statement, frame, sink),
            RowsTaken::Kept(limit) => {
                kept.begin(limit);
                let affected = self.run_program(statement, frame, &mut |row| kept.row(row))?;
                kept.check(self.procedure)?;
                Ok(affected)
            }
        }
    }

    fn run_program(
        &mut self,
        statement: &Statement,
        frame: &[Value],
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> Result<u64, StatementError> {
        let program = statement.program.as_ref();
        let program = program.ok_or_else(|| malformed("a statement has no program"))?;
        if let Some(last) = self.last.take() {
            self.writes
                .add_checked(&last)
                .map_err(|_| malformed("a table cleared in a procedure"))?;
        }
        self.partition.check_view(program.table, Lsn::MAX)?;
        let table = self.partition.tables.get(&program.table);
        let derived = self.partition.view_under(program.table, &self.writes, Lsn::MAX);
        let (result, observed) = match derived.as_ref().or_else(|| self.writes.table(program.table)) {
            None => {
                let mut run = Run::new(program, Newest(table), frame, self.context);
                (run.perform(sink), run.observed())
            }
            writes => {
                let mut run = Run::new(program, Serial { table, writes }, frame, self.context);
                (run.perform(sink), run.observed())
            }
        };
        self.observed = self.observed.max(observed);
        let (affected, effects) = result?;
        self.bytes += effects.as_ref().map_or(0, Effects::size);
        if self.bytes > MAX_EFFECTS_BYTES {
            return Err(StatementError::TooManyEffects);
        }
        self.last = effects;
        Ok(affected)
    }

    /// A row that the statement names by its partition key must lie here.
    fn check_home(&self, statement: &Statement, frame: &[Value]) -> Result<(), StatementError> {
        let Some(by) = &self.procedure.partition_by else {
            return Err(malformed("it is not partitioned"));
        };
        let scope = Scope {
            row: None,
            lsn: 0,
            parameters: frame,
            context: self.context,
        };
        for key in &statement.keys {
            let key = cast_value(key.eval(&scope)?, by.data_type)?;
            if partition_index(key.as_ref(), self.home.count) != self.home.index {
                let table = statement.program.as_ref().map(|program| program.table_name.clone());
                return Err(StatementError::OtherPartition {
                    name: self.procedure.name.clone(),
                    table: table.unwrap_or_default(),
                    key: key.as_ref().to_text(),
                });
            }
        }
        Ok(())
    }

    fn into_effects(mut self) -> Option<Effects> {
        match self.last.take() {
            last if self.writes.is_empty() => last,
            None => Some(self.writes.to_effects_within(self.bytes)),
            Some(last) => {
                // They were made here a moment ago.
                self.writes.add_checked(&last).expect("effects of ours can be read");
                Some(self.writes.to_effects_within(self.bytes))
            }
        }
    }
}

fn malformed(what: &str) -> StatementError {
    StatementError::TypeMismatch(format!("malformed procedure: {what}"))
}

#[cfg(test)]
mod tests;
