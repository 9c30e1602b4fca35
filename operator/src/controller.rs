//! Observe, decide, apply: for each VoltCluster, whenever something changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::apply::{ApplyError, MANAGER, apply, refused};
use crate::crd::VoltCluster;
use crate::decide::decide;
use crate::heartbeats::{Heartbeats, Key};
use crate::metrics::Metrics;
use crate::observe::{Refused, observe};
use crate::resources::{Defaults, PEER_PORT};

const FINALIZER: &str = "voltcluster.dev/operator";
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Clusters that ask to be looked at, at most.
const NUDGES: usize = 256;
/// Clusters that are worked on at a time.
const CONCURRENCY: u16 = 8;

/// What a reconciliation needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Writes events.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What a VoltCluster need not say.
    pub defaults: Defaults,
    heartbeats: Heartbeats,
    /// What of each cluster's last decision was refused.
    refused: Mutex<HashMap<Key, Refused>>,
}

/// What ends a reconciliation early; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or didn't answer.
    #[error("{0}")]
    Kubernetes(Box<kube::Error>),
    /// The decision was not carried out.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The finalizer was not set or removed.
    #[error("{0}")]
    Finalizer(Box<finalizer::Error<Error>>),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

type Guarded = DeserializeGuard<VoltCluster>;

/// Runs until the process is told to end. `namespace`: the only one that is watched, or all.
pub async fn run(client: Client, namespace: Option<&str>, me: &str, metrics: Arc<Metrics>, defaults: Defaults) {
    let (nudge, nudges) = mpsc::channel(NUDGES);
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(me.to_owned()),
    };
    let context = Arc::new(Context {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        metrics,
        defaults,
        heartbeats: Heartbeats::new(PEER_PORT, nudge),
        refused: Mutex::default(),
    });
    let nudges = ReceiverStream::new(nudges)
        .map(|key: Key| ObjectRef::new(&key.name).within(&key.namespace.unwrap_or_default()));
    let ours = || watcher::Config::default().labels("app.kubernetes.io/managed-by=volt-operator");
    Controller::new(scoped::<Guarded>(&client, namespace), watcher::Config::default())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .owns(scoped::<StatefulSet>(&client, namespace), ours())
        .owns(scoped::<Service>(&client, namespace), ours())
        .owns(scoped::<PodDisruptionBudget>(&client, namespace), ours())
        .watches(scoped::<Pod>(&client, namespace), ours(), |pod| cluster_of(&pod))
        .reconcile_on(nudges)
        .run(reconcile, |_, error, _| retry(error), context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::warn!(%error, "a reconciliation failed");
            }
        })
        .await;
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A pod's owner is the StatefulSet; its label names the cluster.
fn cluster_of(pod: &Pod) -> Option<ObjectRef<Guarded>> {
    let name = pod.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

fn retry(error: &Error) -> Action {
    tracing::debug!(%error, "trying again");
    Action::requeue(RETRY)
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let cluster = match &object.0 {
        Ok(cluster) => cluster.clone(),
        Err(invalid) => {
            tracing::warn!(error = %invalid.error, "a VoltCluster that can't be read");
            return Ok(Action::await_change());
        }
    };
    let begun = Instant::now();
    let api: Api<VoltCluster> = Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let result = finalizer(&api, FINALIZER, Arc::new(cluster), |event| async {
        match event {
            finalizer::Event::Apply(cluster) => step(&api, &cluster.name_any(), &context).await,
            finalizer::Event::Cleanup(cluster) => Ok(forget(&cluster, &context)),
        }
    })
    .await;
    context.metrics.reconciled(begun.elapsed(), result.is_ok());
    result.map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        error => Error::Finalizer(Box::new(error)),
    })
}

/// One look and what comes of it. The VoltCluster is read anew: its status says what this operator did last.
async fn step(api: &Api<VoltCluster>, name: &str, context: &Context) -> Result<Action, Error> {
    let Some(cluster) = api.get_opt(name).await? else {
        return Ok(Action::await_change());
    };
    let key = Key::from_obj(&cluster);
    let before = context.refused().get(&key).cloned().unwrap_or_default();
    let fresh_uuid = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
    let heard = context.heartbeats.heard(&key);
    let world = observe(&context.client, &cluster, heard, before.clone(), fresh_uuid).await?;
    context.heartbeats.follow(&key, &world.pods);
    let decision = decide(&cluster, &world, Timestamp::now());
    let applied = apply(context, &cluster, &world, &decision).await;
    context.refused().insert(key, refused(&applied, before));
    applied?;
    Ok(Action::requeue(decision.again_after))
}

/// The children go with their owner; the volumes as `spec.storage.whenDeleted` says. Nothing is reported of nodes that
/// are meant to go.
fn forget(cluster: &VoltCluster, context: &Context) -> Action {
    let key = Key::from_obj(cluster);
    context.heartbeats.forget(&key);
    context.refused().remove(&key);
    context.metrics.forget(cluster);
    tracing::info!(%key, "the VoltCluster is deleted");
    Action::await_change()
}

impl Context {
    fn refused(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
