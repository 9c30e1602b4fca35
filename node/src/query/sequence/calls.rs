//! The calls of `nextval`, `currval` and `lastval` in a statement. Each becomes a parameter behind the client's own: so its
//! value is known before the statement is routed, travels with it, and is the same however often it is tried.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, CastKind, DataType as AstType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, Insert, ObjectName, Query, SetExpr, Statement, TableFactor, TableObject, Update, Value, Values, Visit,
    Visitor, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use volt_engine::SequenceId;
use volt_engine::catalog::{Column, ColumnDefault, SequenceDefault, Table};
use volt_engine::value::Value as EngineValue;

use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::query::ddl::{name_of, table_name};
use crate::query::procedure::sql_type;
use crate::query::syntax::{Parsed, parse};

/// A call whose value becomes a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::query) enum Call {
    /// `nextval`.
    Next(SequenceId),
    /// `currval`.
    Current(SequenceId),
    /// `lastval`.
    Last,
}

/// OVERRIDING of an INSERT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::query) enum Overriding {
    /// SYSTEM VALUE: given values go into GENERATED ALWAYS columns too.
    System,
    /// USER VALUE: given values don't go into identity columns.
    User,
}

/// What calls there were.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::query) struct Calls {
    /// Those that became parameters, in their order.
    pub(in crate::query) taken: Vec<Call>,
    /// A query over tables calls `nextval`, for each row.
    pub(in crate::query) has_function: bool,
}

/// Puts parameters, behind the client's own, in the places of a statement's calls, and of the defaults that are sequences;
/// also says how many are the client's own. It may have declared more than it uses.
pub(in crate::query) fn take_calls(
    statement: &mut Statement,
    declared: usize,
    overriding: Option<Overriding>,
    map: &ClusterMap,
) -> Result<(usize, Calls), SqlError> {
    let greatest = greatest_parameter(statement);
    if greatest > MAX_PARAMETERS {
        let error = SqlError::new("42P02", format!("there is no parameter ${greatest}"));
        return Err(error.hint(format!("A statement has {MAX_PARAMETERS} parameters at most.")));
    }
    let count = greatest.max(declared);
    let mut taker = Taker {
        map,
        first: count + 1,
        calls: Calls::default(),
        is_once: is_once(statement),
    };
    taker.defaults_in(statement, overriding)?;
    taker.calls_in(statement)?;
    Ok((count, taker.calls))
}

/// So many values can be bound, by the protocol.
const MAX_PARAMETERS: usize = 65_535;

/// The greatest number of a parameter.
fn greatest_parameter(statement: &Statement) -> usize {
    struct Greatest(usize);
    impl Visitor for Greatest {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && let Value::Placeholder(id) = &value.value
                && let Ok(number) = id.trim_start_matches('$').parse::<usize>()
            {
                self.0 = self.0.max(number);
            }
            ControlFlow::Continue(())
        }
    }
    let mut greatest = Greatest(0);
    let _ = statement.visit(&mut greatest);
    greatest.0
}

struct Taker<'a> {
    map: &'a ClusterMap,
    first: usize,
    calls: Calls,
    /// Each of its expressions is evaluated once.
    is_once: bool,
}

