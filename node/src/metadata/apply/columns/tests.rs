//! What becomes of a table's columns, and of what looks at them.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::TableId;
use volt_engine::catalog::{CheckConstraint, Column, ColumnDefault, IndexColumn, SequenceDefault};
use volt_engine::plan::{Action, Check, Expr, Program};
use volt_engine::procedure::{Body, Code, Procedure, Statement};
use volt_engine::value::{DataType, Value};

use super::super::apply;
use super::super::tests::{alter, cluster, column, create, new_sequence};
use crate::metadata::command::{ColumnChange, Command, NewIndex, NewTable, OwnedSequence, Refusal};
use crate::metadata::map::{ClusterMap, ReplicationMode};

fn add(name: &str) -> ColumnChange {
    ColumnChange::Add(column(name, true))
}

fn drop(name: &str) -> ColumnChange {
    ColumnChange::Drop(name.to_owned())
}

fn names(map: &ClusterMap, table: TableId) -> Vec<String> {
    let columns = map.tables[&table].present_columns();
    columns.map(|(_, column)| column.name.clone()).collect()
}

/// What a refused change leaves as it was.
fn catalog(map: &ClusterMap) -> impl PartialEq + std::fmt::Debug + use<> {
    (map.catalog_version, map.tables.clone(), map.sequences.clone())
}

