//! A query over one table: each node of the plan, from the scan up, becomes a condition, a stage, or what the next ones
//! mean by their columns.

use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::{AggregateFunction as DfAggregate, Sort as DfSort};
use datafusion::logical_expr::{Aggregate as AggregateNode, Expr as DfExpr, LogicalPlan};
use volt_engine::catalog::Table;
use volt_engine::plan::{Action, Aggregate, AggregateFunction, Expr, SortKey, Stage};
use volt_engine::value::{DataType, Value};

use super::access::{Found, Order, find, find_in_order, flatten, partition_value};
use super::expr::compile_expr;
use super::{Compiled, Compiler, Route, not};
use crate::query::types::{from_arrow, to_arrow};

/// What has been compiled of a query.
struct Query<'a> {
    table: &'a Table,
    /// What rows of the table must satisfy; until they are looked for.
    conditions: Vec<Expr>,
    route: Route,
    found: Option<Found>,
    /// The conditions that the rows were looked for by.
    looked_for: Vec<Expr>,
    stages: Vec<Stage>,
    /// What the columns of the node at hand are, of rows of the last stage, or of the table's.
    columns: Vec<Expr>,
}

/// Compiles it.
pub(super) fn select(table: &Table, plan: &LogicalPlan) -> Compiled<(Action, Route)> {
    let mut query = Query::new(table);
    query.node(plan)?;
    Ok(query.finish())
}

/// The aggregates of a table's rows.
pub(in crate::query) struct Aggregated {
    /// What rows must satisfy to count, all of it.
    pub(in crate::query) conditions: Vec<Expr>,
    pub(in crate::query) group: Vec<Expr>,
    pub(in crate::query) aggregates: Vec<Aggregate>,
    /// For each column of the plan, its place among the groups and then the aggregates.
    pub(in crate::query) columns: Vec<usize>,
}

/// Compiles a plan whose top is an aggregate.
pub(in crate::query) fn aggregated(table: &Table, plan: &LogicalPlan) -> Compiled<Aggregated> {
    let mut query = Query::new(table);
    query.node(plan)?;
    let mut stages = query.stages.into_iter();
    let (Some(Stage::Aggregate { group, aggregates }), None) = (stages.next(), stages.next()) else {
        return not("more than groups and aggregates of a table's own columns");
    };
    let column = |column: &Expr| match column {
        Expr::Column(place) => Ok(*place),
        _ => not("more than groups and aggregates"),
    };
    Ok(Aggregated {
        conditions: query.looked_for,
        columns: query.columns.iter().map(column).collect::<Compiled<_>>()?,
        group,
        aggregates,
    })
}