impl Taker<'_> {
    fn placeholder(&mut self, call: Call) -> Expr {
        self.calls.taken.push(call);
        let number = self.first + self.calls.taken.len() - 1;
        Expr::value(Value::Placeholder(format!("${number}")))
    }

    fn default(&mut self, column: &Column) -> Result<Expr, SqlError> {
        match &column.default {
            Some(ColumnDefault::Sequence { sequence, .. }) => Ok(self.placeholder(Call::Next(*sequence))),
            _ => plain_default(column),
        }
    }

    fn defaults_in(&mut self, statement: &mut Statement, overriding: Option<Overriding>) -> Result<(), SqlError> {
        match statement {
            Statement::Insert(insert) => self.insert(insert, overriding),
            Statement::Update(update) => self.update(update),
            Statement::Explain { statement, .. } => self.defaults_in(statement, overriding),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, insert: &mut Insert, overriding: Option<Overriding>) -> Result<(), SqlError> {
        let TableObject::TableName(name) = &insert.table else {
            return Ok(());
        };
        let Some(table) = self.map.table(&table_name(name)?).map(Arc::clone) else {
            return Ok(());
        };
        if insert.source.is_none() && insert.assignments.is_empty() {
            insert.source = Some(Box::new(one_empty_row()?));
        }
        let Some(source) = &mut insert.source else {
            return Ok(());
        };
        let SetExpr::Values(values) = &mut *source.body else {
            return self.insert_of_query(insert, &table, overriding);
        };
        let names = insert.columns.iter().map(|name| name.0.last()?.as_ident().map(name_of));
        let places: Vec<Option<&Column>> = names.map(|name| column_of(&table, &name?)).collect();
        for (place, column) in places.iter().enumerate() {
            if let Some(column) = column {
                self.given(values, place, column, overriding)?;
            }
        }
        let named: Vec<&str> = places.iter().flatten().map(|column| column.name.as_str()).collect();
        for column in &table.columns {
            if let Some(ColumnDefault::Sequence { sequence, .. }) = column.default
                && !named.contains(&column.name.as_str())
            {
                let name = Ident::with_quote('"', &column.name);
                insert.columns.push(ObjectName::from(vec![name]));
                for row in &mut values.rows {
                    row.content.push(self.placeholder(Call::Next(sequence)));
                }
            }
        }
        // `DEFAULT VALUES` of a table without sequences.
        if let (true, Some((_, column))) = (insert.columns.is_empty(), table.present_columns().next()) {
            insert
                .columns
                .push(ObjectName::from(vec![Ident::with_quote('"', &column.name)]));
            let default = self.default(column)?;
            values.rows.iter_mut().for_each(|row| row.content.push(default.clone()));
        }
        Ok(())
    }

    /// An INSERT of a query's rows: a column that takes a sequence's values, and is not named, takes one for each row.
    fn insert_of_query(
        &mut self,
        insert: &mut Insert,
        table: &Table,
        overriding: Option<Overriding>,
    ) -> Result<(), SqlError> {
        let names = insert.columns.iter().map(|name| name.0.last()?.as_ident().map(name_of));
        let named: Vec<String> = names.flatten().collect();
        for (_, column) in table.present_columns() {
            let Some(ColumnDefault::Sequence { sequence, kind }) = column.default else {
                continue;
            };
            let is_named = named.contains(&column.name);
            if insert.columns.is_empty() {
                let what = format!(
                    "INSERT of a query's rows without names, as \"{}\" takes a sequence's values,",
                    column.name
                );
                return Err(SqlError::unsupported(what).hint("Name the columns."));
            }
            let is_taken = kind != SequenceDefault::Plain && overriding == Some(Overriding::User);
            match (is_named, kind) {
                (true, _) if is_taken => {
                    return Err(SqlError::unsupported("OVERRIDING USER VALUE of a query's rows"));
                }
                (true, SequenceDefault::IdentityAlways) if overriding != Some(Overriding::System) => {
                    let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
                    return Err(always(message, column).hint("Use OVERRIDING SYSTEM VALUE to override."));
                }
                (true, _) => {}
                (false, _) => {
                    let sequence = self.map.sequences.get(&sequence);
                    let sequence = sequence.ok_or_else(|| SqlError::internal("a column without its sequence"))?;
                    add_next_value(insert, &column.name, &sequence.name)?;
                }
            }
        }
        Ok(())
    }

    /// The values that are given for a column: DEFAULT becomes what it stands for.
    fn given(
        &mut self,
        values: &mut Values,
        place: usize,
        column: &Column,
        overriding: Option<Overriding>,
    ) -> Result<(), SqlError> {
        let kind = match column.default {
            Some(ColumnDefault::Sequence { kind, .. }) => kind,
            _ => SequenceDefault::Plain,
        };
        let is_ignored = kind != SequenceDefault::Plain && overriding == Some(Overriding::User);
        for row in &mut values.rows {
            let Some(value) = row.content.get_mut(place) else {
                continue;
            };
            if is_default(value) || is_ignored {
                *value = self.default(column)?;
            } else if kind == SequenceDefault::IdentityAlways && overriding != Some(Overriding::System) {
                let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
                return Err(always(message, column).hint("Use OVERRIDING SYSTEM VALUE to override."));
            }
        }
        Ok(())
    }

    fn update(&mut self, update: &mut Update) -> Result<(), SqlError> {
        let TableFactor::Table { name, .. } = &update.table.relation else {
            return Ok(());
        };
        let Some(table) = self.map.table(&table_name(name)?).map(Arc::clone) else {
            return Ok(());
        };
        for assignment in &mut update.assignments {
            let AssignmentTarget::ColumnName(name) = &assignment.target else {
                continue;
            };
            let name = name.0.last().and_then(|part| part.as_ident()).map(name_of);
            let Some(column) = name.and_then(|name| column_of(&table, &name)) else {
                continue;
            };
            let is_always = matches!(
                column.default,
                Some(ColumnDefault::Sequence {
                    kind: SequenceDefault::IdentityAlways,
                    ..
                })
            );
            if is_default(&assignment.value) {
                assignment.value = self.default(column)?;
            } else if is_always {
                let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
                return Err(always(message, column));
            }
        }
        Ok(())
    }

    fn calls_in(&mut self, statement: &mut Statement) -> Result<(), SqlError> {
        let done = visit_expressions_mut(statement, |expr| {
            let Expr::Function(function) = expr else {
                return ControlFlow::Continue(());
            };
            match self.call(function) {
                Err(error) => return ControlFlow::Break(error),
                Ok(None) => {}
                Ok(Some(Call::Next(_))) if !self.is_once => self.calls.has_function = true,
                Ok(Some(call)) => {
                    *expr = Expr::Cast {
                        kind: CastKind::Cast,
                        expr: Box::new(self.placeholder(call)),
                        data_type: AstType::BigInt(None),
                        array: false,
                        format: None,
                    };
                }
            }
            ControlFlow::Continue(())
        });
        match done {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn call(&self, function: &Function) -> Result<Option<Call>, SqlError> {
        Ok(match function_name(function).as_deref() {
            Some("nextval") => Some(Call::Next(self.sequence(function, "nextval")?)),
            Some("currval") => Some(Call::Current(self.sequence(function, "currval")?)),
            Some("lastval") if arguments(function).is_some_and(|arguments| arguments.is_empty()) => Some(Call::Last),
            Some("setval") => {
                return Err(SqlError::unsupported("setval but as SELECT setval('sequence', number)"));
            }
            _ => None,
        })
    }

    fn sequence(&self, function: &Function, name: &str) -> Result<SequenceId, SqlError> {
        let sequence = match arguments(function).as_deref() {
            Some([only]) => constant_name(only)?,
            Some(_) => {
                let message = format!("function {name} does not exist with these arguments");
                return Err(SqlError::new("42883", message));
            }
            None => None,
        };
        let Some(sequence) = sequence else {
            return Err(SqlError::unsupported(format!("{name} of what is not a constant name")));
        };
        Ok(self.map.sequence_named(&sequence)?.id)
    }
}

impl ClusterMap {
    /// The sequence with this name, or PostgreSQL's error.
    pub(in crate::query) fn sequence_named(
        &self,
        name: &str,
    ) -> Result<&Arc<crate::metadata::sequence::Sequence>, SqlError> {
        self.sequence(name).ok_or_else(|| match self.has_relation(name) {
            true => SqlError::new("42809", format!("\"{name}\" is not a sequence")),
            false => SqlError::new("42P01", format!("relation \"{name}\" does not exist")),
        })
    }
}

/// Another column of an INSERT: `SELECT *, nextval('sequence') FROM (its query)`.
fn add_next_value(insert: &mut Insert, column: &str, sequence: &str) -> Result<(), SqlError> {
    let Some(source) = insert.source.take() else {
        return Ok(());
    };
    let sequence = format!("\"{}\"", sequence.replace('"', "\"\"")).replace('\'', "''");
    let text = format!("SELECT *, nextval('{sequence}') FROM (SELECT 0) AS rows_to_put");
    let Parsed::Sql(statement) = parse(&text)? else {
        return Err(SqlError::internal("a SELECT that is none"));
    };
    let Statement::Query(mut query) = *statement else {
        return Err(SqlError::internal("a SELECT that is none"));
    };
    if let SetExpr::Select(select) = &mut *query.body
        && let [from] = select.from.as_mut_slice()
        && let TableFactor::Derived { subquery, .. } = &mut from.relation
    {
        *subquery = source;
    }
    insert.source = Some(query);
    let name = Ident::with_quote('"', column);
    insert.columns.push(ObjectName::from(vec![name]));
    Ok(())
}

fn column_of<'t>(table: &'t Table, name: &str) -> Option<&'t Column> {
    table.place_of(name).map(|place| &table.columns[place])
}

