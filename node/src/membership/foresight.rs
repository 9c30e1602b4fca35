//! Feeds `hazard` and `preempt`: what a node sees of itself goes with its heartbeats, so that each observer knows it, with
//! what it sees itself. Where the metadata group's leader is, primaries move away from a node that is in danger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use volt_engine::NodeId;
use volt_proto::v1::Vitals;

use super::hazard::{FAILURES_WITHIN, Hazard, History, SAMPLE, Sample};
use super::preempt::{Preemption, Step};
use super::verdict::Sightings;
use super::{Membership, State};
use crate::metadata::command::Command;
use crate::metadata::failure::{Failure, FailureEnd};
use crate::metadata::map::ClusterMap;
use crate::txn::default_limit;

const MILLIONTHS: f64 = 1_000_000.0;

/// What is known of each node's process.
#[derive(Default)]
pub(super) struct Foresight {
    own: Vitals,
    told: BTreeMap<NodeId, (u64, Vitals)>,
    histories: BTreeMap<NodeId, (u64, History)>,
    preemption: Preemption,
}

impl Foresight {
    /// What this node's heartbeats say of it.
    pub(super) fn own(&self) -> Vitals {
        self.own
    }

    /// What another node's heartbeat says of it.
    pub(super) fn told(&mut self, node: NodeId, boot_id: u64, vitals: Vitals) {
        self.told.insert(node, (boot_id, vitals));
    }

    /// One more sample of every node, and what they come to.
    fn sample(
        &mut self,
        map: &ClusterMap,
        own: NodeId,
        sightings: &Sightings,
        unix_micros: i64,
    ) -> BTreeMap<NodeId, Hazard> {
        self.told.retain(|node, _| map.nodes.contains_key(node));
        self.histories.retain(|node, _| map.nodes.contains_key(node));
        let mut hazards = BTreeMap::new();
        for info in map.nodes.values().filter(|info| info.state.is_alive()) {
            let (node, boot_id) = (info.node_id, info.boot_id);
            let told = self.told.get(&node).filter(|(told, _)| *told == boot_id);
            let vitals = match node == own {
                true => self.own,
                false => told.map(|(_, vitals)| *vitals).unwrap_or_default(),
            };
            let history = self.histories.entry(node).or_default();
            if history.0 != boot_id {
                *history = (boot_id, History::default());
            }
            history.1.add(Sample {
                flush_ms: vitals.flush_micros.map(|micros| micros as f64 / 1_000.0),
                jitter_ms: sightings
                    .jitter(node, boot_id)
                    .map(|jitter| jitter.as_secs_f64() * 1_000.0),
                memory_share: vitals.memory_millionths.map(|share| share as f64 / MILLIONTHS),
                failures: failures(map, node, unix_micros),
            });
            hazards.insert(node, history.1.hazard());
        }
        hazards
    }
}

/// How often a node's process failed lately. What is said of one end twice counts once.
fn failures(map: &ClusterMap, node: NodeId, unix_micros: i64) -> u32 {
    let within = i64::try_from(FAILURES_WITHIN.as_micros()).unwrap_or(i64::MAX);
    let counts = |failure: &&Failure| {
        let age = unix_micros.saturating_sub(failure.at_micros);
        failure.node_id == node
            && failure.partition.is_none()
            && failure.end != Some(FailureEnd::Confirmed)
            && age < within
    };
    u32::try_from(map.failures.iter().filter(counts).count()).unwrap_or(u32::MAX)
}

