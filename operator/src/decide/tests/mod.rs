//! Decisions on small worlds, a file for each kind of work.

mod conditions;
mod failures;
mod founding;
mod restart;
mod scale;
mod standby;
mod update;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use volt_proto::v1::{GetStatusResponse, NodeState, NodeStatus, PartitionStatus};

use super::{Decision, decide};
use crate::crd::{OperationKind, VoltCluster, VoltClusterStatus};
use crate::heartbeats::Heard;
use crate::observe::{PodSeen, Refused, SetSeen, World};

const UUID: &str = "00000000-0000-4000-8000-000000000001";
const START: i64 = 1_000_000;

/// A VoltCluster and what is seen of it, and how it goes on.
struct Story {
    cluster: VoltCluster,
    world: World,
}

fn pod(ordinal: u32) -> PodSeen {
    PodSeen {
        name: format!("demo-{ordinal}"),
        uid: format!("uid-{ordinal}"),
        ip: Some(format!("10.0.0.{ordinal}")),
        ready: true,
        revision: Some("r1".to_owned()),
        running_since: Some(START),
        ..PodSeen::default()
    }
}

fn node(node_id: u32) -> NodeStatus {
    NodeStatus {
        node_id,
        name: format!("demo-{}", node_id - 1),
        boot_id: 100 + u64::from(node_id),
        is_alive: true,
        state: NodeState::Active.into(),
        primaries: 1,
        backups: 2,
        ..NodeStatus::default()
    }
}

fn partition(partition_id: u32, primary: u32, in_sync: &[u32]) -> PartitionStatus {
    PartitionStatus {
        partition_id,
        primary,
        in_sync: in_sync.to_vec(),
        replication: 2,
        ..PartitionStatus::default()
    }
}

impl Story {
    /// `spec` over a running cluster of three, whose tables have REPLICATION = 2.
    fn running(spec: &str) -> Self {
        let text = format!(
            "{{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {{name: demo, namespace: shop, generation: 7}}, spec: {spec}}}"
        );
        let mut cluster: VoltCluster = serde_yaml::from_str(&text).expect("a VoltCluster");
        let database = GetStatusResponse {
            cluster_uuid: UUID.to_owned(),
            map_version: 5,
            serving: true,
            nodes: (1..=3).map(node).collect(),
            partitions: (0..3).map(|id| partition(id, id + 1, &[1, 2, 3])).collect(),
            max_replication: 2,
            ..GetStatusResponse::default()
        };
        let heard = |node_id: u32| Heard {
            boot_id: 100 + u64::from(node_id),
            started_at: Some(START),
            silent_for: Duration::ZERO,
        };
        let world = World {
            set: Some(SetSeen {
                replicas: 3,
                revision: Some("r1".to_owned()),
            }),
            pods: (0..3).map(|ordinal| (ordinal, pod(ordinal))).collect(),
            answers: (0..3).map(|ordinal| (ordinal, database.clone())).collect(),
            heard: (0..3).map(|ordinal| (ordinal, heard(ordinal + 1))).collect(),
            fresh_uuid: "fresh".to_owned(),
            refused: Refused::default(),
        };
        cluster.status = Some(VoltClusterStatus {
            cluster_uuid: Some(UUID.to_owned()),
            ..VoltClusterStatus::default()
        });
        let mut story = Self { cluster, world };
        story.goes_on();
        story
    }

    /// Nothing there but what was asked for.
    fn new(spec: &str) -> Self {
        let mut story = Self::running(spec);
        story.cluster.status = None;
        story.world = World {
            fresh_uuid: "fresh".to_owned(),
            ..World::default()
        };
        story
    }

    fn decision(&self) -> Decision {
        let now = Timestamp::from_second(START + 3600).expect("a time");
        decide(&self.cluster, &self.world, now)
    }

    /// Decides, and keeps the status and the StatefulSet's size.
    fn goes_on(&mut self) -> Decision {
        let decision = self.decision();
        self.cluster.status = Some(decision.status.clone());
        let revision = self
            .world
            .set
            .as_ref()
            .map_or(Some("r1".to_owned()), |set| set.revision.clone());
        self.world.set = Some(SetSeen {
            replicas: decision.replicas,
            revision,
        });
        decision
    }

    fn database(&mut self, change: impl Fn(&mut GetStatusResponse)) {
        self.world.answers.values_mut().for_each(change);
    }

    fn node(&mut self, node_id: u32, change: impl Fn(&mut NodeStatus)) {
        self.database(|database| {
            let mut nodes = database.nodes.iter_mut();
            change(nodes.find(|node| node.node_id == node_id).expect("the node"));
        });
    }

    /// Another node leads what this one led.
    fn switches(&mut self, node_id: u32, to: u32) {
        self.database(|database| {
            for partition in &mut database.partitions {
                if partition.primary == node_id {
                    partition.primary = to;
                }
            }
        });
    }

    fn has_template(&mut self, revision: Option<&str>) {
        self.world.set.as_mut().expect("set").revision = revision.map(str::to_owned);
    }

    fn begun(&self) -> Option<(OperationKind, u32)> {
        let operation = self.cluster.status.as_ref()?.operation.as_ref()?;
        Some((operation.kind, operation.node_id))
    }

    fn pod(&mut self, ordinal: u32) -> &mut PodSeen {
        self.world.pods.get_mut(&ordinal).expect("the pod")
    }

    fn returns(&mut self, node_id: u32) {
        self.node(node_id, |node| {
            node.is_alive = true;
            node.state = NodeState::Active.into();
        });
    }

    fn dies(&mut self, node_id: u32) {
        self.node(node_id, |node| {
            node.is_alive = false;
            node.state = NodeState::Dead.into();
        });
        self.world.answers.remove(&(node_id - 1));
    }
}

/// `type=status/reason` and the message.
fn condition(decision: &Decision, type_: &str) -> (String, String) {
    let mut found = decision.status.conditions.iter();
    let condition = found.find(|condition| condition.type_ == type_).expect("the condition");
    (
        format!("{}/{}", condition.status, condition.reason),
        condition.message.clone(),
    )
}
