//! What the nodes of the control plane say to each other, and how many bytes that is.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use volt_engine::NodeId;
use volt_engine::catalog::Column;
use volt_engine::value::{DataType, Value};
use volt_node::membership::neighbours::{ALL_WITH_ALL, Neighbours};
use volt_node::metadata::command::{Command, Joining, NewTable};
use volt_node::metadata::map::ClusterMap;
use volt_proto::v1::{HeartbeatRequest, HeartbeatResponse, LedPartition, RaftMessage, ReplicaEnd, Vitals};

/// A record's place in a log, as large as it is after a year.
const INDEX: u64 = 50_000_000;
/// The metadata group's term.
pub const TERM: u64 = 12;

/// Each node's heartbeat to a voter, its bytes, and those of one to somebody else,
pub type Requests = BTreeMap<NodeId, (HeartbeatRequest, (u64, u64))>;
/// and the bytes of its answer to one.
pub type Answers = BTreeMap<NodeId, u64>;

/// A node as it introduces itself.
pub fn joining(node_id: NodeId) -> Joining {
    Joining {
        node_id,
        name: format!("node-{node_id}"),
        address: format!("node-{node_id}.cluster.default.svc:7000"),
        sql_address: format!("node-{node_id}.cluster.default.svc:5432"),
        zone: format!("zone-{}", node_id % 3),
        boot_id: u64::MAX / 3 + u64::from(node_id),
        ..Joining::default()
    }
}

/// A table of one column.
pub fn table() -> NewTable {
    let column = Column {
        name: "id".to_owned(),
        data_type: DataType::BigInt,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    NewTable {
        name: "rows".to_owned(),
        columns: vec![column],
        primary_key: vec![0],
        partition_column: Some(0),
        indexes: Vec::new(),
        checks: Vec::new(),
        sequences: Vec::new(),
        ttl: None,
    }
}

/// The payload of the group's message with these entries, as openraft's request is encoded.
pub fn append_bytes(leader: NodeId, entries: &[&Command]) -> u64 {
    let leader = u64::from(leader) << 20 | 1;
    let log_id = (TERM, leader, INDEX);
    // In an enumeration of payloads a command is the second.
    let entries: Vec<_> = entries.iter().map(|command| (log_id, 1_u8, *command)).collect();
    let request = ((TERM, leader, true), Some(log_id), entries, Some(log_id));
    let payload = postcard::to_stdvec(&request).expect("it has a length");
    let message = RaftMessage {
        from: leader,
        to: leader,
        payload: payload.into(),
    };
    message.encoded_len() as u64
}

/// What every node says of itself by this map.
pub fn heartbeats(map: &ClusterMap, leader: NodeId) -> (Requests, Answers) {
    let (mut requests, mut answers) = (Requests::new(), Answers::new());
    let mut held: BTreeMap<NodeId, (Vec<ReplicaEnd>, Vec<LedPartition>)> = BTreeMap::new();
    for info in map.partitions.values() {
        for node in info.holders() {
            let of = held.entry(node).or_default();
            of.0.push(ReplicaEnd {
                partition_id: info.partition_id,
                last_epoch: info.epoch,
                appended: INDEX,
                committed: INDEX,
                epoch: info.epoch,
            });
            if info.primary == Some(node) {
                of.1.push(LedPartition {
                    partition_id: info.partition_id,
                    committed: INDEX,
                    committed_epoch: info.epoch,
                });
            }
        }
    }
    for node in map.nodes.values() {
        let (ends, led) = held.remove(&node.node_id).unwrap_or_default();
        let request = HeartbeatRequest {
            node_id: node.node_id,
            boot_id: node.boot_id,
            map_version: map.version,
            ends,
            wants_lease: true,
            disk_trouble: None,
            vitals: Some(Vitals {
                flush_micros: Some(2_000),
                memory_millionths: Some(400_000),
            }),
        };
        let answer = HeartbeatResponse {
            node_id: node.node_id,
            boot_id: node.boot_id,
            lease_granted: node.node_id == leader,
            lease_ms: 1_000,
            map_version: map.version,
            led,
            unanswered_ms: 10,
        };
        let without = HeartbeatRequest {
            ends: Vec::new(),
            ..request.clone()
        };
        let bytes = (request.encoded_len() as u64, without.encoded_len() as u64);
        requests.insert(node.node_id, (request, bytes));
        answers.insert(node.node_id, answer.encoded_len() as u64);
    }
    (requests, answers)
}

/// `Neighbours::new` of every node, in one pass.
pub fn all_neighbours(map: &ClusterMap, voters: &BTreeSet<NodeId>, checked: NodeId) -> BTreeMap<NodeId, Neighbours> {
    let nodes: BTreeSet<NodeId> = map.nodes.keys().copied().collect();
    if nodes.len() <= ALL_WITH_ALL {
        let of = |node: &NodeId| (*node, Neighbours::new(map, *node, voters));
        return nodes.iter().map(of).collect();
    }
    let of_all = Neighbours {
        asks: voters.clone(),
        hears: voters.clone(),
    };
    let mut all: BTreeMap<NodeId, Neighbours> = nodes.iter().map(|node| (*node, of_all.clone())).collect();
    for info in map.partitions.values() {
        let Some(primary) = info.primary else { continue };
        for other in info.holders().into_iter().filter(|node| *node != primary) {
            all.entry(other).or_default().asks.insert(primary);
            all.entry(primary).or_default().hears.insert(other);
        }
    }
    for voter in voters {
        all.insert(*voter, Neighbours::new(map, *voter, voters));
    }
    assert_eq!(all[&checked], Neighbours::new(map, checked, voters));
    all
}
