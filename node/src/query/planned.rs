//! A planned statement: what the gateway is told of it, and how it runs.

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use volt_engine::catalog::Table;
use volt_engine::idempotency::IdempotencyKey;
use volt_engine::plan::{Expr, Program};
use volt_engine::value::DataType;
use volt_engine::{NodeId, PartitionId, TableId};

use super::alter::AlterPlan;
use super::compile::Route;
use super::copies::CopiesPlan;
use super::index::IndexPlan;
use super::insert_query::InsertQuery;
use super::links::LinkPlan;
use super::procedure::{CallPlan, ProcedurePlan};
use super::recover::RecoverNode;
use super::sequence::{Call, SequencePlan};
use super::ttl::TtlPlan;
use super::views::ViewPlan;
use crate::error::SqlError;
use crate::metadata::command::NewTable;
use crate::metadata::map::ReplicationMode;
use crate::statement::{Control, Prepared, ResultColumn};

/// A statement with its plan.
pub(super) struct Planned {
    pub(super) sql: String,
    /// The catalog that it was planned with.
    pub(super) catalog_version: u64,
    /// Of all parameters: the client's, then those of `calls`.
    pub(super) types: Vec<DataType>,
    /// Of sequences, each a parameter behind the client's.
    pub(super) calls: Vec<Call>,
    /// A query that calls `nextval` for each row.
    pub(super) has_function: bool,
    pub(super) columns: Vec<ResultColumn>,
    /// The time of planning is in it: it is planned anew for every execution.
    pub(super) is_of_its_moment: bool,
    pub(super) plan: Plan,
}

/// How a statement runs.
pub(super) enum Plan {
    /// Nothing to do.
    Empty,
    /// A row program.
    Program(ProgramPlan),
    /// A query, by DataFusion over a snapshot of these tables' partitions.
    Query {
        plan: Box<LogicalPlan>,
        session: Box<SessionState>,
        tables: Vec<(TableId, Vec<PartitionId>)>,
    },
    /// An INSERT of a query's rows.
    InsertQuery(InsertQuery),
    /// A query without tables: its one row.
    Constants(Vec<Expr>),
    /// CALL.
    Call(CallPlan),
    /// CREATE, ALTER and DROP SEQUENCE, and setval.
    Sequence(SequencePlan),
    /// CREATE, ALTER and DROP PROCEDURE.
    Procedure(ProcedurePlan),
    /// CREATE TABLE.
    CreateTable {
        table: NewTable,
        /// Backups, and when a write is acknowledged.
        copies: (u32, ReplicationMode),
        if_not_exists: bool,
    },
    /// ALTER TABLE.
    AlterTable(AlterPlan),
    /// ALTER TABLE ... SET (replication, mode).
    Copies(CopiesPlan),
    /// ALTER TABLE ... USING TTL, and DROP TTL.
    Ttl(TtlPlan),
    /// DROP TABLE.
    DropTable { names: Vec<String>, if_exists: bool },
    /// CREATE INDEX and DROP INDEX.
    Index(IndexPlan),
    /// CREATE VIEW and DROP VIEW, materialized or not.
    View(ViewPlan),
    /// TRUNCATE.
    Truncate { names: Vec<String>, restarts: bool },
    /// CREATE, ALTER and DROP REPLICATION LINK.
    Link(LinkPlan),
    /// APPLY REPLICATION CHANGES.
    ApplyChanges,
    /// RECOVER NODE.
    RecoverNode(RecoverNode),
    /// DRAIN NODE.
    DrainNode(NodeId),
    /// PROMOTE.
    Promote { is_immediate: bool },
    /// SET and RESET: nothing here depends on them.
    Set,
    /// SHOW: its one row.
    Show(String),
    /// EXPLAIN of a row program: its rows. Of a query, EXPLAIN is one itself.
    Explain(Vec<String>),
    /// Something to the session's transaction.
    Control(Control),
}

/// A query's plan, its session, and the tables that it reads with their partitions.
pub(super) type QueryPlan<'a> = (&'a LogicalPlan, &'a SessionState, &'a [(TableId, Vec<PartitionId>)]);

/// A row program and where it runs.
pub(super) struct ProgramPlan {
    pub(super) program: Arc<Program>,
    pub(super) route: Route,
    pub(super) table: Arc<Table>,
    /// The table's partitions, by index.
    pub(super) partitions: Vec<PartitionId>,
    /// The command tag's words.
    pub(super) tag: &'static str,
    /// The same as a query (`Plan::Query`), for when there is more to look at than a program may.
    pub(super) otherwise: Option<Box<Plan>>,
}

