use volt_engine::{PartitionId, TableId};

use super::{VERSIONS_OF_A_CLUSTER, VERSIONS_OF_A_PLACE, begin_again, beyond};
use crate::metadata::apply::apply;
use crate::metadata::apply::tests::{cluster, create};
use crate::metadata::command::{Applied, Command, CommandResult, Refusal};
use crate::metadata::map::{ClusterMap, ReplicationMode};
use crate::metadata::moves::MovePhase;

fn set(map: &mut ClusterMap, table: TableId, replication: u32) -> CommandResult {
    let command = Command::SetReplication {
        table,
        replication: Some(replication),
        mode: None,
    };
    apply(map, command)
}

fn number(map: &ClusterMap, table: TableId) -> u64 {
    map.moves.get(&table).map_or(0, |one| one.number)
}

fn advance(map: &mut ClusterMap, table: TableId, partition: PartitionId, phase: MovePhase) -> CommandResult {
    let command = Command::AdvanceMove {
        table,
        number: number(map, table),
        partition,
        epoch: map.partitions[&partition].epoch,
        phase,
    };
    apply(map, command)
}

fn drop(table: TableId) -> Command {
    Command::DropTables { tables: [table].into() }
}

/// A cluster with two tables in the partitions 1 to 4, of which the first is on its way to 5 to 8.
fn moving() -> (ClusterMap, TableId, TableId) {
    let mut map = cluster();
    let (moves, stays) = (create(&mut map, "moves", 1), create(&mut map, "stays", 1));
    set(&mut map, moves, 2).expect("it can move");
    assert_eq!(map.partitions.len(), 8);
    (map, moves, stays)
}

#[test]
fn a_table_lies_elsewhere_when_every_partition_has_copied_it_twice() {
    let (mut map, table, stays) = moving();
    let (from, to) = (map.tables[&table].group, map.moves[&table].to);
    let closed = |map: &ClusterMap, group| map.closed_in(group).collect::<Vec<_>>();
    assert_eq!((closed(&map, from), closed(&map, to)), (vec![], vec![table, stays]));
    for partition in [1, 3, 2, 2, 4] {
        assert!(advance(&mut map, table, partition, MovePhase::Copying).is_ok());
    }
    assert_eq!(map.moves[&table].phase, MovePhase::Closing);
    assert_eq!(
        (closed(&map, from), closed(&map, to)),
        (vec![table], vec![table, stays])
    );
    // Who says so late, or of what is not asked, changes nothing.
    let before = (map.moves.clone(), map.catalog_version);
    assert_eq!(advance(&mut map, table, 1, MovePhase::Copying), Ok(Applied::Unchanged));
    let refused = advance(&mut map, table, 5, MovePhase::Closing);
    assert_eq!(refused, Err(Refusal::NoSuchPartition(5)));
    assert_eq!((map.moves.clone(), map.catalog_version), before);
    for partition in 1..=3 {
        assert!(advance(&mut map, table, partition, MovePhase::Closing).is_ok());
    }
    assert_eq!(map.tables[&table].group, from);
    assert!(advance(&mut map, table, 4, MovePhase::Closing).is_ok());
    assert_eq!((map.tables[&table].group, map.moves.len()), (to, 0));
    assert_eq!((closed(&map, from), closed(&map, to)), (vec![table], vec![stays]));
    assert_eq!(map.partitions.len(), 8, "the other table lies in the old ones");
    let base = |map: &ClusterMap, table| map.tables[&table].version_base;
    assert_eq!((base(&map, table), base(&map, stays)), (VERSIONS_OF_A_PLACE, 0));
    create(&mut map, "beside", 2);
    set(&mut map, table, 1).expect("it can move back");
    for phase in [MovePhase::Copying, MovePhase::Closing] {
        for partition in 5..=8 {
            assert!(advance(&mut map, table, partition, phase).is_ok());
        }
    }
    assert_eq!(
        (map.tables[&table].group, base(&map, table)),
        (from, 2 * VERSIONS_OF_A_PLACE),
        "none of those that it had there"
    );
}

