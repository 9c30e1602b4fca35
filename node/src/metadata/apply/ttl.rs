//! USING TTL of tables: what expires, and the index that it is found by, which comes and goes with it.

use std::sync::Arc;

use volt_engine::catalog::{Column, IndexState, Table, Ttl};
use volt_engine::{IndexId, TableId};

use super::indexes;
use crate::metadata::command::{
    Applied, CommandResult, MAX_TTL_BATCH_SIZE, MAX_TTL_FREQUENCY, MAX_TTL_MICROS, NewTtl, Refusal,
};
use crate::metadata::map::ClusterMap;

/// Gives a table a TTL, or another one. Answers with an index if that is new and to be built.
pub(super) fn set(map: &mut ClusterMap, id: TableId, new: NewTtl) -> CommandResult {
    let mut table = Table::clone(map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?);
    let index = change(map, &mut table, new, IndexState::Building)?;
    map.tables.insert(id, Arc::new(table));
    map.catalog_version += 1;
    Ok(index.map_or(Applied::Done, Applied::IndexCreated))
}

/// The TTL goes, and its index.
pub(super) fn drop(map: &mut ClusterMap, id: TableId) -> CommandResult {
    let table = map.tables.get(&id).ok_or(Refusal::NoSuchTable(id))?;
    let ttl = table.ttl.clone().ok_or_else(|| Refusal::NoTtl(table.name.clone()))?;
    indexes::change(map, id, |table| {
        table.ttl = None;
        table.indexes.retain(|index| index.shape.id != ttl.index);
    });
    Ok(Applied::Done)
}

/// The same for a table that is not in the map, or not so. An error changes nothing. Returns the index if it is new.
pub(super) fn change(
    map: &mut ClusterMap,
    table: &mut Table,
    new: NewTtl,
    state: IndexState,
) -> Result<Option<IndexId>, Refusal> {
    if table.view.is_some() {
        let reason = "the rows of a materialized view have no TTL";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    if table.is_replicated() {
        let reason = "the rows of a replicated table have no TTL";
        return Err(Refusal::Invalid(reason.to_owned()));
    }
    let column = check(&table.columns, &new)?;
    let known = table.ttl.take();
    let (index, is_new) = match known {
        Some(ttl) if ttl.column == column => (ttl.index, false),
        known => {
            if let Some(ttl) = known {
                table.indexes.retain(|index| index.shape.id != ttl.index);
            }
            let index = indexes::defined(map, table, new.index, state)?;
            let number = index.shape.id;
            table.indexes.push(index);
            (number, true)
        }
    };
    table.ttl = Some(Ttl {
        column,
        lifetime_micros: new.lifetime_micros,
        batch_size: new.batch_size,
        max_frequency: new.max_frequency,
        index,
    });
    Ok(is_new.then_some(index))
}

/// The place of the column that says how old a row is.
pub(super) fn check(columns: &[Column], new: &NewTtl) -> Result<usize, Refusal> {
    let invalid = |reason: &str| Refusal::Invalid(reason.to_owned());
    let bounds = [
        (new.lifetime_micros, 1_000_000, MAX_TTL_MICROS),
        (new.batch_size.into(), 1, MAX_TTL_BATCH_SIZE.into()),
        (new.max_frequency.into(), 1, MAX_TTL_FREQUENCY.into()),
    ];
    if bounds.iter().any(|(value, least, most)| value < least || value > most) {
        return Err(invalid("a TTL's time, batch size or frequency is beyond its bounds"));
    }
    let index = &new.index;
    let [column] = index.columns[..] else {
        return Err(invalid("a TTL's index is of one column"));
    };
    if column.descending || index.predicate.is_some() || index.unique || index.constraint {
        return Err(invalid("a TTL's index has every row once, the oldest first"));
    }
    match columns.get(column.place) {
        Some(of_table) if Ttl::takes(of_table.data_type) => Ok(column.place),
        _ => Err(invalid(
            "a TTL's column is a TIMESTAMP, or an INT or BIGINT of seconds since 1970",
        )),
    }
}

#[cfg(test)]
mod tests;
