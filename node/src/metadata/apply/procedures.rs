//! Stored procedures.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::plan::Program;
use volt_engine::procedure::Procedure;
use volt_engine::{ProcedureId, TableId};

use super::columns;
use crate::metadata::command::{Applied, CommandResult, MAX_MODULES_BYTES, MAX_PROCEDURES, Refusal};
use crate::metadata::map::ClusterMap;

/// One that replaces another is a new procedure: whoever runs the old one goes on with it.
pub(super) fn create(map: &mut ClusterMap, mut procedure: Procedure, replace: bool) -> CommandResult {
    let earlier = map.procedure(&procedure.name).map(|earlier| earlier.id);
    if earlier.is_some() && !replace {
        return Err(Refusal::ProcedureExists(procedure.name));
    }
    procedure
        .validate()
        .map_err(|error| Refusal::Invalid(error.to_string()))?;
    // It was compiled against tables that may be gone by now.
    let tables = procedure.statements.iter().flat_map(|statement| &statement.tables);
    let partition_table = procedure.partition_by.as_ref().map(|by| &by.table);
    if let Some(missing) = tables
        .chain(partition_table)
        .find(|table| !map.tables.contains_key(table))
    {
        return Err(Refusal::NoSuchTable(*missing));
    }
    if let Some(missing) = procedure.sequences().find(|id| !map.sequences.contains_key(id)) {
        return Err(Refusal::NoSuchSequence(missing));
    }
    let mut programs = procedure
        .statements
        .iter()
        .filter_map(|statement| statement.program.as_ref());
    programs.try_for_each(|program| columns::check_program(map, program))?;
    if map.procedures.len() >= MAX_PROCEDURES {
        let message = format!("a cluster has at most {MAX_PROCEDURES} procedures");
        return Err(Refusal::NotAllowed(message));
    }
    let others = map.procedures.values().filter(|other| Some(other.id) != earlier);
    let bytes: usize = others.map(|other| other.module_bytes()).sum();
    if bytes + procedure.module_bytes() > MAX_MODULES_BYTES {
        let message = format!(
            "a cluster's WebAssembly modules have at most {} MiB",
            MAX_MODULES_BYTES >> 20
        );
        return Err(Refusal::NotAllowed(message));
    }
    if let Some(earlier) = earlier {
        map.procedures.remove(&earlier);
    }
    procedure.id = map.next_procedure;
    map.next_procedure += 1;
    map.catalog_version += 1;
    map.procedures.insert(procedure.id, Arc::new(procedure));
    Ok(Applied::Done)
}

/// All of them or none.
pub(super) fn drop(map: &mut ClusterMap, procedures: &BTreeSet<ProcedureId>) -> CommandResult {
    if let Some(missing) = procedures.iter().find(|id| !map.procedures.contains_key(id)) {
        return Err(Refusal::NoSuchProcedure(*missing));
    }
    map.procedures.retain(|id, _| !procedures.contains(id));
    map.catalog_version += 1;
    Ok(Applied::Done)
}

pub(super) fn rename(map: &mut ClusterMap, id: ProcedureId, name: String) -> CommandResult {
    let Some(procedure) = map.procedures.get(&id).cloned() else {
        return Err(Refusal::NoSuchProcedure(id));
    };
    if map.procedure(&name).is_some() {
        return Err(Refusal::ProcedureExists(name));
    }
    let mut renamed = Procedure::clone(&procedure);
    renamed.name = name;
    map.procedures.insert(id, Arc::new(renamed));
    map.catalog_version += 1;
    Ok(Applied::Done)
}

/// A column has gone that no procedure names: what is compiled leaves its place alone from now on. A call that runs goes on with
/// what it began with.
pub(super) fn forget_column(map: &mut ClusterMap, table: TableId, place: usize) {
    for procedure in map.procedures.values_mut() {
        let is_of_table = |program: &Program| program.table == table;
        let mut programs = procedure.statements.iter().filter_map(|one| one.program.as_ref());
        if !programs.any(is_of_table) {
            continue;
        }
        let statements = Arc::make_mut(procedure).statements.iter_mut();
        let programs = statements.filter_map(|statement| statement.program.as_mut());
        programs
            .filter(|program| is_of_table(program))
            .for_each(|program| program.drop_column(place));
    }
}

/// An error while a procedure needs the table.
pub(super) fn check_unneeded(map: &ClusterMap, table: TableId) -> Result<(), Refusal> {
    let needs = |procedure: &&Arc<Procedure>| {
        let mut tables = procedure.statements.iter().flat_map(|statement| &statement.tables);
        tables.any(|needed| *needed == table) || procedure.partition_by.as_ref().is_some_and(|by| by.table == table)
    };
    match map.procedures.values().find(needs) {
        None => Ok(()),
        Some(procedure) => Err(Refusal::Needed {
            table: map.tables.get(&table).map_or(String::new(), |table| table.name.clone()),
            procedure: procedure.name.clone(),
        }),
    }
}
