//! What the columns of a result are called: PostgreSQL's rule, not DataFusion's, which names an expression by its text.

use datafusion::sql::sqlparser::ast::{Expr, Function, Query, SelectItem, SetExpr, Statement, Value};

use super::ddl::name_of;

/// An expression with no better name.
const NAMELESS: &str = "?column?";

/// The names of a statement's `width` columns, where the text decides them; None: the column's own.
pub(super) fn output_names(statement: &Statement, width: usize) -> Vec<Option<String>> {
    match statement {
        Statement::Query(query) => query_names(query, width),
        _ => vec![None; width],
    }
}

fn query_names(query: &Query, width: usize) -> Vec<Option<String>> {
    let mut body = &*query.body;
    loop {
        match body {
            // Of a UNION, the first part names the columns.
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => return query_names(query, width),
            SetExpr::Select(select) => return select_names(&select.projection, width),
            _ => return vec![None; width],
        }
    }
}

/// One `*` stands for as many columns as the rest leaves; of several, nothing is known.
fn select_names(items: &[SelectItem], width: usize) -> Vec<Option<String>> {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let stars = items.iter().filter(|item| is_star(item)).count();
    let Some(covered) = (width + stars).checked_sub(items.len()).filter(|_| stars <= 1) else {
        return vec![None; width];
    };
    let names = items.iter().flat_map(|item| match item {
        SelectItem::UnnamedExpr(expr) => vec![Some(name(expr).unwrap_or_else(|| NAMELESS.to_owned()))],
        SelectItem::ExprWithAlias { alias, .. } => vec![Some(name_of(alias))],
        _ => vec![None; covered],
    });
    let names: Vec<_> = names.collect();
    if names.len() == width { names } else { vec![None; width] }
}

fn name(expr: &Expr) -> Option<String> {
    let word = |word: &str| Some(word.to_owned());
    match expr {
        Expr::Identifier(ident) => Some(name_of(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(name_of),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name(inner),
        Expr::Cast { expr, data_type, .. } => name(expr).or_else(|| Some(type_name(&data_type.to_string()))),
        Expr::Function(function) => function_name(function),
        Expr::Case { else_result, .. } => else_result
            .as_deref()
            .filter(|otherwise| !matches!(otherwise, Expr::Value(_)))
            .and_then(name)
            .or_else(|| word("case")),
        Expr::Exists { .. } => word("exists"),
        Expr::Subquery(query) => query_names(query, 1).pop().flatten(),
        Expr::Extract { .. } => word("extract"),
        Expr::Substring { .. } => word("substring"),
        Expr::Trim { .. } => word("btrim"),
        Expr::Position { .. } => word("position"),
        Expr::Ceil { .. } => word("ceil"),
        Expr::Floor { .. } => word("floor"),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => word("bool"),
        _ => None,
    }
}

fn function_name(function: &Function) -> Option<String> {
    function.name.0.last().and_then(|part| part.as_ident()).map(name_of)
}

/// `bigint` is called `int8` in PostgreSQL's catalog, and so are columns.
fn type_name(written: &str) -> String {
    let bare = written.split('(').next().unwrap_or(written).trim().to_lowercase();
    let known = match bare.as_str() {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "double precision" | "double" | "float" => "float8",
        "real" => "float4",
        "boolean" => "bool",
        "decimal" | "dec" => "numeric",
        "character varying" => "varchar",
        other => other,
    };
    known.to_owned()
}
