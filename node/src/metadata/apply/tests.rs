//! What a command does to the map, one promise a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use volt_engine::catalog::{Column, IndexColumn, IndexState, SequenceDefault, Table};
use volt_engine::procedure::{Body, MAX_MODULE_BYTES, Procedure};
use volt_engine::value::DataType;
use volt_engine::{NodeId, SequenceId, TableId};

use super::{apply, moves};
use crate::metadata::command::{
    Applied, ColumnChange, Command, CommandResult, Joining, MAX_MODULES_BYTES, NewIndex, NewTable, OwnedSequence,
    Refusal,
};
use crate::metadata::failure::{Finding, Medium, Strategy};
use crate::metadata::map::{ClusterMap, ReplicationMode};
use crate::metadata::sequence::{Sequence, SequenceType};

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

fn finding(strategy: Strategy) -> Finding {
    Finding::new((strategy, Medium::Network), "seen", Duration::from_secs(2), 1)
}

/// Three living nodes, each with boot id 1, and four partitions a group.
pub(super) fn cluster() -> ClusterMap {
    founded(false)
}

pub(super) fn founded(awaits_restoration: bool) -> ClusterMap {
    let mut map = ClusterMap::default();
    let initialise = Command::Initialise {
        cluster_uuid: "one".to_owned(),
        partitions: 4,
        node: joining(1, 1, 0),
        awaits_restoration,
    };
    apply(&mut map, initialise).expect("the first node");
    for node in 2..=3 {
        apply(&mut map, Command::Join(joining(node, 1, 0))).expect("a node joins");
    }
    map
}

pub(super) fn create(map: &mut ClusterMap, name: &str, replication: u32) -> TableId {
    match apply(map, create_table(name, replication)) {
        Ok(Applied::TableCreated(table)) => table.id,
        other => panic!("{other:?}"),
    }
}

