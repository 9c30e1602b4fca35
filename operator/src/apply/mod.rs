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
use crate::observe::{Refused, World};
use crate::resources::{Children, children};

/// Who owns the fields that are applied.
pub const MANAGER: &str = "volt-operator";

/// What keeps a decision from being carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The status was not written: the VoltCluster has changed, or the API server didn't answer.
    #[error("status: {0}")]
    Status(Box<kube::Error>),
    /// The API server refused a child, or didn't answer.
    #[error("{what}: {}", words(.source))]
    Child {
        /// Which.
        what: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// Nodes or Kubernetes refused actions, or didn't answer.
    #[error("{}", all(.0))]
    Actions(Vec<ActionError>),
}

fn all(errors: &[ActionError]) -> String {
    let each: Vec<String> = errors.iter().map(ToString::to_string).collect();
    each.join("; ")
}

/// What the API server said, without its answer's other fields.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// It will say so again, as long as the same is asked: no conflict, no haste, no outage.
fn is_rejection(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 409 | 429))
}

/// What the next decision should know of how this one was carried out; `before` is what this one knew.
pub fn refused(result: &Result<(), ApplyError>, before: Refused) -> Refused {
    match result {
        Ok(()) => Refused::default(),
        Err(error @ ApplyError::Child { source, .. }) if is_rejection(source) => Refused {
            child: Some(error.to_string()),
            ..before
        },
        // Nobody got as far as to refuse anything.
        Err(ApplyError::Status(_) | ApplyError::Child { .. }) => before,
        Err(ApplyError::Actions(errors)) => {
            let refusal = errors.iter().find(|error| error.is_refusal());
            Refused {
                child: None,
                action: refusal.map(ToString::to_string).or(before.action),
            }
        }
    }
}

/// All of it: without the status nothing is done, without the children no action; no action waits for another.
pub async fn apply(
    context: &Context,
    cluster: &VoltCluster,
    world: &World,
    decision: &Decision,
) -> Result<(), ApplyError> {
    context.metrics.saw(cluster, &decision.status);
    if cluster.status.as_ref() != Some(&decision.status) {
        write_status(&context.client, cluster, &decision.status)
            .await
            .map_err(|error| ApplyError::Status(Box::new(error)))?;
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
    let acts = decision
        .actions
        .iter()
        .map(|action| actions::act(context, cluster, world, action));
    let results = join_all(acts).await;
    let mut errors = Vec::new();
    for (action, result) in decision.actions.iter().zip(results) {
        match (action, result) {
            (_, Ok(())) => {}
            // The group has decided, or will: it is asked again only if the partition still has no primary.
            (Action::Promote { .. }, Err(error)) => tracing::info!(%error, "a promotion was not made"),
            (_, Err(error)) => errors.push(error),
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApplyError::Actions(errors)),
    }
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

fn child(what: &'static str) -> impl FnOnce(kube::Error) -> ApplyError {
    move |source| ApplyError::Child {
        what,
        source: Box::new(source),
    }
}

async fn apply_children(client: &Client, cluster: &VoltCluster, children: &Children) -> Result<(), ApplyError> {
    let namespace = cluster.namespace().unwrap_or_default();
    apply_one(client, &namespace, &children.headless)
        .await
        .map_err(child("headless Service"))?;
    apply_one(client, &namespace, &children.sql)
        .await
        .map_err(child("SQL Service"))?;
    apply_one(client, &namespace, &children.disruption_budget)
        .await
        .map_err(child("PodDisruptionBudget"))?;
    apply_one(client, &namespace, &children.stateful_set)
        .await
        .map_err(child("StatefulSet"))
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

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn said(code: u16, message: &str) -> Box<kube::Error> {
        Box::new(kube::Error::Api(Box::new(
            Status::failure(message, "Invalid").with_code(code),
        )))
    }

    fn stateful_set(code: u16) -> Result<(), ApplyError> {
        Err(ApplyError::Child {
            what: "StatefulSet",
            source: said(code, "image: no leading spaces"),
        })
    }

    #[test]
    fn a_child_that_is_rejected_is_remembered_until_it_is_taken() {
        let known = refused(&stateful_set(422), Refused::default());
        assert_eq!(known.child.as_deref(), Some("StatefulSet: image: no leading spaces"));
        let stale = Err(ApplyError::Status(said(409, "conflict")));
        assert_eq!(refused(&stale, known.clone()), known, "nothing was tried");
        assert_eq!(refused(&Ok(()), known), Refused::default());
        for passing in [409, 429, 500, 503] {
            let after = refused(&stateful_set(passing), Refused::default());
            assert_eq!(after, Refused::default(), "{passing} is no rejection");
        }
    }

    #[test]
    fn an_action_that_is_refused_is_remembered_past_those_that_are_not_answered() {
        let silent = || ActionError::NoAnswer {
            action: "ReportFailure",
            last: "node 1: timeout".to_owned(),
        };
        let no = ActionError::Refused {
            action: "Drain",
            why: "not now".to_owned(),
        };
        let known = refused(&Err(ApplyError::Actions(vec![silent(), no])), Refused::default());
        assert_eq!(known.action.as_deref(), Some("Drain: not now"));
        let known = refused(&Err(ApplyError::Actions(vec![silent()])), known);
        assert_eq!(known.action.as_deref(), Some("Drain: not now"), "nobody took it back");
        let forbidden = ActionError::Kubernetes {
            action: "DeletePod",
            source: said(403, "forbidden"),
        };
        let known = refused(&Err(ApplyError::Actions(vec![forbidden])), Refused::default());
        assert_eq!(known.action.as_deref(), Some("DeletePod: forbidden"));
    }
}
