//! Materialized views: from a query to what partitions keep for it, and from what they keep back to what the query gives.
//!
//! The query has one aggregate, over the rows of one table. Partitions keep its groups (`shape`). In a statement that reads the
//! view the aggregate is replaced by what is made of their rows (`over_rows`), and whatever the query does with its result,
//! HAVING and expressions, is done as ever. Where a group's rows all lie in one partition, because the partition column is
//! among the groups, the partition's row is the group's; otherwise the partitions' rows of a group are added up.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::logical_expr::{
    Aggregate as AggregateNode, Expr as DfExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, col, ident, lit,
    when,
};
use volt_engine::catalog::{Column, IndexColumn, MAX_SUMMED_PRECISION, Table, ViewAggregate, ViewShape};
use volt_engine::plan::{Aggregate, AggregateFunction, BinaryOp, Expr};
use volt_engine::value::{DataType, Value};
use volt_engine::{IndexId, TableId};

use super::total::{bounds, total};
use crate::error::SqlError;
use crate::metadata::command::{NewIndex, NewMaterialized};
use crate::metadata::map::ClusterMap;
use crate::query::compile::{Aggregated, NotCompiled, aggregated, balanced};
use crate::query::errors::from_datafusion;
use crate::query::tables::VoltTable;
use crate::query::types::from_arrow;

/// Numbers that are added up are at most so great, counted in their last places: more of them than a partition has rows have
/// room in a sum. BIGINTs are not so great, nor products of two INTs, or of an INT and a NUMERIC(10, 2).
const MAX_SUMMED: f64 = 1e20;

/// The column that is every row's group in a view without GROUP BY.
const WHOLE: &str = "all";
/// The column that has the number of a group's rows.
const ROWS: &str = "rows";

/// A column of the aggregate in terms of what partitions keep.
enum Output {
    /// One of the groups.
    Group(usize),
    /// How many rows there are.
    Rows,
    /// An aggregate that is kept.
    Count(usize),
    Sum(usize),
    Average(usize),
    Extreme(usize),
}

/// What partitions keep, and what it means.
struct Kept {
    groups: Vec<(Expr, DataType)>,
    filter: Option<Expr>,
    aggregates: Vec<ViewAggregate>,
    /// One a column of the query's aggregate.
    outputs: Vec<Output>,
}

fn refused(what: &str) -> SqlError {
    SqlError::unsupported(format!("{what} in a materialized view"))
}

/// What partitions keep for a query, which is not optimised; names of indexes begin with the view's.
pub(super) fn shape(
    session: &SessionState,
    plan: &LogicalPlan,
    name: &str,
    map: &ClusterMap,
    sql: &str,
) -> Result<NewMaterialized, SqlError> {
    let node =
        aggregate_of(plan).ok_or_else(|| refused("a query without exactly one GROUP BY or aggregate over a table"))?;
    let (source, mut kept) = keep(session, node, map, sql)?;
    let mut indexes: Vec<NewIndex> = Vec::new();
    for aggregate in &mut kept.aggregates {
        if let ViewAggregate::Extreme { column, index, .. } = aggregate {
            let wanted = extreme_index(&source, &kept.groups, kept.filter.as_ref(), *column)?;
            let known = indexes.iter().position(|index| index.columns == wanted.columns);
            *index = known.unwrap_or(indexes.len()) as IndexId;
            if known.is_none() {
                let column = &source.columns[*column].name;
                let is_taken = |name: &str| map.has_relation(name) || indexes.iter().any(|index| index.name == name);
                let name = crate::query::index::free_name(&format!("{name}_{column}_idx"), is_taken);
                indexes.push(NewIndex { name, ..wanted });
            }
        }
    }
    let partition_column = |(group, _): &(Expr, DataType)| is_partition_column(&source, group);
    Ok(NewMaterialized {
        columns: columns(&kept),
        partition_column: kept.groups.iter().position(partition_column),
        shape: ViewShape {
            source: source.id,
            missing: source.missing(),
            filter: kept.filter,
            groups: kept.groups.into_iter().map(|(group, _)| group).collect(),
            aggregates: kept.aggregates,
        },
        indexes,
    })
}

fn is_partition_column(table: &Table, group: &Expr) -> bool {
    table
        .partition_column
        .is_some_and(|place| *group == Expr::Column(place))
}

