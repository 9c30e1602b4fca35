//! What becomes of views, and of what they need.

use std::collections::BTreeSet;

use volt_engine::TableId;
use volt_engine::catalog::{Column, IndexColumn, ViewAggregate, ViewShape};
use volt_engine::plan::Expr;
use volt_engine::value::DataType;

use super::super::apply;
use super::super::tests::{cluster, create};
use crate::metadata::command::{Applied, Command, NewIndex, NewMaterialized, NewView, Refusal};
use crate::metadata::map::{ClusterMap, ViewWeight};

fn view(name: &str, columns: &[&str], tables: &[TableId], views: &[&str]) -> NewView {
    let names = columns.iter().map(|column| (*column).to_owned());
    NewView {
        name: name.to_owned(),
        query: String::new(),
        columns: names.clone().map(|column| (column, DataType::Int)).collect(),
        tables: tables.iter().copied().collect(),
        views: views.iter().map(|view| (*view).to_owned()).collect(),
        fields: names.collect(),
        weight: ViewWeight {
            depth: 1,
            queries: 1,
            relations: 1,
        },
        materialized: None,
    }
}

fn put(map: &mut ClusterMap, view: NewView, replace: bool) -> Result<Applied, Refusal> {
    let view = Box::new(view);
    apply(map, Command::CreateView { view, replace })
}

fn drop(map: &mut ClusterMap, names: &[&str]) -> Result<Applied, Refusal> {
    let views = names.iter().map(|name| (*name).to_owned()).collect();
    apply(map, Command::DropViews { views })
}

/// The least id of each id, with the index that it needs.
fn materialized(source: TableId) -> NewMaterialized {
    let column = |name: &str, data_type| Column {
        name: name.to_owned(),
        data_type,
        nullable: true,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    let index_column = IndexColumn {
        place: 0,
        descending: false,
    };
    NewMaterialized {
        shape: ViewShape {
            missing: Vec::new(),
            source,
            filter: None,
            groups: vec![Expr::Column(0)],
            aggregates: vec![ViewAggregate::Extreme {
                column: 0,
                data_type: DataType::Int,
                greatest: false,
                index: 0,
            }],
        },
        columns: vec![
            column("id", DataType::Int),
            column("rows", DataType::BigInt),
            column("least", DataType::Int),
        ],
        partition_column: Some(0),
        indexes: vec![NewIndex {
            name: "v_id_idx".to_owned(),
            columns: vec![index_column, index_column],
            predicate: None,
            unique: false,
            constraint: false,
            source: String::new(),
        }],
    }
}

#[test]
fn what_a_view_reads_stays_while_it_is_there() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    put(&mut map, view("v", &["a"], &[table], &[]), false).expect("a view");
    put(&mut map, view("w", &["a"], &[table], &["v"]), false).expect("a view of a view");
    let tables = BTreeSet::from([table]);
    let refused = apply(&mut map, Command::DropTables { tables: tables.clone() });
    assert!(matches!(refused, Err(Refusal::NeededByView { .. })), "{refused:?}");
    assert!(matches!(drop(&mut map, &["v"]), Err(Refusal::NeededByView { .. })));
    let taken = put(&mut map, view("t", &["a"], &[table], &[]), true);
    assert_eq!(taken, Err(Refusal::TableExists("t".to_owned())));
    drop(&mut map, &["v", "w"]).expect("together they may go");
    assert_eq!(drop(&mut map, &["v"]), Err(Refusal::NoSuchView("v".to_owned())));
    apply(&mut map, Command::DropTables { tables }).expect("nobody reads it");
}

#[test]
fn a_view_is_replaced_by_one_with_its_columns_that_is_not_made_of_it() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    put(&mut map, view("v", &["a", "b"], &[table], &[]), false).expect("a view");
    let exists = put(&mut map, view("v", &["a"], &[table], &[]), false);
    assert_eq!(exists, Err(Refusal::TableExists("v".to_owned())));
    for wrong in [&["a"][..], &["b", "a"], &["a", "c", "b"]] {
        let refused = put(&mut map, view("v", wrong, &[table], &[]), true);
        assert!(matches!(refused, Err(Refusal::CannotReplace(_))), "{wrong:?}");
    }
    put(&mut map, view("v", &["a", "b", "c"], &[table], &[]), true).expect("a column more");
    put(&mut map, view("w", &["a"], &[table], &["v"]), false).expect("a view of it");
    let circle = put(&mut map, view("v", &["a", "b", "c"], &[table], &["w"]), true);
    assert!(matches!(circle, Err(Refusal::CannotReplace(_))), "{circle:?}");
    let mut heavy = view("v", &["a", "b", "c"], &[table], &[]);
    heavy.weight.depth = 2;
    let grown = put(&mut map, heavy, true);
    assert!(matches!(grown, Err(Refusal::CannotReplace(_))), "{grown:?}");
}

#[test]
fn a_materialized_view_comes_with_a_table_and_indexes_that_go_with_it() {
    let mut map = cluster();
    let source = create(&mut map, "t", 1);
    let mut new = view("v", &["id", "least"], &[source], &[]);
    new.materialized = Some(materialized(source));
    let before = map.clone();
    let mut wrong = new.clone();
    wrong.materialized.as_mut().expect("it is one").columns.pop();
    assert!(matches!(put(&mut map, wrong, false), Err(Refusal::Invalid(_))));
    let mut without = new.clone();
    without.materialized.as_mut().expect("it is one").indexes.clear();
    assert!(matches!(put(&mut map, without, false), Err(Refusal::Invalid(_))));
    let unchanged = ClusterMap {
        version: map.version,
        ..before
    };
    assert_eq!(map, unchanged, "what is refused leaves nothing behind");
    let Ok(Applied::ViewCreated(Some(rows))) = put(&mut map, new, false) else {
        panic!("a materialized view");
    };
    assert!(map.table("v").is_none() && map.rows("v").is_some());
    let index = map.index("v_id_idx").expect("its index").1.shape.id;
    let shape = map.rows("v").and_then(|table| table.view.clone()).expect("its shape");
    assert!(matches!(shape.aggregates[0], ViewAggregate::Extreme { index: named, .. } if named == index));
    let indexes = BTreeSet::from([index]);
    let refused = apply(&mut map, Command::DropIndexes { indexes });
    assert!(matches!(refused, Err(Refusal::NeededByView { .. })), "{refused:?}");
    let is_ready = |map: &ClusterMap| map.views["v"].materialized.as_ref().is_some_and(|view| view.is_ready);
    assert!(!is_ready(&map));
    apply(&mut map, Command::ViewBuilt { table: rows }).expect("it is built");
    assert!(is_ready(&map));
    drop(&mut map, &["v"]).expect("nobody reads it");
    assert!(map.rows("v").is_none() && map.index("v_id_idx").is_none() && map.table("t").is_some());
}
