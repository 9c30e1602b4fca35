//! What the record of failures says.

use std::collections::BTreeSet;
use std::time::Duration;

use volt_engine::{NodeId, PartitionId};

use super::super::apply;
use super::super::tests::{cluster, create};
use crate::metadata::command::{Applied, Command, FailoverNote, Joining, PartitionChange};
use crate::metadata::failure::{Finding, Grounds, MAX_FAILURES_KEPT, Medium, SAME_LAG_MICROS, Strategy};
use crate::metadata::map::ClusterMap;

fn finding(strategy: Strategy) -> Finding {
    Finding::new((strategy, Medium::Network), "seen", Duration::from_secs(2), 1)
}

/// Node 3's process is dead, by this strategy; nothing is changed for it yet.
fn dead(map: &mut ClusterMap, strategy: Strategy, process_ended: bool) {
    let command = Command::NodeDead {
        term: 1,
        node_id: 3,
        boot_id: map.nodes[&3].boot_id,
        process_ended,
        finding: finding(strategy),
        at_micros: 5,
        changes: Vec::new(),
    };
    apply(map, command).expect("it is known");
}

fn outcomes(map: &ClusterMap) -> Vec<String> {
    map.failures.iter().map(|failure| failure.outcome()).collect()
}

/// The partition without, or with, a backup.
fn changed(map: &ClusterMap, partition: PartitionId, node: NodeId, stays: bool) -> PartitionChange {
    let info = &map.partitions[&partition];
    let (mut in_sync, mut learners) = (info.in_sync.clone(), info.learners.clone());
    let (to, from) = if stays {
        (&mut in_sync, &mut learners)
    } else {
        (&mut learners, &mut in_sync)
    };
    to.insert(node);
    from.remove(&node);
    PartitionChange {
        partition,
        epoch: info.epoch,
        primary: info.primary,
        in_sync,
        learners,
    }
}

fn by_primary(map: &mut ClusterMap, change: PartitionChange, grounds: Option<Grounds>) {
    let by = change.primary.expect("it has one");
    let command = Command::ChangePartition {
        by,
        boot_id: map.nodes[&by].boot_id,
        change,
        grounds: grounds.map(Box::new),
    };
    assert!(matches!(apply(map, command), Ok(Applied::Changed { .. })));
}

fn grounds(at_micros: i64, in_doubt: bool) -> Grounds {
    Grounds {
        finding: finding(Strategy::DataChange),
        at_micros,
        in_doubt,
    }
}

#[test]
fn a_verdict_is_a_row_and_what_comes_of_it_is_added() {
    let mut map = cluster();
    create(&mut map, "t", 2);
    dead(&mut map, Strategy::Interval, false);
    dead(&mut map, Strategy::Interval, false);
    assert_eq!(outcomes(&map), ["none yet"], "what is known already is no news");
    // The lease is over: its partitions get other primaries, and it leaves the in-sync sets.
    let without_it = map.partitions.values().map(|info| {
        let change = changed(&map, info.partition_id, 3, false);
        let primary = info.primary.map(|primary| if primary == 3 { 1 } else { primary });
        PartitionChange { primary, ..change }
    });
    let command = Command::ChangePartitions {
        term: 1,
        changes: without_it.collect(),
        failover: Some(FailoverNote {
            node_id: 3,
            finding: finding(Strategy::Interval),
            at_micros: 9,
        }),
    };
    apply(&mut map, command).expect("the leader may");
    assert_eq!(outcomes(&map), ["1 new primary; 4 replicas left their in-sync sets"]);
    let failure = &map.failures[0];
    assert_eq!((failure.failure_id, failure.partition), (1, None));
    // It is known to have ended: another verdict. Then it comes back.
    dead(&mut map, Strategy::Connection, true);
    assert!(outcomes(&map)[0].ends_with("; the process has ended since"));
    let back = Joining {
        node_id: 3,
        boot_id: 2,
        incarnation: 1,
        ..Joining::default()
    };
    apply(&mut map, Command::Join(back)).expect("it comes back");
    assert_eq!(outcomes(&map)[1], "the node came back as a new process");
    assert_eq!(map.failures[1].finding.strategy, Strategy::Connection);
    // A verdict that was wrong.
    dead(&mut map, Strategy::Heartbeat, false);
    let alive = Command::NodeAlive { node_id: 3, boot_id: 2 };
    apply(&mut map, alive).expect("it is heard");
    assert_eq!(outcomes(&map)[2], "the same process was heard again");
}

