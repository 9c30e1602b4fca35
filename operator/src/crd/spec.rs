//! What a user wants.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Restore, Standby};
use super::failure_detection::FailureDetection;
use super::load_balancing::LoadBalancing;
use super::recovery::{Recovery, Replication};
use super::status::VoltClusterStatus;

/// A distributed, in-memory, transactional SQL database that speaks the PostgreSQL protocol.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "voltcluster.dev",
    version = "v1alpha1",
    kind = "VoltCluster",
    plural = "voltclusters",
    shortname = "vc",
    namespaced,
    derive = "PartialEq",
    status = "VoltClusterStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        description = "Nodes alive, of those wanted",
        json_path = ".status.nodesAlive"
    ),
    printcolumn(
        name = "Partitions",
        type_ = "string",
        description = "Partitions with every replica in sync, of all",
        json_path = ".status.partitions"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Standby As Of",
        type_ = "date",
        description = "How old what a standby shows is, at least",
        json_path = ".status.standby.asOf",
        priority = 1
    ),
    printcolumn(
        name = "Cluster UUID",
        type_ = "string",
        json_path = ".status.clusterUuid",
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("the name must have 40 characters at most: its pods' names are made of it"),
    validation = Rule::new("!self.metadata.name.contains('.')")
        .message("the name must have no dots: its Services are named after it"),
    validation = Rule::new("self.metadata.name >= 'a'")
        .message("the name must begin with a letter: its Services are named after it"),
    validation = Rule::new("!has(self.spec.recovery) || !has(self.spec.recovery.source) || self.spec.recovery.source != 'FileSystem' || has(self.spec.archive)")
        .message("recovery from the FileSystem needs an archive"),
    validation = Rule::new("!has(self.spec.restore) || (has(oldSelf.spec.restore) && self.spec.restore == oldSelf.spec.restore)")
        .message("restore says what a new cluster begins as: it can't be set or changed later"),
    validation = Rule::new("!has(self.spec.restore) || !has(self.spec.standby)")
        .message("a new cluster begins by restore or as a standby, and not both"),
    validation = Rule::new("!has(self.spec.standby) || has(oldSelf.spec.standby)")
        .message("standby says what a new cluster begins as: it can't be set later"),
    validation = Rule::new("has(self.spec.standby) || !has(oldSelf.spec.standby) || (has(self.status) && has(self.status.clusterUuid) && !has(self.status.standby))")
        .message("it follows an archive until it is promoted: standby can be removed when status.standby is gone")
)]
#[serde(rename_all = "camelCase")]
pub struct VoltClusterSpec {
    /// Nodes, one pod each: 1 to 64, 3 by default. Three are the least that survive the loss of one. A table with
    /// REPLICATION = n needs n + 1; scaling in below that is refused, and the condition `Scaled` says so.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: i32,
    /// Partitions of each replication group: 1 to 16,384, 12 by default; fixed for the cluster's life.
    #[serde(default = "default_partitions")]
    #[schemars(range(min = 1, max = 16_384))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("partitions is fixed for the cluster's life"))]
    pub partitions: i32,
    /// The image of volt-node; the operator's own default if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub image: Option<String>,
    /// When the image is pulled: `Always`, `IfNotPresent` or `Never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['Always', 'IfNotPresent', 'Never']").message("imagePullPolicy is Always, IfNotPresent or Never"))]
    pub image_pull_policy: Option<String>,
    /// When a node calls a write its own; `fsync` by default.
    #[serde(default)]
    pub durability: Durability,
    /// What happens when a node fails.
    #[serde(default)]
    pub failover: Failover,
    /// How failures are found; by heartbeats unless more is asked for.
    #[serde(default)]
    pub failure_detection: FailureDetection,
    /// How replicas recover.
    #[serde(default)]
    pub recovery: Recovery,
    /// How backups are kept; how many, and when a write is acknowledged, is each table's own.
    #[serde(default)]
    pub replication: Replication,
    /// Where reads go; to primaries unless more is asked for.
    #[serde(default)]
    pub load_balancing: LoadBalancing,
    /// Where the cluster is archived; nowhere by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Begins as another cluster was that was archived. Only a new VoltCluster may say so, and it may be removed when the condition
    /// `Restored` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Begins as another cluster was that is archived, and follows it: it is read, as of some seconds ago, and takes no writes until it is
    /// promoted. Only a new VoltCluster may say so, and it may be removed when it is promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
    /// The volume of each node.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self.size == oldSelf.size && has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("a volume's size and class are fixed once it is made"))]
    pub storage: Storage,
    /// CPU and memory of each node's container. The database is in memory: set a memory request that holds the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// SQL connections that each node takes at a time: 1 to 100,000, 1,000 by default.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_connections: i32,
    /// Labels of the machines that may run its pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that its pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Where its pods may run; by default they are spread over zones and machines as well as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

/// When a node calls a write its own.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// At once; nothing is written to disk.
    Memory,
    /// At once; the log is written in the background.
    Async,
    /// When the log is flushed.
    #[default]
    Fsync,
}

impl Durability {
    /// As volt-node spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Async => "async",
            Self::Fsync => "fsync",
        }
    }
}

/// What happens when a node fails.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
pub struct Failover {
    /// Who starts a failover.
    #[serde(default)]
    pub mode: FailoverMode,
    /// Primaries move away from a node before it fails, when its hazard (`system.nodes`) stays over this: 0.1 to 1; they stay by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1.0))]
    pub preempt: Option<f64>,
}

/// Who starts a failover.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FailoverMode {
    /// The cluster itself, and the operator.
    #[default]
    Automatic,
    /// Only a person.
    Manual,
}

impl FailoverMode {
    /// As volt-node spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }
}

/// The volume of each node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Its size; 1Gi by default.
    #[serde(default = "default_size")]
    pub size: Quantity,
    /// Its StorageClass; Kubernetes' default class if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What becomes of the volumes when the VoltCluster is deleted; `Retain` by default. A VoltCluster of the same name
    /// takes retained volumes up again, with their data.
    #[serde(default)]
    pub when_deleted: VolumesWhenDeleted,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_size(),
            storage_class_name: None,
            when_deleted: VolumesWhenDeleted::default(),
        }
    }
}

/// What becomes of the volumes when the VoltCluster is deleted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum VolumesWhenDeleted {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted, with the data in them.
    Delete,
}

fn default_replicas() -> i32 {
    3
}

fn default_partitions() -> i32 {
    12
}

fn default_max_connections() -> i32 {
    1000
}

fn default_size() -> Quantity {
    Quantity("1Gi".to_owned())
}
