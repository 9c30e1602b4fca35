//! Scripts over the map and the decisions: each line is an event, the output is what the partitions became.
//! `UPDATE_GOLDENFILES=1 cargo test -p volt-node membership` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use goldenscript::{Command as Line, Context};
use volt_engine::catalog::Column;
use volt_engine::value::DataType;
use volt_engine::{NodeId, PartitionId};

use super::promotion::{End, Situation, decide};
use super::questions::Questions;
use super::rebalance::{drained, rebalance};
use crate::metadata::apply::apply;
use crate::metadata::command::{Command, CommandResult, Joining, NewTable, PartitionChange};
use crate::metadata::failure::{Finding, Medium, Strategy};
use crate::metadata::map::{ClusterMap, ReplicationMode};
use crate::metadata::placement::{Placements, target_primaries};
use crate::world::Planted;

#[test]
fn scripts() {
    for name in ["failover", "power_cut", "rebalance", "refusals", "semi_sync"] {
        let path = format!("{}/src/membership/testscripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        goldenscript::run(&mut Cluster::default(), path).unwrap();
    }
}

#[derive(Default)]
struct Cluster {
    map: ClusterMap,
    dead: BTreeMap<NodeId, bool>,
    silent: BTreeSet<NodeId>,
    lease_over: BTreeSet<NodeId>,
    ends: BTreeMap<(NodeId, PartitionId), End>,
    /// They have not seen the newest epochs.
    blind: BTreeSet<NodeId>,
    restarts_keep: bool,
    waited: u64,
    manual: bool,
    boots: u64,
}

impl goldenscript::Runner for Cluster {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = line.consume_args();
        let mut numbers = Vec::new();
        let mut keys = BTreeMap::new();
        while let Some((key, value)) = args.next_key() {
            keys.insert(key, value);
        }
        let mut words = Vec::new();
        while let Some(word) = args.next_pos() {
            words.push(word);
            numbers.push(word.parse::<u32>().unwrap_or(0));
        }
        let key = |name: &str| keys.get(name).and_then(|value| value.parse::<u64>().ok());
        let node = numbers.first().copied().unwrap_or(0);
        let boot_id = key("boot").unwrap_or_else(|| self.map.nodes.get(&node).map_or(0, |info| info.boot_id));
        match line.name.as_str() {
            "init" => {
                let partitions = key("partitions").unwrap_or(4) as u32;
                let node = self.joining(1, 0);
                Ok(self.apply(Command::Initialise {
                    cluster_uuid: "u".to_owned(),
                    partitions,
                    node,
                    awaits_restoration: false,
                }))
            }
            "join" => {
                let joining = self.joining(node, key("incarnation").unwrap_or(0));
                self.forget(node);
                Ok(self.apply(Command::Join(joining)))
            }
            "table" => {
                let replication = key("replication").unwrap_or(2) as u32;
                let table = table(words[0]);
                let mode = match keys.get("mode").copied() {
                    None | Some("sync") => ReplicationMode::Sync,
                    Some("semi_sync") => ReplicationMode::SemiSync,
                    Some("async") => ReplicationMode::Async,
                    Some(other) => return Err(format!("no mode {other}").into()),
                };
                let made = self.apply(Command::CreateTable {
                    table,
                    replication,
                    mode,
                });
                Ok(if made.contains("error") { made } else { self.print() })
            }
            "drop" => {
                let tables = words.iter().filter_map(|word| word.parse().ok()).collect();
                Ok(self.apply(Command::DropTables { tables }))
            }
            "dead" => {
                self.dead.insert(node, words.contains(&"ended"));
                Ok(String::new())
            }
            "alive" => {
                self.dead.remove(&node);
                Ok(self.apply(Command::NodeAlive { node_id: node, boot_id }))
            }
            "silent" => {
                self.silent.insert(node);
                Ok(String::new())
            }
            "lease-over" => {
                self.lease_over.insert(node);
                Ok(String::new())
            }
            "end" => {
                let end = End {
                    epoch: key("epoch").unwrap_or(1),
                    appended: key("lsn").unwrap_or(0),
                };
                for partition in self.map.partitions.keys() {
                    self.ends.insert((node, *partition), end);
                }
                Ok(String::new())
            }
            "blind" => {
                self.blind = numbers.iter().copied().collect();
                Ok(String::new())
            }
            "restarts-keep" => {
                self.restarts_keep = true;
                Ok(String::new())
            }
            "waited" => {
                self.waited = u64::from(node);
                Ok(String::new())
            }
            "manual" => {
                self.manual = true;
                Ok(String::new())
            }
            "decide" => Ok(self.decide()),
            "rebalance" => Ok(self.rebalance()),
            "sync" => Ok(self.sync()),
            "hand-over" => Ok(self.hand_over()),
            "drain" => Ok(self.apply(Command::Drain { node_id: node })),
            "rejoin" => Ok(self.apply(Command::Rejoin {
                node_id: node,
                boot_id: key("boot"),
            })),
            "yield" => Ok(self.apply(Command::SetYields {
                node_id: node,
                yields: true,
            })),
            "endanger" | "calm" => Ok(self.apply(Command::SetEndangered {
                node_id: node,
                endangered: line.name == "endanger",
            })),
            "remove" => Ok(self.apply(Command::RemoveNode { node_id: node })),
            "want" => {
                let epoch = key("epoch").unwrap_or(0);
                Ok(self.apply(Command::WantPrimary {
                    partition: node,
                    epoch,
                    node_id: numbers[1],
                }))
            }
            "change" => {
                let change = PartitionChange {
                    partition: node,
                    epoch: key("epoch").unwrap_or(0),
                    primary: key("primary").map(|node| node as u32),
                    in_sync: set(keys.get("in-sync")),
                    learners: set(keys.get("learners")),
                };
                let by = key("by").unwrap_or(0) as u32;
                let boot_id = key("boot").unwrap_or_else(|| self.map.nodes.get(&by).map_or(0, |info| info.boot_id));
                Ok(self.apply(Command::ChangePartition {
                    by,
                    boot_id,
                    change,
                    grounds: None,
                }))
            }
            "to-hand-over" => Ok(format!("{}\n", self.map.primaries_to_hand_over(node))),
            "print" => Ok(self.print()),
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

fn set(text: Option<&&str>) -> BTreeSet<NodeId> {
    text.map(|text| text.split(',').filter_map(|node| node.parse().ok()).collect())
        .unwrap_or_default()
}

fn table(name: &str) -> NewTable {
    let column = Column {
        name: "id".to_owned(),
        data_type: DataType::Int,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    NewTable {
        name: name.to_owned(),
        columns: vec![column],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: Vec::new(),
        ttl: None,
    }
}

impl Cluster {
    fn joining(&mut self, node_id: NodeId, incarnation: u64) -> Joining {
        self.boots += 1;
        Joining {
            node_id,
            boot_id: self.boots,
            incarnation,
            name: format!("node-{node_id}"),
            ..Joining::default()
        }
    }

    /// What was known of the node's process before doesn't hold for the next one.
    fn forget(&mut self, node: NodeId) {
        self.dead.remove(&node);
        self.silent.remove(&node);
        self.lease_over.remove(&node);
        self.ends.retain(|(holder, _), _| *holder != node);
    }

    fn apply(&mut self, command: Command) -> String {
        show(&apply(&mut self.map, command))
    }

    fn decide(&mut self) -> String {
        let heard = self
            .map
            .nodes
            .keys()
            .copied()
            .filter(|node| !self.silent.contains(node))
            .collect();
        let waited = Duration::from_millis(self.waited);
        let waited: BTreeMap<PartitionId, Duration> = self.map.partitions.keys().map(|id| (*id, waited)).collect();
        let replicas = self.ends.keys().filter(|(node, _)| !self.blind.contains(node));
        let epoch = |partition: &PartitionId| self.map.partitions.get(partition).map_or(0, |info| info.epoch);
        let seen = replicas.map(|replica| (*replica, epoch(&replica.1))).collect();
        let all: Vec<_> = self.map.partitions.values().collect();
        let mut situation = Situation {
            map: &self.map,
            partitions: &all,
            dead: &self.dead,
            heard: &heard,
            lease_over: &self.lease_over,
            ends: &self.ends,
            seen: &seen,
            restarts_keep: self.restarts_keep,
            waited: &waited,
            patience: Duration::from_millis(1_000),
            manual: self.manual,
            planted: Planted::default(),
        };
        let decision = decide(&situation);
        // Of the others there is nothing to decide.
        let open = Questions::default().of(&self.map, &self.dead);
        situation.partitions = &open;
        assert_eq!(decide(&situation), decision);
        let mut output = String::new();
        for (partition, wait) in &decision.waiting {
            let _ = writeln!(output, "partition {partition} {wait}");
        }
        let mut changes = decision.changes;
        for (node_id, process_ended) in self.dead.clone() {
            let boot_id = self.map.nodes.get(&node_id).map_or(0, |info| info.boot_id);
            let found = (Strategy::Operator, Medium::Network);
            let finding = Finding::new(found, "test", Duration::ZERO, 1);
            let changes = std::mem::take(&mut changes);
            self.apply(Command::NodeDead {
                term: 1,
                node_id,
                boot_id,
                process_ended,
                finding,
                at_micros: 0,
                changes,
            });
        }
        self.apply(Command::ChangePartitions {
            term: 1,
            changes,
            failover: None,
        });
        output + &self.print()
    }

    fn rebalance(&mut self) -> String {
        let changes = rebalance(&self.map, &Placements::new(&self.map));
        let result = self.apply(Command::ChangePartitions {
            term: 1,
            changes,
            failover: None,
        });
        for node_id in drained(&self.map) {
            self.apply(Command::Drained { node_id });
        }
        result + &self.print()
    }

    /// Every primary adds its living learners.
    fn sync(&mut self) -> String {
        for partition in self.map.partitions.clone().into_values() {
            let Some(by) = self.map.living_primary(&partition) else {
                continue;
            };
            let (caught_up, learners): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
                partition.learners.iter().partition(|node| self.map.is_alive(**node));
            if caught_up.is_empty() {
                continue;
            }
            let in_sync = partition.in_sync.union(&caught_up).copied().collect();
            let (partition, epoch, primary) = (partition.partition_id, partition.epoch, Some(by));
            let boot_id = self.map.nodes[&by].boot_id;
            let change = PartitionChange {
                partition,
                epoch,
                primary,
                in_sync,
                learners,
            };
            self.apply(Command::ChangePartition {
                by,
                boot_id,
                change,
                grounds: None,
            });
        }
        self.print()
    }

    /// Every primary looks at its target and hands over.
    fn hand_over(&mut self) -> String {
        for (id, to) in target_primaries(&self.map, &Placements::new(&self.map)) {
            let partition = self.map.partitions[&id].clone();
            let Some(by) = self.map.living_primary(&partition) else {
                continue;
            };
            let change = PartitionChange {
                partition: id,
                epoch: partition.epoch,
                primary: Some(to),
                in_sync: partition.in_sync,
                learners: partition.learners,
            };
            let boot_id = self.map.nodes[&by].boot_id;
            self.apply(Command::ChangePartition {
                by,
                boot_id,
                change,
                grounds: None,
            });
        }
        self.print()
    }

    fn print(&self) -> String {
        let mut output = String::new();
        for node in self.map.nodes.values() {
            let roles = self.map.roles(node.node_id);
            let _ = writeln!(
                output,
                "node {} incarnation {} {:?}: {} primaries, {} backups, {} learners",
                node.node_id, node.incarnation, node.state, roles.primaries, roles.backups, roles.learners
            );
        }
        for partition in self.map.partitions.values() {
            let _ = writeln!(
                output,
                "{} epoch {} primary {:?} in-sync {:?} learners {:?} restarted {:?}",
                partition.partition_id,
                partition.epoch,
                partition.primary.unwrap_or(0),
                partition.in_sync,
                partition.learners,
                partition.restarted
            );
            if !partition.emptied.is_empty() {
                output.pop();
                let _ = writeln!(output, " emptied {:?}", partition.emptied);
            }
        }
        output
    }
}

fn show(result: &CommandResult) -> String {
    match result {
        Ok(applied) => format!("{applied:?}\n"),
        Err(refusal) => format!("error: {refusal}\n"),
    }
}
