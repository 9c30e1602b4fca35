//! Talking with the other nodes: a heartbeat to each of them, whose answer from the metadata group's leader carries the
//! lease; and a watch on each control connection. When that breaks, the node is examined at once: who then refuses a
//! connection, or answers as another process, has ended. When that was the group's leader, an election is called.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use volt_engine::NodeId;
use volt_proto::v1;
use volt_proto::v1::{HeartbeatRequest, HeartbeatResponse, HelloRequest, ReplicaEnd};

use super::fitness::Told;
use super::interval::DiskTrouble;
use super::neighbours::{ALL_WITH_ALL, Neighbours};
use super::verdict::Ended;
use super::{Membership, State};
use crate::metadata::failure::Strategy;

/// Longest wait for a heartbeat's answer; twice that after each one that had none in time, for a network may be slow,
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// but no longer than this.
const LONGEST_ANSWER_LIMIT: Duration = Duration::from_millis(2_000);
/// How often a large cluster's node looks who votes in the metadata group. Well before a new voter could find who has not spoken to it silent.
const LOOK_AT_VOTERS: Duration = Duration::from_millis(250);
/// Longest wait for an answer while a node is examined.
const EXAMINE_LIMIT: Duration = Duration::from_millis(200);
/// Looks at a node whose connection broke, before it is left to the other detectors.
const EXAMINATIONS: u32 = 50;
/// Pause between two looks.
const EXAMINE_AGAIN: Duration = Duration::from_millis(4);
/// Elections called for one death of a leader.
const ELECTIONS: u32 = 5;
/// Shortest pause between two of them; up to twice that.
const ELECT_AGAIN_MS: u64 = 120;
/// Looks for evidence against the leader before a vote for another is refused.
const VOTE_PATIENCE: u32 = 8;
/// Pause between them.
const VOTE_AGAIN: Duration = Duration::from_millis(5);

impl Membership {
    /// Keeps a heartbeat and a watch for every node that this one is to talk with.
    pub(super) async fn follow_nodes(self: Arc<Self>) {
        let mut map = self.metadata.watch();
        let mut tasks: BTreeMap<NodeId, Tasks> = BTreeMap::new();
        // Voters change without the map.
        let mut ticks = interval(LOOK_AT_VOTERS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let newest = Arc::clone(&map.borrow_and_update());
            let neighbours = Neighbours::new(&newest, self.metadata.node_id(), &self.metadata.deciders());
            tasks.retain(|node, _| neighbours.asks.contains(node));
            for node in neighbours.asks.iter().copied() {
                tasks.entry(node).or_insert_with(|| Tasks {
                    heart: tokio::spawn(Arc::clone(&self).beat(node)),
                    watch: tokio::spawn(Arc::clone(&self).watch_connection(node)),
                    probes: tokio::spawn(Arc::clone(&self).probe_node(node)),
                });
            }
            self.lock().neighbours = neighbours;
            self.nudge.notify_one();
            loop {
                tokio::select! {
                    biased;
                    changed = map.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    _ = ticks.tick() => {}
                }
                if newest.nodes.len() > ALL_WITH_ALL {
                    break;
                }
            }
        }
    }

