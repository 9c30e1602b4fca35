//! What to do next: one pure function from a VoltCluster and what is seen of it to actions and a status.
//!
//! Never more than one disruptive action at a time. Whatever is under way stands in `status.operation` before it is
//! done, so that the next operator goes on with it.

mod conditions;
mod failures;
mod initialise;
mod restart;
mod scale;
pub(crate) mod standby;
mod update;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use volt_proto::v1::{GetStatusResponse, NodeState, NodeStatus, PartitionStatus};

use crate::crd::{NodeSummary, Operation, OperationKind, VoltCluster, VoltClusterStatus};
use crate::heartbeats::QUIET;
use crate::observe::{Ordinal, PodSeen, Refused, World};
use crate::resources::selector_text;

/// While something is under way, or wrong.
const SOON: Duration = Duration::from_secs(1);
/// While all is well; changes are told at once anyway.
const LATER: Duration = Duration::from_secs(15);

/// A process gets so long to come up, or back, by itself, seconds.
const STARTING_S: i64 = 20;

/// An archive, and a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreFrom {
    /// As a node sees it.
    pub url: String,
    /// In microseconds since 1970; 0: the newest moment.
    pub until_micros: i64,
    /// From then on the archive is followed.
    pub is_standby: bool,
}

/// One request, to a node or to Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes the cluster, on this node.
    Initialise {
        /// The first node's.
        ordinal: Ordinal,
        /// The cluster's.
        cluster_uuid: String,
        /// Of each replication group.
        partitions: u32,
        /// What it begins as.
        restore: Option<RestoreFrom>,
    },
    /// Tells the metadata group what was seen of a node.
    ReportFailure {
        /// The node.
        node_id: u32,
        /// Its process.
        boot_id: u64,
        /// In words.
        evidence: String,
        /// The process was seen to end.
        process_ended: bool,
    },
    /// Asks for another primary of a partition that has none that lives.
    Promote {
        /// The partition.
        partition_id: u32,
        /// As it was seen.
        epoch: u64,
        /// A living member of its in-sync set.
        node_id: u32,
    },
    /// Moves every replica away from a node.
    Drain {
        /// The node.
        node_id: u32,
    },
    /// Gives a node its share of replicas and primaries again.
    Rejoin {
        /// The node.
        node_id: u32,
        /// Its process, as it was seen.
        boot_id: u64,
    },
    /// Forgets a node.
    RemoveNode {
        /// The node.
        node_id: u32,
    },
    /// Moves every primary away from a node.
    SwitchPrimaries {
        /// The node.
        node_id: u32,
    },
    /// Makes a standby a cluster of its own.
    PromoteStandby {
        /// With what it has.
        is_immediate: bool,
    },
    /// Deletes a pod, which the StatefulSet makes again.
    DeletePod {
        /// The node that it is.
        node_id: u32,
        /// Its name.
        name: String,
        /// This life of it, and no other.
        uid: String,
        /// It is not given the time to hand anything over.
        at_once: bool,
        /// In words.
        why: String,
    },
}

impl Action {
    /// In events and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialise { .. } => "Initialise",
            Self::ReportFailure { .. } => "ReportFailure",
            Self::Promote { .. } => "Promote",
            Self::Drain { .. } => "Drain",
            Self::Rejoin { .. } => "Rejoin",
            Self::RemoveNode { .. } => "RemoveNode",
            Self::SwitchPrimaries { .. } => "SwitchPrimaries",
            Self::PromoteStandby { .. } => "PromoteStandby",
            Self::DeletePod { .. } => "DeletePod",
        }
    }
}

/// What comes of looking.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Pods that the StatefulSet is told to have.
    pub replicas: i32,
    /// Whether an eviction may take a pod.
    pub may_disrupt: bool,
    /// What is written into the VoltCluster, before the actions.
    pub status: VoltClusterStatus,
    /// Each for itself: none waits for another.
    pub actions: Vec<Action>,
    /// When to look again, if nothing is heard before.
    pub again_after: Duration,
}

