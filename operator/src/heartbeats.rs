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
use crate::observe::{CALL_LIMIT, Ordinal, PodSeen, connect_at};

/// Milliseconds between two heartbeats.
const INTERVAL_MS: u32 = 500;
/// A stream that is silent for so long is made anew.
pub const QUIET: Duration = Duration::from_secs(2);
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
    /// Where the nodes listen.
    port: u16,
    /// Bounded: when it is full, a decision is about to be made anyway.
    nudge: mpsc::Sender<Key>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heartbeats {
    /// None yet. Clusters that should be looked at are sent to `nudge`; all nodes listen at `port`.
    pub fn new(port: u16, nudge: mpsc::Sender<Key>) -> Self {
        Self {
            clusters: Mutex::default(),
            port,
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
                let address = (ip.clone(), self.port);
                let listening = listen(address, *ordinal, last, key.clone(), self.nudge.clone());
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
    address: (String, u16),
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
        if let Ok(true) = subscribe(&address, hear).await {
            let _ = nudge.try_send(key.clone());
        }
        sleep(PAUSE).await;
    }
}

/// Until the stream ends; true if there was one.
async fn subscribe(
    (ip, port): &(String, u16),
    mut hear: impl FnMut(NodeHeartbeat),
) -> Result<bool, tonic::transport::Error> {
    let mut node = connect_at(ip, *port).await?;
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
    use tonic::transport::Server;
    use tonic::{Request, Response, Status};
    use volt_proto::v1::control_server::{Control, ControlServer};
    use volt_proto::v1::*;

    use super::*;

    /// Longest wait for something that should happen, and for something that should not.
    const SOON: Duration = Duration::from_secs(10);
    const NEVER: Duration = Duration::from_millis(300);
    /// Between two heartbeats of a puppet; well under `QUIET`.
    const BEAT: Duration = Duration::from_millis(50);

    type Beats = mpsc::Sender<Result<NodeHeartbeat, Status>>;

    /// A node that says what a test tells it to.
    struct Puppet {
        /// Each subscriber's stream is handed to the test.
        streams: mpsc::Sender<Beats>,
    }

    impl Puppet {
        async fn watched(
            &self,
            request: WatchHeartbeatsRequest,
        ) -> Result<Response<ReceiverStream<Result<NodeHeartbeat, Status>>>, Status> {
            assert_eq!(request.interval_ms, INTERVAL_MS);
            let (beats, stream) = mpsc::channel(8);
            let _ = self.streams.send(beats).await;
            Ok(Response::new(ReceiverStream::new(stream)))
        }
    }

    /// A node that has a heartbeat and nothing else.
    macro_rules! only_heartbeats {
        ($($unused:ident: $request:ident -> $response:ident),* $(,)?) => {
            #[tonic::async_trait]
            impl Control for Puppet {
                type WatchHeartbeatsStream = ReceiverStream<Result<NodeHeartbeat, Status>>;

                async fn watch_heartbeats(
                    &self,
                    request: Request<WatchHeartbeatsRequest>,
                ) -> Result<Response<Self::WatchHeartbeatsStream>, Status> {
                    self.watched(request.into_inner()).await
                }

                $(async fn $unused(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                    Err(Status::unimplemented(stringify!($unused)))
                })*
            }
        };
    }

    only_heartbeats! {
        initialise: InitialiseRequest -> InitialiseResponse,
        get_status: GetStatusRequest -> GetStatusResponse,
        report_failure: ReportFailureRequest -> ReportFailureResponse,
        promote: PromoteRequest -> PromoteResponse,
        switch_primaries: SwitchPrimariesRequest -> SwitchPrimariesResponse,
        rejoin: RejoinRequest -> RejoinResponse,
        drain: DrainRequest -> DrainResponse,
        remove_node: RemoveNodeRequest -> RemoveNodeResponse,
        promote_standby: PromoteStandbyRequest -> PromoteStandbyResponse,
    }

    /// A node behind pod 1, the operator's ear, and who asks to be looked at.
    struct Scene {
        heartbeats: Heartbeats,
        streams: mpsc::Receiver<Beats>,
        nudges: mpsc::Receiver<Key>,
        key: Key,
    }

    impl Scene {
        async fn new() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let (streams, handed) = mpsc::channel(8);
            let serving = Server::builder()
                .add_service(ControlServer::new(Puppet { streams }))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(serving);
            let (nudge, nudges) = mpsc::channel(8);
            let scene = Self {
                heartbeats: Heartbeats::new(port, nudge),
                streams: handed,
                nudges,
                key: Key::new("demo").within("shop"),
            };
            scene.heartbeats.follow(&scene.key, &Self::pods("127.0.0.1"));
            scene
        }

        fn pods(ip: &str) -> BTreeMap<Ordinal, PodSeen> {
            let pod = PodSeen {
                ip: Some(ip.to_owned()),
                ..PodSeen::default()
            };
            BTreeMap::from([(1, pod)])
        }

        async fn stream(&mut self) -> Beats {
            let stream = timeout(SOON, self.streams.recv()).await;
            stream.expect("a subscription in time").expect("a subscription")
        }

        async fn is_nudged(&mut self, within: Duration) -> bool {
            timeout(within, self.nudges.recv())
                .await
                .is_ok_and(|key| key.as_ref() == Some(&self.key))
        }

        /// The same, while the process goes on beating, so that no silence breaks the stream.
        async fn is_nudged_by(&mut self, stream: &Beats, node_id: u32, boot_id: u64, within: Duration) -> bool {
            tokio::select! {
                nudged = self.is_nudged(within) => nudged,
                () = beats(stream, node_id, boot_id) => false,
            }
        }

        fn boot(&self) -> Option<u64> {
            self.heartbeats.heard(&self.key).get(&1).map(|heard| heard.boot_id)
        }
    }

    /// One after the other, until nobody listens.
    async fn beats(stream: &Beats, node_id: u32, boot_id: u64) {
        let beat = NodeHeartbeat {
            node_id,
            boot_id,
            started_at: 1_000,
            ..NodeHeartbeat::default()
        };
        while stream.send(Ok(beat)).await.is_ok() {
            sleep(BEAT).await;
        }
    }

    #[tokio::test]
    async fn a_process_that_is_heard_for_the_first_time_asks_for_a_look() {
        let mut scene = Scene::new().await;
        let stream = scene.stream().await;
        assert!(scene.is_nudged_by(&stream, 2, 7, SOON).await, "the first one");
        assert_eq!(scene.boot(), Some(7));
        let heard = scene.heartbeats.heard(&scene.key);
        assert_eq!(heard.get(&1).and_then(|heard| heard.started_at), Some(1_000));

        assert!(!scene.is_nudged_by(&stream, 2, 7, NEVER).await, "it goes on living");
        assert!(scene.is_nudged_by(&stream, 2, 8, SOON).await, "another process");
        assert_eq!(scene.boot(), Some(8));
    }

    #[tokio::test]
    async fn another_node_at_the_pods_address_is_not_heard() {
        let mut scene = Scene::new().await;
        let stream = scene.stream().await;
        assert!(!scene.is_nudged_by(&stream, 3, 9, NEVER).await);
        assert_eq!(scene.boot(), None);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_asks_for_a_look_and_is_made_anew() {
        let mut scene = Scene::new().await;
        let stream = scene.stream().await;
        assert!(scene.is_nudged_by(&stream, 2, 7, SOON).await);
        drop(stream);
        assert!(scene.is_nudged(SOON).await, "it broke");
        let stream = scene.stream().await;
        assert!(scene.is_nudged_by(&stream, 2, 8, SOON).await);
        assert_eq!(scene.boot(), Some(8));
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_not_listened_to() {
        let mut scene = Scene::new().await;
        let stream = scene.stream().await;
        assert!(scene.is_nudged_by(&stream, 2, 7, SOON).await);
        scene.heartbeats.follow(&scene.key, &BTreeMap::new());
        let until_closed = timeout(SOON, beats(&stream, 2, 7)).await;
        until_closed.expect("the subscription ends");
        scene.heartbeats.forget(&scene.key);
        assert_eq!(scene.boot(), None);
    }
}