impl<'a> Query<'a> {
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            conditions: Vec::new(),
            route: if table.is_replicated() { Route::Any } else { Route::All },
            found: None,
            looked_for: Vec::new(),
            stages: Vec::new(),
            columns: Vec::new(),
        }
    }

    fn node(&mut self, plan: &LogicalPlan) -> Compiled<()> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let compiler = Compiler(self.table);
                let columns = scan.projected_schema.columns();
                self.columns = columns
                    .iter()
                    .map(|column| compiler.column(column))
                    .collect::<Compiled<_>>()?;
                for filter in &scan.filters {
                    flatten(compiler.expr(filter)?, &mut self.conditions);
                }
                Ok(())
            }
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Filter(filter) => {
                self.node(&filter.input)?;
                let condition = self.expr(&filter.predicate, filter.input.schema())?;
                if self.found.is_none() {
                    flatten(condition, &mut self.conditions);
                } else {
                    self.stages.push(Stage::Filter(condition));
                }
                Ok(())
            }
            LogicalPlan::Projection(projection) => {
                self.node(&projection.input)?;
                let schema = projection.input.schema();
                if !self.columns.iter().all(is_plain) {
                    // What is computed is computed once.
                    self.materialise();
                }
                let columns = projection.expr.iter().map(|expr| self.expr(expr, schema));
                self.columns = columns.collect::<Compiled<_>>()?;
                Ok(())
            }
            LogicalPlan::Sort(sort) => {
                self.node(&sort.input)?;
                self.sort(&sort.expr, sort.input.schema())?;
                if let Some(fetch) = sort.fetch {
                    self.limit(None, Some(Expr::Literal(Value::BigInt(fetch as i64))));
                }
                Ok(())
            }
            LogicalPlan::Limit(limit) => {
                self.node(&limit.input)?;
                let count = |expr: &Option<Box<DfExpr>>| {
                    let compiled = expr.as_ref().map(|expr| compile_expr(expr, &|_| None));
                    compiled.transpose()
                };
                let (skip, fetch) = (count(&limit.skip)?, count(&limit.fetch)?);
                self.limit(skip.filter(|skip| *skip != Expr::Literal(Value::BigInt(0))), fetch);
                Ok(())
            }
            LogicalPlan::Aggregate(aggregate) => {
                self.node(&aggregate.input)?;
                self.aggregate(aggregate)
            }
            other => not(format!("{}", other.display())),
        }
    }

    fn expr(&self, expr: &DfExpr, schema: &DFSchema) -> Compiled<Expr> {
        compile_expr(expr, &|column| {
            let place = schema.maybe_index_of_column(column)?;
            self.columns.get(place).cloned()
        })
    }

    /// From here on the rows are not the table's.
    fn look(&mut self) -> &mut Found {
        self.look_for(None)
    }

    /// The same; perhaps the rows come in the order that is wanted.
    fn look_for(&mut self, order: Option<&[Order]>) -> &mut Found {
        let (table, conditions) = (self.table, &mut self.conditions);
        let (route, looked_for) = (&mut self.route, &mut self.looked_for);
        self.found.get_or_insert_with(|| {
            if let Some(value) = partition_value(table, conditions) {
                *route = Route::Single(value);
            }
            let conditions = std::mem::take(conditions);
            looked_for.clone_from(&conditions);
            match order {
                Some(order) => find_in_order(table, conditions, order),
                None => find(table, conditions),
            }
        })
    }

    /// Makes rows of what the columns are.
    fn materialise(&mut self) {
        self.look();
        let rows = std::mem::take(&mut self.columns);
        self.columns = (0..rows.len()).map(Expr::Column).collect();
        // They may be the rows of the last stage already.
        let width = match self.stages.last() {
            Some(Stage::Project(exprs)) => Some(exprs.len()),
            Some(Stage::Aggregate { group, aggregates }) => Some(group.len() + aggregates.len()),
            _ => None,
        };
        if width != Some(rows.len()) || rows != self.columns {
            self.stages.push(Stage::Project(rows));
        }
    }

    fn sort(&mut self, keys: &[DfSort], schema: &DFSchema) -> Compiled<()> {
        let of_table = self.stages.is_empty();
        let table = self.table;
        let order: Option<Vec<Order>> = keys
            .iter()
            .map(|key| match self.expr(&key.expr, schema).ok()? {
                Expr::Column(column) => Some(Order {
                    column,
                    descending: !key.asc,
                    nulls_first: key.nulls_first,
                }),
                _ => None,
            })
            .collect();
        let order = order.filter(|_| of_table);
        let found = self.look_for(order.as_deref());
        if order.is_some_and(|order| found.comes_in(table, &order)) {
            return Ok(());
        }
        self.materialise();
        let sort_key = |key: &DfSort| {
            Ok(SortKey {
                expr: self.expr(&key.expr, schema)?,
                descending: !key.asc,
                nulls_first: key.nulls_first,
            })
        };
        let keys = keys.iter().map(sort_key).collect::<Compiled<_>>()?;
        self.stages.push(Stage::Sort(keys));
        Ok(())
    }

    fn limit(&mut self, skip: Option<Expr>, fetch: Option<Expr>) {
        self.look();
        self.stages.push(Stage::Limit { skip, fetch });
    }

    fn aggregate(&mut self, node: &AggregateNode) -> Compiled<()> {
        self.look();
        let schema = node.input.schema();
        let group = node.group_expr.iter().map(|expr| self.expr(expr, schema));
        let group = group.collect::<Compiled<Vec<_>>>()?;
        let mut aggregates = Vec::with_capacity(node.aggr_expr.len());
        for (place, expr) in node.aggr_expr.iter().enumerate() {
            let result = node.schema.field(group.len() + place).data_type();
            let data_type = from_arrow(result);
            let expr = expr.clone().unalias();
            let DfExpr::AggregateFunction(call) = &expr else {
                return not(format!("the aggregate {expr}"));
            };
            let aggregate = self.call(call, schema, data_type)?;
            // Of a NUMERIC, DataFusion may have more digits.
            let exact = matches!(result, datafusion::arrow::datatypes::DataType::Decimal128(_, scale)
                if matches!(data_type, DataType::Numeric { scale: ours, .. } if i16::from(ours) == i16::from(*scale)));
            if to_arrow(data_type) != *result && !exact {
                return not(format!("an aggregate of the type {result}"));
            }
            aggregates.push(aggregate);
        }
        self.columns = (0..group.len() + aggregates.len()).map(Expr::Column).collect();
        self.stages.push(Stage::Aggregate { group, aggregates });
        Ok(())
    }

    fn call(&self, call: &DfAggregate, schema: &DFSchema, data_type: DataType) -> Compiled<Aggregate> {
        let params = &call.params;
        let function = match call.func.name() {
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            "avg" => AggregateFunction::Avg,
            other => return not(format!("the aggregate function {other}")),
        };
        let [argument] = params.args.as_slice() else {
            return not("an aggregate of several values");
        };
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return not("an ordered aggregate");
        }
        let argument = match self.expr(argument, schema)? {
            Expr::Literal(value)
                if value != Value::Null && function == AggregateFunction::Count && !params.distinct =>
            {
                None
            }
            other => Some(other),
        };
        let filter = params.filter.as_ref();
        Ok(Aggregate {
            function,
            argument,
            distinct: params.distinct,
            filter: filter.map(|filter| self.expr(filter, schema)).transpose()?,
            data_type,
        })
    }

    /// Limits at the end are the page's.
    fn finish(mut self) -> (Action, Route) {
        self.look();
        let (mut offset, mut limit) = (0_u64, None::<u64>);
        while let Some(Stage::Limit { skip, fetch }) = self.stages.last() {
            let (Some(inner_skip), Some(inner)) = (constant(skip.as_ref(), 0), constant(fetch.as_ref(), u64::MAX))
            else {
                break;
            };
            let left = inner.saturating_sub(offset);
            limit = Some(limit.map_or(left, |limit| limit.min(left)));
            offset = offset.saturating_add(inner_skip);
            self.stages.pop();
        }
        let (access, filter) = match self.found {
            Some(found) => (found.access, found.filter),
            None => (volt_engine::plan::Access::Scan, None),
        };
        let action = Action::Select {
            access,
            filter,
            stages: self.stages,
            project: self.columns,
            limit: limit.filter(|limit| *limit < u64::MAX),
            offset,
        };
        (action, self.route)
    }
}

/// A count that is known, or what stands for none.
fn constant(expr: Option<&Expr>, otherwise: u64) -> Option<u64> {
    match expr {
        None => Some(otherwise),
        Some(Expr::Literal(Value::BigInt(count))) => u64::try_from(*count).ok(),
        Some(Expr::Literal(Value::Int(count))) => u64::try_from(*count).ok(),
        Some(_) => None,
    }
}

fn is_plain(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_) | Expr::Literal(_) | Expr::Parameter(_))
}
