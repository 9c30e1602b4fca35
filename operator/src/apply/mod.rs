//! Carries a decision out: the status first, because it names what is under way, then the children, then the actions.

mod actions;
mod events;

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use actions::ActionError;

use crate::controller::Context;
use crate::crd::{VoltCluster, VoltClusterStatus};
use crate::decide::{Action, Decision};
use crate::observe::World;
use crate::resources::{Children, children};

/// Who owns the fields that are applied.
pub const MANAGER: &str = "volt-operator";

/// What keeps a decision from being carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused, or didn't answer.
    #[error("{what}: {source}")]
    Kubernetes {
        /// What was applied.
        what: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// A node refused, or didn't answer.
    #[error(transparent)]
    Action(#[from] ActionError),
}

fn kubernetes(what: &'static str) -> impl FnOnce(kube::Error) -> ApplyError {
    move |source| ApplyError::Kubernetes {
        what,
        source: Box::new(source),
    }
}

/// All of it, until something fails; the next look begins anew.
pub async fn apply(
    context: &Context,
    cluster: &VoltCluster,
    world: &World,
    decision: &Decision,
) -> Result<(), ApplyError> {
    if cluster.status.as_ref() != Some(&decision.status) {
        write_status(&context.client, cluster, &decision.status)
            .await
            .map_err(kubernetes("status"))?;
        context.metrics.saw(cluster, &decision.status);
        let before = cluster.status.clone().unwrap_or_default();
        for told in events::transitions(&before, &decision.status) {
            events::publish(context, cluster, told).await;
        }
    }
    let made = children(cluster, &context.defaults, decision.replicas, decision.may_disrupt);
    apply_children(&context.client, cluster, &made).await?;
    for action in &decision.actions {
        context.metrics.asked(action);
        events::publish(context, cluster, events::action(action)).await;
    }
    // Each partition is promoted for itself: none waits for another.
    let (promotions, others): (Vec<_>, Vec<_>) = decision
        .actions
        .iter()
        .partition(|action| matches!(action, Action::Promote { .. }));
    let promotions = promotions
        .into_iter()
        .map(|action| actions::act(context, cluster, world, action));
    let promoting = join_all(promotions);
    let acting = async {
        for action in others {
            actions::act(context, cluster, world, action).await?;
        }
        Ok::<_, ActionError>(())
    };
    let (promoted, acted) = futures::join!(promoting, acting);
    for error in promoted.into_iter().filter_map(Result::err) {
        // The group has decided, or will: it is asked again only if the partition still has no primary.
        tracing::info!(%error, "a promotion was not made");
    }
    Ok(acted?)
}

/// Only onto the version that the decision was made on.
async fn write_status(client: &Client, cluster: &VoltCluster, status: &VoltClusterStatus) -> Result<(), kube::Error> {
    let api: Api<VoltCluster> = Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": VoltCluster::api_version(&()),
        "kind": VoltCluster::kind(&()),
        "metadata": { "resourceVersion": cluster.resource_version() },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch_status(&cluster.name_any(), &parameters, &Patch::Apply(patch))
        .await?;
    Ok(())
}

async fn apply_children(client: &Client, cluster: &VoltCluster, children: &Children) -> Result<(), ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    apply_one(client, &namespace, &children.headless)
        .await
        .map_err(kubernetes("headless Service"))?;
    apply_one(client, &namespace, &children.sql)
        .await
        .map_err(kubernetes("SQL Service"))?;
    apply_one(client, &namespace, &children.disruption_budget)
        .await
        .map_err(kubernetes("PodDisruptionBudget"))?;
    apply_one(client, &namespace, &children.stateful_set)
        .await
        .map_err(kubernetes("StatefulSet"))
}

async fn apply_one<K>(client: &Client, namespace: &str, child: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(&child.name_any(), &parameters, &Patch::Apply(child)).await?;
    Ok(())
}
