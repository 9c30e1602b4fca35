//! Decisions on small worlds.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use volt_proto::v1::{GetStatusResponse, NodeState, NodeStatus, PartitionStatus};

use super::{Action, Decision, decide};
use crate::crd::{Operation, OperationKind, Phase, VoltCluster, VoltClusterStatus};
use crate::heartbeats::Heard;
use crate::observe::{Ended, PodSeen, SetSeen, World};

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
            refusal: None,
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

    fn pod(&mut self, ordinal: u32) -> &mut PodSeen {
        self.world.pods.get_mut(&ordinal).expect("the pod")
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

#[test]
fn a_running_cluster_is_left_alone() {
    let decision = Story::running("{}").decision();
    assert_eq!(decision.actions, []);
    assert_eq!((decision.replicas, decision.may_disrupt), (3, true));
    assert_eq!(decision.status.phase, Phase::Running);
    assert_eq!(decision.status.partitions.as_deref(), Some("3/3"));
    assert_eq!(decision.status.observed_generation, Some(7));
    for type_ in ["Initialised", "Ready", "FullyReplicated", "Scaled", "Updated"] {
        assert_eq!(condition(&decision, type_).0, "True/AsWanted", "{type_}");
    }
}

#[test]
fn a_new_cluster_is_initialised_once_and_its_uuid_is_written_first() {
    let mut story = Story::new("{partitions: 4}");
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions), (3, vec![]));
    assert_eq!(decision.status.phase, Phase::Creating);
    assert_eq!(
        decision.status.cluster_uuid, None,
        "no node has answered that it is new"
    );

    story.world.pods.insert(0, pod(0));
    story.world.answers.insert(0, GetStatusResponse::default());
    let decision = story.goes_on();
    assert_eq!(decision.status.cluster_uuid.as_deref(), Some("fresh"));
    assert_eq!(decision.actions, [], "it is not written down yet");

    let initialise = Action::Initialise {
        ordinal: 0,
        cluster_uuid: "fresh".to_owned(),
        partitions: 4,
    };
    assert_eq!(story.goes_on().actions, std::slice::from_ref(&initialise));
    assert_eq!(story.goes_on().actions, [initialise], "until the node says so");

    let answer = story.world.answers.get_mut(&0).expect("the node");
    answer.cluster_uuid = "fresh".to_owned();
    assert_eq!(story.goes_on().actions, []);
    assert_eq!(condition(&story.decision(), "Initialised").0, "True/AsWanted");

    story.world.answers.insert(0, GetStatusResponse::default());
    assert_eq!(
        story.goes_on().actions,
        [],
        "an empty directory makes no second cluster"
    );
}

#[test]
fn volumes_that_were_left_are_taken_up_again() {
    let mut story = Story::new("{}");
    story.world.answers.insert(
        1,
        GetStatusResponse {
            cluster_uuid: "old".to_owned(),
            ..GetStatusResponse::default()
        },
    );
    assert_eq!(story.goes_on().status.cluster_uuid.as_deref(), Some("old"));
    assert_eq!(story.goes_on().actions, []);
}

#[test]
fn a_volume_of_another_cluster_is_named() {
    let mut story = Story::running("{}");
    story.world.answers.get_mut(&2).expect("a node").cluster_uuid = "other".to_owned();
    let decision = story.decision();
    assert_eq!(condition(&decision, "Ready").0, "False/ForeignVolume");
    assert_eq!(condition(&decision, "Initialised").0, "True/AsWanted");
}

#[test]
fn the_end_of_a_container_is_proof_of_its_own_process_only() {
    let mut story = Story::running("{}");
    story.pod(1).ended = vec![Ended {
        started_at: START - 1,
        finished_at: START + 10,
        why: "OOMKilled, exit code 137".to_owned(),
    }];
    let report = Action::ReportFailure {
        node_id: 2,
        boot_id: 102,
        evidence: "its container ended: OOMKilled, exit code 137".to_owned(),
        process_ended: true,
    };
    assert_eq!(story.decision().actions, [report]);

    // the next process, of which the cluster knows already
    story.world.heard.get_mut(&1).expect("heard").started_at = Some(START + 11);
    assert_eq!(story.decision().actions, []);
    // a process that the cluster doesn't mean
    let heard = story.world.heard.get_mut(&1).expect("heard");
    (heard.boot_id, heard.started_at) = (99, Some(START));
    assert_eq!(story.decision().actions, []);
}

