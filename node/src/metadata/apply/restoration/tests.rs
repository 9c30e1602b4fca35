//! A cluster that becomes what another one was.

use std::collections::BTreeMap;

use volt_engine::PartitionId;

use super::super::apply;
use super::super::tests::{cluster, create, create_table, founded, taken_over};
use crate::metadata::command::{Applied, Command, Refusal};
use crate::metadata::map::{ClusterMap, Restoration};

fn archived() -> ClusterMap {
    let mut map = cluster();
    create(&mut map, "gone", 1);
    let gone = map.table("gone").expect("it was made").id;
    apply(&mut map, Command::DropTables { tables: [gone].into() }).expect("it is there");
    create(&mut map, "accounts", 1);
    create(&mut map, "majority", 2);
    map
}

fn restoration(of: &ClusterMap) -> Restoration {
    let left: BTreeMap<PartitionId, (u64, u64)> = of.partitions.keys().map(|id| (*id, (7, 1))).collect();
    Restoration {
        url: "file:///backups/x".to_owned(),
        at_micros: 5,
        partitions: left.len() as u32,
        left,
    }
}

fn restore(of: &ClusterMap) -> Command {
    Command::Restore {
        archived: Box::new(of.clone()),
        restoration: restoration(of),
        is_standby: false,
    }
}

#[test]
fn it_has_the_tables_and_partitions_of_the_archived_one_on_nodes_of_its_own() {
    let archived = archived();
    let mut map = cluster();
    assert_eq!(apply(&mut map, restore(&archived)), Ok(Applied::Done));
    assert_eq!((&map.tables, &map.groups), (&taken_over(&archived), &archived.groups));
    let numbers = |map: &ClusterMap| map.partitions.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(&map), numbers(&archived));
    for partition in map.partitions.values() {
        assert!(partition.primary.is_some() && partition.epoch == 1, "{partition:?}");
    }
    // A table that is made later takes none of their numbers.
    assert!(map.next_table >= archived.next_table && map.next_partition >= archived.next_partition);
    assert_eq!(
        apply(&mut map, restore(&archived)),
        Ok(Applied::Unchanged),
        "asked for again"
    );
}

#[test]
fn only_a_cluster_that_has_nothing_is_restored() {
    let archived = archived();
    let mut map = cluster();
    create(&mut map, "mine", 1);
    let before = map.clone();
    assert!(matches!(
        apply(&mut map, restore(&archived)),
        Err(Refusal::NotAllowed(_))
    ));
    assert_eq!((map.tables, map.restoration), (before.tables, None));
}

#[test]
fn a_cluster_that_is_to_be_restored_has_nothing_of_its_own_before() {
    let mut map = founded(true);
    let before = map.catalog_version;
    let refused = apply(&mut map, create_table("volt_queue", 1));
    assert!(matches!(refused, Err(Refusal::Restoring(_))), "{refused:?}");
    assert_eq!((map.tables.len(), map.catalog_version), (0, before));
    assert!(map.restoring().is_some_and(|why| why.contains(&map.cluster_uuid)));

    apply(&mut map, restore(&archived())).expect("it is empty");
    assert!(!map.awaits_restoration);
    assert!(map.restoring().is_some_and(|why| why.contains("partitions are left")));
}

#[test]
fn nothing_is_changed_until_the_last_partition_is_there() {
    let archived = archived();
    let mut map = cluster();
    apply(&mut map, restore(&archived)).expect("it is empty");
    let version = map.catalog_version;
    let table = map.table("accounts").expect("it is restored");
    assert!(table.version_base > archived.table("accounts").expect("it is there").version_base);
    let table = table.id;
    let drop = Command::DropTables { tables: [table].into() };
    assert!(matches!(apply(&mut map, drop.clone()), Err(Refusal::Restoring(_))));
    let partitions: Vec<PartitionId> = map.partitions.keys().copied().collect();
    for partition in partitions {
        assert!(map.restoration.is_some());
        let restored = |epoch| Command::PartitionRestored { partition, epoch };
        // Another primary has begun meanwhile, and begins with nothing.
        let stale = apply(&mut map, restored(9));
        assert!(matches!(stale, Err(Refusal::StaleEpoch { .. })), "{stale:?}");
        assert_eq!(apply(&mut map, restored(1)), Ok(Applied::Done));
    }
    assert_eq!((map.restoration.as_ref(), map.restored_micros), (None, Some(5)));
    assert!(map.catalog_version > version, "plans of before are stale");
    assert_eq!(apply(&mut map, drop), Ok(Applied::Done));
}
