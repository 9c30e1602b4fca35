//! What a command does to the map, one promise a test.

use std::sync::Arc;

use volt_engine::catalog::Column;
use volt_engine::value::DataType;
use volt_engine::{NodeId, TableId};

use super::apply;
use crate::metadata::command::{Applied, Command, Joining, NewTable, Refusal};
use crate::metadata::map::{ClusterMap, ReplicationMode};

fn joining(node_id: NodeId, boot_id: u64, incarnation: u64) -> Joining {
    Joining {
        node_id,
        boot_id,
        incarnation,
        name: format!("node-{node_id}"),
        address: String::new(),
        sql_address: String::new(),
        zone: String::new(),
        cluster_uuid: String::new(),
    }
}

/// Three living nodes, each with boot id 1, and four partitions a group.
fn cluster() -> ClusterMap {
    let mut map = ClusterMap::default();
    let initialise = Command::Initialise {
        cluster_uuid: "one".to_owned(),
        partitions: 4,
        node: joining(1, 1, 0),
    };
    apply(&mut map, initialise).expect("the first node");
    for node in 2..=3 {
        apply(&mut map, Command::Join(joining(node, 1, 0))).expect("a node joins");
    }
    map
}

fn create(map: &mut ClusterMap, name: &str, replication: u32) -> TableId {
    let column = Column {
        name: "id".to_owned(),
        data_type: DataType::Int,
        nullable: false,
        default: None,
    };
    let table = NewTable {
        name: name.to_owned(),
        columns: vec![column],
        primary_key: vec![0],
        partition_column: 0,
        indexes: Vec::new(),
        checks: Vec::new(),
    };
    let command = Command::CreateTable {
        table,
        replication,
        mode: ReplicationMode::Sync,
    };
    match apply(map, command) {
        Ok(Applied::TableCreated(table)) => table.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_ends_with_its_last_table_and_its_numbers_are_not_used_again() {
    let mut map = cluster();
    let (first, second) = (create(&mut map, "first", 1), create(&mut map, "second", 1));
    let other = create(&mut map, "other", 2);
    apply(&mut map, drop(first)).expect("it is there");
    assert_eq!(map.partitions.len(), 8, "the second table still lies there");
    apply(&mut map, drop(second)).expect("it is there");
    assert!(map.partitions.keys().eq(&[5, 6, 7, 8]), "{:?}", map.partitions.keys());
    apply(&mut map, drop(other)).expect("it is there");
    assert!(map.groups.is_empty() && map.partitions.is_empty());
    create(&mut map, "third", 1);
    assert!(map.groups.keys().eq(&[3]));
    assert!(map.partitions.keys().eq(&[9, 10, 11, 12]));
}

#[test]
fn what_was_proposed_for_a_process_is_stale_when_it_has_restarted() {
    let mut map = cluster();
    create(&mut map, "t", 2);
    let before = Arc::new(map.clone());
    let dead = Command::NodeDead {
        node_id: 3,
        boot_id: 1,
        process_ended: true,
        detector: "connection".to_owned(),
        evidence: String::new(),
        at_micros: 0,
        term: 0,
        changes: Vec::new(),
    };
    apply(&mut map, dead).expect("it is known");
    for (incarnation, what) in [(1, "with its volume"), (0, "without")] {
        let mut map = map.clone();
        apply(&mut map, Command::Join(joining(3, 2, incarnation))).expect("it comes back");
        for (id, partition) in &map.partitions {
            assert!(partition.epoch > before.partitions[id].epoch, "partition {id}, {what}");
        }
    }
}

#[test]
fn a_map_that_is_too_old_to_know_a_table_does_not_call_it_dropped() {
    let mut map = cluster();
    let table = create(&mut map, "t", 1);
    let old = map.clone();
    let newer = create(&mut map, "newer", 1);
    assert!(!old.has_dropped(table) && !old.has_dropped(newer));
    apply(&mut map, drop(table)).expect("it is there");
    assert!(map.has_dropped(table) && !map.has_dropped(newer));
}

#[test]
fn a_table_that_is_not_there_is_not_dropped() {
    let mut map = cluster();
    assert_eq!(apply(&mut map, drop(7)), Err(Refusal::NoSuchTable(7)));
}

fn drop(table: TableId) -> Command {
    Command::DropTables { tables: [table].into() }
}
