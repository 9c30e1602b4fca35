//! From a DataFusion plan of transactional shape to a row program, and the way to its partition.

mod expr;

use datafusion::common::Column as DfColumn;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan, WriteOp};
use volt_engine::catalog::{ColumnDefault, Table};
use volt_engine::error::StatementError;
use volt_engine::plan::{Access, Action, BinaryOp, Expr, Function, Program};
use volt_engine::value::Value;

use super::types::from_scalar;
use super::version::VERSION;
use crate::error::SqlError;
use expr::{balanced, compile_expr};

/// Where a program runs.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// In the partition of this partition key.
    Single(Expr),
    /// Each row in the partition of its own.
    Rows,
    /// In every partition.
    All,
}

/// Why a plan is no row program; then DataFusion runs it, if it only reads.
pub(super) enum NotCompiled {
    /// This is not for row programs.
    Shape(String),
    /// A partition would not take the program.
    Malformed(StatementError),
}

type Compiled<T> = Result<T, NotCompiled>;

fn not<T>(what: impl Into<String>) -> Compiled<T> {
    Err(NotCompiled::Shape(what.into()))
}

/// The table of a plan's only scan.
fn scanned(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let mut many = false;
    let _ = plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            many |= found.is_some();
            found = Some(scan.table_name.clone());
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    let name = found.filter(|_| !many)?;
    (name.schema().is_none_or(|schema| schema == "public")).then(|| name.table().to_owned())
}

/// Compiles an optimised plan. The program is checked here as its partition's node checks it, so that what a statement
/// answers does not depend on who that is.
pub(super) fn compile(
    plan: &LogicalPlan,
    table: impl Fn(&str) -> Option<std::sync::Arc<Table>>,
) -> Compiled<(Program, Route)> {
    let (program, route) = compile_plan(plan, table)?;
    program.validate().map_err(NotCompiled::Malformed)?;
    Ok((program, route))
}

fn compile_plan(
    plan: &LogicalPlan,
    table: impl Fn(&str) -> Option<std::sync::Arc<Table>>,
) -> Compiled<(Program, Route)> {
    match plan {
        LogicalPlan::Dml(dml) => {
            let Some(table) = table(dml.table_name.table()) else {
                return not("a write to a table that is not ours");
            };
            let action = match &dml.op {
                WriteOp::Insert(_) => Compiler(&table).insert(&dml.input)?,
                WriteOp::Update => Compiler(&table).update(&dml.input)?,
                WriteOp::Delete => Compiler(&table).delete(&dml.input)?,
                other => return not(format!("{other}")),
            };
            Ok(finish(&table, action))
        }
        plan => {
            let Some(table) = scanned(plan).and_then(|name| table(&name)) else {
                return not("not one table");
            };
            let action = Compiler(&table).select(plan)?;
            let (program, route) = finish(&table, action);
            let ordered = matches!(
                program.action,
                Action::Select {
                    access: Access::Point(_),
                    ..
                }
            );
            // Rows of several partitions, a LIMIT over them, and long scans are DataFusion's.
            if !matches!(route, Route::Single(_)) || !ordered {
                return not("not a point");
            }
            Ok((program, route))
        }
    }
}

fn finish(table: &Table, action: Action) -> (Program, Route) {
    let access = match &action {
        Action::Select { access, .. } | Action::Update { access, .. } | Action::Delete { access, .. } => Some(access),
        Action::Insert { .. } => None,
    };
    let route = match access {
        None => Route::Rows,
        Some(Access::Point(values) | Access::Prefix(values)) => {
            let place = table
                .primary_key
                .iter()
                .position(|&column| column == table.partition_column);
            place
                .and_then(|place| values.get(place))
                .map_or(Route::All, |value| Route::Single(value.clone()))
        }
        Some(Access::Scan) => Route::All,
    };
    let program = Program {
        table: table.id,
        table_name: table.name.clone(),
        columns: table.columns.clone(),
        primary_key: table.primary_key.clone(),
        action,
    };
    (program, route)
}

struct Compiler<'a>(&'a Table);

/// A plan without its outer layers.
#[derive(Default)]
struct Peeled<'p> {
    project: Option<&'p [DfExpr]>,
    filters: Vec<&'p DfExpr>,
    limit: Option<u64>,
    offset: u64,
}