/// What the steps of a decision share.
struct Scene<'a> {
    cluster: &'a VoltCluster,
    world: &'a World,
    /// The newest cluster map, if any node gave one.
    database: Option<&'a GetStatusResponse>,
    before: VoltClusterStatus,
    now: Timestamp,
}

impl Scene<'_> {
    /// Pods that are wanted.
    fn wanted(&self) -> i32 {
        self.cluster.spec.replicas
    }

    /// Pods that there shall be for now: more than are wanted, as long as some can't go.
    fn expected(&self) -> i32 {
        let set = self.world.set.as_ref();
        set.map_or(self.wanted(), |set| set.replicas.max(self.wanted()))
    }

    /// The same, one by one.
    fn ordinals(&self) -> std::ops::Range<Ordinal> {
        0..self.expected().unsigned_abs()
    }

    fn nodes(&self) -> impl Iterator<Item = &NodeStatus> {
        self.database.into_iter().flat_map(|database| &database.nodes)
    }

    fn pod_of(&self, node_id: u32) -> Option<&PodSeen> {
        self.world.pods.get(&node_id.checked_sub(1)?)
    }

    fn partitions(&self) -> &[PartitionStatus] {
        self.database
            .map(|database| &database.partitions[..])
            .unwrap_or_default()
    }

    /// Asks for its share of a node whose process is still the one that is seen.
    fn rejoin(&self, node: &NodeStatus) -> Action {
        Action::Rejoin {
            node_id: node.node_id,
            boot_id: node.boot_id,
        }
    }

    /// Partitions with every replica in sync, and all.
    fn in_sync(&self) -> (usize, usize) {
        let partitions = self.partitions();
        let whole = partitions
            .iter()
            .filter(|partition| partition.primary != 0 && partition.in_sync.len() > partition.replication as usize);
        (whole.count(), partitions.len())
    }

    /// The database serves, every node that there shall be lives and every replica that there can be is in sync: a node
    /// may be taken away for a moment.
    fn is_whole(&self) -> bool {
        let Some(database) = self.database.filter(|database| database.serving) else {
            return false;
        };
        let living: BTreeSet<u32> = database
            .nodes
            .iter()
            .filter(|node| node.is_alive)
            .map(|node| node.node_id)
            .collect();
        self.ordinals().all(|ordinal| living.contains(&(ordinal + 1)))
            && database.partitions.iter().all(|partition| {
                partition.primary != 0
                    && partition.in_sync.len() > (partition.replication as usize).min(living.len().saturating_sub(1))
            })
    }

    /// Nothing is wrong, and nothing is about to turn out to be: whatever changes from here on is told at once.
    fn is_quiet(&self) -> bool {
        let is_ready = |ordinal: &Ordinal| {
            self.world
                .pods
                .get(ordinal)
                .is_some_and(|pod| pod.ready && !pod.deleting)
        };
        let is_heard = |ordinal: &Ordinal| {
            let heard = self.world.heard.get(ordinal);
            heard.is_some_and(|heard| heard.silent_for < QUIET)
        };
        let works = |ordinal: Ordinal| is_ready(&ordinal) && is_heard(&ordinal);
        self.is_whole() && self.world.refused == Refused::default() && self.ordinals().all(works)
    }

    /// Why something is not done yet, and what was refused of it.
    fn with_refusal(&self, why: &str) -> String {
        let refusal = self.world.refused.action.as_ref();
        refusal.map_or_else(|| why.to_owned(), |refusal| format!("{why}: {refusal}"))
    }

    /// The same operation as before keeps its beginning.
    fn operation(&self, kind: OperationKind, node_id: u32) -> Operation {
        match &self.before.operation {
            Some(before) if before.kind == kind && before.node_id == node_id => before.clone(),
            _ => Operation {
                kind,
                node_id,
                since: Time(self.now),
            },
        }
    }
}

