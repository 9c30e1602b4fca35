//! What the operator says of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is seen of the cluster, and what is under way.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VoltClusterStatus {
    /// The generation of the VoltCluster that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The cluster's identity. Written before the database is initialised, and never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uuid: Option<String>,
    /// In one word.
    #[serde(default)]
    pub phase: Phase,
    /// Pods that the StatefulSet is told to have.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Nodes alive, of those wanted: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_alive: Option<String>,
    /// Selects its pods; for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Partitions with every replica in sync, of all: `12/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<String>,
    /// The nodes, as the cluster map has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeSummary>,
    /// The disruptive work that is under way: one at a time. An operator that takes over goes on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// What it follows, and how far; absent unless it is a standby.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<StandbyStatus>,
    /// `Ready`, `Initialised`, `FullyReplicated`, `Scaled`, `Updated`, and `Restored` of a cluster that began as another one was: each says why
    /// it is not so. `Standby` of a cluster that is one, or was: true until it is promoted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A cluster in one word.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Phase {
    /// Its pods are made and the database is initialised.
    #[default]
    Creating,
    /// It becomes what an archived cluster was, and serves nobody until then.
    Restoring,
    /// It follows an archived cluster, and all is as it should be.
    Standby,
    /// All is as it should be.
    Running,
    /// It serves, with less redundancy than wanted.
    Degraded,
    /// Some partition, or all of them, can't be served.
    Unavailable,
    /// Nodes come or go.
    Scaling,
    /// Its pods are replaced one after the other.
    Updating,
}

/// How far a standby is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandbyStatus {
    /// The archive that it follows.
    pub url: String,
    /// The moment of the archived cluster as of which it is read; absent: nobody can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
    /// How long ago that was when it was looked at, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// Records up to the newest moment in the archive that it did not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<i64>,
    /// When it was looked at: some ten seconds ago at most, as long as its nodes answer.
    pub observed_at: Time,
}

/// A node, as the cluster map has it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    /// Its number: the pod's ordinal + 1.
    #[schemars(with = "i32")]
    pub node_id: u32,
    /// Its pod.
    pub name: String,
    /// `Active`, `Draining`, `Drained` or `Dead`.
    pub state: String,
    /// Partitions of which it is primary.
    #[schemars(with = "i32")]
    pub primaries: u32,
    /// Partitions that it backs up, in sync.
    #[schemars(with = "i32")]
    pub backups: u32,
    /// Replicas that are still being filled.
    #[schemars(with = "i32")]
    pub learners: u32,
}

/// Disruptive work on one node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What is done.
    pub kind: OperationKind,
    /// The node that it is done to.
    #[schemars(with = "i32")]
    pub node_id: u32,
    /// When it began.
    pub since: Time,
}

/// What is done to a node.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum OperationKind {
    /// Its replicas are moved away, its pod is stopped, and the cluster forgets it.
    ScaleIn,
    /// Its primaries are switched away and its pod is replaced by one of the new template.
    Update,
    /// Its pod is replaced, because RECOVER NODE asked for it.
    Restart,
}
