//! The control plane of a cluster without its data: the decisions are the product's own (state machine, placement, detectors, leases,
//! promotion, who talks with whom), the messages have the product's encodings, and a network delivers them a millisecond later. What the
//! drivers around those decisions do (timers, connections that break, a log that is flushed) is as long as it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use volt_engine::{NodeId, PartitionId};
use volt_node::config::Detection;
use volt_node::membership::ends::Ends;
use volt_node::membership::neighbours::Neighbours;
use volt_node::membership::promotion::{Situation, decide};
use volt_node::membership::questions::{Questions, vacant};
use volt_node::membership::rebalance::rebalance;
use volt_node::membership::verdict::{Ended, Judge, Sightings, Verdict, verdicts};
use volt_node::metadata::apply::apply;
use volt_node::metadata::command::{Command, Joining, PartitionChange};
use volt_node::metadata::failure::Strategy;
use volt_node::metadata::lease::LeaseBook;
use volt_node::metadata::map::{ClusterMap, ReplicationMode};
use volt_node::metadata::placement::{Placements, target_primaries};
use volt_node::world::Planted;
use volt_proto::v1::HeartbeatRequest;

use super::messages::{self, Answers, Requests, TERM, append_bytes, joining, table};

/// From one heartbeat of a node to its next, and of the metadata group's leader to its members.
const HEARTBEAT_MS: u64 = 100;
const LEASE: Duration = Duration::from_secs(1);
/// The leader looks around so often.
const LOOK_MS: u64 = 50;
/// A message is on its way for so long,
const WAY_MS: u64 = 1;
/// and a log takes so long to be flushed.
const FLUSH_MS: u64 = 2;
/// A connection that breaks, and the refusal of another one.
const REFUSED_MS: u64 = 3 * WAY_MS;
/// A learner is filled after so long.
pub(super) const FILL_MS: u64 = 50;

/// Messages and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub messages: u64,
    pub bytes: u64,
}

/// What there was of each kind.
pub type Kinds = BTreeMap<&'static str, Traffic>;

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its process ends, and its machine refuses connections.
    Ends,
    /// Its machine says nothing more.
    IsSilent,
}

/// What is on its way, by the millisecond at which it arrives.
pub(super) enum Event {
    /// The leader knows that this process has ended.
    Evidence(NodeId),
    /// An entry of the group's log is committed: applied by the leader now, by the others a way later.
    Committed(Box<Command>),
    /// A learner is filled: its primary proposes it as a member.
    Filled(PartitionId, NodeId),
}

/// The cluster.
pub struct Plane {
    pub(super) now: u64,
    pub(super) map: ClusterMap,
    voters: BTreeSet<NodeId>,
    pub(super) leader: NodeId,
    silent: BTreeSet<NodeId>,
    neighbours: BTreeMap<NodeId, Neighbours>,
    /// A node's heartbeat, and its answer to one: they change with the map.
    requests: Requests,
    answers: Answers,
    pub(super) sightings: Sightings,
    book: LeaseBook,
    pub(super) ends: Ends,
    questions: Questions,
    pub(super) placements: Placements,
    events: BTreeMap<(u64, u64), Event>,
    numbered: u64,
    /// Something was proposed and is not applied yet: one decision at a time.
    is_proposing: bool,
    balanced: u64,
    detection: Detection,
    pub traffic: Kinds,
    /// What the leader took to hear, judge and apply, on this machine.
    pub leader_took: Duration,
    /// What another node takes to apply a change and look what it means for it, on this machine; and how many there were.
    pub change_took: Duration,
    pub changes: u32,
}

