//! `system.spool`: the files of the spool directory, as the node that is asked finds them there.

use std::sync::Arc;

use futures::FutureExt;
use volt_engine::value::{DataType, Value};

use super::super::tables::{SystemTable, system_schema};
use super::{BIGINT, INT, TEXT, bigint, int, text};
use crate::balancing::spool::{SpoolFile, SpoolView};

const SPOOL: &[(&str, DataType)] = &[
    ("file", TEXT),
    ("table_name", TEXT),
    ("state", TEXT),
    ("node_id", INT),
    ("loaded", BIGINT),
    ("rejected", BIGINT),
    ("path", TEXT),
    ("message", TEXT),
];

/// Without a directory it has no rows.
pub(in crate::query) fn spool(view: Option<SpoolView>) -> (&'static str, Arc<SystemTable>) {
    let rows = move || {
        let view = view.clone();
        async move {
            match view {
                Some(view) => view.files().await.iter().map(row).collect(),
                None => Vec::new(),
            }
        }
        .boxed()
    };
    let schema = system_schema(SPOOL);
    let rows = Arc::new(rows);
    ("spool", Arc::new(SystemTable { schema, rows }))
}

fn row(file: &SpoolFile) -> Vec<Value> {
    vec![
        text(&file.file),
        file.table.as_ref().map_or(Value::Null, text),
        text(file.state),
        file.node.map_or(Value::Null, int),
        file.loaded.map_or(Value::Null, bigint),
        file.rejected.map_or(Value::Null, bigint),
        text(&file.path),
        file.message.as_ref().map_or(Value::Null, text),
    ]
}