pub(super) fn create_table(name: &str, replication: u32) -> Command {
    let column = Column {
        name: "id".to_owned(),
        data_type: DataType::Int,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    let table = NewTable {
        name: name.to_owned(),
        columns: vec![column],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: Vec::new(),
        ttl: None,
    };
    let mode = match name {
        "majority" => ReplicationMode::SemiSync,
        _ => ReplicationMode::Sync,
    };
    Command::CreateTable {
        table,
        replication,
        mode,
    }
}

/// The process of node 3 has ended.
fn third_ended() -> Command {
    Command::NodeDead {
        node_id: 3,
        boot_id: 1,
        process_ended: true,
        finding: finding(Strategy::Connection),
        at_micros: 0,
        term: 0,
        changes: Vec::new(),
    }
}

/// Tables as they are where they were restored: their rows' versions go on beyond those of before.
pub(crate) fn taken_over(archived: &ClusterMap) -> BTreeMap<TableId, Arc<Table>> {
    let mut tables = archived.tables.clone();
    for table in tables.values_mut() {
        Arc::make_mut(table).version_base += moves::VERSIONS_OF_A_CLUSTER;
    }
    tables
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
    apply(&mut map, third_ended()).expect("it is known");
    for (incarnation, what) in [(1, "with its volume"), (0, "without")] {
        let mut map = map.clone();
        apply(&mut map, Command::Join(joining(3, 2, incarnation))).expect("it comes back");
        for (id, partition) in &map.partitions {
            assert!(partition.epoch > before.partitions[id].epoch, "partition {id}, {what}");
        }
    }
}

#[test]
fn who_counts_in_majorities_is_not_called_in_sync_before_it_has_what_it_had() {
    let mut map = cluster();
    create(&mut map, "majority", 2);
    let led_by_1 = |map: &ClusterMap| {
        let mut partitions = map.partitions.values();
        let partition = partitions.find(|partition| partition.primary == Some(1));
        partition.expect("each node leads one").clone()
    };
    assert_eq!(map.in_sync(&led_by_1(&map)), [1, 2, 3].into());
    apply(&mut map, third_ended()).expect("it is known");
    for incarnation in [None, Some(1), Some(0)] {
        let mut map = map.clone();
        if let Some(incarnation) = incarnation {
            apply(&mut map, Command::Join(joining(3, 2, incarnation))).expect("it comes back");
        }
        let partition = led_by_1(&map);
        assert_eq!(partition.in_sync, [1, 2, 3].into(), "it counts");
        assert_eq!((map.in_sync(&partition), map.copies(&partition)), ([1, 2].into(), 2));
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

pub(super) fn alter(map: &mut ClusterMap, table: TableId, changes: Vec<ColumnChange>) -> CommandResult {
    let catalog_version = map.catalog_version;
    apply(
        map,
        Command::AlterColumns {
            table,
            changes,
            catalog_version,
        },
    )
}

pub(super) fn column(name: &str, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        data_type: DataType::Int,
        nullable,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    }
}

#[test]
fn an_index_has_a_name_of_its_own_and_goes_with_its_table() {
    let mut map = cluster();
    let (first, second) = (create(&mut map, "first", 1), create(&mut map, "second", 1));
    let added = ColumnChange::Add(column("a", true));
    alter(&mut map, first, vec![added]).expect("a new one");
    let new = |name: &str, place, unique| NewIndex {
        name: name.to_owned(),
        columns: vec![IndexColumn {
            place,
            descending: false,
        }],
        predicate: None,
        unique,
        constraint: false,
        source: String::new(),
    };
    let make = |table, index| Command::CreateIndex {
        table,
        index: Box::new(index),
    };
    assert_eq!(
        apply(&mut map, make(first, new("i", 1, false))),
        Ok(Applied::IndexCreated(1))
    );
    for name in ["i", "first", "second"] {
        let refused = apply(&mut map, make(second, new(name, 0, false)));
        assert_eq!(refused, Err(Refusal::TableExists(name.to_owned())));
    }
    assert!(matches!(
        apply(&mut map, make(first, new("u", 1, true))),
        Err(Refusal::Invalid(_))
    ));
    assert!(matches!(
        apply(&mut map, make(second, new("u", 1, true))),
        Err(Refusal::Invalid(_))
    ));
    assert_eq!(
        apply(&mut map, make(second, new("u", 0, true))),
        Ok(Applied::IndexCreated(2))
    );
    let state = IndexState::Checking;
    apply(
        &mut map,
        Command::SetIndexState {
            table: second,
            index: 2,
            state,
        },
    )
    .expect("it is there");
    assert!(map.index("u").is_some_and(|(_, index)| index.is_enforced()));
    let indexes = [1, 3].into();
    assert_eq!(
        apply(&mut map, Command::DropIndexes { indexes }),
        Err(Refusal::NoSuchIndex(3))
    );
    assert!(map.index("i").is_some(), "all or none");
    apply(&mut map, Command::DropIndexes { indexes: [1].into() }).expect("it is there");
    apply(&mut map, drop(second)).expect("it is there");
    assert!(map.index("i").is_none() && map.index("u").is_none());
    let state = IndexState::Ready;
    let late = apply(
        &mut map,
        Command::SetIndexState {
            table: second,
            index: 2,
            state,
        },
    );
    assert_eq!(late, Err(Refusal::NoSuchTable(second)));
    assert_eq!(
        apply(&mut map, make(first, new("i", 1, false))),
        Ok(Applied::IndexCreated(3))
    );
}

#[test]
fn modules_have_a_bound_in_all() {
    let mut map = cluster();
    let mut create = |name: &str, bytes: usize| {
        let procedure = Procedure {
            id: 0,
            name: name.to_owned(),
            language: "wasm".to_owned(),
            source: String::new(),
            parameters: Vec::new(),
            columns: Vec::new(),
            partition_by: None,
            body: Body::Module(Bytes::from(vec![0; bytes])),
            statements: Vec::new(),
        };
        let procedure = Box::new(procedure);
        apply(
            &mut map,
            Command::CreateProcedure {
                procedure,
                replace: true,
            },
        )
    };
    let most = MAX_MODULES_BYTES / MAX_MODULE_BYTES;
    for number in 0..most {
        assert!(create(&format!("p{number}"), MAX_MODULE_BYTES).is_ok());
    }
    assert!(matches!(create("more", 1), Err(Refusal::NotAllowed(_))));
    // One that takes another's place has its room.
    assert!(create("p0", MAX_MODULE_BYTES - 1).is_ok());
    assert!(create("more", 1).is_ok());
    assert!(matches!(create("p0", MAX_MODULE_BYTES + 1), Err(Refusal::Invalid(_))));
}

pub(super) fn new_sequence(name: &str) -> Sequence {
    Sequence {
        id: 0,
        name: name.to_owned(),
        data_type: SequenceType::BigInt,
        increment: 1,
        min: 1,
        max: 25,
        start: 1,
        cache: 1,
        owner: None,
        next: None,
        generation: 0,
    }
}

fn take(map: &mut ClusterMap, sequence: SequenceId) -> Option<(i64, u32, u64)> {
    match apply(map, Command::TakeSequenceValues { sequence, count: 10 }) {
        Ok(Applied::SequenceValues(block)) => Some((block.first, block.count, block.generation)),
        Err(Refusal::SequenceUsedUp(_)) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_of_a_sequence_are_handed_out_once_and_plans_stay() {
    let mut map = cluster();
    let create = |map: &mut ClusterMap, name| {
        let sequence = Box::new(new_sequence(name));
        apply(map, Command::CreateSequence { sequence })
    };
    assert_eq!(create(&mut map, "s"), Ok(Applied::SequenceCreated(1)));
    let catalog_version = map.catalog_version;
    assert_eq!(create(&mut map, "s"), Err(Refusal::TableExists("s".to_owned())));
    let taken: Vec<_> = (0..4).map(|_| take(&mut map, 1)).collect();
    assert_eq!(taken, [Some((1, 10, 0)), Some((11, 10, 0)), Some((21, 5, 0)), None]);
    let restart = |value| Command::RestartSequence {
        sequence: 1,
        value,
        is_taken: false,
    };
    apply(&mut map, restart(25)).expect("it is there");
    assert_eq!((take(&mut map, 1), take(&mut map, 1)), (Some((25, 1, 1)), None));
    let refused = apply(&mut map, restart(26));
    assert!(matches!(refused, Err(Refusal::Invalid(_))));
    assert_eq!(map.catalog_version, catalog_version);
    let sequences = BTreeSet::from([1]);
    apply(&mut map, Command::DropSequences { sequences }).expect("nothing needs it");
    assert_eq!(create(&mut map, "s"), Ok(Applied::SequenceCreated(2)), "a new number");
}

#[test]
fn a_sequence_stays_while_something_takes_its_values_and_goes_with_its_table() {
    let mut map = cluster();
    let columns = vec![Column {
        name: "id".to_owned(),
        data_type: DataType::BigInt,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    }];
    let owned = OwnedSequence {
        column: 0,
        kind: SequenceDefault::IdentityAlways,
        sequence: new_sequence("t_id_seq"),
    };
    let table = |name: &str, columns: &[Column], sequences| Command::CreateTable {
        table: NewTable {
            name: name.to_owned(),
            columns: columns.to_vec(),
            primary_key: vec![0],
            partition_column: Some(0),
            indexes: Vec::new(),
            checks: Vec::new(),
            ttl: None,
            sequences,
        },
        replication: 1,
        mode: ReplicationMode::Sync,
    };
    let refused = apply(&mut map, table("t_id_seq", &columns, vec![owned.clone()]));
    assert_eq!(refused, Err(Refusal::TableExists("t_id_seq".to_owned())));
    assert!(map.sequences.is_empty() && map.groups.is_empty());
    let Ok(Applied::TableCreated(made)) = apply(&mut map, table("t", &columns, vec![owned])) else {
        panic!("the table");
    };
    let refused = apply(
        &mut map,
        Command::DropSequences {
            sequences: BTreeSet::from([1]),
        },
    );
    let by = "column id of table t".to_owned();
    let sequence = "t_id_seq".to_owned();
    assert_eq!(refused, Err(Refusal::SequenceNeeded { sequence, by }));
    // Another table takes its values, too.
    let Ok(Applied::TableCreated(other)) = apply(&mut map, table("other", &made.columns, Vec::new())) else {
        panic!("the other table");
    };
    assert!(matches!(
        apply(&mut map, drop(made.id)),
        Err(Refusal::SequenceNeeded { .. })
    ));
    apply(&mut map, drop(other.id)).expect("it owns nothing");
    apply(&mut map, drop(made.id)).expect("nobody needs what it owns");
    assert!(map.sequences.is_empty());
    let refused = apply(&mut map, table("late", &made.columns, Vec::new()));
    assert_eq!(refused, Err(Refusal::NoSuchSequence(1)), "it is gone meanwhile");
}
