//! What a query that is a transaction of its own reads: a cut of what primaries hold, or backups, because its session says so
//! (`volt.read_from`).

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::PartitionId;
use volt_engine::value::Value;

use super::SqlEngine;
use super::planned::{Planned, ProgramPlan};
use super::tables::Reading;
use crate::error::SqlError;
use crate::statement::{ReadSettings, RowSink, SessionValues};

impl SqlEngine {
    /// Runs a program of one partition at a backup: how many rows it returned. None: primaries are to run it, because the session says
    /// so, or because no backup can be read.
    pub(super) async fn read_backup(
        &self,
        plan: &ProgramPlan,
        parameters: &[Value],
        session: &SessionValues,
        sink: &mut dyn RowSink,
    ) -> Result<Option<u64>, SqlError> {
        let Some(settings) = self.reads_of_backups(session) else {
            return Ok(None);
        };
        session.reads.note_staleness(0);
        let parts = self.parts(plan, parameters)?;
        let [(partition, program)] = &parts[..] else {
            return Ok(None);
        };
        let read = self
            .coordinator
            .read_backup(*partition, program, parameters, &settings, sink)
            .await?;
        Ok(read.map(|(rows, staleness_ms)| {
            session.reads.note_staleness(staleness_ms);
            rows
        }))
    }

    /// A snapshot for a query that is a transaction of its own.
    pub(super) async fn reading(&self, planned: &Planned) -> Result<Option<Reading>, SqlError> {
        let partitions = partitions_of(planned);
        if partitions.is_empty() {
            return Ok(None);
        }
        Ok(Some(Reading {
            coordinator: Arc::clone(&self.coordinator),
            snapshot: self.coordinator.snapshot(&partitions).await?,
            writes: Arc::default(),
        }))
    }

    /// What backups hold, for a query of DataFusion.
    pub(super) async fn reading_backups(
        &self,
        planned: &Planned,
        settings: &ReadSettings,
        session: &SessionValues,
    ) -> Result<Option<Reading>, SqlError> {
        let partitions = partitions_of(planned);
        if partitions.is_empty() {
            return Ok(None);
        }
        let (snapshot, staleness_ms) = self.coordinator.backup_snapshot(&partitions, settings).await?;
        session.reads.note_staleness(staleness_ms);
        Ok(Some(Reading {
            coordinator: Arc::clone(&self.coordinator),
            snapshot,
            writes: Arc::default(),
        }))
    }
}

/// The partitions that a query reads.
fn partitions_of(planned: &Planned) -> Vec<PartitionId> {
    let tables = planned.as_query().map_or(&[][..], |(_, _, tables)| tables);
    let partitions: BTreeSet<PartitionId> = tables.iter().flat_map(|(_, partitions)| partitions).copied().collect();
    partitions.into_iter().collect()
}
