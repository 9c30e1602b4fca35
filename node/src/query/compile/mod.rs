//! From a DataFusion plan of transactional shape to a row program, and the way to its partition.

mod access;
mod explain;
mod expr;
mod select;

use datafusion::common::Column as DfColumn;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr as DfExpr, LogicalPlan, WriteOp};
use volt_engine::catalog::{Column, ColumnDefault, Table};
use volt_engine::error::StatementError;
use volt_engine::partition::VERSION_COLUMN;
use volt_engine::plan::{Access, Action, Expr, Function, OnConflict, Program};
use volt_engine::value::Value;

use super::version::VERSION;
use crate::error::SqlError;
use access::{find, flatten, partition_value};
pub(super) use explain::explain;
pub(super) use expr::balanced;
use expr::compile_expr;
pub(super) use select::{Aggregated, aggregated};

/// Where a program runs.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// In the partition of this partition key.
    Single(Expr),
    /// In any partition: each has all rows.
    Any,
    /// Each row in the partition of its own.
    Rows,
    /// In every partition.
    All,
}

/// Why a plan is no row program; then DataFusion runs it, if it only reads.
pub(super) enum NotCompiled {
    /// This is not for row programs.
    Shape(String),
    /// It puts a query's rows.
    RowsOfQuery,
    /// A partition would not take the program.
    Malformed(StatementError),
}

impl NotCompiled {
    /// The error where there is nobody else to run it.
    pub(super) fn within(self, place: &str) -> SqlError {
        let what = match self {
            Self::Shape(what) => what,
            Self::RowsOfQuery => "INSERT of a query's rows".to_owned(),
            Self::Malformed(error) => return error.into(),
        };
        SqlError::unsupported(format!("{} in {place}", what.trim_end_matches(',')))
    }
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
    let (mut program, route) = compile_plan(plan, table)?;
    program.simplify(&[]);
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
            let compiler = Compiler(&table);
            let (action, route) = match &dml.op {
                WriteOp::Insert(_) if table.is_replicated() => (compiler.insert(&dml.input)?, Route::All),
                WriteOp::Insert(_) => (compiler.insert(&dml.input)?, Route::Rows),
                WriteOp::Update => compiler.update(&dml.input)?,
                WriteOp::Delete => compiler.delete(&dml.input)?,
                other => return not(format!("{other}")),
            };
            Ok((program(&table, action), route))
        }
        plan => {
            let Some(table) = scanned(plan).and_then(|name| table(&name)) else {
                return not("not one table");
            };
            let (action, route) = select::select(&table, plan)?;
            // Rows of several partitions, and what is made of them, are DataFusion's.
            if !matches!(route, Route::Single(_) | Route::Any) {
                return not("not of one partition");
            }
            Ok((program(&table, action), route))
        }
    }
}

pub(super) fn program(table: &Table, action: Action) -> Program {
    let checks = match action {
        Action::Insert { .. } | Action::Update { .. } => table.checks.iter().map(|one| one.check.clone()).collect(),
        Action::Select { .. } | Action::Delete { .. } | Action::Truncate { .. } => Vec::new(),
    };
    Program {
        table: table.id,
        table_name: table.name.clone(),
        columns: table.columns.clone(),
        primary_key: table.primary_key.clone(),
        checks,
        action,
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: table.missing(),
    }
}

/// Where the rows of a table are that meet a condition.
pub(super) struct Seek {
    pub(super) access: Access,
    /// What the partition column must be equal to.
    pub(super) partition_key: Option<Expr>,
}

/// None: nothing can be told.
pub(super) fn seek(table: &Table, condition: &DfExpr) -> Option<Seek> {
    let compiler = Compiler(table);
    let mut conditions = Vec::new();
    for part in datafusion::logical_expr::utils::split_conjunction(condition) {
        // What can't be compiled is looked at by somebody else.
        if let Ok(part) = compiler.expr(part) {
            flatten(part, &mut conditions);
        }
    }
    let partition_key = partition_value(table, &conditions);
    let access = find(table, conditions).access;
    let tells = partition_key.is_some() || access != Access::Scan;
    tells.then_some(Seek { access, partition_key })
}

/// A program that gives these columns of the rows that are found so; beyond the table's last there is their version.
pub(super) fn program_of(table: &Table, access: Access, columns: &[usize]) -> Program {
    let column = |&column: &usize| match column {
        VERSION_COLUMN => Expr::Version(table.version_base),
        column => Expr::Column(column),
    };
    let action = Action::Select {
        access,
        filter: None,
        stages: Vec::new(),
        project: columns.iter().map(column).collect(),
        limit: None,
        offset: 0,
    };
    program(table, action)
}