#[test]
fn silence_is_an_opinion_and_manual_failover_has_none() {
    let mut story = Story::running("{}");
    story.world.heard.get_mut(&0).expect("heard").silent_for = Duration::from_secs(6);
    let actions = story.decision().actions;
    assert!(
        matches!(
            &actions[..],
            [Action::ReportFailure {
                node_id: 1,
                process_ended: false,
                ..
            }]
        ),
        "{actions:?}"
    );
    let mut manual = Story::running("{failover: {mode: Manual}}");
    manual.world.heard = story.world.heard;
    assert_eq!(manual.decision().actions, []);
}

#[test]
fn a_dead_node_degrades_and_stops_evictions() {
    let mut story = Story::running("{}");
    story.dies(2);
    story.database(|database| {
        for partition in &mut database.partitions {
            partition.in_sync = vec![1, 3];
            partition.primary = 1;
        }
    });
    let decision = story.decision();
    assert_eq!(decision.status.phase, Phase::Degraded);
    assert!(!decision.may_disrupt);
    assert_eq!(decision.actions, [], "Kubernetes restarts it");
    assert_eq!(condition(&decision, "Ready").1, "not alive: node 2");
    let (word, why) = condition(&decision, "FullyReplicated");
    assert_eq!(word, "False/TooFewNodes");
    assert!(why.contains("REPLICATION = 2 needs 3 nodes, and 2 live"), "{why}");
}

#[test]
fn a_partition_without_a_primary_gets_the_member_with_the_least_to_do() {
    let mut story = Story::running("{}");
    story.dies(2);
    story.node(1, |node| node.primaries = 2);
    story.database(|database| {
        (database.partitions[1].primary, database.partitions[1].epoch) = (0, 6);
        (database.partitions[2].primary, database.partitions[2].in_sync) = (0, vec![2]);
    });
    let promote = Action::Promote {
        partition_id: 1,
        epoch: 6,
        node_id: 3,
    };
    assert_eq!(
        story.decision().actions,
        [promote],
        "of partition 2 nobody living has it all"
    );
    story.cluster.spec.failover.mode = crate::crd::FailoverMode::Manual;
    assert_eq!(story.decision().actions, []);
}

#[test]
fn recover_node_replaces_a_process_that_runs_and_is_dead() {
    let mut story = Story::running("{}");
    story.dies(2);
    assert_eq!(story.decision().actions, []);
    story.database(|database| database.recovering = vec![2]);
    let decision = story.goes_on();
    assert!(matches!(&decision.actions[..], [Action::DeletePod { node_id: 2, .. }]));
    assert_eq!(
        decision.status.operation.map(|operation| operation.kind),
        Some(OperationKind::Restart)
    );
    story.pod(1).deleting = true;
    assert_eq!(story.decision().actions, []);
    story.pod(1).deleting = false;
    story.pod(1).running_since = Some(START + 3595);
    assert_eq!(story.decision().actions, [], "it has just been started");
}

#[test]
fn scaling_out_is_pods_first() {
    let mut story = Story::running("{replicas: 5}");
    story.world.set.as_mut().expect("set").replicas = 3;
    let decision = story.decision();
    assert_eq!((decision.replicas, decision.actions.len()), (5, 0));
    assert_eq!(condition(&decision, "Scaled").0, "False/InProgress");
}

/// A cluster of four that is to have three.
fn four_to_three() -> Story {
    let mut story = Story::running("{replicas: 3}");
    story.world.set.as_mut().expect("set").replicas = 4;
    story.world.pods.insert(3, pod(3));
    story.database(|database| database.nodes.push(node(4)));
    story
}

#[test]
fn scaling_in_drains_then_stops_then_forgets() {
    let mut story = four_to_three();
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (4, vec![Action::Drain { node_id: 4 }])
    );
    assert_eq!(decision.status.phase, Phase::Scaling);

    story.node(4, |node| node.state = NodeState::Draining.into());
    let decision = story.goes_on();
    assert_eq!((decision.replicas, decision.actions.len()), (4, 0));
    assert!(condition(&decision, "Scaled").1.contains("3 replicas are left"));

    story.node(4, |node| {
        node.state = NodeState::Drained.into();
        (node.primaries, node.backups) = (0, 0);
    });
    assert_eq!(story.goes_on().replicas, 3);
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions.len()),
        (3, 0),
        "its pod still runs"
    );

    story.world.pods.remove(&3);
    story.dies(4);
    assert_eq!(story.goes_on().actions, [Action::RemoveNode { node_id: 4 }]);
    story.database(|database| drop(database.nodes.pop()));
    let decision = story.goes_on();
    assert_eq!(
        (decision.status.phase, decision.status.operation),
        (Phase::Running, None)
    );
}

