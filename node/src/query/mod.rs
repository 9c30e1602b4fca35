//! From SQL text to rows. DataFusion parses, binds, coerces and optimises every statement once; a plan of
//! transactional shape becomes a row program that runs inside its partition, the rest runs in DataFusion over a snapshot.

mod alter;
mod checks;
mod compile;
mod complexity;
mod conflict;
mod control;
mod copies;
mod ddl;
mod definitions;
mod errors;
mod execute;
#[cfg(feature = "simulation")]
pub(crate) mod fuzzing;
mod hint;
mod index;
mod insert;
mod insert_query;
mod links;
mod literals;
mod memory;
mod mentions;
mod names;
mod now;
mod parameters;
mod planned;
mod prepare;
mod procedure;
mod reading;
mod recover;
mod relations;
mod returning;
mod seek;
mod sequence;
mod standby;
mod syntax;
mod system;
mod tables;
mod transaction;
mod truncate;
mod ttl;
mod types;
mod version;
mod views;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;
use tokio::time::{Instant, timeout_at};
use volt_engine::error::StatementError;
use volt_engine::idempotency::Keyed;
use volt_engine::value::{DataType, Value};

use crate::balancing::spool::SpoolView;
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::metadata::map::ClusterMap;
use crate::statement::{
    CHANGED_RESULT, CommitWait, Completion, Database, Options, Prepared, RowSink, SessionValues, Transaction,
    TransactionModes,
};
use crate::txn::Coordinator;
use planned::{Hinted, Planned};
use tables::VoltTable;
use transaction::SqlTransaction;

/// Plans that are kept; when there are more, all are dropped.
const MAX_PLANS: usize = 4_096;
/// Texts longer than this are planned each time.
const MAX_CACHED_TEXT_BYTES: usize = 16 << 10;

/// A statement is planned so often when columns are dropped before it has run.
const MAX_PLANNED: u32 = 5;
/// Longest wait for the last changes of a table that moves.
const MOVE_WAIT: Duration = Duration::from_secs(10);

/// Planning a text of this length, or more, may take long.
const LONG_TEXT_BYTES: usize = 1 << 10;

type PlanKey = (String, Vec<Option<DataType>>);

/// DataFusion's sessions: without and with versions, each with the version of its catalog. All share the memory for queries.
#[derive(Default)]
struct Sessions {
    runtime: Option<Arc<RuntimeEnv>>,
    made: [Option<(u64, SessionState)>; 2],
}

/// The database, as the gateway sees it.
pub struct SqlEngine {
    coordinator: Arc<Coordinator>,
    metadata: Arc<Metadata>,
    sessions: Mutex<Sessions>,
    /// For look-ups only: their order decides nothing.
    plans: Mutex<(u64, HashMap<PlanKey, Arc<Planned>>)>,
    procedures: Arc<procedure::Statistics>,
    spool: Option<SpoolView>,
}

impl SqlEngine {
    /// Over this node's coordinator; with the spool directory, if it has one.
    pub(crate) fn new(coordinator: Arc<Coordinator>, metadata: Arc<Metadata>, spool: Option<SpoolView>) -> Self {
        Self {
            coordinator,
            metadata,
            sessions: Mutex::default(),
            plans: Mutex::default(),
            procedures: Arc::default(),
            spool,
        }
    }

    /// DataFusion's session for a catalog, whose tables may have their versions as a column: made when the catalog has changed.
    fn session(&self, map: &ClusterMap, has_versions: bool) -> Result<SessionState, SqlError> {
        let mut sessions = self.sessions.lock().expect("no panic under this lock");
        let runtime = match &sessions.runtime {
            Some(runtime) => Arc::clone(runtime),
            None => memory::runtime(memory::QUERY_MEMORY_BYTES).map_err(|error| errors::from_datafusion(error, ""))?,
        };
        sessions.runtime = Some(Arc::clone(&runtime));
        let session = &mut sessions.made[usize::from(has_versions)];
        if let Some((version, state)) = session
            && *version == map.catalog_version
        {
            return Ok(state.clone());
        }
        let state = self.new_session(map, runtime, has_versions)?;
        *session = Some((map.catalog_version, state.clone()));
        Ok(state)
    }