/// The condition of `DELETE FROM table WHERE condition`, as one of the table's row alone. None: no row meets it.
pub(super) fn compile_condition(plan: &LogicalPlan, table: &Table) -> Result<Option<Expr>, NotCompiled> {
    let LogicalPlan::Dml(dml) = plan else {
        return not("this condition");
    };
    if is_empty(&dml.input) {
        return Ok(None);
    }
    let compiler = Compiler(table);
    let condition = compiler.all_of(&compiler.peel(&dml.input)?)?;
    Ok(Some(condition.unwrap_or(Expr::Literal(Value::Boolean(true)))))
}

/// What ON CONFLICT DO UPDATE does, from the UPDATE of a table with both rows' columns.
pub(super) fn compile_on_conflict(plan: &LogicalPlan, both: &Table) -> Result<OnConflict, SqlError> {
    on_conflict(plan, both).map_err(|why| why.within("ON CONFLICT"))
}

fn on_conflict(plan: &LogicalPlan, both: &Table) -> Compiled<OnConflict> {
    let LogicalPlan::Dml(dml) = plan else {
        return not("this");
    };
    // What is never done is written, too, as doing nothing.
    if is_empty(&dml.input) {
        return Ok(OnConflict::Nothing);
    }
    let compiler = Compiler(both);
    let peeled = compiler.peel(&dml.input)?;
    Ok(OnConflict::Update {
        set: compiler.changes(&peeled)?,
        filter: compiler.all_of(&peeled)?,
    })
}

/// The expressions of a SELECT without tables. What the optimiser computes once lies in a projection below.
pub(super) fn compile_constants(plan: &LogicalPlan) -> Result<Vec<Expr>, SqlError> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err(SqlError::unsupported("this expression in a procedure or its arguments"));
    };
    let below = match &*projection.input {
        LogicalPlan::EmptyRelation(_) => Vec::new(),
        input => compile_constants(input)?,
    };
    let schema = projection.input.schema();
    let column = |column: &DfColumn| below.get(schema.maybe_index_of_column(column)?).cloned();
    let compiled = projection.expr.iter().map(|expr| compile_expr(expr, &column));
    let compiled = compiled.collect::<Compiled<Vec<_>>>();
    compiled.map_err(|why| why.within("a procedure or its arguments"))
}

/// The only expression of a SELECT of a table's rows, over a row.
pub(super) fn compile_over_row(plan: &LogicalPlan, table: &Table) -> Compiled<Expr> {
    let mut exprs = over_row(plan, table)?;
    match (exprs.pop(), exprs.is_empty()) {
        (Some(expr), true) => Ok(expr),
        _ => not("more than one expression"),
    }
}

/// The columns of a SELECT of a table's rows, over a row: what RETURNING gives.
pub(super) fn compile_returning(plan: &LogicalPlan, table: &Table) -> Result<Vec<Expr>, SqlError> {
    over_row(plan, table).map_err(|why| why.within("RETURNING"))
}

/// The columns of a plan that only projects a table.
fn over_row(plan: &LogicalPlan, table: &Table) -> Compiled<Vec<Expr>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => over_row(&alias.input, table),
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() => {
            let place = |name: &String| table.place_of(name);
            let version = |name: &String| (name == VERSION).then_some(Expr::Version(table.version_base));
            let column = |name: &String| {
                let column = place(name).map(Expr::Column).or_else(|| version(name));
                column.ok_or_else(|| NotCompiled::Shape(format!("column {name}")))
            };
            let fields = scan.projected_schema.fields();
            fields.iter().map(|field| column(field.name())).collect()
        }
        LogicalPlan::Projection(projection) => {
            let below = over_row(&projection.input, table)?;
            let schema = projection.input.schema();
            let column = |column: &DfColumn| below.get(schema.maybe_index_of_column(column)?).cloned();
            projection.expr.iter().map(|expr| compile_expr(expr, &column)).collect()
        }
        other => not(format!("{}", other.display())),
    }
}

/// Which of a query's columns each of the table's takes, or what it has without one.
pub(super) fn places_of_query(plan: &LogicalPlan, table: &Table) -> Result<Vec<Result<usize, Expr>>, SqlError> {
    Compiler(table).places(plan).map_err(refused)
}

struct Compiler<'a>(&'a Table);

/// The rows of a write: a plan without its outer layers.
#[derive(Default)]
struct Peeled<'p> {
    project: Option<&'p [DfExpr]>,
    filters: Vec<&'p DfExpr>,
}