fn always(message: String, column: &Column) -> SqlError {
    let name = &column.name;
    SqlError::new("428C9", message).detail(format!(
        "Column \"{name}\" is an identity column defined as GENERATED ALWAYS."
    ))
}

/// The word DEFAULT.
fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// A default that is no sequence, as an expression.
fn plain_default(column: &Column) -> Result<Expr, SqlError> {
    let text = match &column.default {
        None | Some(ColumnDefault::Value(EngineValue::Null)) => "NULL".to_owned(),
        Some(ColumnDefault::Now) => "now()".to_owned(),
        Some(ColumnDefault::Value(value)) => {
            let text = value.as_ref().to_text().replace('\'', "''");
            format!("CAST('{text}' AS {})", sql_type(column.data_type))
        }
        Some(ColumnDefault::Sequence { .. }) => return Err(SqlError::internal("the default is a sequence")),
    };
    parser(&text)?.parse_expr().map_err(SqlError::internal)
}

fn one_empty_row() -> Result<Query, SqlError> {
    let mut query = parser("VALUES (0)")?.parse_query().map_err(SqlError::internal)?;
    if let SetExpr::Values(values) = &mut *query.body {
        values.rows.iter_mut().for_each(|row| row.content.clear());
    }
    Ok(*query)
}

fn parser(text: &str) -> Result<Parser<'static>, SqlError> {
    const DIALECT: &PostgreSqlDialect = &PostgreSqlDialect {};
    Parser::new(DIALECT).try_with_sql(text).map_err(SqlError::internal)
}

