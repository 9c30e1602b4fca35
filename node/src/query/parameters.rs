//! The types of a statement's parameters, after PostgreSQL (its documentation, chapter 10, "Type Conversion").
//!
//! DataFusion types a parameter that is compared, or put into a column. Of those that it leaves open, one under a cast has
//! the cast's type; one among several values of which one is chosen (COALESCE, CASE, BETWEEN ...) has the others'; any
//! other has the type that its client declared, else text.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType as ArrowType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::{Between, Case, InList, Placeholder, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};
use volt_engine::value::DataType;

use super::types::{from_arrow, to_arrow};

/// Functions of several values that all have the type of the result.
const OF_ONE_TYPE: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

/// What is known of the types of `$1`, `$2` and so on before a plan is looked at. Either may be shorter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said<'s> {
    /// By the statement's other plans: a parameter has one type.
    pub(super) before: &'s [Option<DataType>],
    /// By the client.
    pub(super) declared: &'s [Option<DataType>],
}

/// The plan with a type for each parameter of which the statement, or the client, says one.
pub(super) fn settle(plan: LogicalPlan, said: Said<'_>) -> Result<LogicalPlan> {
    let settled = Found::of(&plan)?.settled(said);
    if settled.is_empty() {
        return Ok(plan);
    }
    let typed = plan.transform_up_with_subqueries(|node| {
        // What is compared is made alike later; what is put somewhere has the type of its place.
        let is_condition = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        let node =
            node.map_expressions(|expr| expr.transform_up(|expr| Ok(give_type(expr, &settled, is_condition))))?;
        node.map_data(with_new_types)
    })?;
    Ok(typed.data)
}

/// The types of `$1`, `$2` and so on that plans say, the first word of each.
pub(super) fn known<'p>(plans: impl Iterator<Item = &'p LogicalPlan>) -> Result<Vec<Option<DataType>>> {
    let mut known: Vec<Option<DataType>> = Vec::new();
    for plan in plans {
        for (number, of) in Found::of(plan)?.0 {
            known.resize(known.len().max(number), None);
            known[number - 1] = known[number - 1].or(of.known);
        }
    }
    Ok(known)
}

/// The types of as many parameters as are known, or declared: those known, else those declared, else text.
pub(super) fn types(known: &[Option<DataType>], declared: &[Option<DataType>]) -> Vec<DataType> {
    let of = |place| said(known, place).or(said(declared, place)).unwrap_or(DataType::Text);
    (0..known.len().max(declared.len())).map(of).collect()
}

fn said(types: &[Option<DataType>], place: usize) -> Option<DataType> {
    types.get(place).copied().flatten()
}

/// How a statement uses a parameter.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// The type that DataFusion gave it.
    known: Option<DataType>,
    /// The type of what it stands with.
    beside: Option<DataType>,
    /// Somewhere it has none, or another one.
    is_open: bool,
}

/// The parameters of a plan, by number.
#[derive(Default)]
struct Found(BTreeMap<usize, Use>);

impl Found {
    fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut found = Self::default();
        plan.apply_with_subqueries(|node| {
            let below = merge_schema(&node.inputs());
            if let LogicalPlan::Limit(limit) = node {
                for expr in [limit.skip.as_deref(), limit.fetch.as_deref()].into_iter().flatten() {
                    found.stands_with(expr, Some(DataType::BigInt));
                }
            }
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    found.note(expr, &below);
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(found)
    }

    fn note(&mut self, expr: &Expr, schema: &DFSchema) {
        match expr {
            Expr::Placeholder(placeholder) => self.met(placeholder),
            Expr::Cast(cast) => self.stands_with(&cast.expr, ours(cast.field.data_type())),
            Expr::TryCast(cast) => self.stands_with(&cast.expr, ours(cast.field.data_type())),
            Expr::ScalarFunction(ScalarFunction { func, args }) if OF_ONE_TYPE.contains(&func.name()) => {
                self.have_one_type(args, schema);
            }
            Expr::Between(Between { expr, low, high, .. }) => {
                self.have_one_type([&**expr, &**low, &**high], schema);
            }
            Expr::InList(InList { expr, list, .. }) => {
                self.have_one_type(std::iter::once(&**expr).chain(list), schema);
            }
            Expr::Case(Case {
                expr,
                when_then_expr,
                else_expr,
            }) => {
                if let Some(expr) = expr {
                    let whens = when_then_expr.iter().map(|(when, _)| &**when);
                    self.have_one_type(std::iter::once(&**expr).chain(whens), schema);
                }
                let thens = when_then_expr.iter().map(|(_, then)| &**then);
                self.have_one_type(thens.chain(else_expr.as_deref()), schema);
            }
            _ => {}
        }
    }

    /// A parameter, wherever it is.
    fn met(&mut self, placeholder: &Placeholder) {
        let Some(number) = number(placeholder) else { return };
        let known = placeholder.field.as_ref().map(|field| from_arrow(field.data_type()));
        match self.0.entry(number) {
            Entry::Vacant(entry) => {
                entry.insert(Use {
                    known,
                    beside: None,
                    is_open: known.is_none(),
                });
            }
            Entry::Occupied(mut entry) => {
                let of = entry.get_mut();
                of.is_open |= known.is_none() || (of.known.is_some() && of.known != known);
                of.known = wider(of.known, known);
            }
        }
    }

    /// What stands with something of this type has it too, if it is a parameter without one.
    fn stands_with(&mut self, expr: &Expr, data_type: Option<DataType>) {
        if let Expr::Placeholder(placeholder) = expr
            && placeholder.field.is_none()
            && let Some(number) = number(placeholder)
        {
            let of = self.0.entry(number).or_default();
            of.is_open = true;
            of.beside = of.beside.or(data_type);
        }
    }

    fn have_one_type<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr> + Clone, schema: &DFSchema) {
        let known = |expr: &Expr| expr.get_type(schema).ok().and_then(|of| ours(&of));
        let data_type = exprs.clone().into_iter().find_map(known);
        for expr in exprs {
            self.stands_with(expr, data_type);
        }
    }