/// What this thread has computed so far: what others do on the machine does not count.
fn computed() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn duration(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Plane {
    /// At rest.
    pub fn new(nodes: NodeId, partitions: u32) -> Self {
        let mut map = ClusterMap::default();
        let first = Command::Initialise {
            cluster_uuid: "00000000-0000-4000-8000-00000000cafe".to_owned(),
            partitions,
            node: joining(1),
            awaits_restoration: false,
        };
        let create = Command::CreateTable {
            table: table(),
            replication: 2,
            mode: ReplicationMode::Sync,
        };
        let joins = (2..=nodes).map(|node| Command::Join(joining(node)));
        for command in [first].into_iter().chain(joins).chain([create]) {
            apply(&mut map, command).expect("it can be made");
        }
        let mut plane = Self {
            now: 0,
            voters: (1..=nodes.min(5)).collect(),
            leader: 1,
            silent: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            requests: BTreeMap::new(),
            answers: BTreeMap::new(),
            sightings: Sightings::default(),
            book: LeaseBook::new(LEASE, Duration::ZERO),
            ends: Ends::default(),
            questions: Questions::default(),
            placements: Placements::new(&map),
            events: BTreeMap::new(),
            numbered: 0,
            is_proposing: false,
            balanced: 0,
            detection: Detection::default(),
            traffic: Kinds::new(),
            leader_took: Duration::ZERO,
            change_took: Duration::ZERO,
            changes: 0,
            map,
        };
        plane.map_is_another();
        plane.run(2_000);
        plane.handover_all();
        plane.run(1_000);
        plane
    }

    /// The map's bytes, as a snapshot has them.
    pub fn map_bytes(&self) -> usize {
        postcard::to_stdvec(&self.map).map_or(0, |bytes| bytes.len())
    }

    /// With how many nodes one talks at most.
    pub fn most_neighbours(&self) -> usize {
        let others = self.neighbours.iter().filter(|(node, _)| !self.voters.contains(node));
        others.map(|(_, neighbours)| neighbours.asks.len()).max().unwrap_or(0)
    }

    /// A node that does not vote, and holds as many replicas as a node does.
    pub fn victim(&self) -> NodeId {
        let replicas: usize = self.map.partitions.values().map(|info| info.holders().len()).sum();
        let usual = replicas / self.map.nodes.len();
        let others = self
            .map
            .nodes
            .keys()
            .copied()
            .filter(|node| !self.voters.contains(node));
        let holds = |node: &NodeId| self.requests[node].0.ends.len();
        others
            .min_by_key(|node| holds(node).abs_diff(usual))
            .unwrap_or(self.leader)
    }

    /// Forgets what was counted.
    pub fn count_anew(&mut self) {
        self.traffic.clear();
        (self.leader_took, self.change_took, self.changes) = (Duration::ZERO, Duration::ZERO, 0);
    }

    pub(super) fn count(&mut self, kind: &'static str, messages: u64, bytes: u64) {
        let traffic = self.traffic.entry(kind).or_default();
        traffic.messages += messages;
        traffic.bytes += messages * bytes;
    }

    pub(super) fn at(&mut self, millis: u64, event: Event) {
        self.numbered += 1;
        self.events.insert((millis, self.numbered), event);
    }

    /// So much time passes.
    pub fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.step();
        }
    }

    /// Until this is so; milliseconds. None: it did not become so.
    pub fn run_until(&mut self, limit: u64, is_so: impl Fn(&ClusterMap) -> bool) -> Option<u64> {
        let began = self.now;
        while !is_so(&self.map) {
            if self.now > began + limit {
                return None;
            }
            self.step();
        }
        // The others apply what the leader has applied a way later.
        Some(self.now - began + WAY_MS)
    }

    /// Milliseconds until every partition has a living primary that knows it.
    pub fn fail_over(&mut self, node: NodeId, how: Death) -> Option<u64> {
        self.silent.insert(node);
        if how == Death::Ends {
            self.at(self.now + REFUSED_MS, Event::Evidence(node));
        }
        self.run_until(30_000, |map| {
            !map.is_alive(node) && map.partitions.values().all(|info| map.living_primary(info).is_some())
        })
    }

    /// The node comes back as a new process; milliseconds until every partition has all its copies again.
    pub fn come_back(&mut self, node: NodeId) -> Option<u64> {
        let incarnation = self.map.nodes[&node].incarnation;
        let cluster_uuid = self.map.cluster_uuid.clone();
        let joining = Joining {
            boot_id: self.map.nodes[&node].boot_id + 1_000_000,
            incarnation,
            cluster_uuid,
            ..joining(node)
        };
        self.silent.remove(&node);
        // It speaks before it has joined.
        self.sightings.heard(node, joining.boot_id, duration(self.now));
        self.propose(Command::Join(joining));
        self.run_until(60_000, |map| {
            map.is_alive(node)
                && map
                    .partitions
                    .values()
                    .all(|info| map.copies(info) == map.copies_wanted(info))
        })
    }

    fn step(&mut self) {
        self.now += 1;
        let offset = self.now % HEARTBEAT_MS;
        let due: Vec<NodeId> = self.requests.keys().copied().collect();
        for node in due.into_iter().filter(|node| u64::from(*node) % HEARTBEAT_MS == offset) {
            if !self.silent.contains(&node) {
                self.beat(node);
            }
        }
        if offset == 0 {
            self.group_beats();
        }
        while let Some(((at, number), _)) = self.events.first_key_value() {
            if *at > self.now {
                break;
            }
            let key = (*at, *number);
            if let Some(event) = self.events.remove(&key) {
                self.happens(event);
            }
        }
        if self.now.is_multiple_of(LOOK_MS) {
            self.rule();
        }
    }

    /// A node's heartbeats to all whom it asks, and their answers; what the leader hears of it counts.
    fn beat(&mut self, node: NodeId) {
        let asks = &self.neighbours[&node].asks;
        let living: Vec<NodeId> = asks
            .iter()
            .copied()
            .filter(|asked| !self.silent.contains(asked))
            .collect();
        let (sent, answered) = (asks.len() as u64, living.len() as u64);
        let answers: u64 = living.iter().map(|asked| self.answers[asked]).sum();
        let (with_ends, without) = self.requests[&node].1;
        let voters = asks.intersection(&self.voters).count() as u64;
        self.count("heartbeat, with the ends of replicas", voters, with_ends);
        self.count("heartbeat", sent - voters, without);
        let told = self.traffic.entry("its answer").or_default();
        (told.messages, told.bytes) = (told.messages + answered, told.bytes + answers);
        let now = duration(self.now + WAY_MS);
        if node == self.leader {
            let began = computed();
            for asked in living {
                let boot_id = self.map.nodes[&asked].boot_id;
                self.sightings.heard(asked, boot_id, now);
                self.sightings.reached(asked, boot_id, now);
            }
            self.leader_took += computed() - began;
        } else if living.contains(&self.leader) {
            self.leader_hears(node, now);
        }
    }

    fn leader_hears(&mut self, node: NodeId, now: Duration) {
        let encoded = self.requests[&node].0.encode_to_vec();
        let began = computed();
        let request = HeartbeatRequest::decode(encoded.as_slice()).expect("it was encoded here");
        self.sightings.heard(node, request.boot_id, now);
        self.ends.note(node, request.boot_id, &request.ends);
        if self.map.is_alive(node) && self.map.is_current(node, request.boot_id) {
            self.book.grant(node, request.boot_id, now);
        }
        self.leader_took += computed() - began;
    }

    /// The leader's word to every member of the metadata group, and the majority's word that it leads.
    fn group_beats(&mut self) {
        let (members, voters) = (self.map.nodes.len() as u64 - 1, self.voters.len() as u64 - 1);
        self.count("group, idle", 2 * (members + voters), append_bytes(self.leader, &[]));
        self.book.confirm(duration(self.now));
    }

    /// As the leader's loop has it: judge, then promote, then rebalance when there is nothing else.
    fn rule(&mut self) {
        if self.is_proposing {
            return;
        }
        let (now, began) = (duration(self.now), computed());
        self.sightings.expect(&self.map, &self.neighbours[&self.leader], now);
        let judge = Judge {
            observer: self.leader,
            detection: &self.detection,
        };
        let found = verdicts(&self.map, judge, &self.sightings, now);
        let changes = self.decide(&found, now);
        self.leader_took += computed() - began;
        if let Some(verdict) = found.into_iter().next() {
            self.book.condemn(verdict.node_id, verdict.boot_id);
            return self.propose(Command::NodeDead {
                term: TERM,
                node_id: verdict.node_id,
                boot_id: verdict.boot_id,
                process_ended: verdict.process_ended,
                finding: verdict.finding,
                at_micros: 1_767_225_600_000_000,
                changes,
            });
        }
        if !changes.is_empty() {
            return self.propose_changes(changes);
        }
        if self.balanced != self.map.version {
            let began = computed();
            self.balanced = self.map.version;
            self.placements.follow(&self.map);
            let changes = rebalance(&self.map, &self.placements);
            self.leader_took += computed() - began;
            if !changes.is_empty() {
                self.propose_changes(changes);
            }
        }
    }

    fn decide(&mut self, found: &[Verdict], now: Duration) -> Vec<PartitionChange> {
        let dead = found
            .iter()
            .map(|verdict| (verdict.node_id, verdict.process_ended))
            .collect();
        self.ends.keep_current(&self.map);
        let partitions = self.questions.of(&self.map, &dead);
        let (ends, seen) = self.ends.of(&vacant(&self.map, &partitions, &dead));
        let heard = self.heard(now);
        let is_over = |node: &NodeId| self.book.is_over(*node, now);
        let lease_over = self.map.nodes.keys().copied().filter(is_over).collect();
        let decision = decide(&Situation {
            map: &self.map,
            partitions: &partitions,
            dead: &dead,
            heard: &heard,
            lease_over: &lease_over,
            ends: &ends,
            seen: &seen,
            restarts_keep: true,
            waited: &BTreeMap::new(),
            patience: Duration::from_secs(1),
            manual: false,
            planted: Planted::default(),
        });
        decision.changes
    }

    fn propose_changes(&mut self, changes: Vec<PartitionChange>) {
        self.propose(Command::ChangePartitions {
            term: TERM,
            changes,
            failover: None,
        });
    }

    /// The entry goes to every member, is committed when a majority has flushed it, and all hear of that.
    pub(super) fn propose(&mut self, command: Command) {
        let members = self.map.nodes.len() as u64 - 1;
        let entry = append_bytes(self.leader, &[&command]);
        self.count("group, entries", members, entry);
        let told = append_bytes(self.leader, &[]);
        self.count("group, entries", 3 * members, told);
        let is_ours = matches!(command, Command::ChangePartitions { .. } | Command::NodeDead { .. });
        self.is_proposing |= is_ours;
        self.at(
            self.now + 2 * WAY_MS + 2 * FLUSH_MS,
            Event::Committed(Box::new(command)),
        );
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Evidence(node) => {
                let boot_id = self.map.nodes[&node].boot_id;
                let ended = Ended {
                    strategy: Strategy::Connection,
                    evidence: format!("the connection broke, and node-{node}.cluster.default.svc:7000 refuses another"),
                };
                self.sightings.ended(node, boot_id, ended, duration(self.now));
                self.rule();
            }
            Event::Committed(command) => self.committed(*command),
            Event::Filled(partition, learner) => self.add(partition, learner),
        }
    }

    fn committed(&mut self, command: Command) {
        let is_ours = matches!(command, Command::ChangePartitions { .. } | Command::NodeDead { .. });
        if is_ours {
            self.is_proposing = false;
        }
        let began = computed();
        let before = self.map.clone();
        let proposed = match &command {
            Command::ChangePartition { change, .. } => Some(change.partition),
            _ => None,
        };
        let applied = apply(&mut self.map, command);
        self.leader_took += computed() - began;
        if applied.is_err() {
            // Another change of the partition was first.
            let info = proposed.and_then(|partition| self.map.partitions.get(&partition));
            let again: Vec<_> = info
                .into_iter()
                .flat_map(|info| info.learners.iter().map(|node| (info.partition_id, *node)))
                .collect();
            for (partition, learner) in again {
                self.at(self.now + FILL_MS, Event::Filled(partition, learner));
            }
            return;
        }
        self.follow(&before);
        self.map_is_another();
        if is_ours {
            self.rule();
        }
    }

    /// Everybody talks with those with whom the new map has it, of what the new map has there.
    fn map_is_another(&mut self) {
        (self.requests, self.answers) = messages::heartbeats(&self.map, self.leader);
        let began = computed();
        let own = self.voters.len() as NodeId + 1;
        let _ = std::hint::black_box(self.map.clone());
        self.placements.follow(&self.map);
        let _ = std::hint::black_box(target_primaries(&self.map, &self.placements));
        let _ = std::hint::black_box(Neighbours::new(&self.map, own, &self.voters));
        self.change_took += computed() - began;
        self.changes += 1;
        self.neighbours = messages::all_neighbours(&self.map, &self.voters, own);
    }
}
