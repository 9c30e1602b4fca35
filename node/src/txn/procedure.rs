//! Calls of partitioned procedures: run by the primary of their partition, serially, in one go.

use std::sync::Arc;

use tokio::time::Instant;
use volt_engine::partition::{Called, Home};
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Notice, Procedure};
use volt_engine::value::{Value, ValueRef};
use volt_engine::{PartitionId, ProcedureId};

use super::calls::CallError;
use super::participant::{EncodedRows, Participant, Ran};
use super::request::{Failure, Reply, Request};
use super::serve::HOLD_WAIT;
use super::{Coordinator, Executed, busy, give_rows, lost_write};
use crate::error::SqlError;
use crate::statement::RowSink;

impl Participant {
    /// Runs a call, if this node leads its partition and nobody holds it. What it told comes with it.
    pub(crate) fn call(
        &self,
        partition: PartitionId,
        procedure: &Procedure,
        arguments: &[Value],
        context: &StatementContext,
        sink: &mut dyn FnMut(&[ValueRef<'_>]),
    ) -> (Ran, Vec<Notice>) {
        let Some(home) = self.home(partition) else {
            return (Ran::NotPrimary, Vec::new());
        };
        let mut notices = Vec::new();
        // Whether it will write is not known before it has run.
        let ran = self.run_here(partition, false, |engine| {
            let Called { outcome, notices: told } = engine.call(procedure, arguments, home, context, sink)?;
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
        let deadline = Instant::now() + HOLD_WAIT;
        loop {
            let mut rows = EncodedRows::default();
            let (ran, notices) = self.call(partition, &procedure, arguments, context, &mut |row| rows.push(row));
            let (answer, wait) = match ran {
                Ran::Done { wait, .. } => {
                    let rows = rows.0;
                    (Reply::Called { rows, notices }, wait)
                }
                Ran::Failed { error, wait } => (Reply::Failed(Failure::Sql(error)), wait),
                Ran::NotPrimary => return Reply::Failed(Failure::NotPrimary),
                Ran::Held => match self.turn(partition, deadline).await {
                    Ok(()) => continue,
                    Err(failure) => return Reply::Failed(failure),
                },
            };
            return match self.committed(wait.as_slice()).await {
                Ok(()) => answer,
                Err(failure) => Reply::Failed(failure),
            };
        }
    }
}

impl Coordinator {
    /// Runs a call here and now; see `try_local`.
    pub fn try_call(
        &self,
        partition: PartitionId,
        procedure: &Procedure,
        arguments: &[Value],
        sink: &mut dyn RowSink,
    ) -> Option<Result<(Executed, Vec<Notice>), SqlError>> {
        let (ran, notices) = self
            .participant
            .call(partition, procedure, arguments, &self.context(), &mut |row| {
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
        sink: &mut dyn RowSink,
    ) -> Result<Vec<Notice>, SqlError> {
        let request = Request::Call {
            partition,
            procedure: procedure.id,
            arguments: arguments.to_vec(),
            context: self.context(),
        };
        let mut retry = self.begin()?;
        loop {
            let why = match self.ask_primary(partition, request.clone()).await {
                Ok(Reply::Called { rows, notices }) => {
                    give_rows(&rows, sink)?;
                    return Ok(notices);
                }
                Ok(Reply::Failed(Failure::Sql(error))) => return Err(error),
                Ok(Reply::Failed(Failure::Busy)) => return Err(busy(partition)),
                Err(CallError::Lost) => return Err(lost_write(partition)),
                Ok(Reply::Failed(Failure::NotPrimary | Failure::Wounded)) => "it has no primary that can serve",
                Err(CallError::NotSent) => "its primary can't be reached",
                Ok(other) => return Err(SqlError::internal(format!("unexpected reply {other:?}"))),
            };
            self.pause(&mut retry, &[partition], || format!("partition {partition}: {why}"))
                .await?;
        }
    }
}