    fn new_session(
        &self,
        map: &ClusterMap,
        runtime: Arc<RuntimeEnv>,
        has_versions: bool,
    ) -> Result<SessionState, SqlError> {
        let context = new_context(runtime);
        let failed = |error| errors::from_datafusion(error, "");
        context.register_udf(sequence::next_value(
            &self.coordinator.participant.sequences,
            &self.metadata,
        ));
        for table in map.tables.values().filter(|table| table.view.is_none()) {
            let provider = Arc::new(VoltTable::of(map, table, has_versions));
            let name = datafusion::common::TableReference::bare(table.name.as_str());
            context.register_table(name, provider).map_err(failed)?;
        }
        let schema = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
        let participant = &self.coordinator.participant;
        let tables = system::system_tables(
            &self.metadata,
            &self.procedures,
            &participant.memory,
            &participant.replicas,
        );
        let expiring = ttl::system_table(&self.metadata, &participant.expiry);
        let spooled = system::spool(self.spool.clone());
        let coordinator = &self.coordinator;
        let told = [system::links, system::conflicts, system::moves].map(|table| table(coordinator));
        for (name, table) in tables.into_iter().chain([expiring, spooled]).chain(told) {
            use datafusion::catalog::SchemaProvider;
            schema.register_table(name.to_owned(), table).map_err(failed)?;
        }
        let catalog = context
            .catalog("volt")
            .ok_or_else(|| SqlError::internal("no catalog"))?;
        catalog.register_schema("system", schema).map_err(failed)?;
        views::register(&context, map)?;
        Ok(now::timeless(&context))
    }

    fn cached(&self, key: &PlanKey, catalog_version: u64) -> Option<Arc<Planned>> {
        let mut plans = self.plans.lock().expect("no panic under this lock");
        if plans.0 != catalog_version {
            *plans = (catalog_version, HashMap::new());
        }
        plans.1.get(key).cloned()
    }

    fn keep(&self, key: PlanKey, planned: &Arc<Planned>) {
        if key.0.len() > MAX_CACHED_TEXT_BYTES || !planned.is_cacheable() {
            return;
        }
        let mut plans = self.plans.lock().expect("no panic under this lock");
        if plans.0 != planned.catalog_version {
            return;
        }
        if plans.1.len() >= MAX_PLANS {
            plans.1.clear();
        }
        plans.1.insert(key, Arc::clone(planned));
    }

    async fn planned(&self, sql: &str, types: &[Option<DataType>]) -> Result<Arc<Planned>, SqlError> {
        let key = (sql.to_owned(), types.to_vec());
        let map = self.metadata.map();
        if let Some(why) = map.restoring() {
            return self.planned_without_tables(sql, types, &map, why).await;
        }
        if let Some(planned) = self.cached(&key, map.catalog_version) {
            return Ok(planned);
        }
        let planned = match self.plan_aside(sql, types, &map).await {
            // Another node may have made it a moment ago: once more with the newest catalog.
            Err(error) if matches!(error.sqlstate.as_str(), "42P01" | "42703" | "42883" | "55000") => {
                self.metadata.refresh().await?;
                let newest = self.metadata.map();
                if newest.catalog_version == map.catalog_version {
                    return Err(error);
                }
                self.plan_aside(sql, types, &newest).await?
            }
            planned => planned?,
        };
        let planned = Arc::new(planned);
        self.keep(key, &planned);
        Ok(planned)
    }
}

impl SqlEngine {
    /// A statement while the database is being restored: it has the cluster's own tables.
    async fn planned_without_tables(
        &self,
        sql: &str,
        types: &[Option<DataType>],
        map: &ClusterMap,
        why: String,
    ) -> Result<Arc<Planned>, SqlError> {
        let bare = ClusterMap {
            catalog_version: map.catalog_version,
            nodes: map.nodes.clone(),
            ..ClusterMap::default()
        };
        let planned = self.plan_aside(sql, types, &bare).await.map_err(|error| {
            let is_missing = matches!(error.sqlstate.as_str(), "42P01" | "42883" | "42704");
            match is_missing {
                true => SqlError::new("57P03", why),
                false => error,
            }
        });
        planned.map(Arc::new)
    }

    /// A statement's plan for today's catalog; None: the one that it has is for that.
    async fn planned_anew(&self, planned: &Planned) -> Result<Option<Arc<Planned>>, SqlError> {
        if planned.catalog_version == self.metadata.map().catalog_version && !planned.is_of_its_moment {
            return Ok(None);
        }
        let types: Vec<Option<DataType>> = planned.parameters().iter().map(|data_type| Some(*data_type)).collect();
        let again = self.planned(&planned.sql, &types).await?;
        if again.columns() != planned.columns() {
            return Err(SqlError::new("0A000", CHANGED_RESULT));
        }
        Ok(Some(again))
    }

    /// The same statement by a newer catalog than it was refused with.
    async fn planned_later(&self, planned: &Planned, error: SqlError) -> Result<Arc<Planned>, SqlError> {
        self.metadata.refresh().await?;
        if let Some(anew) = self.planned_anew(planned).await? {
            return Ok(anew);
        }
        if !is_moving(&error) {
            return Err(error);
        }
        // It was planned while the table was closed. When that has moved, the catalog changes.
        let mut watch = self.metadata.watch();
        let limit = Instant::now() + MOVE_WAIT;
        let waits_for = |map: &ClusterMap| map.catalog_version == planned.catalog_version;
        while waits_for(&watch.borrow_and_update()) {
            match timeout_at(limit, watch.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(error.hint("system.moves says how far it is. Try again.")),
            }
        }
        self.planned_anew(planned).await?.ok_or(error)
    }