impl Compiler<'_> {
    fn peel<'p>(&self, mut plan: &'p LogicalPlan) -> Compiled<Peeled<'p>> {
        let mut peeled = Peeled::default();
        loop {
            match plan {
                LogicalPlan::SubqueryAlias(alias) => plan = &alias.input,
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

    /// The input's projection gives every column its new value, in the table's order.
    fn update(&self, plan: &LogicalPlan) -> Compiled<(Action, Route)> {
        if is_empty(plan) {
            let (access, route) = self.nothing();
            let (filter, set) = (None, Vec::new());
            return Ok((Action::Update { access, filter, set }, route));
        }
        let peeled = self.peel(plan)?;
        let set = self.changes(&peeled)?;
        if let Some(partition_column) = self.0.partition_column
            && set.iter().any(|&(place, _)| place == partition_column)
        {
            let name = &self.0.columns[partition_column].name;
            return not(format!(
                "changing the partition column \"{name}\", because the row would move to another partition,"
            ));
        }
        let (access, filter, route) = self.access(&peeled.filters)?;
        Ok((Action::Update { access, filter, set }, route))
    }

    /// The columns that change.
    fn changes(&self, peeled: &Peeled<'_>) -> Compiled<Vec<(usize, Expr)>> {
        let Some(exprs) = peeled.project else {
            return not("an UPDATE without values");
        };
        let mut set = Vec::new();
        // Beyond the table's columns there may be the version, which is not written.
        for ((place, _), expr) in self.0.present_columns().zip(exprs) {
            let value = self.expr(expr)?;
            if value != Expr::Column(place) {
                set.push((place, value));
            }
        }
        Ok(set)
    }

    /// The condition over a row; None: there is none.
    fn all_of(&self, peeled: &Peeled<'_>) -> Compiled<Option<Expr>> {
        let mut conditions = Vec::new();
        for filter in &peeled.filters {
            flatten(self.expr(filter)?, &mut conditions);
        }
        Ok(balanced(volt_engine::plan::BinaryOp::And, conditions))
    }

    fn delete(&self, plan: &LogicalPlan) -> Compiled<(Action, Route)> {
        if is_empty(plan) {
            let (access, route) = self.nothing();
            return Ok((Action::Delete { access, filter: None }, route));
        }
        let peeled = self.peel(plan)?;
        let (access, filter, route) = self.access(&peeled.filters)?;
        Ok((Action::Delete { access, filter }, route))
    }

    /// Finds no row: a key of NULLs.
    fn nothing(&self) -> (Access, Route) {
        let null = Expr::Literal(Value::Null);
        let access = Access::Point(vec![null.clone(); self.0.primary_key.len()]);
        let route = if self.0.is_replicated() {
            Route::All
        } else {
            Route::Single(null)
        };
        (access, route)
    }

    /// The input: perhaps projections, over VALUES (or over one empty row).
    fn insert(&self, plan: &LogicalPlan) -> Compiled<Action> {
        let rows = self.rows(plan)?;
        let places = self.places(plan)?;
        let rows = rows.into_iter().map(|row| {
            let value = |place: &Result<usize, Expr>| match place {
                Ok(place) => row
                    .get(*place)
                    .cloned()
                    .ok_or_else(|| NotCompiled::Shape("a row that is too short".to_owned())),
                Err(default) => Ok(default.clone()),
            };
            places.iter().map(value).collect::<Compiled<Vec<Expr>>>()
        });
        Ok(Action::Insert {
            rows: rows.collect::<Compiled<Vec<_>>>()?,
        })
    }

    /// Of each column its place in the rows that are put, or what it has without.
    fn places(&self, plan: &LogicalPlan) -> Compiled<Vec<Result<usize, Expr>>> {
        let named = plan.schema().fields();
        let place = |name: &str| named.iter().position(|field| field.name() == name);
        let columns = self.0.columns.iter().enumerate();
        let columns = columns.map(|(column, Column { name, .. })| match place(name) {
            Some(place) => Ok(Ok(place)),
            None => self.default_of(column).map(Err),
        });
        columns.collect()
    }

    fn default_of(&self, column: usize) -> Compiled<Expr> {
        Ok(match &self.0.columns[column].default {
            None => Expr::Literal(Value::Null),
            Some(ColumnDefault::Value(value)) => Expr::Literal(value.clone()),
            Some(ColumnDefault::Now) => Expr::Call {
                function: Function::Now,
                arguments: Vec::new(),
            },
            // Each row names its value: `sequence` sees to it.
            Some(ColumnDefault::Sequence { .. }) => return not("a sequence as a default here"),
        })
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
            _ => Err(NotCompiled::RowsOfQuery),
        }
    }

    /// What finds the rows, what else they must satisfy, and where they may be.
    fn access(&self, filters: &[&DfExpr]) -> Compiled<(Access, Option<Expr>, Route)> {
        let mut conditions = Vec::new();
        for filter in filters {
            flatten(self.expr(filter)?, &mut conditions);
        }
        let route = partition_value(self.0, &conditions).map_or(Route::All, Route::Single);
        let found = find(self.0, conditions);
        Ok((found.access, found.filter, route))
    }

    fn column(&self, column: &DfColumn) -> Compiled<Expr> {
        let place = self.0.place_of(&column.name);
        let version = || (column.name == VERSION).then_some(Expr::Version(self.0.version_base));
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

/// A write that is no row program.
pub(super) fn refused(why: NotCompiled) -> SqlError {
    why.within("a statement that writes")
}

#[cfg(test)]
mod oracle_test;
