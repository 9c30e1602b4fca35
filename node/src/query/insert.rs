//! Which columns an INSERT fills: those that it names, or else, as in PostgreSQL, the table's first ones, as many as it
//! has values.

use datafusion::sql::sqlparser::ast::{Ident, Insert, ObjectName, SetExpr, TableObject};

use super::ddl::table_name;
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;

/// Writes the columns' names into an INSERT of VALUES that has none.
pub(super) fn name_columns(insert: &mut Insert, map: &ClusterMap) -> Result<(), SqlError> {
    let (TableObject::TableName(name), Some(source)) = (&insert.table, &insert.source) else {
        return Ok(());
    };
    let (Some(table), SetExpr::Values(values)) = (map.table(&table_name(name)?), &*source.body) else {
        return Ok(());
    };
    let wrong = |what: &str| Err(SqlError::new("42601", what));
    let width = values.rows.first().map_or(0, |row| row.content.len());
    if values.rows.iter().any(|row| row.content.len() != width) {
        return wrong("VALUES lists must all be the same length");
    }
    let targets = match insert.columns.len() {
        0 => table.present_columns().count(),
        named => named,
    };
    if width > targets {
        return wrong("INSERT has more expressions than target columns");
    }
    if width < targets && !insert.columns.is_empty() {
        return wrong("INSERT has more target columns than expressions");
    }
    if insert.columns.is_empty() {
        let named = |name: &String| ObjectName::from(vec![Ident::with_quote('"', name)]);
        insert.columns = table
            .present_columns()
            .take(width)
            .map(|(_, column)| named(&column.name))
            .collect();
    }
    Ok(())
}