/// The function's name, in `pg_catalog` or without a schema.
pub(super) fn function_name(function: &Function) -> Option<String> {
    let parts: Vec<String> = function
        .name
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(name_of)
        .collect();
    match parts.as_slice() {
        [name] => Some(name.clone()),
        [schema, name] if schema == "pg_catalog" => Some(name.clone()),
        _ => None,
    }
}

/// Whether an expression is a call of this function.
pub(in crate::query) fn is_call_of(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if function_name(function).as_deref() == Some(name))
}

/// Its arguments, if they are plain.
pub(super) fn arguments(function: &Function) -> Option<Vec<&Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |argument| match argument {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref expr)) => Some(expr),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// The name that a constant such as `'s'`, `'public.s'` or `'"S"'::regclass` is; None: it is no constant.
pub(in crate::query) fn constant_name(expr: &Expr) -> Result<Option<String>, SqlError> {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => constant_name(expr),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => name_in(text).map(Some),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// A name that is written in a text.
pub(super) fn name_in(text: &str) -> Result<String, SqlError> {
    let invalid = || SqlError::new("42602", "invalid name syntax");
    let mut parser = parser(text).map_err(|_| invalid())?;
    let name = parser.parse_object_name(false).map_err(|_| invalid())?;
    match parser.peek_token().token {
        datafusion::sql::sqlparser::tokenizer::Token::EOF => table_name(&name),
        _ => Err(invalid()),
    }
}

/// It writes rows that it has itself, or is a query without tables: its expressions are evaluated once.
fn is_once(statement: &Statement) -> bool {
    struct Tables;
    impl Visitor for Tables {
        type Break = ();

        fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    match statement {
        Statement::Query(_) => statement.visit(&mut Tables).is_continue(),
        Statement::Explain { statement, .. } => is_once(statement),
        Statement::Insert(insert) => insert
            .source
            .as_ref()
            .is_none_or(|source| matches!(*source.body, SetExpr::Values(_)) || source.visit(&mut Tables).is_continue()),
        _ => true,
    }
}