/// `demo-0, demo-2`.
fn names(scene: &Scene<'_>, ordinals: impl Iterator<Item = Ordinal>) -> String {
    let name = scene.cluster.name_any();
    let names: Vec<String> = ordinals.map(|ordinal| format!("{name}-{ordinal}")).collect();
    names.join(", ")
}

/// What one kind of disruptive work has to say.
#[derive(Default)]
struct Work {
    operation: Option<Operation>,
    actions: Vec<Action>,
    /// Why it doesn't go on, or what it waits for.
    remark: Option<(&'static str, String)>,
}

/// Decides. `now` is the time of conditions' changes.
pub fn decide(cluster: &VoltCluster, world: &World, now: Timestamp) -> Decision {
    let before = cluster.status.clone().unwrap_or_default();
    let scene = Scene {
        cluster,
        world,
        database: world.database(before.cluster_uuid.as_deref()),
        before,
        now,
    };
    let mut status = VoltClusterStatus {
        observed_generation: cluster.metadata.generation,
        cluster_uuid: scene.before.cluster_uuid.clone(),
        selector: Some(selector_text(&cluster.name_any())),
        conditions: scene.before.conditions.clone(),
        ..VoltClusterStatus::default()
    };

    let founding = initialise::initialise(&scene, &mut status);
    let mut actions = founding.actions.clone();
    actions.extend(failures::failures(&scene));
    actions.extend(failures::promotions(&scene));
    actions.extend(standby::promotion(&scene));
    let uneasy = !actions.is_empty();
    let (replicas, scaling) = scale::scale(&scene);
    let restarting = restart::restart(&scene);
    let busy = scaling.operation.is_some() || restarting.operation.is_some();
    let abandoned = update::abandoned(&scene, busy);
    let mut updating = update::update(&scene, busy, uneasy);
    let works = [&abandoned, &restarting, &scaling, &updating];
    if let Some(work) = works.into_iter().find(|work| work.operation.is_some()) {
        status.operation.clone_from(&work.operation);
        actions.extend(work.actions.iter().cloned());
    }
    // Once there is something to lose, a pod is taken away only when it is scaling's turn.
    let has_turn = status.operation == scaling.operation || scene.before.cluster_uuid.is_none();
    let replicas = if has_turn {
        replicas
    } else {
        replicas.max(scene.expected())
    };
    updating.remark = abandoned.remark.or(updating.remark);

    status.replicas = replicas;
    count(&scene, &mut status);
    conditions::write(&scene, &mut status, &founding, &scaling, &updating);

    let idle = actions.is_empty() && status.operation.is_none() && replicas == scene.wanted();
    let settled = idle && scene.is_quiet() && standby::is_calm(&scene);
    Decision {
        replicas,
        may_disrupt: scene.is_whole() && status.operation.is_none(),
        status,
        actions,
        again_after: if settled { LATER } else { SOON },
    }
}

/// What is seen, in numbers.
fn count(scene: &Scene<'_>, status: &mut VoltClusterStatus) {
    let ready = scene.world.pods.values().filter(|pod| pod.ready).count();
    status.ready_replicas = i32::try_from(ready).unwrap_or(i32::MAX);
    status.nodes = scene.nodes().map(summary).collect();
    let (whole, all) = scene.in_sync();
    status.partitions = scene.database.map(|_| format!("{whole}/{all}"));
    let living = scene.nodes().filter(|node| node.is_alive).count();
    status.nodes_alive = Some(format!("{living}/{}", scene.wanted()));
}

fn summary(node: &NodeStatus) -> NodeSummary {
    let state = match node.state() {
        NodeState::Active => "Active",
        NodeState::Draining => "Draining",
        NodeState::Drained => "Drained",
        NodeState::Dead => "Dead",
        NodeState::Unspecified => "Unknown",
    };
    NodeSummary {
        node_id: node.node_id,
        name: node.name.clone(),
        state: state.to_owned(),
        primaries: node.primaries,
        backups: node.backups,
        learners: node.learners,
    }
}