impl Compiler<'_> {
    fn peel<'p>(&self, mut plan: &'p LogicalPlan) -> Compiled<Peeled<'p>> {
        let mut peeled = Peeled::default();
        loop {
            match plan {
                LogicalPlan::SubqueryAlias(alias) => plan = &alias.input,
                LogicalPlan::Limit(limit) if peeled.project.is_none() && peeled.limit.is_none() => {
                    peeled.limit = count(limit.fetch.as_deref())?;
                    peeled.offset = count(limit.skip.as_deref())?.unwrap_or(0);
                    plan = &limit.input;
                }
                LogicalPlan::Projection(projection) if peeled.project.is_none() && peeled.filters.is_empty() => {
                    peeled.project = Some(&projection.expr);
                    plan = &projection.input;
                }
                LogicalPlan::Filter(filter) => {
                    peeled.filters.push(&filter.predicate);
                    plan = &filter.input;
                }
                LogicalPlan::TableScan(scan) => {
                    peeled.filters.extend(&scan.filters);
                    return Ok(peeled);
                }
                other => return not(format!("{}", other.display())),
            }
        }
    }

    fn select(&self, plan: &LogicalPlan) -> Compiled<Action> {
        let peeled = self.peel(plan)?;
        let project = match peeled.project {
            Some(exprs) => exprs.iter().map(|expr| self.expr(expr)).collect::<Compiled<Vec<_>>>()?,
            None => {
                let columns = plan.schema().columns();
                columns
                    .iter()
                    .map(|column| self.column(column))
                    .collect::<Compiled<Vec<_>>>()?
            }
        };
        let (access, filter) = self.access(&peeled.filters)?;
        Ok(Action::Select {
            access,
            filter,
            project,
            limit: peeled.limit,
            offset: peeled.offset,
        })
    }

    /// The input's projection gives every column its new value, in the table's order.
    fn update(&self, plan: &LogicalPlan) -> Compiled<Action> {
        if is_empty(plan) {
            let (access, set) = (self.nothing(), Vec::new());
            let filter = None;
            return Ok(Action::Update { access, filter, set });
        }
        let peeled = self.peel(plan)?;
        let Some(exprs) = peeled.project else {
            return not("an UPDATE without values");
        };
        let mut set = Vec::new();
        // Beyond the table's columns there may be the version, which is not written.
        for (place, expr) in exprs.iter().enumerate().take(self.0.columns.len()) {
            let value = self.expr(expr)?;
            if value != Expr::Column(place) {
                set.push((place, value));
            }
        }
        if set.iter().any(|&(place, _)| place == self.0.partition_column) {
            let name = &self.0.columns[self.0.partition_column].name;
            return not(format!(
                "changing the partition column \"{name}\", because the row would move to another partition,"
            ));
        }
        let (access, filter) = self.access(&peeled.filters)?;
        Ok(Action::Update { access, filter, set })
    }

    fn delete(&self, plan: &LogicalPlan) -> Compiled<Action> {
        if is_empty(plan) {
            let (access, filter) = (self.nothing(), None);
            return Ok(Action::Delete { access, filter });
        }
        let peeled = self.peel(plan)?;
        let (access, filter) = self.access(&peeled.filters)?;
        Ok(Action::Delete { access, filter })
    }

    /// Finds no row: a key of NULLs.
    fn nothing(&self) -> Access {
        Access::Point(vec![Expr::Literal(Value::Null); self.0.primary_key.len()])
    }

    /// The input: perhaps projections, over VALUES (or over one empty row).
    fn insert(&self, plan: &LogicalPlan) -> Compiled<Action> {
        let rows = self.rows(plan)?;
        let named = plan.schema().fields();
        let place = |name: &str| named.iter().position(|field| field.name() == name);
        let places: Vec<Option<usize>> = self.0.columns.iter().map(|column| place(&column.name)).collect();
        let rows = rows.into_iter().map(|row| {
            let value = |(column, place): (usize, &Option<usize>)| match place {
                Some(place) => row
                    .get(*place)
                    .cloned()
                    .ok_or_else(|| NotCompiled::Shape("a row that is too short".to_owned())),
                None => Ok(self.default_of(column)),
            };
            places.iter().enumerate().map(value).collect::<Compiled<Vec<Expr>>>()
        });
        Ok(Action::Insert {
            rows: rows.collect::<Compiled<Vec<_>>>()?,
        })
    }

    fn default_of(&self, column: usize) -> Expr {
        match &self.0.columns[column].default {
            None => Expr::Literal(Value::Null),
            Some(ColumnDefault::Value(value)) => Expr::Literal(value.clone()),
            Some(ColumnDefault::Now) => Expr::Call {
                function: Function::Now,
                arguments: Vec::new(),
            },
        }
    }

    fn rows(&self, plan: &LogicalPlan) -> Compiled<Vec<Vec<Expr>>> {
        match plan {
            LogicalPlan::Values(values) => {
                let row = |row: &Vec<DfExpr>| row.iter().map(|expr| self.expr(expr)).collect();
                values.values.iter().map(row).collect()
            }
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Ok(vec![Vec::new()]),
            LogicalPlan::SubqueryAlias(alias) => self.rows(&alias.input),
            LogicalPlan::Projection(projection) => {
                let inner = self.rows(&projection.input)?;
                let schema = projection.input.schema();
                let row = |row: &Vec<Expr>| {
                    projection
                        .expr
                        .iter()
                        .map(|expr| {
                            compile_expr(expr, &|column| {
                                let place = schema.maybe_index_of_column(column)?;
                                row.get(place).cloned()
                            })
                        })
                        .collect()
                };
                inner.iter().map(row).collect()
            }
            _ => not("INSERT from a query"),
        }
    }

    /// What finds the rows: the key, as far as the conditions name it; the rest filters.
    fn access(&self, filters: &[&DfExpr]) -> Compiled<(Access, Option<Expr>)> {
        let mut conditions = Vec::new();
        for filter in filters {
            flatten(self.expr(filter)?, &mut conditions);
        }
        let mut key = Vec::new();
        for &column in &self.0.primary_key {
            let Some(place) = conditions
                .iter()
                .position(|condition| key_value(condition, column).is_some())
            else {
                break;
            };
            let condition = conditions.remove(place);
            key.extend(key_value(&condition, column).cloned());
        }
        let filter = balanced(BinaryOp::And, conditions);
        let access = match key.len() {
            0 => Access::Scan,
            whole if whole == self.0.primary_key.len() => Access::Point(key),
            _ => Access::Prefix(key),
        };
        Ok((access, filter))
    }

    fn column(&self, column: &DfColumn) -> Compiled<Expr> {
        let place = self.0.columns.iter().position(|ours| ours.name == column.name);
        let version = || (column.name == VERSION).then_some(Expr::Version);
        place
            .map(Expr::Column)
            .or_else(version)
            .ok_or_else(|| NotCompiled::Shape(format!("column {}", column.name)))
    }

    fn expr(&self, expr: &DfExpr) -> Compiled<Expr> {
        compile_expr(expr, &|column| self.column(column).ok())
    }
}