    /// The types that parameters get which have none yet, or not everywhere the same.
    fn settled(&self, of_others: Said<'_>) -> BTreeMap<usize, DataType> {
        let settled = self.0.iter().filter_map(|(&number, of)| {
            let place = number - 1;
            let before = said(of_others.before, place);
            if !of.is_open && (before.is_none() || before == of.known) {
                return None;
            }
            let agreed = || agreed(said(of_others.declared, place), of.beside);
            Some((number, before.or(of.known).or_else(agreed)?))
        });
        settled.collect()
    }
}

/// The type of a parameter that is declared as one and stands with another. A declared one stays if the statement turns
/// its values into the other's (a double under a cast to int); of a string, or another integer, the value is converted
/// when it arrives.
fn agreed(declared: Option<DataType>, beside: Option<DataType>) -> Option<DataType> {
    use DataType::{BigInt, Int, Text, Varchar};
    match (declared, beside) {
        (None, other) | (other, None) => other,
        (Some(Text | Varchar(_)), Some(beside)) => Some(beside),
        (Some(Int | BigInt), Some(beside @ (Int | BigInt))) => Some(beside),
        (declared, _) => declared,
    }
}

/// The one of two types that holds the other's values too; else the first.
fn wider(first: Option<DataType>, second: Option<DataType>) -> Option<DataType> {
    let rank = |data_type| match data_type {
        DataType::Int => Some(0),
        DataType::BigInt => Some(1),
        DataType::Numeric { .. } => Some(2),
        DataType::Double => Some(3),
        _ => None,
    };
    match (first.and_then(rank), second.and_then(rank)) {
        (Some(of_first), Some(of_second)) if of_second > of_first => second,
        _ => first.or(second),
    }
}

/// `$1` has number 1.
fn number(placeholder: &Placeholder) -> Option<usize> {
    let number = placeholder.id.strip_prefix('$')?.parse().ok();
    number.filter(|number| *number > 0)
}

/// Our type for an Arrow type that a parameter can have; None: its values are better sent as text.
fn ours(data_type: &ArrowType) -> Option<DataType> {
    match data_type {
        ArrowType::Null | ArrowType::Timestamp(_, Some(_)) => None,
        other => match from_arrow(other) {
            DataType::Text => {
                matches!(other, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View).then_some(DataType::Text)
            }
            known => Some(known),
        },
    }
}

/// A parameter gets its type. If DataFusion gave it another one, it is cast to that, but in a condition.
fn give_type(expr: Expr, settled: &BTreeMap<usize, DataType>, is_condition: bool) -> Transformed<Expr> {
    let Expr::Placeholder(placeholder) = expr else {
        return Transformed::no(expr);
    };
    let Some(data_type) = number(&placeholder).and_then(|number| settled.get(&number)) else {
        return Transformed::no(Expr::Placeholder(placeholder));
    };
    let field = Field::new("", to_arrow(*data_type), true);
    let planned_as = placeholder.field.map(|field| field.data_type().clone());
    let planned_as = planned_as.filter(|planned_as| !is_condition && planned_as != field.data_type());
    let typed = Placeholder::new_with_field(placeholder.id, Some(Arc::new(field)));
    let typed = Expr::Placeholder(typed);
    Transformed::yes(match planned_as {
        Some(planned_as) => cast(typed, planned_as),
        None => typed,
    })
}

