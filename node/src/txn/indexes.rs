//! Building an index is every partition's own affair; whoever makes one waits here until all are through.

use std::time::Duration;

use tokio::time::Instant;
use volt_engine::partition::Duplicates;
use volt_engine::{IndexId, PartitionId, TableId};

use super::Coordinator;
use super::participant::Participant;
use super::request::{Failure, IndexProgress, IndexRequest, Reply, Request};
use crate::error::SqlError;
use crate::replication::replica::Replica;

/// How long it is waited for a partition that is still building.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Longest wait for an index. One that has not come about by then goes on being built.
const MAX_BUILD_WAIT: Duration = Duration::from_secs(3_600);
/// Entries that are looked through at a time: nobody else can use the partition meanwhile, about two milliseconds.
const ENTRIES_AT_A_TIME: usize = 4_096;

impl Participant {
    pub(super) fn serve_index(&self, request: &IndexRequest) -> Reply {
        let looked = self.replicas.with(request.partition, |replica| {
            if replica.reign().is_none_or(|reign| reign.relinquishing) || !self.lease_is_valid() {
                return None;
            }
            Some(progress(replica, request))
        });
        match looked.flatten() {
            Some(progress) => Reply::Index(progress),
            None => Reply::Failed(Failure::NotPrimary),
        }
    }
}

fn progress(replica: &Replica, request: &IndexRequest) -> IndexProgress {
    let (table, index) = (request.table, request.index);
    let is_built = match index {
        Some(index) => replica.engine.has_built(table, index),
        None => replica.engine.has_built_view(table),
    };
    if replica.catalog_version < request.catalog_version || !is_built {
        return IndexProgress::NotYet;
    }
    let (Some(after), Some(index)) = (&request.duplicates, index) else {
        return IndexProgress::Done;
    };
    // A transaction that holds it may have looked before new rows were held to the index.
    if replica.hold.holder().is_some() {
        return IndexProgress::NotYet;
    }
    match replica
        .engine
        .find_duplicate(table, index, Some(after), ENTRIES_AT_A_TIME)
    {
        Ok(Duplicates::None) => IndexProgress::Done,
        Ok(Duplicates::After(values)) => IndexProgress::After(values),
        Ok(Duplicates::Found(values)) => IndexProgress::Duplicate(values),
        Err(_) => IndexProgress::NotYet,
    }
}

impl Coordinator {
    /// Waits until the primaries of these partitions, having heard of this catalog, have all rows in an index, or have made
    /// all of a materialized view's (`index` is None); if
    /// `looks` is set, also until they have looked for two rows with the same values: those, if there are any.
    pub async fn await_index(
        &self,
        partitions: &[PartitionId],
        (table, index): (TableId, Option<IndexId>),
        catalog_version: u64,
        looks: bool,
    ) -> Result<Option<Vec<String>>, SqlError> {
        let deadline = Instant::now() + MAX_BUILD_WAIT;
        for &partition in partitions {
            let mut after = looks.then(Vec::new);
            let mut retry = self.begin()?;
            loop {
                let request = Request::Index(IndexRequest {
                    partition,
                    table,
                    index,
                    catalog_version,
                    duplicates: after.clone(),
                });
                match self.ask_primary(partition, request).await {
                    Ok(Reply::Index(IndexProgress::Done)) => break,
                    Ok(Reply::Index(IndexProgress::Duplicate(values))) => return Ok(Some(values)),
                    Ok(Reply::Index(IndexProgress::After(values))) => after = Some(values),
                    Ok(Reply::Index(IndexProgress::NotYet)) if Instant::now() < deadline => {
                        retry = self.begin()?;
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                    Ok(Reply::Failed(Failure::Sql(error))) => return Err(error),
                    _ => {
                        self.pause(&mut retry, [&partition], || {
                            format!("partition {partition}: its primary can't be asked whether an index is built")
                        })
                        .await
                        .map_err(|error| {
                            match self.map().partitions.contains_key(&partition) {
                                true => error,
                                // A table does not move while that goes on.
                                false => SqlError::new("42P01", "the table was dropped while this statement ran"),
                            }
                        })?;
                    }
                }
            }
        }
        Ok(None)
    }
}
