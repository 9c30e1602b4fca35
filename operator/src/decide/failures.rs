//! What was seen of processes that the cluster still takes for living ones, and who could follow those that are dead. The
//! metadata group decides; it is usually done before anybody here has looked.

use std::collections::BTreeMap;

use super::{Action, Scene};
use crate::crd::FailoverMode;
use crate::observe::SILENCE;

/// Reports: a container that was seen to end is proof, a long silence is an opinion. With manual failover, none.
pub(super) fn failures(scene: &Scene<'_>) -> Vec<Action> {
    if scene.cluster.spec.failover.mode == FailoverMode::Manual {
        return Vec::new();
    }
    let living = scene.nodes().filter(|node| node.is_alive);
    let reports = living.filter_map(|node| {
        let heard = scene.world.heard.get(&node.node_id.checked_sub(1)?)?;
        // What was heard must have been heard of the process that the cluster means.
        if heard.boot_id != node.boot_id {
            return None;
        }
        let pod = scene.pod_of(node.node_id);
        let ends = pod.map(|pod| &pod.ended[..]).unwrap_or_default();
        let ended = ends.iter().find(|end| heard.started_at.is_some_and(|at| end.was(at)));
        let (evidence, process_ended) = match ended {
            Some(end) => (format!("its container ended: {}", end.why), true),
            None if heard.silent_for >= SILENCE => {
                let seconds = heard.silent_for.as_secs();
                (format!("the operator has not heard of it for {seconds} s"), false)
            }
            None => return None,
        };
        Some(Action::ReportFailure {
            node_id: node.node_id,
            boot_id: node.boot_id,
            evidence,
            process_ended,
        })
    });
    reports.collect()
}

/// For each partition without a living primary, the member of its in-sync set that has the least to do.
pub(super) fn promotions(scene: &Scene<'_>) -> Vec<Action> {
    if scene.cluster.spec.failover.mode == FailoverMode::Manual {
        return Vec::new();
    }
    let living = scene.nodes().filter(|node| node.is_alive);
    let mut load: BTreeMap<u32, u32> = living.map(|node| (node.node_id, node.primaries)).collect();
    let waiting = scene.partitions().iter().filter(|partition| partition.primary == 0);
    let proposals = waiting.filter_map(|partition| {
        let able = partition.in_sync.iter().filter(|node_id| load.contains_key(node_id));
        let node_id = *able.min_by_key(|node_id| (load[node_id], **node_id))?;
        *load.entry(node_id).or_default() += 1;
        Some(Action::Promote {
            partition_id: partition.partition_id,
            epoch: partition.epoch,
            node_id,
        })
    });
    proposals.collect()
}
