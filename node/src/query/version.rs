//! `_version`: a column that every table has and that no `*` shows, the LSN of the row.
//!
//! A statement that names it is planned with tables that have the column; its `*` are rewritten, so that they leave it out.
//! All other statements know nothing of it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, ExcludeSelectItem, Ident, Insert, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, Statement, TableFactor, Update, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};

use super::ddl::{name_of, table_name};
use super::syntax::position_of;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;

/// Its name.
pub(super) const VERSION: &str = "_version";

/// Prepares a statement that names the column; false: it doesn't.
pub(super) fn prepare(statement: &mut Statement, sql: &str, map: &ClusterMap) -> Result<bool, SqlError> {
    let is_near = sql
        .as_bytes()
        .windows(VERSION.len())
        .any(|part| part.eq_ignore_ascii_case(VERSION.as_bytes()));
    if !is_near || position_of(sql, VERSION).is_none() {
        return Ok(false);
    }
    let is_written = match statement {
        Statement::Insert(insert) => inserts(insert),
        Statement::Update(update) => sets(update),
        _ => false,
    };
    if is_written {
        let message = format!("column \"{VERSION}\" can't be written: it is the row's own version");
        let error = SqlError::new("428C9", message);
        return Err(match position_of(sql, VERSION) {
            Some(position) => error.at(position),
            None => error,
        });
    }
    let mut names = CommonTables::default();
    let _ = statement.visit(&mut names);
    let mut stars = Stars { map, common: names.0 };
    match statement.visit(&mut stars) {
        ControlFlow::Continue(()) => Ok(true),
        ControlFlow::Break(error) => Err(error),
    }
}

fn is_version(name: &ObjectName) -> bool {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|ident| name_of(ident) == VERSION)
}

fn inserts(insert: &Insert) -> bool {
    insert.columns.iter().any(is_version)
}

fn sets(update: &Update) -> bool {
    update.assignments.iter().any(|assignment| match &assignment.target {
        AssignmentTarget::ColumnName(name) => is_version(name),
        AssignmentTarget::Tuple(names) => names.iter().any(is_version),
    })
}

/// The names that WITH gives: a table of that name is none of ours.
#[derive(Default)]
struct CommonTables(BTreeSet<String>);

impl VisitorMut for CommonTables {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.0.extend(tables.map(|table| name_of(&table.alias.name)));
        ControlFlow::Continue(())
    }
}

/// Rewrites each `*`.
struct Stars<'a> {
    map: &'a ClusterMap,
    common: BTreeSet<String>,
}

impl VisitorMut for Stars<'_> {
    type Break = SqlError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        match self.rewrite(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// What a SELECT reads.
struct Relation {
    /// How its columns are qualified; None: it has no name.
    name: Option<ObjectName>,
    /// One of our tables.
    is_ours: bool,
}

impl Stars<'_> {
    fn rewrite(&self, select: &mut Select) -> Result<(), SqlError> {
        let joins: Vec<&Join> = select.from.iter().flat_map(|from| &from.joins).collect();
        let factors = select.from.iter().map(|from| &from.relation);
        let factors = factors.chain(joins.iter().map(|join| &join.relation));
        let relations: Vec<Relation> = factors.map(|factor| self.relation(factor)).collect();
        if !relations.iter().any(|relation| relation.is_ours) {
            return Ok(());
        }
        let merges = |join: &&Join| !matches!(constraint(join), Some(JoinConstraint::On(_) | JoinConstraint::None));
        let merges = joins.iter().any(merges);
        let is_natural = |join: &&Join| constraint(join) == Some(&JoinConstraint::Natural);
        if joins.iter().any(is_natural) {
            return Err(SqlError::unsupported(format!(
                "NATURAL JOIN in a statement with {VERSION}"
            )));
        }
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) if relations.len() == 1 => {
                    items.push(SelectItem::Wildcard(without(options)))
                }
                SelectItem::Wildcard(_) if merges || relations.iter().any(|relation| relation.name.is_none()) => {
                    return Err(SqlError::unsupported(format!(
                        "* over this JOIN in a statement with {VERSION}"
                    )));
                }
                // In the order of the text, as `*` has it.
                SelectItem::Wildcard(_) => items.extend(self.each(select)),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    let is_it =
                        |relation: &&Relation| relation.name.as_ref().is_some_and(|known| is_same(known, &name));
                    let is_ours = relations.iter().find(is_it).is_some_and(|relation| relation.is_ours);
                    items.push(star_of(name, options, is_ours));
                }
                other => items.push(other),
            }
        }
        select.projection = items;
        Ok(())
    }

    /// `*` of each relation, in order.
    fn each(&self, select: &Select) -> Vec<SelectItem> {
        let factors = select.from.iter();
        let factors = factors
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        let relations = factors.map(|factor| self.relation(factor));
        let star = |relation: Relation| {
            let options = WildcardAdditionalOptions::default();
            relation.name.map(|name| star_of(name, options, relation.is_ours))
        };
        relations.filter_map(star).collect()
    }

    fn relation(&self, factor: &TableFactor) -> Relation {
        let alias = match factor {
            TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias.as_ref(),
            _ => None,
        };
        let alias = alias.map(|alias| ObjectName::from(vec![alias.name.clone()]));
        let TableFactor::Table { name, .. } = factor else {
            return Relation {
                name: alias,
                is_ours: false,
            };
        };
        let known = table_name(name).ok();
        let is_common = |known: &String| name.0.len() == 1 && self.common.contains(known);
        let is_ours = known.is_some_and(|known| {
            !is_common(&known) && self.map.table(&known).is_some_and(|table| !table.is_replicated())
        });
        Relation {
            name: Some(alias.unwrap_or_else(|| name.clone())),
            is_ours,
        }
    }
}

fn is_same(one: &ObjectName, other: &ObjectName) -> bool {
    let last = |name: &ObjectName| name.0.last().and_then(|part| part.as_ident()).map(name_of);
    last(one) == last(other)
}

fn star_of(name: ObjectName, options: WildcardAdditionalOptions, is_ours: bool) -> SelectItem {
    let options = if is_ours { without(options) } else { options };
    SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
}

/// `* EXCLUDE (_version)`.
fn without(options: WildcardAdditionalOptions) -> WildcardAdditionalOptions {
    let version = ObjectName::from(vec![Ident::new(VERSION)]);
    WildcardAdditionalOptions {
        opt_exclude: Some(ExcludeSelectItem::Single(version)),
        ..options
    }
}

fn constraint(join: &Join) -> Option<&JoinConstraint> {
    match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint) => Some(constraint),
        _ => None,
    }
}