impl Prepared for Planned {
    fn parameters(&self) -> &[DataType] {
        &self.types[..self.types.len() - self.calls.len()]
    }

    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }

    fn returns_rows(&self) -> bool {
        match &self.plan {
            Plan::Query { .. }
            | Plan::Constants(_)
            | Plan::Show(_)
            | Plan::Explain(_)
            | Plan::ApplyChanges
            | Plan::RecoverNode(_)
            | Plan::DrainNode(_) => true,
            Plan::Control(control) => matches!(control, Control::Show(_) | Control::ShowReading(_)),
            Plan::Program(plan) => plan.program.is_read_only() || plan.program.returning.is_some(),
            Plan::InsertQuery(insert) => insert.target.program.returning.is_some(),
            Plan::Call(call) => call.returns_rows(),
            Plan::Sequence(plan) => matches!(plan, SequencePlan::SetValue { .. }),
            _ => false,
        }
    }

    fn control(&self) -> Option<&Control> {
        match &self.plan {
            Plan::Control(control) => Some(control),
            _ => None,
        }
    }

    fn writes(&self) -> bool {
        match &self.plan {
            Plan::Program(plan) => !plan.program.is_read_only(),
            // Whether it does is not known before.
            Plan::Call(_) => true,
            Plan::ApplyChanges => true,
            Plan::Truncate { .. } | Plan::InsertQuery(_) => true,
            _ => false,
        }
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// A statement with a hint.
pub(super) struct Hinted {
    pub(super) planned: Arc<Planned>,
    pub(super) key: IdempotencyKey,
}

impl Prepared for Hinted {
    fn parameters(&self) -> &[DataType] {
        self.planned.parameters()
    }

    fn columns(&self) -> &[ResultColumn] {
        self.planned.columns()
    }

    fn returns_rows(&self) -> bool {
        self.planned.returns_rows()
    }

    fn control(&self) -> Option<&Control> {
        self.planned.control()
    }

    fn writes(&self) -> bool {
        self.planned.writes()
    }

    fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        Some(&self.key)
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Planned {
    /// A row program that changes nothing, nor takes a value of a sequence.
    pub(super) fn only_reads(&self) -> bool {
        matches!(&self.plan, Plan::Program(plan) if plan.program.is_read_only()) && !self.takes_values()
    }

    /// The types of all parameters, those of calls among them.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The calls of sequences, and their types as parameters.
    pub(super) fn calls(&self) -> (&[Call], &[DataType]) {
        (&self.calls, &self.types[self.types.len() - self.calls.len()..])
    }

    /// It takes values of sequences, so that it doesn't go the same way each time.
    pub(super) fn takes_values(&self) -> bool {
        self.has_function || self.calls.iter().any(|call| matches!(call, Call::Next(_)))
    }

    /// It takes away a name that other nodes plan with, or makes it mean something else. (A name that is new to them they look up.)
    pub(super) fn redefines(&self) -> bool {
        match &self.plan {
            Plan::DropTable { .. } | Plan::AlterTable(_) => true,
            Plan::View(plan) => matches!(plan, ViewPlan::Create { replace: true, .. } | ViewPlan::Drop { .. }),
            Plan::Procedure(plan) => !matches!(plan, ProcedurePlan::Create { replace: false, .. }),
            Plan::Sequence(plan) => matches!(plan, SequencePlan::Drop { .. }),
            _ => false,
        }
    }

    /// What DataFusion runs, if this fails with `error`: there was more to look at than a program may.
    pub(super) fn is_query_after(&self, error: &SqlError) -> bool {
        matches!(&self.plan, Plan::Program(plan) if plan.otherwise.is_some()) && error.sqlstate == "54000"
    }

    /// This as a query: what DataFusion runs, and over which tables.
    pub(super) fn as_query(&self) -> Option<QueryPlan<'_>> {
        let query = match &self.plan {
            Plan::Program(plan) => plan.otherwise.as_deref()?,
            Plan::InsertQuery(insert) => &insert.query,
            other => other,
        };
        match query {
            Plan::Query { plan, session, tables } => Some((plan, session, tables)),
            _ => None,
        }
    }

    /// Only what will be asked for again with the same text.
    pub(super) fn is_cacheable(&self) -> bool {
        !self.is_of_its_moment
            && matches!(
                self.plan,
                Plan::Program(_) | Plan::Query { .. } | Plan::InsertQuery(_) | Plan::Constants(_) | Plan::Call(_)
            )
    }
}
