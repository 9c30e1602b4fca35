//! What a TTL does to the map.

use std::collections::BTreeSet;

use volt_engine::catalog::IndexColumn;
use volt_engine::value::DataType;

use super::super::tests::cluster;
use super::*;
use crate::metadata::apply::apply;
use crate::metadata::command::{Command, NewIndex, NewTable};
use crate::metadata::map::ReplicationMode;

fn ttl(place: usize, seconds: i64) -> NewTtl {
    NewTtl {
        lifetime_micros: seconds * 1_000_000,
        batch_size: 1_000,
        max_frequency: 10,
        index: NewIndex {
            name: format!("t_ttl_idx{place}"),
            columns: vec![IndexColumn {
                place,
                descending: false,
            }],
            predicate: None,
            unique: false,
            constraint: false,
            source: String::new(),
        },
    }
}

/// (id INT, at TIMESTAMP, seconds BIGINT, name TEXT).
fn create(map: &mut ClusterMap, name: &str, ttl: Option<NewTtl>) -> CommandResult {
    let column = |name: &str, data_type| Column {
        name: name.to_owned(),
        data_type,
        nullable: name != "id",
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    let table = NewTable {
        name: name.to_owned(),
        columns: vec![
            column("id", DataType::Int),
            column("at", DataType::Timestamp),
            column("seconds", DataType::BigInt),
            column("name", DataType::Text),
        ],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: Vec::new(),
        ttl: ttl.map(Box::new),
    };
    apply(
        map,
        Command::CreateTable {
            table,
            replication: 1,
            mode: ReplicationMode::Sync,
        },
    )
}

fn set(map: &mut ClusterMap, table: TableId, ttl: Option<NewTtl>) -> CommandResult {
    let ttl = ttl.map(Box::new);
    apply(map, Command::SetTtl { table, ttl })
}

fn created(result: CommandResult) -> Table {
    match result {
        Ok(Applied::TableCreated(table)) => table,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ttl_comes_with_its_index_and_takes_it_away() {
    let mut map = cluster();
    let id = created(create(&mut map, "t", Some(ttl(1, 10)))).id;
    let index = |map: &ClusterMap| {
        let table = &map.tables[&id];
        let ttl = table.ttl.clone().expect("its TTL");
        let [index] = &table.indexes[..] else {
            panic!("{:?}", table.indexes)
        };
        assert!(table.expires_by(index.shape.id));
        (ttl.column, ttl.lifetime_micros, index.shape.id, index.state)
    };
    assert_eq!(index(&map), (1, 10_000_000, 1, IndexState::Ready));
    let version = map.catalog_version;
    assert_eq!(set(&mut map, id, Some(ttl(1, 20))), Ok(Applied::Done));
    assert_eq!(index(&map), (1, 20_000_000, 1, IndexState::Ready), "the index stays");
    assert!(map.catalog_version > version);
    assert_eq!(set(&mut map, id, Some(ttl(2, 20))), Ok(Applied::IndexCreated(2)));
    assert_eq!(
        index(&map),
        (2, 20_000_000, 2, IndexState::Building),
        "of another column"
    );
    let indexes = BTreeSet::from([2]);
    let refused = apply(&mut map, Command::DropIndexes { indexes });
    assert!(matches!(refused, Err(Refusal::NeededByTtl { .. })), "{refused:?}");
    assert_eq!(set(&mut map, id, None), Ok(Applied::Done));
    assert!(map.tables[&id].ttl.is_none() && map.tables[&id].indexes.is_empty());
    assert_eq!(set(&mut map, id, None), Err(Refusal::NoTtl("t".to_owned())));
    assert_eq!(set(&mut map, 99, None), Err(Refusal::NoSuchTable(99)));
    assert_eq!(set(&mut map, 99, Some(ttl(1, 1))), Err(Refusal::NoSuchTable(99)));
}

#[test]
fn a_ttl_that_makes_no_sense_is_refused_and_changes_nothing() {
    let mut map = cluster();
    let id = created(create(&mut map, "t", Some(ttl(1, 10)))).id;
    let other = created(create(&mut map, "other", None)).id;
    let before = (map.tables.clone(), map.catalog_version, map.next_index);
    let with = |change: fn(&mut NewTtl)| {
        let mut ttl = ttl(1, 10);
        change(&mut ttl);
        ttl
    };
    for wrong in [
        ttl(1, 0),
        ttl(1, 36_501 * 86_400),
        ttl(3, 10),
        ttl(4, 10),
        with(|ttl| ttl.batch_size = 0),
        with(|ttl| ttl.batch_size = MAX_TTL_BATCH_SIZE + 1),
        with(|ttl| ttl.max_frequency = 0),
        with(|ttl| ttl.max_frequency = MAX_TTL_FREQUENCY + 1),
        with(|ttl| ttl.index.columns[0].descending = true),
        with(|ttl| ttl.index.columns.clear()),
        with(|ttl| ttl.index.unique = true),
    ] {
        let refused = set(&mut map, id, Some(wrong.clone()));
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{wrong:?}: {refused:?}");
        let refused = create(&mut map, "made", Some(wrong));
        assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    }
    let taken = set(&mut map, other, Some(ttl(1, 10)));
    assert_eq!(taken, Err(Refusal::TableExists("t_ttl_idx1".to_owned())));
    assert_eq!((map.tables.clone(), map.catalog_version, map.next_index), before);
}
