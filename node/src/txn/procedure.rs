//! Calls of partitioned procedures: run by the primary of their partition, serially, in one go.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use volt_engine::error::StatementError;
use volt_engine::idempotency::Keyed;
use volt_engine::partition::{Called, Failed, Home};
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Body, Execution, Machine, Notice, Procedure};
use volt_engine::value::{Value, ValueRef};
use volt_engine::{PartitionId, ProcedureId, SequenceId};
use volt_wasm::{Compiled, Modules};

use super::participant::{EncodedRows, Participant, Ran};
use super::request::{Failure, Reply, Request};
use super::sequences::Taken;
use super::{Coordinator, Executed, Repeat, give_rows};
use crate::error::SqlError;
use crate::statement::RowSink;

/// A call that finds no value of a sequence at hand runs again when there are some, so often.
const MAX_WAITS_FOR_VALUES: u32 = 20;

/// What a call has failed for.
pub(crate) struct Missing {
    /// There was no value of it.
    sequence: SequenceId,
    /// Values that it had taken, of all sequences.
    taken: u32,
}

/// What a procedure's calls need, made before a partition is taken.
pub(crate) enum Runnable {
    /// Nothing.
    Code,
    /// The module's code.
    Module(Arc<Compiled>),
}

impl Runnable {
    /// The machine of a call.
    pub(crate) fn start<'p>(
        &self,
        procedure: &'p Procedure,
        arguments: &[Value],
        context: &StatementContext,
    ) -> Result<Box<dyn Machine + Send + 'p>, StatementError> {
        Ok(match self {
            Self::Code => Box::new(Execution::new(procedure, arguments, *context)?),
            Self::Module(compiled) => Box::new(compiled.start(procedure, arguments, context)?),
        })
    }
}

impl Participant {
    /// What the procedure's calls need, if it is there.
    fn runnable_now(&self, procedure: &Procedure) -> Option<Runnable> {
        match &procedure.body {
            Body::Code(_) => Some(Runnable::Code),
            Body::Module(_) => self.modules.get(procedure.id).map(Runnable::Module),
        }
    }