#[test]
fn what_was_said_of_a_move_counts_for_no_later_one() {
    let (mut map, table, _) = moving();
    let late = |map: &ClusterMap, phase| Command::AdvanceMove {
        table,
        number: number(map, table),
        partition: 1,
        epoch: map.partitions[&1].epoch,
        phase,
    };
    let said = late(&map, MovePhase::Copying);
    set(&mut map, table, 1).expect("it stays");
    set(&mut map, table, 3).expect("it can move");
    assert_eq!(apply(&mut map, said), Ok(Applied::Unchanged));
    assert!(map.moves[&table].done.is_empty());
    let said = late(&map, MovePhase::Copying);
    map.catalog_version += 1;
    begin_again(&mut map);
    assert_eq!(apply(&mut map, said), Ok(Applied::Unchanged));
    let said = late(&map, MovePhase::Copying);
    assert_eq!(apply(&mut map, said), Ok(Applied::Done));
}

#[test]
fn versions_grow_and_begin_anew_at_the_end() {
    let mut base = 0;
    for versions in [VERSIONS_OF_A_PLACE, VERSIONS_OF_A_CLUSTER, VERSIONS_OF_A_PLACE] {
        let next = beyond(base, versions);
        assert!(next >= base + VERSIONS_OF_A_PLACE);
        base = next;
    }
    assert_eq!(beyond(i64::MAX - 1, 2), 0);
}

#[test]
fn a_primary_that_is_none_any_more_says_nothing_of_a_move() {
    let (mut map, table, _) = moving();
    let command = Command::AdvanceMove {
        table,
        number: number(&map, table),
        partition: 1,
        epoch: map.partitions[&1].epoch - 1,
        phase: MovePhase::Copying,
    };
    assert!(matches!(apply(&mut map, command), Err(Refusal::StaleEpoch { .. })));
    assert!(map.moves[&table].done.is_empty());
}

#[test]
fn a_move_ends_with_what_it_is_for() {
    let (mut map, table, _) = moving();
    assert_eq!(set(&mut map, table, 0), Err(Refusal::TableMoves("moves".to_owned())));
    set(&mut map, table, 1).expect("what it has keeps it where it is");
    assert_eq!((map.moves.len(), map.partitions.len()), (0, 4));
    set(&mut map, table, 2).expect("it can move");
    assert!(map.partitions.keys().eq(&[1, 2, 3, 4, 9, 10, 11, 12]));
    apply(&mut map, drop(table)).expect("nothing needs it");
    assert_eq!((map.moves.len(), map.partitions.len()), (0, 4));
}

#[test]
fn a_table_that_is_about_to_be_served_elsewhere_is_not_kept() {
    let (mut map, table, _) = moving();
    for partition in 1..=4 {
        advance(&mut map, table, partition, MovePhase::Copying).expect("it is moving");
    }
    assert_eq!(set(&mut map, table, 1), Err(Refusal::TableMoves("moves".to_owned())));
}

#[test]
fn a_table_moves_to_where_others_of_its_kind_lie_and_they_share_then() {
    let (mut map, table, stays) = moving();
    let other = create(&mut map, "other", 2);
    assert_eq!(map.tables[&other].group, map.moves[&table].to);
    // It has its partitions to itself, but for who comes.
    set(&mut map, other, 3).expect("it can move");
    assert!(map.moves.contains_key(&other));
    set(&mut map, stays, 3).expect("it can move");
    assert_eq!(map.moves[&stays].to, map.moves[&other].to);
}

#[test]
fn a_table_alone_stays_in_its_partitions() {
    let mut map = cluster();
    let table = create(&mut map, "alone", 1);
    let command = Command::SetReplication {
        table,
        replication: Some(2),
        mode: Some(ReplicationMode::Async),
    };
    assert_eq!(apply(&mut map, command), Ok(Applied::Done));
    assert!(map.moves.is_empty() && map.partitions.len() == 4);
}

#[test]
fn what_changes_a_table_waits_for_its_move() {
    let (mut map, table, stays) = moving();
    let alter = |map: &mut ClusterMap, table| {
        let command = Command::AlterColumns {
            table,
            changes: Vec::new(),
            catalog_version: map.catalog_version,
        };
        apply(map, command)
    };
    assert_eq!(alter(&mut map, table), Err(Refusal::TableMoves("moves".to_owned())));
    assert!(alter(&mut map, stays).is_ok());
}
