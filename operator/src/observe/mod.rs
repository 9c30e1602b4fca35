//! What is seen of a cluster: its StatefulSet, its pods, what each node answers, and what its heartbeats said. Reads go
//! to the API server itself, not to a cache: what is destroyed next is decided on them.

mod nodes;
mod pods;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use volt_proto::v1::GetStatusResponse;

pub use nodes::{CALL_LIMIT, connect, connect_at};
pub use pods::{Ended, PodSeen};

use crate::crd::VoltCluster;
use crate::heartbeats::Heard;
use crate::resources::selector_text;

/// A StatefulSet's pods are counted from 0; a node's number is one more.
pub type Ordinal = u32;

/// Everything that the next decision rests on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The StatefulSet, if there is one.
    pub set: Option<SetSeen>,
    /// The pods that there are.
    pub pods: BTreeMap<Ordinal, PodSeen>,
    /// What the nodes answered that answered.
    pub answers: BTreeMap<Ordinal, GetStatusResponse>,
    /// What was heard of each node's process.
    pub heard: BTreeMap<Ordinal, Heard>,
    /// A UUID that nobody has, should one be needed.
    pub fresh_uuid: String,
    /// What came of the last decision.
    pub refused: Refused,
}

/// What of the last decision was refused, in the refuser's words; it is asked again, until it is done or decided
/// otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// By Kubernetes: a child that is none, or may not be.
    pub child: Option<String>,
    /// By a node, or by Kubernetes: an action.
    pub action: Option<String>,
}

/// A StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSeen {
    /// Pods that it is told to have.
    pub replicas: i32,
    /// The revision that new pods get; None while its controller has not seen the newest template.
    pub revision: Option<String>,
}

impl SetSeen {
    fn of(set: &StatefulSet) -> Self {
        let status = set.status.as_ref();
        let current = status.and_then(|status| status.observed_generation) == set.metadata.generation;
        Self {
            replicas: set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
            revision: status
                .filter(|_| current)
                .and_then(|status| status.update_revision.clone()),
        }
    }
}

impl World {
    /// The newest cluster map that any node of this cluster gave.
    pub fn database(&self, cluster_uuid: Option<&str>) -> Option<&GetStatusResponse> {
        let ours = self.answers.values().filter(|answer| {
            !answer.cluster_uuid.is_empty()
                && !answer.nodes.is_empty()
                && cluster_uuid.is_none_or(|uuid| uuid == answer.cluster_uuid)
        });
        ours.max_by_key(|answer| (answer.map_version, answer.serving))
    }
}

/// Looks at everything.
pub async fn observe(
    client: &Client,
    cluster: &VoltCluster,
    heard: BTreeMap<Ordinal, Heard>,
    refused: Refused,
    fresh_uuid: String,
) -> Result<World, kube::Error> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let set = sets.get_opt(&name).await?;
    let all: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let listed = all.list(&ListParams::default().labels(&selector_text(&name))).await?;
    let pods: BTreeMap<Ordinal, PodSeen> = listed
        .items
        .iter()
        .filter_map(|pod| Some((pods::ordinal(&name, &pod.name_any())?, PodSeen::of(pod))))
        .collect();
    let answers = nodes::ask_all(&pods).await;
    Ok(World {
        set: set.as_ref().map(SetSeen::of),
        pods,
        answers,
        heard,
        fresh_uuid,
        refused,
    })
}

/// A silence of so long is evidence, though no proof.
pub const SILENCE: Duration = Duration::from_secs(5);