#[test]
fn a_column_is_added_behind_the_others_and_rows_may_lack_it() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    let before = Arc::clone(&map.tables[&table]);
    let version = map.catalog_version;
    alter(&mut map, table, vec![add("a")]).expect("a new one");
    assert!(map.catalog_version > version);
    assert_eq!(before.columns.len(), 1, "who holds the old one goes on with it");
    assert_eq!(names(&map, table), ["id", "a"]);
    assert!(matches!(
        alter(&mut map, table, vec![add("a")]),
        Err(Refusal::ColumnExists { .. })
    ));
    let not_null = ColumnChange::Add(column("b", false));
    assert!(matches!(
        alter(&mut map, table, vec![not_null]),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn rows_that_are_there_keep_what_a_column_was_added_with() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    let value = |value| Some(ColumnDefault::Value(Value::BigInt(value)));
    let level = Column {
        default: value(7),
        missing: Value::BigInt(7),
        ..column("level", false)
    };
    alter(&mut map, table, vec![ColumnChange::Add(level)]).expect("a column");
    let default = |name: &str, default| vec![ColumnChange::Default(name.to_owned(), default)];
    let now = |map: &ClusterMap| {
        let level = map.tables[&table].columns.last().expect("the column");
        (level.missing.clone(), level.default.clone())
    };
    alter(&mut map, table, default("level", value(8))).expect("another default");
    assert_eq!(now(&map), (Value::BigInt(7), value(8)));
    alter(&mut map, table, default("level", None)).expect("no default");
    assert_eq!(now(&map), (Value::BigInt(7), None));
    let before = catalog(&map);
    let refused = alter(&mut map, table, default("unknown", None));
    assert!(matches!(refused, Err(Refusal::NoSuchColumn { .. })), "{refused:?}");
    let refused = alter(&mut map, table, vec![ColumnChange::Add(column("always", false))]);
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    assert!(catalog(&map) == before, "what is refused changes nothing");
}

#[test]
fn a_dropped_column_keeps_its_place_and_gives_up_its_name() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    alter(&mut map, table, vec![add("a"), add("b")]).expect("new ones");
    alter(&mut map, table, vec![drop("a"), add("a")]).expect("another of the name");
    assert_eq!(names(&map, table), ["id", "b", "a"]);
    assert_eq!(map.tables[&table].place_of("a"), Some(3));
    let dropped = &map.tables[&table].columns[1];
    assert!(dropped.is_dropped && dropped.nullable && dropped.default.is_none());
    assert!(matches!(
        alter(&mut map, table, vec![drop("c")]),
        Err(Refusal::NoSuchColumn { .. })
    ));
    assert!(matches!(
        alter(&mut map, table, vec![drop("id")]),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn all_changes_are_made_or_none_and_in_the_catalog_that_was_looked_at() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    alter(&mut map, table, vec![add("a")]).expect("a new one");
    let before = catalog(&map);
    for changes in [vec![drop("a"), add("id")], vec![add("b"), drop("c")]] {
        alter(&mut map, table, changes).expect_err("one is refused");
        assert_eq!(catalog(&map), before);
    }
    let late = Command::AlterColumns {
        table,
        changes: vec![drop("a")],
        catalog_version: map.catalog_version - 1,
    };
    assert_eq!(apply(&mut map, late), Err(Refusal::StaleCatalog));
    assert_eq!(catalog(&map), before);
}

fn index(name: &str, place: usize, predicate: Option<Expr>) -> NewIndex {
    NewIndex {
        name: name.to_owned(),
        columns: vec![IndexColumn {
            place,
            descending: false,
        }],
        predicate,
        unique: false,
        constraint: false,
        source: String::new(),
    }
}

fn is_missing(place: usize) -> Expr {
    Expr::Unary {
        op: volt_engine::plan::UnaryOp::IsNull,
        operand: Box::new(Expr::Column(place)),
    }
}

#[test]
fn indexes_and_checks_go_with_the_column_that_they_look_at() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    alter(&mut map, table, vec![add("a"), add("b")]).expect("new ones");
    let new = [
        index("of_a", 1, None),
        index("of_b", 2, None),
        index("of_b_by_a", 2, Some(is_missing(1))),
    ];
    for index in new {
        let index = Box::new(index);
        apply(&mut map, Command::CreateIndex { table, index }).expect("an index");
    }
    let check = |name: &str, place| CheckConstraint {
        check: Check {
            name: name.to_owned(),
            condition: is_missing(place),
        },
        text: String::new(),
    };
    let altered = Arc::make_mut(map.tables.get_mut(&table).expect("the table"));
    altered.checks = vec![check("a", 1), check("b", 2)];
    alter(&mut map, table, vec![drop("a")]).expect("nothing needs it");
    let table_now = &map.tables[&table];
    let indexes: Vec<&str> = table_now.indexes.iter().map(|index| index.name.as_str()).collect();
    assert_eq!(indexes, ["of_b"]);
    let checks: Vec<&str> = table_now.checks.iter().map(|one| one.check.name.as_str()).collect();
    assert_eq!(checks, ["b"]);
    // They were planned before.
    for late in [index("late", 1, None), index("later", 2, Some(is_missing(1)))] {
        let index = Box::new(late);
        let refused = apply(&mut map, Command::CreateIndex { table, index });
        assert_eq!(refused, Err(Refusal::StaleCatalog));
    }
}

#[test]
fn a_sequence_goes_with_its_column_unless_another_takes_its_values() {
    let mut map = cluster();
    let owned = OwnedSequence {
        column: 1,
        kind: SequenceDefault::Plain,
        sequence: new_sequence("t_n_seq"),
    };
    let new = NewTable {
        name: "t".to_owned(),
        columns: vec![column("id", false), column("n", false)],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: vec![owned],
        ttl: None,
    };
    let made = Command::CreateTable {
        table: new,
        replication: 1,
        mode: ReplicationMode::Sync,
    };
    apply(&mut map, made).expect("a table");
    let first = map.table("t").expect("it").clone();
    let second = create(&mut map, "second", 1);
    let taking = Arc::make_mut(map.tables.get_mut(&second).expect("the second"));
    taking.columns[0].default = first.columns[1].default.clone();
    let before = catalog(&map);
    assert!(matches!(
        alter(&mut map, first.id, vec![drop("n")]),
        Err(Refusal::SequenceNeeded { .. })
    ));
    assert_eq!(catalog(&map), before);
    let tables = BTreeSet::from([second]);
    apply(&mut map, Command::DropTables { tables }).expect("the other goes");
    alter(&mut map, first.id, vec![drop("n")]).expect("nobody else takes its values");
    assert!(map.sequences.is_empty());
}

fn inserting(map: &ClusterMap, table: TableId) -> Command {
    let of = &map.tables[&table];
    let rows = vec![vec![Expr::Literal(Value::Int(1)); of.columns.len()]];
    let program = Program {
        table,
        table_name: of.name.clone(),
        columns: of.columns.clone(),
        primary_key: of.primary_key.clone(),
        checks: Vec::new(),
        action: Action::Insert { rows },
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
    };
    let statement = Statement {
        sql: String::new(),
        parameters: Vec::new(),
        tables: vec![table],
        program: Some(program),
        keys: Vec::new(),
        sequences: Vec::new(),
    };
    let slots = vec![DataType::Boolean, DataType::BigInt];
    Command::CreateProcedure {
        procedure: Box::new(Procedure {
            id: 0,
            name: "p".to_owned(),
            language: "plpgsql".to_owned(),
            source: String::new(),
            parameters: Vec::new(),
            columns: Vec::new(),
            partition_by: None,
            body: Body::Code(Code {
                slots,
                found: 0,
                row_count: 1,
                ..Code::default()
            }),
            statements: vec![statement],
        }),
        replace: true,
    }
}

#[test]
fn what_procedures_have_compiled_leaves_the_place_alone() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    alter(&mut map, table, vec![add("a")]).expect("a new one");
    let create = inserting(&map, table);
    apply(&mut map, create.clone()).expect("a procedure");
    alter(&mut map, table, vec![drop("a")]).expect("its text doesn't name it");
    let procedure = map.procedure("p").expect("it");
    let program = procedure.statements[0].program.as_ref().expect("a program");
    assert!(program.columns[1].is_dropped);
    let (one, null) = (Expr::Literal(Value::Int(1)), Expr::Literal(Value::Null));
    let rows = vec![vec![one, null]];
    assert_eq!(program.action, Action::Insert { rows });
    assert_eq!(
        apply(&mut map, create),
        Err(Refusal::StaleCatalog),
        "it was planned before"
    );
}
