//! Our tables as DataFusion sees them: a scan reads every partition at the query's snapshot.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr as DfExpr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use volt_engine::PartitionId;
use volt_engine::catalog::Table;
use volt_engine::partition::VERSION_COLUMN;
use volt_engine::plan::Access;
use volt_engine::value::{DataType, Value};

use super::compile::program_of;
use super::types::{schema_of, to_arrow, to_batch};
use super::version::VERSION;
use crate::metadata::Metadata;
use crate::metadata::map::ClusterMap;
use crate::txn::{AllWrites, Coordinator, Snapshot, Wanted};

/// What a query reads: put into its session's configuration.
pub(super) struct Reading {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) snapshot: Arc<Snapshot>,
    /// What the transaction of the query has written itself.
    pub(super) writes: Arc<AllWrites>,
}

/// One of our tables.
#[derive(Debug)]
pub(super) struct VoltTable {
    pub(super) table: Arc<Table>,
    pub(super) partitions: Vec<PartitionId>,
    /// How the rows that are wanted are found; None: all are.
    access: Option<Access>,
    schema: SchemaRef,
    /// The place in a row of each column of the schema that is the table's.
    places: Vec<usize>,
    defaults: Vec<Option<DfExpr>>,
}

impl VoltTable {
    /// With its rows' versions as its last column, or without; a column of its own that is called so comes first.
    pub(super) fn new(table: Arc<Table>, partitions: Vec<PartitionId>, has_versions: bool) -> Self {
        let mut schema = schema_of(table.present_columns().map(|(_, column)| column));
        // Each partition has a version of its own of a replicated table's row.
        if has_versions && !table.is_replicated() && schema.column_with_name(VERSION).is_none() {
            let version = Field::new(VERSION, to_arrow(DataType::BigInt), true);
            let fields = schema.fields().iter().cloned().chain([Arc::new(version)]);
            schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        }
        let default = |column: &volt_engine::catalog::Column| {
            column
                .default
                .as_ref()
                .and_then(|default| super::prepare::default_expr(default, column.data_type))
        };
        let defaults = table.columns.iter().map(default).collect();
        let places = table.present_columns().map(|(place, _)| place).collect();
        Self {
            table,
            partitions,
            access: None,
            schema,
            places,
            defaults,
        }
    }

    /// With the partitions that the map says it has.
    pub(super) fn of(map: &ClusterMap, table: &Arc<Table>, has_versions: bool) -> Self {
        Self::new(Arc::clone(table), map.partitions_read(table), has_versions)
    }

    /// The same for a scan that wants the rows of some partitions that are found so.
    pub(super) fn narrowed(&self, partitions: Vec<PartitionId>, access: Option<Access>) -> Self {
        Self {
            table: Arc::clone(&self.table),
            partitions,
            access,
            schema: Arc::clone(&self.schema),
            places: self.places.clone(),
            defaults: self.defaults.clone(),
        }
    }
}

#[async_trait]
impl TableProvider for VoltTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&DfExpr> {
        let place = self.table.place_of(column)?;
        self.defaults[place].as_ref()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[DfExpr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(reading) = state.config().get_extension::<Reading>() else {
            return Err(DataFusionError::Internal("a scan without a snapshot".to_owned()));
        };
        let project: Vec<usize> = projection
            .cloned()
            .unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema: SchemaRef = Arc::new(self.schema.project(&project)?);
        // Behind the table's columns there may be the version.
        let place = |column: usize| self.places.get(column).copied().unwrap_or(VERSION_COLUMN);
        let project: Vec<usize> = project.into_iter().map(place).collect();
        let program = self.access.as_ref().map(|access| {
            let program = program_of(&self.table, access.clone(), &project);
            Arc::new(program)
        });
        let stream = |partition: &PartitionId| {
            let part = ScanPart {
                reading: Arc::clone(&reading),
                wanted: Wanted {
                    partition: *partition,
                    table: self.table.id,
                    project: project.clone(),
                    missing: self.table.missing(),
                    version_base: self.table.version_base,
                    dropped_columns: self.table.dropped_columns(),
                    program: program.clone(),
                },
                schema: Arc::clone(&schema),
            };
            Arc::new(part) as Arc<dyn PartitionStream>
        };
        let parts = self.partitions.iter().map(stream).collect();
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            parts,
            None,
            Vec::new(),
            false,
            limit,
        )?))
    }
}

/// A table's rows in one partition.
struct ScanPart {
    reading: Arc<Reading>,
    wanted: Wanted,
    schema: SchemaRef,
}

impl std::fmt::Debug for ScanPart {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "table {} in partition {}",
            self.wanted.table, self.wanted.partition
        )
    }
}

impl PartitionStream for ScanPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Reading {
            coordinator,
            snapshot,
            writes,
        } = &*self.reading;
        let schema = Arc::clone(&self.schema);
        let chunks = coordinator.scan(snapshot, self.wanted.clone(), Arc::clone(writes));
        let batches = chunks.map(move |chunk| {
            let batch = chunk.and_then(|rows| to_batch(&schema, &rows));
            batch.map_err(|error| DataFusionError::External(Box::new(error)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// A system table: made anew for every query.
pub(super) struct SystemTable {
    pub(super) schema: SchemaRef,
    pub(super) rows: Arc<SystemRows>,
}

/// Makes the rows; it may ask other nodes.
pub(super) type SystemRows = dyn Fn() -> BoxFuture<'static, Vec<Vec<Value>>> + Send + Sync;

/// Of what this node knows by itself.
pub(super) fn at_once(rows: impl Fn() -> Vec<Vec<Value>> + Send + Sync + 'static) -> Arc<SystemRows> {
    Arc::new(move || std::future::ready(rows()).boxed())
}

/// Rows of the newest map, also when another node changed it a moment ago.
pub(super) fn of_map(
    metadata: &Arc<Metadata>,
    rows: impl Fn(&ClusterMap) -> Vec<Vec<Value>> + Clone + Send + Sync + 'static,
) -> Arc<SystemRows> {
    let metadata = Arc::clone(metadata);
    Arc::new(move || {
        let (metadata, rows) = (Arc::clone(&metadata), rows.clone());
        async move {
            metadata.catch_up_with_leader().await;
            rows(&metadata.map())
        }
        .boxed()
    })
}

impl std::fmt::Debug for SystemTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "system table of {} columns", self.schema.fields().len())
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[DfExpr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = (self.rows)().await;
        let columns: Result<Vec<_>> = self
            .schema
            .fields()
            .iter()
            .enumerate()
            .map(|(place, field)| {
                let values = rows.iter().map(|row| row[place].as_ref());
                super::types::array(field.data_type(), values)
                    .map_err(|error| DataFusionError::External(Box::new(error)))
            })
            .collect();
        let batch = datafusion::arrow::record_batch::RecordBatch::try_new(Arc::clone(&self.schema), columns?)?;
        let table = datafusion::datasource::MemTable::try_new(Arc::clone(&self.schema), vec![vec![batch]])?;
        table.scan(state, projection, filters, limit).await
    }
}

/// The schema of a system table.
pub(super) fn system_schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, _)| Field::new(*name, to_arrow(*data_type), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
