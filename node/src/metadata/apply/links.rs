//! Replication links, and the tables that are tracked for them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use volt_engine::TableId;
use volt_engine::catalog::Table;
use volt_engine::changes::ConflictRule;

use crate::metadata::answer::{Applied, CommandResult, Refusal};
use crate::metadata::link::{Link, LinkId, LinkTarget, MAX_LINKS};
use crate::metadata::map::ClusterMap;

/// From then on its tables are tracked, all of them or none. A table has one rule.
pub(super) fn create(
    map: &mut ClusterMap,
    name: String,
    target: LinkTarget,
    tables: &BTreeMap<TableId, ConflictRule>,
) -> CommandResult {
    if map.link(&name).is_some() {
        return Err(Refusal::LinkExists(name));
    }
    if map.links.len() >= MAX_LINKS {
        return Err(Refusal::NotAllowed(format!(
            "a cluster can have at most {MAX_LINKS} replication links"
        )));
    }
    if tables.is_empty() {
        return Err(Refusal::Invalid("a replication link needs a table".to_owned()));
    }
    let tracked = tables.iter().map(|(&table, &rule)| tracked(map, table, rule));
    let tracked: Vec<Arc<Table>> = tracked.collect::<Result<_, Refusal>>()?;
    for table in tracked {
        map.tables.insert(table.id, table);
    }
    let id = map.next_link.max(1);
    map.next_link = id + 1;
    let link = Link {
        id,
        name,
        tables: tables.keys().copied().collect(),
        target,
        is_paused: false,
    };
    map.links.insert(id, Arc::new(link));
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// The table, tracked under a rule.
fn tracked(map: &ClusterMap, id: TableId, rule: ConflictRule) -> Result<Arc<Table>, Refusal> {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    if table.view.is_some() || table.is_replicated() {
        let message = format!("table \"{}\" can't be tracked: it is replicated, or a view", table.name);
        return Err(Refusal::NotAllowed(message));
    }
    if let ConflictRule::Greatest(column) = rule
        && table.columns.get(column).is_none_or(|column| column.is_dropped)
    {
        return Err(Refusal::Invalid(format!(
            "table \"{}\" has no column {column}",
            table.name
        )));
    }
    match table.tracking {
        Some(other) if other != rule => Err(Refusal::NotAllowed(format!(
            "table \"{}\" resolves conflicts by {} already",
            table.name,
            rule_text(table, other)
        ))),
        _ => {
            let mut table = Table::clone(table);
            table.tracking = Some(rule);
            Ok(Arc::new(table))
        }
    }
}

/// As `system.links` and messages have it.
pub(crate) fn rule_text(table: &Table, rule: ConflictRule) -> String {
    match rule {
        ConflictRule::LastWriter => "last_writer".to_owned(),
        ConflictRule::Greatest(column) => {
            let column = table.columns.get(column);
            column.map_or_else(String::new, |column| format!("column {}", column.name))
        }
    }
}

/// A table is tracked from now on, as one to which another cluster's changes come must be; None: it is not any more, which no link may need.
pub(super) fn track(map: &mut ClusterMap, id: TableId, rule: Option<ConflictRule>) -> CommandResult {
    let table = match rule {
        Some(rule) => tracked(map, id, rule)?,
        None => {
            let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
            check_unneeded(map, table, "stop tracking")?;
            let mut table = Table::clone(table);
            table.tracking = None;
            Arc::new(table)
        }
    };
    if map
        .tables
        .get(&id)
        .is_some_and(|before| before.tracking == table.tracking)
    {
        return Ok(Applied::Unchanged);
    }
    map.tables.insert(id, table);
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// An error if a link has this table.
pub(super) fn check_unneeded(map: &ClusterMap, table: &Table, what: &str) -> Result<(), Refusal> {
    let mut links = map.links.values();
    match links.find(|link| link.tables.contains(&table.id)) {
        None => Ok(()),
        Some(link) => Err(Refusal::NeededByLink {
            what: format!("{what} table {}", table.name),
            link: link.name.clone(),
        }),
    }
}

/// Its tables stay tracked: others may send them changes.
pub(super) fn drop(map: &mut ClusterMap, id: LinkId) -> CommandResult {
    map.links.remove(&id).ok_or(Refusal::NoSuchLink(id))?;
    Ok(Applied::Done)
}

pub(super) fn pause(map: &mut ClusterMap, id: LinkId, is_paused: bool) -> CommandResult {
    let link = map.links.get_mut(&id).ok_or(Refusal::NoSuchLink(id))?;
    Arc::make_mut(link).is_paused = is_paused;
    Ok(Applied::Done)
}
