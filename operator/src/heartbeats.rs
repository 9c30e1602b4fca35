//! A subscription to the heartbeat stream of every node of every cluster. What was heard is looked at by the next
//! decision; a stream that begins, breaks, or comes from another process asks for one at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use volt_proto::v1::{NodeHeartbeat, WatchHeartbeatsRequest};

use crate::crd::VoltCluster;
use crate::observe::{CALL_LIMIT, Ordinal, PodSeen, connect};

/// Milliseconds between two heartbeats.
const INTERVAL_MS: u32 = 500;
/// A stream that is silent for so long is made anew.
const QUIET: Duration = Duration::from_secs(2);
/// Between two attempts to make one.
const PAUSE: Duration = Duration::from_millis(500);

/// Names a cluster.
pub type Key = ObjectRef<VoltCluster>;

/// What was heard of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The process that was heard last.
    pub boot_id: u64,
    /// When that process started, seconds since 1970 by its own clock; None: it didn't say.
    pub started_at: Option<i64>,
    /// Time since then.
    pub silent_for: Duration,
}

#[derive(Clone, Copy)]
struct Last {
    boot_id: u64,
    started_at: Option<i64>,
    at: Instant,
}

/// One node's subscription; it ends when this is dropped.
struct Subscription {
    ip: String,
    task: AbortHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Cluster {
    subscriptions: BTreeMap<Ordinal, Subscription>,
    last: Arc<Mutex<BTreeMap<Ordinal, Last>>>,
}

/// All subscriptions.
pub struct Heartbeats {
    clusters: Mutex<HashMap<Key, Cluster>>,
    /// Bounded: when it is full, a decision is about to be made anyway.
    nudge: mpsc::Sender<Key>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heartbeats {
    /// None yet. Clusters that should be looked at are sent to `nudge`.
    pub fn new(nudge: mpsc::Sender<Key>) -> Self {
        Self {
            clusters: Mutex::default(),
            nudge,
        }
    }

    /// Listens to these pods, and to no others.
    pub fn follow(&self, key: &Key, pods: &BTreeMap<Ordinal, PodSeen>) {
        let mut clusters = lock(&self.clusters);
        let cluster = clusters.entry(key.clone()).or_default();
        let address = |ordinal: &Ordinal| pods.get(ordinal).and_then(|pod| pod.ip.as_deref());
        cluster
            .subscriptions
            .retain(|ordinal, subscription| address(ordinal) == Some(&subscription.ip));
        for (ordinal, pod) in pods {
            let Some(ip) = &pod.ip else { continue };
            let last = Arc::clone(&cluster.last);
            cluster.subscriptions.entry(*ordinal).or_insert_with(|| {
                let listening = listen(ip.clone(), *ordinal, last, key.clone(), self.nudge.clone());
                Subscription {
                    ip: ip.clone(),
                    task: tokio::spawn(listening).abort_handle(),
                }
            });
        }
    }

    /// What was heard of this cluster's nodes.
    pub fn heard(&self, key: &Key) -> BTreeMap<Ordinal, Heard> {
        let clusters = lock(&self.clusters);
        let Some(cluster) = clusters.get(key) else {
            return BTreeMap::new();
        };
        let last = lock(&cluster.last);
        let heard = |last: &Last| Heard {
            boot_id: last.boot_id,
            started_at: last.started_at,
            silent_for: last.at.elapsed(),
        };
        last.iter().map(|(ordinal, last)| (*ordinal, heard(last))).collect()
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &Key) {
        lock(&self.clusters).remove(key);
    }
}

async fn listen(
    ip: String,
    ordinal: Ordinal,
    last: Arc<Mutex<BTreeMap<Ordinal, Last>>>,
    key: Key,
    nudge: mpsc::Sender<Key>,
) {
    loop {
        let hear = |beat: NodeHeartbeat| {
            // A pod's address may have been another pod's before.
            if beat.node_id != ordinal + 1 {
                return;
            }
            let new = Last {
                boot_id: beat.boot_id,
                started_at: (beat.started_at > 0).then_some(beat.started_at),
                at: Instant::now(),
            };
            let before = lock(&last).insert(ordinal, new);
            if before.is_none_or(|before| before.boot_id != new.boot_id) {
                let _ = nudge.try_send(key.clone());
            }
        };
        if let Ok(true) = subscribe(&ip, hear).await {
            let _ = nudge.try_send(key.clone());
        }
        sleep(PAUSE).await;
    }
}

/// Until the stream ends; true if there was one.
async fn subscribe(ip: &str, mut hear: impl FnMut(NodeHeartbeat)) -> Result<bool, tonic::transport::Error> {
    let mut node = connect(ip).await?;
    let request = WatchHeartbeatsRequest {
        interval_ms: INTERVAL_MS,
    };
    let Ok(Ok(answer)) = timeout(CALL_LIMIT, node.watch_heartbeats(request)).await else {
        return Ok(false);
    };
    let mut beats = answer.into_inner();
    while let Ok(Ok(Some(beat))) = timeout(QUIET, beats.message()).await {
        hear(beat);
    }
    Ok(true)
}