    async fn beat(self: Arc<Self>, node: NodeId) {
        let mut ticks = interval(self.config.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut limit = ANSWER_LIMIT;
        loop {
            ticks.tick().await;
            limit = match self.beat_once(node, limit).await {
                true => ANSWER_LIMIT,
                false => (limit * 2).min(LONGEST_ANSWER_LIMIT),
            };
        }
    }

    /// True unless there was no answer in time.
    async fn beat_once(&self, node: NodeId, limit: Duration) -> bool {
        let Ok(mut client) = self.peers.control(node) else {
            return true;
        };
        // Asked for every quarter of a lease, so that three answers may be lost.
        let disk = self.disk_trouble();
        let wants_lease = self.unfitness().is_none() && self.metadata.lease().remaining() <= self.config.lease * 3 / 4;
        let request = HeartbeatRequest {
            node_id: self.metadata.node_id(),
            boot_id: self.metadata.boot_id(),
            map_version: self.metadata.map().version,
            ends: self.ends_for(node),
            wants_lease,
            disk_trouble: disk.map(told),
            vitals: Some(self.lock().foresight.own()),
        };
        let sent = self.now();
        let answer = match timeout(limit, client.heartbeat(request)).await {
            Err(_) => return false,
            Ok(Err(_)) => return true,
            Ok(Ok(answer)) => answer.into_inner(),
        };
        if answer.node_id != node {
            return true;
        }
        if answer.lease_granted && self.unfitness().is_none() {
            self.metadata
                .lease()
                .renew(sent, Duration::from_millis(u64::from(answer.lease_ms)));
        }
        self.report.heard_of(&answer.led, sent);
        let (now, unanswered) = (self.now(), Duration::from_millis(answer.unanswered_ms));
        let mut state = self.lock();
        state.sightings.heard(node, answer.boot_id, now);
        state.sightings.reached(node, answer.boot_id, now);
        let before = state.told.get(&node).copied();
        state.told.insert(node, Told::new(before, unanswered, now));
        true
    }

    /// The ends of this node's replicas, for who leads the metadata group or may one day: nobody else needs them. Who knows no voters has heard
    /// of no group yet.
    fn ends_for(&self, node: NodeId) -> Vec<ReplicaEnd> {
        let deciders = self.metadata.deciders();
        match deciders.is_empty() || deciders.contains(&node) {
            true => self.report.ends(),
            false => Vec::new(),
        }
    }

    /// Answers another node's heartbeat.
    pub(crate) fn serve_heartbeat(&self, asked: &HeartbeatRequest) -> HeartbeatResponse {
        let (now, led) = (self.now(), self.report.led());
        let map = self.metadata.map();
        let mut state = self.lock();
        let unanswered = state.sightings.unreached(asked.node_id, asked.boot_id, now);
        state.sightings.heard(asked.node_id, asked.boot_id, now);
        state
            .sightings
            .told_of_disk(asked.node_id, asked.boot_id, asked.disk_trouble.as_ref().map(heard));
        if let Some(vitals) = asked.vitals {
            state.foresight.told(asked.node_id, asked.boot_id, vitals);
        }
        let is_current = map.is_current(asked.node_id, asked.boot_id);
        if is_current {
            state.ends.note(asked.node_id, asked.boot_id, &asked.ends);
        }
        let may_have = asked.wants_lease && is_current && map.is_alive(asked.node_id);
        let granted = may_have
            .then(|| self.grant(&mut state, asked.node_id, asked.boot_id))
            .flatten();
        HeartbeatResponse {
            node_id: self.metadata.node_id(),
            boot_id: self.metadata.boot_id(),
            lease_granted: granted.is_some(),
            lease_ms: granted.map_or(0, |length| u32::try_from(length.as_millis()).unwrap_or(u32::MAX)),
            map_version: map.version,
            led,
            unanswered_ms: u64::try_from(unanswered.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn grant(&self, state: &mut State, node: NodeId, boot_id: u64) -> Option<Duration> {
        let term = self.metadata.term_as_leader()?;
        let reign = state.reign.as_mut().filter(|reign| reign.term == term)?;
        reign.book.grant(node, boot_id, self.now())
    }

    async fn watch_connection(self: Arc<Self>, node: NodeId) {
        let broken = loop {
            if let Some(broken) = self.peers.broken(node) {
                break broken;
            }
            sleep(self.config.heartbeat).await;
        };
        loop {
            broken.notified().await;
            self.examine(node).await;
        }
    }

    /// The connection to a node broke. Is its process still there?
    async fn examine(&self, node: NodeId) {
        let Some(boot_id) = self.lock().sightings.boot_id(node) else {
            return;
        };
        for _ in 0..EXAMINATIONS {
            let Some(address) = self.peers.address(node) else {
                return;
            };
            match timeout(EXAMINE_LIMIT, self.peers.knock(&address)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let evidence = format!("the connection broke, and {address} refuses another");
                    return self.saw_end(node, boot_id, Strategy::Connection, evidence).await;
                }
                Ok(Ok(())) => match self.hello(node, EXAMINE_LIMIT).await {
                    Some(same) if same == boot_id => return,
                    Some(_) => {
                        let evidence = format!("the connection broke, and another process answers at {address}");
                        return self.saw_end(node, boot_id, Strategy::Connection, evidence).await;
                    }
                    None => {}
                },
                _ => {}
            }
            sleep(EXAMINE_AGAIN).await;
        }
    }

    pub(super) async fn hello(&self, node: NodeId, limit: Duration) -> Option<u64> {
        let mut client = self.peers.control(node).ok()?;
        let answer = timeout(limit, client.hello(HelloRequest {}))
            .await
            .ok()?
            .ok()?
            .into_inner();
        (answer.node_id == node).then_some(answer.boot_id)
    }

    /// A process has been seen to end.
    pub(crate) async fn saw_end(&self, node: NodeId, boot_id: u64, strategy: Strategy, evidence: String) {
        let ended = Ended {
            strategy,
            evidence: evidence.clone(),
        };
        let now = self.now();
        let is_news = self.lock().sightings.ended(node, boot_id, ended, now);
        if !is_news {
            return;
        }
        tracing::info!(node, boot_id, evidence, "a process has ended");
        self.nudge.notify_one();
        if self.metadata.leader() == Some(node) {
            self.elect_another(node).await;
        }
    }

    /// Somebody says that a process is dead. If it was not seen to end, this node looks for itself.
    pub(crate) async fn reported(&self, node: NodeId, boot_id: u64, evidence: String, process_ended: bool) {
        if process_ended {
            return self.saw_end(node, boot_id, Strategy::Operator, evidence).await;
        }
        if node != self.metadata.node_id() && self.lock().sightings.boot_id(node) == Some(boot_id) {
            self.examine(node).await;
        }
    }

    /// The group's leader has ended: nobody waits for a timeout. A member that calls an election stops honouring the
    /// old leader's claim, so that members that have the same evidence vote for each other at once. Then it leaves the
    /// winner in peace for a while, and watches that there is one.
    async fn elect_another(&self, dead: NodeId) {
        for _ in 0..ELECTIONS {
            if self.metadata.leader().is_none_or(|leader| leader == dead) {
                self.metadata.elect().await;
            }
            let pause = ELECT_AGAIN_MS + self.world.random.next_u64() % ELECT_AGAIN_MS;
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Before a vote is asked of this node's member: if the leader has just ended, this node will know in a moment, and
    /// the vote needn't be refused for the old leader's sake.
    pub(crate) async fn before_vote(&self, candidate: NodeId) {
        for _ in 0..VOTE_PATIENCE {
            if self.metadata.leader().is_none_or(|leader| leader == candidate) || self.metadata.is_leader() {
                return;
            }
            sleep(VOTE_AGAIN).await;
        }
    }
}

fn told(trouble: DiskTrouble) -> v1::DiskTrouble {
    v1::DiskTrouble {
        evidence: trouble.evidence,
        silent_ms: u64::try_from(trouble.silence.as_millis()).unwrap_or(u64::MAX),
    }
}

fn heard(trouble: &v1::DiskTrouble) -> DiskTrouble {
    DiskTrouble {
        evidence: trouble.evidence.clone(),
        silence: Duration::from_millis(trouble.silent_ms),
    }
}

/// The tasks for one other node; they end with it.
struct Tasks {
    heart: JoinHandle<()>,
    watch: JoinHandle<()>,
    probes: JoinHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.heart.abort();
        self.watch.abort();
        self.probes.abort();
    }
}
