//! A cluster that follows an archive, and ceases to.

use std::sync::Arc;

use super::super::apply;
use super::super::tests::{cluster, create, create_table, taken_over};
use crate::metadata::command::{Applied, Command, Refusal};
use crate::metadata::map::{ClusterMap, Restoration};
use crate::metadata::sequence::{Sequence, SequenceType};
use crate::metadata::standby::{Promotion, StandbyCommand};

const URL: &str = "file:///backups/x";

fn archived() -> ClusterMap {
    let mut map = cluster();
    create(&mut map, "accounts", 1);
    create(&mut map, "majority", 2);
    map
}

fn standby_of(archived: &ClusterMap) -> ClusterMap {
    let mut map = cluster();
    let restoration = Restoration {
        url: URL.to_owned(),
        at_micros: 5,
        partitions: 0,
        left: [].into(),
    };
    let restore = Command::Restore {
        archived: Box::new(archived.clone()),
        restoration,
        is_standby: true,
    };
    assert_eq!(apply(&mut map, restore), Ok(Applied::Done));
    map
}

fn follow(archived: &ClusterMap, at_micros: i64) -> Command {
    let sequences = archived.sequences.iter();
    Command::Standby(StandbyCommand::Follow {
        at_micros,
        archived: Some(Box::new(archived.clone())),
        sequences: sequences.map(|(id, one)| (*id, (**one).clone())).collect(),
    })
}

fn settle(at_micros: i64) -> Command {
    Command::Standby(StandbyCommand::Settle { at_micros })
}

const PROMOTE: Command = Command::Standby(StandbyCommand::Promote { is_immediate: false });
const PROMOTED: Command = Command::Standby(StandbyCommand::Promoted);

#[test]
fn it_takes_no_catalog_but_the_archived_one() {
    let mut archived = archived();
    let mut map = standby_of(&archived);
    let mine = create_table("mine", 1);
    assert_eq!(apply(&mut map, mine.clone()), Err(Refusal::Standby(URL.to_owned())));

    // A table in a new group comes, one goes with its group, and what stays stays as it was.
    create(&mut archived, "later", 0);
    let gone = archived.table("majority").expect("it was made").id;
    apply(&mut archived, Command::DropTables { tables: [gone].into() }).expect("it is there");
    let kept: Vec<u32> = map.groups[&1].partitions.clone();
    let epoch = 7;
    map.partitions.get_mut(&kept[0]).expect("it is there").epoch = epoch;
    let (version, before) = (map.catalog_version, map.partitions.clone());
    assert_eq!(apply(&mut map, follow(&archived, 8)), Ok(Applied::Done));
    assert_eq!((&map.tables, &map.groups), (&taken_over(&archived), &archived.groups));
    let numbers = |map: &ClusterMap| map.partitions.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(&map), numbers(&archived));
    assert!(kept.iter().all(|id| map.partitions[id] == before[id]));
    assert!(map.partitions.values().all(|info| info.primary.is_some()));
    assert!(map.catalog_version > version, "plans of before are stale");

    // Somebody who still thinks that he leads comes late.
    let now = map.clone();
    assert_eq!(
        apply(&mut map, follow(&super::tests::archived(), 7)),
        Ok(Applied::Unchanged)
    );
    assert_eq!((&map.tables, &map.standby), (&now.tables, &now.standby));
    apply(&mut map, follow(&super::tests::archived(), 9)).expect("a later cut");
    assert_eq!(map.tables, now.tables, "an older catalog");
}

#[test]
fn another_mode_of_a_group_is_another_epoch() {
    let mut archived = archived();
    let mut map = standby_of(&archived);
    let before = map.partitions.clone();
    let table = archived.table("majority").expect("it was made");
    let (id, group) = (table.id, table.group);
    let set = Command::SetReplication {
        table: id,
        replication: None,
        mode: Some(crate::metadata::map::ReplicationMode::Sync),
    };
    apply(&mut archived, set).expect("it is alone there");
    apply(&mut map, follow(&archived, 8)).expect("a later cut");
    for (id, info) in &map.partitions {
        let changed = u64::from(info.group == group);
        assert_eq!(info.epoch, before[id].epoch + changed);
    }
}

#[test]
fn sequences_are_followed_too() {
    let mut archived = archived();
    let sequence = Sequence {
        id: 1,
        name: "s".to_owned(),
        data_type: SequenceType::BigInt,
        increment: 1,
        min: 1,
        max: i64::MAX,
        start: 1,
        cache: 32,
        owner: None,
        next: Some(1),
        generation: 0,
    };
    archived.sequences.insert(1, Arc::new(sequence.clone()));
    let mut map = standby_of(&archived);
    let later = Sequence {
        next: Some(33),
        ..sequence
    };
    let command = Command::Standby(StandbyCommand::Follow {
        at_micros: 6,
        archived: None,
        sequences: [(1, later.clone()), (2, later.clone())].into(),
    });
    assert_eq!(apply(&mut map, command), Ok(Applied::Done));
    assert_eq!(*map.sequences[&1], later);
    assert_eq!(map.sequences.len(), 1, "one that is not in the catalog");
}

#[test]
fn it_is_promoted_step_by_step_and_then_it_is_a_cluster_like_any_other() {
    let archived = archived();
    let mut map = standby_of(&archived);
    assert!(
        matches!(apply(&mut map, settle(9)), Err(Refusal::NotAllowed(_))),
        "nobody asked"
    );
    assert!(matches!(apply(&mut map, PROMOTED), Err(Refusal::NotAllowed(_))));
    apply(&mut map, PROMOTE).expect("it is a standby");
    apply(&mut map, follow(&archived, 9)).expect("it goes on until it is settled");
    assert!(
        matches!(apply(&mut map, PROMOTED), Err(Refusal::NotAllowed(_))),
        "not settled"
    );
    apply(&mut map, settle(9)).expect("it is promoted");
    apply(&mut map, settle(8)).expect("it is promoted");
    let promotion = Promotion {
        is_immediate: false,
        settled_micros: Some(9),
    };
    assert_eq!(
        map.standby.as_ref().and_then(|standby| standby.promotion),
        Some(promotion)
    );
    assert!(matches!(
        apply(&mut map, follow(&archived, 10)),
        Err(Refusal::NotAllowed(_))
    ));
    assert!(
        matches!(apply(&mut map, create_table("mine", 1)), Err(Refusal::Standby(_))),
        "not yet"
    );
    apply(&mut map, PROMOTED).expect("it is settled");
    assert_eq!((map.standby.as_ref(), map.restored_micros), (None, Some(9)));
    apply(&mut map, create_table("mine", 1)).expect("it is its own");
    assert!(matches!(apply(&mut map, PROMOTE), Err(Refusal::NotAllowed(_))));
}