    /// Plans; a long text in a way that leaves this thread's other tasks, heartbeats among them, to another thread.
    async fn plan_aside(&self, sql: &str, types: &[Option<DataType>], map: &ClusterMap) -> Result<Planned, SqlError> {
        let here = Handle::current();
        // A simulation has one thread, and its time stands still meanwhile.
        if sql.len() < LONG_TEXT_BYTES || here.runtime_flavor() != RuntimeFlavor::MultiThread {
            return self.plan(sql, types, map).await;
        }
        block_in_place(|| here.block_on(self.plan(sql, types, map)))
    }
}

/// DataFusion, told to read SQL as PostgreSQL does; without tables.
fn new_context(runtime: Arc<RuntimeEnv>) -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("volt", "public")
        .with_information_schema(true)
        .with_target_partitions(1);
    config.options_mut().sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    // 0.5 is a NUMERIC, and so is its sum with one.
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.add_analyzer_rule(Arc::new(literals::TextLiterals));
    context.register_udf(now::now());
    // A row program has no place for what is computed once; queries get the rule when they run.
    context.remove_optimizer_rule(CommonSubexprEliminate::new().name());
    context
}

/// The statement has done nothing: its partition has heard of a column's drop, or a table's move, of which its plan knows nothing.
fn is_planned_too_early(error: &SqlError) -> bool {
    let is = |other: StatementError| error.sqlstate == other.sqlstate() && error.message == other.to_string();
    is(StatementError::ColumnDropped) || is_moving(error)
}

/// The same, and the table may be on its way still.
fn is_moving(error: &SqlError) -> bool {
    error.sqlstate == StatementError::TableMoved.sqlstate() && error.message == StatementError::TableMoved.to_string()
}

/// The plan behind a statement.
fn planned_of(prepared: &dyn Prepared) -> Result<&Planned, SqlError> {
    let any = prepared.as_any();
    let planned = any
        .downcast_ref::<Planned>()
        .or_else(|| any.downcast_ref::<Hinted>().map(|hinted| &*hinted.planned));
    planned.ok_or_else(|| SqlError::internal("a statement that was prepared elsewhere"))
}

#[async_trait]
impl Database for SqlEngine {
    fn split(&self, sql: &str) -> Result<Vec<(String, u32)>, SqlError> {
        syntax::split(sql)
    }

    async fn prepare(&self, sql: &str, types: &[Option<DataType>]) -> Result<Arc<dyn Prepared>, SqlError> {
        Ok(match hint::take(sql)? {
            None => self.planned(sql, types).await?,
            Some((rest, key)) => Arc::new(Hinted {
                planned: self.planned(&rest, types).await?,
                key,
            }),
        })
    }

    fn try_execute(
        &self,
        prepared: &dyn Prepared,
        parameters: &[Value],
        session: &SessionValues,
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>> {
        let planned = prepared.as_any().downcast_ref::<Planned>()?;
        self.try_here(planned, parameters, session, sink)
    }

    async fn execute(
        &self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        options: Options,
        session: Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let planned = planned_of(&*prepared)?;
        let keyed = |key| Keyed::statement(key, hint::bare(&planned.sql), &parameters);
        let key = options.idempotency_key.map(keyed);
        let mut anew = self.planned_anew(planned).await?;
        for _ in 1..MAX_PLANNED {
            let newest = anew.as_deref().unwrap_or(planned);
            match self.run(newest, &parameters, key.clone(), &session, sink).await {
                Err(error) if is_planned_too_early(&error) => anew = Some(self.planned_later(newest, error).await?),
                done => return self.known_to_all(newest, done).await,
            }
        }
        let newest = anew.as_deref().unwrap_or(planned);
        let done = self.run(newest, &parameters, key, &session, sink).await;
        self.known_to_all(newest, done).await
    }

    fn begin(self: Arc<Self>, modes: TransactionModes, session: Arc<SessionValues>) -> Box<dyn Transaction> {
        let modes = self.modes_here(modes);
        Box::new(SqlTransaction::begin(self, modes, session))
    }

    async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)> {
        self.coordinator.wait_committed(waits).await
    }

    fn refuses_sessions(&self) -> Option<SqlError> {
        let has_lost = self.metadata.lease().is_given_up();
        has_lost.then(|| self.coordinator.unavailable(String::new()))
    }
}
