//! Calls of partitioned procedures: run by the primary of their partition, serially, in one go.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use volt_engine::error::StatementError;
use volt_engine::idempotency::Keyed;
use volt_engine::partition::{Called, Failed, Home};
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Body, Execution, Machine, Notice, Procedure};
use volt_engine::value::{Value, ValueRef};
use volt_engine::{PartitionId, ProcedureId};
use volt_wasm::{Compiled, Modules};

use super::participant::{EncodedRows, Participant, Ran};
use super::request::{Failure, Reply, Request};
use super::{Coordinator, Executed, Repeat, give_rows};
use crate::error::SqlError;
use crate::statement::RowSink;

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

    /// Runs a call, if this node leads its partition and nobody holds it. What it told comes with it.
    pub(crate) fn call(
        &self,
        partition: PartitionId,
        (procedure, runnable): (&Procedure, &Runnable),
        arguments: &[Value],
        context: &StatementContext,
        key: Option<&Keyed>,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> (Ran, Vec<Notice>) {
        let Some(home) = self.home(partition) else {
            return (Ran::NotPrimary, Vec::new());
        };
        let mut notices = Vec::new();
        // Whether it will write is not known before it has run.
        let ran = self.run_here(partition, false, key, sink, |engine, sink| {
            let Called { outcome, notices: told } = match runnable {
                Runnable::Code => engine.call(procedure, arguments, home, context, sink)?,
                Runnable::Module(compiled) => {
                    let call = compiled.start(procedure, arguments, context);
                    let mut call = call.map_err(|error| Failed { observed: 0, error })?;
                    engine.call_by(&mut call, procedure, home, context, sink)?
                }
            };
            notices = told;
            Ok(outcome)
        });
        (ran, notices)
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
        let call = |rows: &mut EncodedRows| {
            self.call(
                partition,
                (&procedure, &runnable),
                arguments,
                context,
                key,
                &mut |row| rows.push(row),
            )
        };
        self.serve_run(partition, call).await
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
        let (ran, notices) = self
            .participant
            .call(partition, called, arguments, &self.context(), None, &mut |row| {
                sink.row(row)
            });
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