#[test]
fn a_scale_in_that_is_taken_back_gives_the_node_its_share_again() {
    let mut story = four_to_three();
    story.goes_on();
    story.node(4, |node| node.state = NodeState::Draining.into());
    story.cluster.spec.replicas = 4;
    let decision = story.goes_on();
    assert_eq!(
        (decision.replicas, decision.actions),
        (4, vec![Action::Rejoin { node_id: 4, boot_id: 104 }])
    );
}

#[test]
fn fewer_nodes_than_replication_needs_are_refused() {
    let mut story = Story::running("{replicas: 3}");
    story.cluster.spec.replicas = 2;
    let decision = story.decision();
    assert_eq!((decision.replicas, decision.actions.len()), (3, 0));
    let (word, why) = condition(&decision, "Scaled");
    assert_eq!(word, "False/BelowReplication");
    assert!(why.contains("REPLICATION = 2 needs 3"), "{why}");
}

#[test]
fn nothing_is_scaled_in_that_does_not_answer() {
    let mut story = Story::running("{replicas: 3}");
    story.cluster.spec.replicas = 1;
    story.world.answers = BTreeMap::new();
    let decision = story.decision();
    assert_eq!(decision.replicas, 3);
    assert_eq!(condition(&decision, "Scaled").0, "False/NoAnswer");
}

#[test]
fn an_update_goes_node_by_node_and_waits_for_each() {
    let mut story = Story::running("{}");
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    let decision = story.goes_on();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 3 });
    assert!(matches!(&decision.actions[1], Action::DeletePod { node_id: 3, .. }));
    assert_eq!(decision.actions.len(), 2);
    assert_eq!(decision.status.phase, Phase::Updating);
    assert!(!decision.may_disrupt);

    story.pod(2).deleting = true;
    story.dies(3);
    assert_eq!(story.goes_on().actions, [], "one at a time");

    *story.pod(2) = PodSeen {
        revision: Some("r2".to_owned()),
        ..pod(2)
    };
    assert_eq!(story.goes_on().actions, [], "it is not back");
    story.node(3, |node| {
        node.is_alive = true;
        node.state = NodeState::Active.into();
    });
    let decision = story.goes_on();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 2 });
}

#[test]
fn an_update_that_was_begun_is_gone_on_with_by_the_next_operator() {
    let mut story = Story::running("{}");
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    story.cluster.status.as_mut().expect("status").operation = Some(Operation {
        kind: OperationKind::Update,
        node_id: 1,
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
    });
    let decision = story.decision();
    assert_eq!(decision.actions[0], Action::SwitchPrimaries { node_id: 1 });
    assert_eq!(
        decision.status.operation.map(|operation| operation.since.0),
        Some(Timestamp::UNIX_EPOCH)
    );
}

#[test]
fn a_pod_that_cannot_start_is_replaced_at_once_and_its_problem_is_told() {
    let mut story = Story::new("{replicas: 1}");
    story.world.set = Some(SetSeen {
        replicas: 1,
        revision: Some("r1".to_owned()),
    });
    story.world.pods.insert(
        0,
        PodSeen {
            ready: false,
            ip: None,
            problem: Some("image nonsense:1: ErrImagePull: not found".to_owned()),
            ..pod(0)
        },
    );
    let decision = story.goes_on();
    assert!(condition(&decision, "Ready").1.contains("image nonsense:1"));
    assert_eq!(decision.actions, []);
    story.world.set.as_mut().expect("set").revision = Some("r2".to_owned());
    assert!(matches!(
        &story.decision().actions[..],
        [Action::DeletePod { node_id: 1, .. }]
    ));
}

#[test]
fn a_condition_keeps_its_time() {
    let mut story = Story::running("{}");
    let time = |decision: &Decision| decision.status.conditions[0].last_transition_time.clone();
    let first = time(&story.goes_on());
    let later = Timestamp::from_second(START + 9999).expect("a time");
    assert_eq!(time(&decide(&story.cluster, &story.world, later)), first);
}