/// A query's only aggregate, if nothing above it has several inputs.
fn aggregate_of(plan: &LogicalPlan) -> Option<&AggregateNode> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => Some(aggregate),
        LogicalPlan::Projection(projection) => aggregate_of(&projection.input),
        LogicalPlan::Filter(filter) => aggregate_of(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => aggregate_of(&alias.input),
        LogicalPlan::Sort(sort) => aggregate_of(&sort.input),
        _ => None,
    }
}

/// The table of the aggregate, and what is kept.
fn keep(
    session: &SessionState,
    node: &AggregateNode,
    map: &ClusterMap,
    sql: &str,
) -> Result<(Arc<Table>, Kept), SqlError> {
    let source = source_of(&node.input)
        .and_then(|name| map.table(&name))
        .ok_or_else(|| refused("anything but the rows of one table"))?;
    let failed = |error| from_datafusion(error, sql);
    if node.aggr_expr.iter().any(is_distinct) {
        return Err(refused("DISTINCT in an aggregate"));
    }
    let optimised = session
        .optimize(&LogicalPlan::Aggregate(node.clone()))
        .map_err(failed)?;
    let Aggregated {
        conditions,
        group,
        aggregates,
        columns,
    } = aggregated(source, &optimised).map_err(|why| match why {
        NotCompiled::Shape(what) => refused(&what),
        NotCompiled::RowsOfQuery => refused("INSERT of a query's rows"),
        NotCompiled::Malformed(error) => error.into(),
    })?;
    let mut kept = Kept {
        groups: Vec::new(),
        filter: filter(conditions, source)?,
        aggregates: Vec::new(),
        outputs: Vec::new(),
    };
    for expr in group {
        if total(&expr, &source.columns).as_ref() != Some(&expr) {
            return Err(refused("a GROUP BY that may fail for a row, or computes a number,"));
        }
        kept.groups.push((expr, DataType::Boolean));
    }
    let groups = kept.groups.len();
    for (place, column) in columns.into_iter().enumerate() {
        let output = if column < groups {
            kept.groups[column].1 = from_arrow(node.schema.field(place).data_type());
            Output::Group(column)
        } else {
            let aggregate = aggregates.get(column - groups);
            kept.keep(aggregate.ok_or_else(|| refused("this aggregate"))?, source)?
        };
        kept.outputs.push(output);
    }
    if kept.groups.is_empty() {
        kept.groups
            .push((Expr::Literal(Value::Boolean(true)), DataType::Boolean));
    }
    Ok((Arc::clone(source), kept))
}

/// Of MIN and MAX it means nothing.
fn is_distinct(expr: &DfExpr) -> bool {
    match expr.clone().unalias() {
        DfExpr::AggregateFunction(call) => call.params.distinct && !matches!(call.func.name(), "min" | "max"),
        _ => false,
    }
}

/// The table that lies under nothing but conditions and projections.
fn source_of(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.schema().is_none_or(|schema| schema == "public") => {
            Some(scan.table_name.table().to_owned())
        }
        LogicalPlan::Projection(projection) => source_of(&projection.input),
        LogicalPlan::Filter(filter) => source_of(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => source_of(&alias.input),
        _ => None,
    }
}

fn filter(conditions: Vec<Expr>, source: &Table) -> Result<Option<Expr>, SqlError> {
    let condition = |condition: &Expr| {
        let total = total(condition, &source.columns);
        total.ok_or_else(|| refused("a WHERE that may fail for a row"))
    };
    let conditions = conditions.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    Ok(balanced(BinaryOp::And, conditions))
}

impl Kept {
    /// What an aggregate is of what is kept.
    fn keep(&mut self, aggregate: &Aggregate, source: &Table) -> Result<Output, SqlError> {
        let columns = &source.columns;
        let argument = match (&aggregate.argument, &aggregate.filter) {
            (None, None) => return Ok(Output::Rows),
            (argument, Some(condition)) => Expr::Case {
                arms: vec![(
                    condition.clone(),
                    argument.clone().unwrap_or(Expr::Literal(Value::Boolean(true))),
                )],
                otherwise: None,
            },
            (Some(argument), None) => argument.clone(),
        };
        let may_fail = || refused("an aggregate of what may fail for a row, or has no bounds,");
        Ok(match aggregate.function {
            AggregateFunction::Count => {
                let argument = total(&argument, columns).ok_or_else(may_fail)?;
                Output::Count(self.place(ViewAggregate::Count(argument)))
            }
            AggregateFunction::Sum | AggregateFunction::Avg => {
                // The planner takes the average of integers as DOUBLEs; their sum is exact.
                let argument = match argument {
                    Expr::Cast {
                        operand,
                        to: DataType::Double,
                    } if aggregate.function == AggregateFunction::Avg => *operand,
                    argument => argument,
                };
                let kept = summed(&argument, columns)?;
                let place = self.place(kept);
                match aggregate.function {
                    AggregateFunction::Sum => Output::Sum(place),
                    _ => Output::Average(place),
                }
            }
            AggregateFunction::Min | AggregateFunction::Max => {
                let Expr::Column(column) = argument else {
                    return Err(refused("MIN or MAX of anything but a column"));
                };
                Output::Extreme(self.place(ViewAggregate::Extreme {
                    column,
                    data_type: columns[column].data_type,
                    greatest: aggregate.function == AggregateFunction::Max,
                    index: 0,
                }))
            }
        })
    }

