//! Another VoltCluster as a link's other end: it resolves conflicts by itself, and knows what comes twice. So the note of how far a partition
//! is told may be late, and is a statement of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tokio_postgres::{Client, Statement};
use volt_engine::{PartitionId, TableId};

use super::postgres::table_of;
use super::progress::{Progress, not_told};
use super::target::{Mark, NotTold, Piece, Target};
use super::wire::{Told, told_change, told_table};
use crate::metadata::map::ClusterMap;
use crate::peers::remote::Carrier;

const APPLY: &str = "APPLY REPLICATION CHANGES $1";

/// One connection to it.
pub(super) struct Cluster {
    client: Client,
    progress: Progress,
    apply: Statement,
    /// The link's name here.
    link: String,
    origin: u64,
    _carrier: Carrier,
}

impl Cluster {
    pub(super) async fn new(
        (client, carrier): (Client, Carrier),
        progress: Progress,
        link: String,
        origin: u64,
    ) -> Result<Self, NotTold> {
        Ok(Self {
            apply: client.prepare(APPLY).await.map_err(not_told)?,
            client,
            progress,
            link,
            origin,
            _carrier: carrier,
        })
    }

    fn told(&self, map: &ClusterMap, piece: &Piece<'_>) -> Result<Told, NotTold> {
        let mut places: BTreeMap<TableId, u32> = BTreeMap::new();
        let mut told = Told {
            cluster_uuid: self.progress.cluster_uuid.clone(),
            link: self.link.clone(),
            tables: Vec::new(),
            changes: Vec::with_capacity(piece.changes.len()),
        };
        for change in piece.changes {
            let table = table_of(map, change.table)?;
            let place = *places.entry(change.table).or_insert_with(|| {
                told.tables.push(told_table(table));
                told.tables.len() as u32 - 1
            });
            let missing = table.missing();
            told.changes.push(told_change(place, table, &missing, change));
        }
        Ok(told)
    }
}

#[async_trait]
impl Target for Cluster {
    async fn take_over(&self, partition: PartitionId) -> Result<Option<Mark>, NotTold> {
        self.progress.take_over(&self.client, partition).await
    }

    async fn tell(&self, map: &ClusterMap, piece: Piece<'_>) -> Result<u64, NotTold> {
        let mut conflicts = 0;
        if !piece.changes.is_empty() {
            let told = self.told(map, &piece)?.encode();
            let row = self.client.query_one(&self.apply, &[&told]).await.map_err(not_told)?;
            let met: i64 = row.try_get("conflicts").map_err(not_told)?;
            conflicts = met.cast_unsigned();
        }
        if piece.told.is_some() {
            self.progress.note(&self.client, piece.partition, piece.told).await?;
        }
        Ok(conflicts)
    }

    fn origin(&self) -> Option<u64> {
        Some(self.origin)
    }
}