/// The optimiser has seen that no row fits.
fn is_empty(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        LogicalPlan::Projection(projection) => is_empty(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_empty(&alias.input),
        _ => false,
    }
}

fn count(expr: Option<&DfExpr>) -> Compiled<Option<u64>> {
    match expr {
        None => Ok(None),
        Some(DfExpr::Literal(scalar, _)) => match from_scalar(scalar) {
            Some(Value::BigInt(count)) => Ok(Some(count.max(0) as u64)),
            Some(Value::Int(count)) => Ok(Some(count.max(0) as u64)),
            _ => not("LIMIT"),
        },
        Some(_) => not("LIMIT of an expression"),
    }
}

fn flatten(condition: Expr, into: &mut Vec<Expr>) {
    match condition {
        Expr::Binary {
            op: BinaryOp::And,
            left,
            right,
        } => {
            flatten(*left, into);
            flatten(*right, into);
        }
        other => into.push(other),
    }
}

/// `column = value`, either way round, where the value is known before any row.
fn key_value(condition: &Expr, column: usize) -> Option<&Expr> {
    let Expr::Binary {
        op: BinaryOp::Equal,
        left,
        right,
    } = condition
    else {
        return None;
    };
    match (&**left, &**right) {
        (Expr::Column(found), value) if *found == column && is_constant(value) => Some(value),
        (value, Expr::Column(found)) if *found == column && is_constant(value) => Some(value),
        _ => None,
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Parameter(_) | Expr::Literal(_) => true,
        Expr::Cast { operand, .. } | Expr::Unary { operand, .. } => is_constant(operand),
        _ => false,
    }
}

/// A write that is no row program.
pub(super) fn refused(why: NotCompiled) -> SqlError {
    match why {
        NotCompiled::Shape(what) => {
            SqlError::unsupported(format!("{} in a statement that writes", what.trim_end_matches(',')))
        }
        NotCompiled::Malformed(error) => error.into(),
    }
}