#[test]
fn replicas_of_one_node_that_lag_are_one_failure() {
    let mut map = cluster();
    create(&mut map, "t", 2);
    let led_by_others: Vec<PartitionId> = map
        .partitions
        .values()
        .filter(|info| info.primary != Some(3))
        .map(|info| info.partition_id)
        .collect();
    for (nth, partition) in led_by_others.iter().enumerate() {
        let change = changed(&map, *partition, 3, false);
        by_primary(&mut map, change, Some(grounds(nth as i64, false)));
    }
    assert_eq!(outcomes(&map), ["3 replicas left their in-sync sets"]);
    assert_eq!(map.failures[0].partition, Some(led_by_others[0]));
    assert!(map.partitions.values().all(|info| info.in_doubt.is_empty()));
    for partition in &led_by_others {
        let change = changed(&map, *partition, 3, true);
        by_primary(&mut map, change, None);
    }
    assert_eq!(outcomes(&map), ["3 replicas left their in-sync sets; in sync again"]);
    // Later is another time.
    let change = changed(&map, led_by_others[0], 3, false);
    by_primary(&mut map, change, Some(grounds(SAME_LAG_MICROS + 1, false)));
    assert_eq!(map.failures.len(), 2);
}

#[test]
fn a_replica_in_doubt_stays_so_until_it_is_in_sync_again() {
    let mut map = cluster();
    create(&mut map, "t", 2);
    let partition = *map
        .partitions
        .iter()
        .find(|(_, info)| info.primary == Some(1))
        .expect("one")
        .0;
    let without = changed(&map, partition, 3, false);
    by_primary(&mut map, without, Some(grounds(1, true)));
    let in_doubt = |map: &ClusterMap| map.partitions[&partition].in_doubt.clone();
    assert_eq!(in_doubt(&map), BTreeSet::from([3]));
    // A new process of it is no better.
    let back = Joining {
        node_id: 3,
        boot_id: 2,
        incarnation: 1,
        ..Joining::default()
    };
    apply(&mut map, Command::Join(back)).expect("it comes back");
    assert_eq!(in_doubt(&map), BTreeSet::from([3]));
    let again = changed(&map, partition, 3, true);
    by_primary(&mut map, again, None);
    assert_eq!(in_doubt(&map), BTreeSet::new());
    assert_eq!(outcomes(&map), ["1 replica left its in-sync set; in sync again"]);
}

#[test]
fn a_primary_that_doubts_itself_hands_over_and_is_a_learner_in_doubt() {
    let mut map = cluster();
    create(&mut map, "t", 2);
    let partition = *map
        .partitions
        .iter()
        .find(|(_, info)| info.primary == Some(3))
        .expect("one")
        .0;
    let change = PartitionChange {
        primary: Some(1),
        ..changed(&map, partition, 3, false)
    };
    let command = Command::ChangePartition {
        by: 3,
        boot_id: 1,
        change,
        grounds: Some(Box::new(grounds(1, true))),
    };
    apply(&mut map, command).expect("it may");
    let info = &map.partitions[&partition];
    assert_eq!((info.primary, &info.in_doubt), (Some(1), &BTreeSet::from([3])));
    assert_eq!(map.failures[0].node_id, 3);
}

#[test]
fn only_the_newest_failures_are_kept() {
    let mut map = cluster();
    for _ in 0..MAX_FAILURES_KEPT + 3 {
        dead(&mut map, Strategy::Heartbeat, false);
        let alive = Command::NodeAlive { node_id: 3, boot_id: 1 };
        apply(&mut map, alive).expect("it is heard");
    }
    assert_eq!(map.failures.len(), MAX_FAILURES_KEPT);
    assert_eq!(map.failures[0].failure_id, 4);
    assert_eq!(map.last_failure, MAX_FAILURES_KEPT as u64 + 3);
}