    fn place(&mut self, aggregate: ViewAggregate) -> usize {
        let known = self.aggregates.iter().position(|known| *known == aggregate);
        known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        })
    }
}

fn summed(argument: &Expr, columns: &[Column]) -> Result<ViewAggregate, SqlError> {
    let bounds = bounds(argument, columns).filter(|bounds| bounds.in_last_places() <= MAX_SUMMED);
    let bounds = bounds.ok_or_else(|| {
        refused("SUM or AVG of numbers without narrow bounds").hint(format!(
            "They must be exact: INT, BIGINT, or NUMERIC(p, s) with at most {MAX_SUMMED_PRECISION} digits."
        ))
    })?;
    let argument = total(argument, columns).ok_or_else(|| refused("SUM or AVG of what may fail for a row"))?;
    Ok(ViewAggregate::Sum {
        argument,
        scale: bounds.scale,
    })
}

/// What finds the least and the greatest value of a column in a group.
fn extreme_index(
    source: &Table,
    groups: &[(Expr, DataType)],
    filter: Option<&Expr>,
    column: usize,
) -> Result<NewIndex, SqlError> {
    let mut columns = Vec::new();
    for (group, _) in groups {
        match group {
            Expr::Column(place) => columns.push(*place),
            Expr::Literal(_) => {}
            _ => return Err(refused("MIN or MAX beside a GROUP BY of anything but columns")),
        }
    }
    columns.push(column);
    let names: Vec<&str> = columns
        .iter()
        .map(|place| source.columns[*place].name.as_str())
        .collect();
    let column = |place| IndexColumn {
        place,
        descending: false,
    };
    Ok(NewIndex {
        name: String::new(),
        source: format!("on {} ({}), of a materialized view", source.name, names.join(", ")),
        columns: columns.into_iter().map(column).collect(),
        predicate: filter.cloned(),
        unique: false,
        constraint: false,
    })
}