impl Membership {
    pub(super) async fn foresee(self: Arc<Self>) {
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (map, own) = (self.metadata.map(), self.metadata.node_id());
            let (vitals, unix_micros) = (self.vitals(), self.world.clock.unix_micros());
            let hazards = {
                let mut state = self.lock();
                let State {
                    foresight, sightings, ..
                } = &mut *state;
                foresight.own = vitals;
                foresight.sample(&map, own, sightings, unix_micros)
            };
            let step = self.next_step(&map, &hazards);
            self.metadata.publish_hazards(hazards.clone());
            if let Some(step) = step {
                self.preempt(step, &hazards).await;
            }
        }
    }

    /// How this node has been since this was last asked.
    fn vitals(&self) -> Vitals {
        let memory = &*self.world.memory;
        let limit = self.config.memory_limit.or_else(|| default_limit(memory, 1));
        let share = memory.resident_bytes().zip(limit.filter(|limit| *limit > 0));
        let micros = |flush: Duration| u64::try_from(flush.as_micros()).unwrap_or(u64::MAX);
        Vitals {
            flush_micros: self.report.longest_flush().map(micros),
            memory_millionths: share.map(|(bytes, limit)| (bytes as f64 / limit as f64 * MILLIONTHS) as u64),
        }
    }

    /// Only where the metadata group's leader is, and unless only a person moves primaries.
    fn next_step(&self, map: &ClusterMap, hazards: &BTreeMap<NodeId, Hazard>) -> Option<Step> {
        let now = self.now();
        let mut state = self.lock();
        if state.reign.is_none() || self.is_manual() {
            state.foresight.preemption = Preemption::default();
            return None;
        }
        let Some(threshold) = self.config.detection.preempt else {
            // It was on before this start.
            let marked = map.nodes.values().find(|node| node.endangered);
            return marked.map(|node| (node.node_id, false));
        };
        state.foresight.preemption.next(map, hazards, threshold, now)
    }

    async fn preempt(&self, (node_id, endangered): Step, hazards: &BTreeMap<NodeId, Hazard>) {
        let hazard = hazards.get(&node_id).cloned().unwrap_or_default();
        let (score, reasons) = (hazard.score, hazard.reasons.join("; "));
        match endangered {
            true => tracing::warn!(
                node_id,
                score,
                reasons,
                "a node is likely to fail; its primaries move away"
            ),
            false => tracing::info!(node_id, score, "a node is out of danger"),
        }
        self.propose(Command::SetEndangered { node_id, endangered }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::apply::apply;
    use crate::metadata::command::Joining;
    use crate::metadata::failure::{Finding, Medium, Strategy};

    fn failure(failure_id: u64, at_seconds: i64, end: Option<FailureEnd>) -> Failure {
        let found = (Strategy::Connection, Medium::Network);
        Failure {
            failure_id,
            at_micros: at_seconds * 1_000_000,
            node_id: 1,
            partition: None,
            finding: Finding::new(found, "", Duration::ZERO, 2),
            promoted: 0,
            removed: 0,
            end,
        }
    }

    #[test]
    fn failures_of_the_last_minutes_count_once_each() {
        let mut map = ClusterMap::default();
        let restarted = Some(FailureEnd::Restarted);
        map.failures = [
            failure(1, 100, restarted),
            failure(2, 500, Some(FailureEnd::Confirmed)),
            failure(3, 501, restarted),
            failure(4, 900, None),
        ]
        .into();
        assert_eq!(failures(&map, 1, 1_000 * 1_000_000), 2);
        assert_eq!(failures(&map, 2, 1_000 * 1_000_000), 0);
    }

    #[test]
    fn what_was_said_of_a_process_says_nothing_of_the_next() {
        let mut map = ClusterMap::default();
        let node = |boot_id| Joining {
            node_id: 1,
            boot_id,
            ..Joining::default()
        };
        let first = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: node(10),
            awaits_restoration: false,
        };
        apply(&mut map, first).unwrap();
        let (mut foresight, sightings) = (Foresight::default(), Sightings::default());
        let slow = Vitals {
            flush_micros: Some(900_000),
            memory_millionths: None,
        };
        foresight.told(1, 10, slow);
        let sample = |foresight: &mut Foresight, map: &ClusterMap| {
            let mut hazards = BTreeMap::new();
            (0..20).for_each(|_| hazards = foresight.sample(map, 2, &sightings, 0));
            hazards[&1].score
        };
        assert!(sample(&mut foresight, &map) > 0.0);
        map.nodes.get_mut(&1).unwrap().boot_id = 11;
        assert_eq!(sample(&mut foresight, &map), 0.0);
    }
}
