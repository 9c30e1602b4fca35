//! What a node makes of `schema.sql` and `procedures.sql`, compiled as for any user: `catalog.postcard`. The engine has no planner, and a bench
//! of the node would compile its libraries a second time. A test of the node (`tpcc_tests.rs`) says when the file is not
//! that any more.

use serde::Deserialize;
use volt_engine::catalog::Table;
use volt_engine::procedure::Procedure;

/// The tables, then the procedures, each in the order of their numbers.
#[derive(Deserialize)]
pub struct Catalog {
    pub tables: Vec<Table>,
    procedures: Vec<Procedure>,
}

impl Catalog {
    pub fn read() -> Self {
        postcard::from_bytes(include_bytes!("catalog.postcard")).expect("a node's catalog")
    }

    pub fn table(&self, name: &str) -> &Table {
        let table = self.tables.iter().find(|table| table.name == name);
        table.expect("a table of the schema")
    }

    pub fn procedure(&self, name: &str) -> &Procedure {
        let procedure = self.procedures.iter().find(|procedure| procedure.name == name);
        procedure.expect("a procedure of the script")
    }
}
