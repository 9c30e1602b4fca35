//! The two executors as each other's oracle: statements over random rows of one table, the same optimised plan run by
//! DataFusion and as a row program. They must give the same rows, or errors with the same SQLSTATE.

use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use volt_engine::catalog::{Column, Index, IndexColumn, IndexShape, IndexState, Table};
use volt_engine::effects::LogPayload;
use volt_engine::partition::Partition;
use volt_engine::plan::{Access, Action, Program, StatementContext};
use volt_engine::row::encode_row;
use volt_engine::value::{DataType, Value, ValueRef};

mod statements;

use super::{Route, compile};
use crate::error::SqlError;
use crate::query::errors::from_datafusion;
use crate::query::types::{give_batch, schema_of, to_batch, to_scalar};
use crate::query::{memory, new_context};
use crate::statement::RowSink;
use statements::{rows, statement};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };

type Rows = Vec<Vec<Value>>;
type Answer = Result<Rows, String>;

#[derive(Default)]
struct Collected(Rows);

impl RowSink for Collected {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        self.0.push(values.iter().map(|value| value.to_value()).collect());
    }
}

/// p is the partition column, and not the first of the key.
fn table() -> Arc<Table> {
    let column = |name: &str, data_type, nullable| Column {
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    let columns = vec![
        column("g", DataType::Text, false),
        column("p", DataType::Int, false),
        column("k", DataType::BigInt, false),
        column("n", DataType::Int, true),
        column("d", DataType::Numeric { precision: 8, scale: 2 }, true),
        column("x", DataType::Text, true),
        column("f", DataType::Double, true),
        column("b", DataType::Boolean, true),
    ];
    Arc::new(Table {
        id: 1,
        name: "t".to_owned(),
        columns,
        primary_key: vec![0, 1, 2],
        partition_column: Some(1),
        group: 1,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    })
}

/// (p, n DESC), (n, d), (x) where b, and (f).
fn indexes() -> Vec<Index> {
    let of = |id, columns: &[(usize, bool)], predicate| Index {
        name: format!("t_{id}"),
        shape: IndexShape {
            missing: Vec::new(),
            id,
            columns: columns
                .iter()
                .map(|&(place, descending)| IndexColumn { place, descending })
                .collect(),
            predicate,
        },
        unique: false,
        constraint: false,
        view: None,
        state: IndexState::Ready,
        source: String::new(),
    };
    vec![
        of(1, &[(1, false), (3, true)], None),
        of(2, &[(3, false), (4, false)], None),
        of(3, &[(5, false)], Some(volt_engine::plan::Expr::Column(7))),
        of(4, &[(6, false)], None),
    ]
}

/// One table, in both.
struct Both {
    table: Arc<Table>,
    context: SessionContext,
    partition: Partition,
}

impl Both {
    fn new(rows: &[Vec<Value>]) -> Self {
        Self::of(table(), rows)
    }

    /// With indexes, which are built.
    fn indexed(rows: &[Vec<Value>]) -> Self {
        let mut table = Table::clone(&table());
        table.indexes = indexes();
        let mut both = Self::of(Arc::new(table), rows);
        both.partition.set_indexes(1, &both.table.indexes);
        assert!(both.partition.build_indexes(1_000));
        both
    }

    fn of(table: Arc<Table>, rows: &[Vec<Value>]) -> Self {
        let mut partition = Partition::new();
        let literals = |row: &Vec<Value>| row.iter().cloned().map(volt_engine::plan::Expr::Literal).collect();
        let insert = super::program(
            &table,
            Action::Insert {
                rows: rows.iter().map(literals).collect(),
            },
        );
        let outcome = partition.run(&insert, &[], &CONTEXT, &mut |_| {}).unwrap();
        if let Some(effects) = outcome.effects {
            partition.apply_record(1, &LogPayload::Write(effects)).unwrap();
        }
        let encoded = |row: &Vec<Value>| encode_row(&row.iter().map(Value::as_ref).collect::<Vec<_>>()).into();
        let schema = schema_of(table.columns.iter());
        let batch = to_batch(&schema, &rows.iter().map(encoded).collect::<Vec<_>>()).unwrap();
        let context = new_context(memory::runtime(memory::QUERY_MEMORY_BYTES).unwrap());
        let stored = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
        context.register_table("t", Arc::new(stored)).unwrap();
        Self {
            table,
            context,
            partition,
        }
    }

    /// What a row program gives, and what DataFusion does; the program. None: the planner has seen that no row fits.
    async fn ask(&self, sql: &str, parameters: &[Value]) -> Option<(Program, Answer, Answer)> {
        let state = self.context.state();
        let plan = state.create_logical_plan(sql).await.unwrap();
        let plan = state.optimize(&plan).unwrap();
        if plan.display_indent().to_string().contains("EmptyRelation") {
            return None;
        }
        let (program, route) = match compile(&plan, |_| Some(Arc::clone(&self.table))) {
            Ok(compiled) => compiled,
            Err(why) => panic!("{sql}: {}\n{plan}", why.within("the test")),
        };
        assert!(matches!(route, Route::Single(_)), "{sql}");
        let mut rows = Collected::default();
        let ran = self
            .partition
            .run(&program, parameters, &CONTEXT, &mut |row| rows.row(row));
        let ours = ran.map(|_| rows.0).map_err(|failed| SqlError::from(failed.error));
        let theirs = self.query(plan, sql, parameters).await;
        Some((program, ours.map_err(|e| e.sqlstate), theirs.map_err(|e| e.sqlstate)))
    }

    async fn query(
        &self,
        mut plan: datafusion::logical_expr::LogicalPlan,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Rows, SqlError> {
        let failed = |error| from_datafusion(error, sql);
        if !parameters.is_empty() {
            let scalars = parameters
                .iter()
                .map(|value| to_scalar(value, DataType::BigInt).unwrap());
            let scalars = ParamValues::from(scalars.collect::<Vec<_>>());
            plan = plan.with_param_values(scalars).map_err(failed)?;
        }
        let state = self.context.state();
        let physical = state.create_physical_plan(&plan).await.map_err(failed)?;
        let batches = datafusion::physical_plan::collect(physical, state.task_ctx()).await;
        let mut rows = Collected::default();
        for batch in batches.map_err(failed)? {
            give_batch(&batch, &mut rows)?;
        }
        Ok(rows.0)
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future)
}

fn sorted(answer: Answer) -> Answer {
    answer.map(|mut rows| {
        rows.sort_by_key(|row| format!("{row:?}"));
        rows
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_executors_give_the_same(rows in rows(), statements in prop::collection::vec(statement(), 1..8)) {
        for both in [Both::new(&rows), Both::indexed(&rows)] {
            for (sql, is_ordered) in &statements {
                let Some((program, ours, theirs)) = run(both.ask(sql, &[])) else { continue };
                let (ours, theirs) = if *is_ordered { (ours, theirs) } else { (sorted(ours), sorted(theirs)) };
                prop_assert_eq!(ours, theirs, "{}\n{:?}", sql, program.action);
            }
        }
    }
}

fn few() -> Both {
    let row = |g: &str, k: i64, n: Option<i32>| {
        let n = n.map_or(Value::Null, Value::Int);
        let mut row = vec![Value::Text(g.to_owned()), Value::Int(1), Value::BigInt(k), n];
        row.extend([Value::Null, Value::Null, Value::Null, Value::Null]);
        row
    };
    Both::new(&[
        row("g", 1, Some(1)),
        row("g", 2, Some(0)),
        row("g", 3, None),
        row("h", 1, Some(i32::MAX)),
    ])
}

#[test]
fn errors_are_the_same() {
    let both = few();
    for (sql, sqlstate) in [
        ("SELECT k / n FROM t WHERE p = 1", "22012"),
        ("SELECT sum(k / n) FROM t WHERE p = 1 AND g = 'g'", "22012"),
        ("SELECT count(*) FROM t WHERE p = 1 GROUP BY k % n", "22012"),
        ("SELECT CAST(x AS INT) FROM t WHERE p = 1 AND n / 0 = 1", "22012"),
    ] {
        let (_, ours, theirs) = run(both.ask(sql, &[])).unwrap();
        assert_eq!(
            (ours, theirs),
            (Err(sqlstate.to_owned()), Err(sqlstate.to_owned())),
            "{sql}"
        );
    }
}

#[test]
fn limits_may_be_parameters() {
    let both = few();
    for (sql, parameters) in [
        (
            "SELECT k FROM t WHERE p = 1 AND g = 'g' ORDER BY k DESC LIMIT $1 OFFSET $2",
            [2, 1],
        ),
        ("SELECT k FROM t WHERE p = 1 ORDER BY n, k LIMIT $1 OFFSET $2", [9, 2]),
        ("SELECT count(*) FROM t WHERE p = 1 AND k > $1 AND k <= $2", [1, 3]),
    ] {
        let (_, ours, theirs) = run(both.ask(sql, &parameters.map(Value::BigInt))).unwrap();
        assert_eq!(ours, theirs, "{sql}");
        assert!(!ours.unwrap().is_empty(), "{sql}");
    }
}

/// How the rows are found, and how many stages follow.
fn shape(both: &Both, sql: &str) -> String {
    let (program, mut ours, mut theirs) = run(both.ask(sql, &[])).unwrap();
    if !sql.contains("ORDER BY") {
        (ours, theirs) = (sorted(ours), sorted(theirs));
    }
    assert_eq!(ours, theirs, "{sql}");
    let Action::Select {
        access, stages, limit, ..
    } = program.action
    else {
        panic!("{sql}");
    };
    let access = match access {
        Access::Point(_) => "point".to_owned(),
        Access::Prefix(values) => format!("prefix of {}", values.len()),
        Access::Scan => "scan".to_owned(),
        Access::Index(index) => format!("index by {}", index.range.prefix.len()),
        Access::Range(range) => format!(
            "{}range after {}{}{}",
            if range.backward { "backward " } else { "" },
            range.prefix.len(),
            range
                .from
                .map_or("", |from| if from.inclusive { " from" } else { " beyond" }),
            range.to.map_or("", |to| if to.inclusive { " to" } else { " below" }),
        ),
    };
    let limit = limit.map_or(String::new(), |limit| format!(", limit {limit}"));
    format!("{access}, {} stages{limit}", stages.len())
}

#[test]
fn an_index_is_used_where_it_finds_fewer_or_has_the_order() {
    let mut both = few();
    let mut table = Table::clone(&both.table);
    table.indexes = indexes();
    both.table = Arc::new(table);
    both.partition.set_indexes(1, &both.table.indexes);
    assert!(both.partition.build_indexes(1_000));
    for (conditions, expected) in [
        ("p = 1 AND g = 'g' AND k = 2 AND n = 0", "point, 0 stages"),
        ("p = 1 AND g = 'g' AND n = 0", "prefix of 2, 0 stages"),
        ("p = 1 AND n = 0", "index by 2, 0 stages"),
        ("p = 1 AND n > 0", "index by 1, 0 stages"),
        ("p = 1 AND n = 0 AND d = 1", "index by 2, 0 stages"),
        ("p = 1 AND f = 1", "index by 1, 0 stages"),
        ("p = 1 AND x = 'x'", "index by 1, 0 stages"),
        ("p = 1 AND x = 'x' AND b", "index by 1, 0 stages"),
        ("p = 1 ORDER BY n DESC LIMIT 1", "index by 1, 0 stages, limit 1"),
        ("p = 1 ORDER BY n LIMIT 1", "index by 1, 0 stages, limit 1"),
        ("p = 1 AND n = 1 ORDER BY g, k", "index by 2, 0 stages"),
        ("p = 1 ORDER BY n NULLS FIRST", "index by 1, 2 stages"),
    ] {
        let sql = format!("SELECT g, k FROM t WHERE {conditions}");
        assert_eq!(shape(&both, &sql), expected, "{sql}");
    }
}

#[test]
fn the_key_is_used_as_far_as_it_goes() {
    let both = few();
    for (conditions, expected) in [
        ("g = 'g' AND p = 1 AND k = 2", "point, 0 stages"),
        ("p = 1", "scan, 0 stages"),
        ("p = 1 AND g = 'g'", "prefix of 2, 0 stages"),
        ("p = 1 AND g >= 'h'", "range after 0 from, 0 stages"),
        (
            "p = 1 AND g = 'g' AND k > 1 AND k <= 3",
            "range after 2 beyond to, 0 stages",
        ),
        (
            "p = 1 AND g = 'g' AND k BETWEEN 1 AND 2",
            "range after 2 from to, 0 stages",
        ),
        (
            "p = 1 AND g = 'g' AND 3 > k ORDER BY k",
            "range after 2 below, 0 stages",
        ),
        (
            "p = 1 AND g = 'g' ORDER BY k DESC LIMIT 1",
            "backward range after 2, 0 stages, limit 1",
        ),
        (
            "p = 1 ORDER BY g DESC, k DESC LIMIT 1",
            "backward range after 0, 0 stages, limit 1",
        ),
        (
            "p = 1 AND g = 'g' AND k > 1 ORDER BY k DESC",
            "backward range after 2 beyond, 0 stages",
        ),
        ("p = 1 ORDER BY g DESC, k LIMIT 1", "scan, 2 stages, limit 1"),
    ] {
        assert_eq!(
            shape(&both, &format!("SELECT k, n FROM t WHERE {conditions}")),
            expected,
            "{conditions}"
        );
    }
}