    /// What the procedure's calls need; a module is compiled when it is called for the first time, in a way that leaves this
    /// thread's other tasks to another thread.
    pub(crate) fn runnable(&self, procedure: &Procedure) -> Result<Runnable, SqlError> {
        if let Some(runnable) = self.runnable_now(procedure) {
            return Ok(runnable);
        }
        let compile = || self.modules.compiled(procedure);
        // A simulation has one thread, and its time stands still meanwhile.
        let compiled = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => block_in_place(compile),
            _ => compile(),
        };
        let map = self.replicas.metadata.map();
        self.modules.retain(|procedure| map.procedures.contains_key(&procedure));
        Ok(Runnable::Module(compiled?))
    }

    /// Runs a call, if this node leads its partition and nobody holds it. What it told comes with it, and of which
    /// sequence it found no value at hand: then it has failed, and may be run again when there is one.
    pub(crate) fn call(
        &self,
        partition: PartitionId,
        (procedure, runnable): (&Procedure, &Runnable),
        arguments: &[Value],
        context: &StatementContext,
        key: Option<&Keyed>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> (Ran, Vec<Notice>, Option<Missing>) {
        let Some(home) = self.home(partition) else {
            return (Ran::NotPrimary, Vec::new(), None);
        };
        let (mut notices, mut missing) = (Vec::new(), None);
        let mut values: Vec<(SequenceId, Taken)> = Vec::new();
        let mut next_value = |sequence| {
            let taken = self.sequences.try_take(sequence);
            match taken {
                Some(taken) => values.push((sequence, taken)),
                None => missing = Some(sequence),
            }
            taken.map(|taken| taken.value)
        };
        // Whether it will write is not known before it has run.
        let ran = self.run_here(partition, false, key, sink, |engine, sink| {
            // It names no column that was dropped, whatever the partition has heard of.
            for program in procedure
                .statements
                .iter()
                .filter_map(|statement| statement.program.as_ref())
            {
                engine.hear_of_dropped(program.table, program.dropped_columns(), engine.applied());
            }
            let Called { outcome, notices: told } = match runnable {
                Runnable::Code => engine.call(procedure, arguments, home, context, &mut next_value, sink)?,
                Runnable::Module(compiled) => {
                    let call = compiled.start(procedure, arguments, context);
                    let mut call = call.map_err(|error| Failed { observed: 0, error })?;
                    engine.call_by(&mut call, procedure, home, context, &mut next_value, sink)?
                }
            };
            notices = told;
            Ok(outcome)
        });
        let missing = missing.map(|sequence| {
            let taken = values.len() as u32;
            // In the order in which they will be taken again.
            values
                .drain(..)
                .rev()
                .for_each(|(sequence, taken)| self.sequences.give_back(sequence, taken));
            Missing { sequence, taken }
        });
        (ran, notices, missing)
    }

    fn home(&self, partition: PartitionId) -> Option<Home> {
        let map = self.replicas.metadata.map();
        let info = map.partitions.get(&partition)?;
        let group = map.groups.get(&info.group)?;
        Some(Home {
            index: info.index,
            count: group.partitions.len() as u32,
        })
    }

    /// Tries until nobody holds the partition, and answers when what was done is committed.
    pub(super) async fn serve_call(
        &self,
        partition: PartitionId,
        procedure: ProcedureId,
        arguments: &[Value],
        context: &StatementContext,
        key: Option<&Keyed>,
    ) -> Reply {
        let map = self.replicas.metadata.map();
        let Some(procedure) = map.procedures.get(&procedure).cloned() else {
            return Reply::Failed(if procedure < map.next_procedure {
                Failure::Sql(SqlError::new(
                    "42883",
                    "the procedure was dropped or replaced meanwhile",
                ))
            } else {
                // This node hasn't heard of it yet.
                Failure::NotPrimary
            });
        };
        if procedure.partition_by.is_none() {
            return Reply::Failed(Failure::Sql(SqlError::internal(
                "a call of a procedure without a partition",
            )));
        }
        let runnable = match self.runnable(&procedure) {
            Ok(runnable) => runnable,
            Err(error) => return Reply::Failed(Failure::Sql(error)),
        };
        let missing = Mutex::new(None);
        let call = |rows: &mut EncodedRows| {
            let mut sink = |row: &[ValueRef<'_>]| rows.push(row);
            let (ran, notices, without) =
                self.call(partition, (&procedure, &runnable), arguments, context, key, &mut sink);
            *missing.lock().unwrap_or_else(PoisonError::into_inner) = without;
            (ran, notices)
        };
        for _ in 0..MAX_WAITS_FOR_VALUES {
            let reply = self.serve_run(partition, call).await;
            let without = missing.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(Missing { sequence, taken }) = without else {
                return reply;
            };
            // Nothing was done: it runs again when there are twice as many values as it has taken so far.
            if let Err(error) = self.sequences.fetch(sequence, taken + 1).await {
                return Reply::Failed(Failure::Sql(error));
            }
        }
        Reply::Failed(Failure::Sql(SqlError::unavailable(
            "the procedure takes more values of sequences than are at hand",
        )))
    }
}

impl Coordinator {
    /// The modules of this node's procedures.
    pub(crate) fn modules(&self) -> &Modules {
        &self.participant.modules
    }

    /// As the participant's.
    pub(crate) fn runnable(&self, procedure: &Procedure) -> Result<Runnable, SqlError> {
        self.participant.runnable(procedure)
    }

    /// Runs a call here and now; see `try_local`. None also of a module that is to be compiled first.
    pub fn try_call(
        &self,
        partition: PartitionId,
        procedure: &Procedure,
        arguments: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<(Executed, Vec<Notice>), SqlError>> {
        let runnable = self.participant.runnable_now(procedure)?;
        let called = (procedure, &runnable);
        let (ran, notices, missing) =
            self.participant
                .call(partition, called, arguments, &self.context(), None, &mut |row| {
                    sink.row(row)
                });
        if missing.is_some() {
            return None;
        }
        match ran {
            Ran::Done { affected, wait } => Some(Ok((Executed { affected, wait }, notices))),
            Ran::Failed { error, wait: None } => Some(Err(error)),
            Ran::Failed { .. } | Ran::NotPrimary | Ran::Held => None,
        }
    }

    /// Runs a call wherever its partition's primary is, and returns when it is committed. Tries again while nothing can
    /// have been done.
    pub async fn call(
        &self,
        partition: PartitionId,
        procedure: &Arc<Procedure>,
        arguments: &[Value],
        key: Option<Keyed>,
        sink: &mut dyn RowSink,
    ) -> Result<Vec<Notice>, SqlError> {
        // Whether it writes is not known before.
        let repeat = Repeat::of(false, key.is_some());
        let request = Request::Call {
            partition,
            procedure: procedure.id,
            arguments: arguments.to_vec(),
            context: self.context(),
            key,
        };
        let ran = self.run_at_primary(partition, request, repeat).await?;
        give_rows(&ran.rows, sink)?;
        Ok(ran.notices)
    }
}