/// A node whose expressions, or inputs, have other types than they had.
fn with_new_types(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Values(values) => LogicalPlanBuilder::values(values.values)?.build(),
        other => other.recompute_schema(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::ParamValues;
    use datafusion::prelude::SessionContext;
    use futures::executor::block_on;

    use super::*;

    const NUMERIC: DataType = DataType::Numeric { precision: 8, scale: 2 };

    /// The parameters' types in a statement over t (id int, n bigint, name text, price numeric(8,2), at timestamp).
    fn types_in(sql: &str, declared: &[Option<DataType>]) -> Vec<DataType> {
        let context = SessionContext::new();
        let of_table = [
            ("id", DataType::Int),
            ("n", DataType::BigInt),
            ("name", DataType::Text),
            ("price", NUMERIC),
            ("at", DataType::Timestamp),
        ];
        let columns = of_table.map(|(name, data_type)| Field::new(name, to_arrow(data_type), true));
        let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(columns.to_vec()));
        let table = datafusion::datasource::MemTable::try_new(schema, vec![vec![]]).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let plan = block_on(context.state().create_logical_plan(sql)).unwrap();
        let plan = settle(plan, Said { before: &[], declared }).unwrap();
        let types = types(&known(std::iter::once(&plan)).unwrap(), declared);
        // What was typed can be planned to its end, without values and with NULLs.
        context.state().optimize(&plan).unwrap();
        let nulls = types.iter().map(|data_type| to_arrow(*data_type));
        let nulls = nulls.map(|of| datafusion::common::ScalarValue::try_new_null(&of).unwrap().into());
        let bound = plan.with_param_values(ParamValues::List(nulls.collect())).unwrap();
        context.state().optimize(&bound).unwrap();
        types
    }

    #[test]
    fn a_parameter_has_the_type_of_what_it_stands_with() {
        use DataType::{BigInt, Double, Int, Text, Timestamp};
        for (sql, wanted) in [
            ("SELECT * FROM t WHERE id = $1::int", vec![Int]),
            ("SELECT * FROM t WHERE id = CAST($1 AS BIGINT)", vec![BigInt]),
            (
                "SELECT $1::text, $2::double precision, $3::timestamp",
                vec![Text, Double, Timestamp],
            ),
            ("SELECT * FROM t WHERE $1::int IS NULL OR id = $1", vec![Int]),
            ("SELECT * FROM t WHERE $1 IS NULL OR id = $1", vec![Int]),
            ("SELECT * FROM t WHERE n = COALESCE($1, n)", vec![BigInt]),
            ("SELECT COALESCE(name, $1), NULLIF($2, id) FROM t", vec![Text, Int]),
            ("SELECT GREATEST($1, price) FROM t", vec![NUMERIC]),
            ("SELECT CASE WHEN id = $1 THEN n ELSE $2 END FROM t", vec![Int, BigInt]),
            ("SELECT CASE id WHEN $1 THEN $2 ELSE 'x' END FROM t", vec![Int, Text]),
            ("SELECT * FROM t WHERE $1 BETWEEN id AND n", vec![Int]),
            ("SELECT * FROM t WHERE $1 IN (1, n)", vec![BigInt]),
            (
                "SELECT * FROM t WHERE id IN (SELECT COALESCE($1, id) FROM t)",
                vec![Int],
            ),
            ("SELECT * FROM t ORDER BY id LIMIT $1 OFFSET $2", vec![BigInt, BigInt]),
            ("SELECT * FROM t WHERE at > now() - $1::interval", vec![Text]),
            ("SELECT * FROM t WHERE lower(name) = lower($1)", vec![Text]),
            ("SELECT * FROM t WHERE id = $1 OR n = $1", vec![BigInt]),
            ("VALUES ($1::int, COALESCE($2, 'x')), (7, 'y')", vec![Int, Text]),
            ("SELECT $2::int", vec![Text, Int]),
        ] {
            assert_eq!(types_in(sql, &[]), wanted, "{sql}");
        }
    }

    #[test]
    fn what_the_client_declares_counts_where_the_statement_says_nothing_or_turns_it_into_its_own() {
        use DataType::{BigInt, Double, Int, Text};
        for (sql, declared, wanted) in [
            ("SELECT $1", Int, Int),
            ("SELECT abs($1)", Double, Double),
            ("SELECT $1::int", Double, Double),
            ("SELECT $1::int", BigInt, Int),
            ("SELECT $1::int", Text, Int),
            ("SELECT $1::text", Int, Int),
            ("SELECT COALESCE($1, n) FROM t", Int, BigInt),
            ("SELECT * FROM t WHERE id = $1", BigInt, Int),
        ] {
            assert_eq!(types_in(sql, &[Some(declared)]), [wanted], "{sql}");
        }
    }
}