/// The columns of the rows that are kept.
fn columns(kept: &Kept) -> Vec<Column> {
    let column = |name: String, data_type, nullable| Column {
        name,
        data_type,
        nullable,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    let mut columns: Vec<Column> = Vec::new();
    for (place, (group, data_type)) in kept.groups.iter().enumerate() {
        let name = match group {
            Expr::Literal(_) if kept.groups.len() == 1 => WHOLE.to_owned(),
            _ => group_name(place),
        };
        columns.push(column(name, *data_type, true));
    }
    columns.push(column(ROWS.to_owned(), DataType::BigInt, false));
    for (place, aggregate) in kept.aggregates.iter().enumerate() {
        for (part, data_type) in aggregate.column_types().into_iter().enumerate() {
            columns.push(column(value_name(place, part), data_type, true));
        }
    }
    columns
}

fn group_name(place: usize) -> String {
    format!("group_{}", place + 1)
}

/// The column of an aggregate's value; part 1: how many values there are.
fn value_name(aggregate: usize, part: usize) -> String {
    match part {
        0 => format!("value_{}", aggregate + 1),
        _ => format!("count_{}", aggregate + 1),
    }
}

/// The view's query, which is not optimised, over the rows of its table.
pub(super) fn over_rows(
    session: &SessionState,
    plan: LogicalPlan,
    table: TableId,
    map: &ClusterMap,
) -> Result<LogicalPlan, SqlError> {
    let gone = || SqlError::internal("a materialized view without its table");
    let table = map.tables.get(&table).ok_or_else(gone)?;
    let node = aggregate_of(&plan).ok_or_else(gone)?;
    let (source, kept) = keep(session, node, map, "")?;
    let mut groups = kept.groups.iter();
    let is_whole = source.is_replicated() || groups.any(|(group, _)| is_partition_column(&source, group));
    let failed = |error| from_datafusion(error, "");
    let rows = rows_of(map, table, &kept, is_whole).map_err(failed)?;
    let replacement = outputs(&kept, &node.schema, rows).map_err(failed)?;
    let mut replacement = Some(replacement);
    let replaced = plan.transform_down(|node| {
        Ok(match (&node, replacement.take()) {
            (LogicalPlan::Aggregate(_), Some(rows)) => Transformed::new(rows, true, TreeNodeRecursion::Stop),
            (_, left) => {
                replacement = left;
                Transformed::no(node)
            }
        })
    });
    replaced.map(|replaced| replaced.data).map_err(failed)
}

/// One row a group: as the partitions have them, or added up, under the same names.
fn rows_of(map: &ClusterMap, table: &Arc<Table>, kept: &Kept, is_whole: bool) -> Result<LogicalPlan, DataFusionError> {
    let provider = Arc::new(VoltTable::of(map, table, false));
    let name = TableReference::bare(table.name.as_str());
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(provider), None)?;
    if is_whole {
        return scan.build();
    }
    let groups = match kept.groups.as_slice() {
        [(Expr::Literal(_), _)] => Vec::new(),
        groups => (0..groups.len()).map(|place| ident(group_name(place))).collect(),
    };
    let mut added = vec![sum(ident(ROWS)).alias(ROWS)];
    for (place, aggregate) in kept.aggregates.iter().enumerate() {
        for part in 0..aggregate.column_types().len() {
            let name = value_name(place, part);
            let added_up = match aggregate {
                ViewAggregate::Extreme { greatest: true, .. } => max(ident(&name)),
                ViewAggregate::Extreme { .. } => min(ident(&name)),
                _ => sum(ident(&name)),
            };
            added.push(added_up.alias(name));
        }
    }
    scan.aggregate(groups, added)?.build()
}

/// What the query's aggregate gives, under its own names and of its own types, from one row a group.
fn outputs(kept: &Kept, schema: &DFSchema, rows: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let mut exprs = Vec::with_capacity(kept.outputs.len());
    let is_added_up = matches!(rows, LogicalPlan::Aggregate(_));
    let values: BTreeMap<&str, DfExpr> = rows
        .schema()
        .iter()
        .map(|(qualifier, field)| (field.name().as_str(), DfExpr::Column((qualifier, field).into())))
        .collect();
    let value = |name: &str| values.get(name).cloned().unwrap_or_else(|| col(name));
    for (place, output) in kept.outputs.iter().enumerate() {
        let (qualifier, field) = schema.qualified_field(place);
        let data_type = field.data_type();
        // Without groups there is a row, also when no partition has one.
        let count = |name: &str| {
            let is_null = value(name).is_null();
            let counted = when(is_null, lit(0_i64)).otherwise(value(name))?;
            // There is a row of its own for each group, which counts its rows.
            Ok::<_, DataFusionError>(if is_added_up { counted } else { value(name) })
        };
        let of_values = |place: usize, expr: DfExpr| when(value(&value_name(place, 1)).gt(lit(0_i64)), expr).end();
        let expr = match output {
            Output::Group(group) => value(&group_name(*group)),
            Output::Rows => count(ROWS)?,
            Output::Count(place) => count(&value_name(*place, 0))?,
            Output::Sum(place) => of_values(*place, cast(value(&value_name(*place, 0)), data_type.clone()))?,
            Output::Average(place) => {
                let (total, count) = (value(&value_name(*place, 0)), value(&value_name(*place, 1)));
                of_values(*place, average(total, count, data_type))?
            }
            Output::Extreme(place) => value(&value_name(*place, 0)),
        };
        // No cast where there is nothing to cast: conditions on the column are to find rows by it.
        let expr = match expr.get_type(rows.schema())? == *data_type {
            true => expr,
            false => cast(expr, data_type.clone()),
        };
        exprs.push(expr.alias_qualified(qualifier.cloned(), field.name()));
    }
    LogicalPlanBuilder::from(rows).project(exprs)?.build()
}

fn average(total: DfExpr, count: DfExpr, data_type: &ArrowType) -> DfExpr {
    match data_type {
        ArrowType::Float64 => cast(total, ArrowType::Float64) / cast(count, ArrowType::Float64),
        _ => cast(total / cast(count, ArrowType::Decimal128(19, 0)), data_type.clone()),
    }
}
