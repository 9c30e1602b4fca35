//! The listener: accepts, bounds, and ends connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cancel::CancelRegistry;
use super::connection::{farewell, serve};
use super::messages::{Severity, error_response};
use super::metrics::GatewayMetrics;
use super::session::Session;
use super::startup::{self, Opening, Refusal, Startup};
use super::{BUFFER_BYTES, MAX_STARTING, STARTUP_SECONDS};
use crate::config::{Authentication, NodeConfig};
use crate::error::SqlError;
use crate::statement::{Database, ReadSettings};
use crate::world::{Listener, Random, Stream, World};

/// How long `stop` waits for statements that are running.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a client has to read why it is refused.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failure to accept, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a gateway allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions at a time.
    pub max_connections: usize,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// How sessions read that say nothing of it.
    pub reads: ReadSettings,
}

/// A listening gateway. Dropping it ends it at once; `stop` is the gentle way.
pub struct Gateway {
    door: Arc<Door>,
    address: String,
    tasks: TaskTracker,
    accepting: tokio::task::JoinHandle<()>,
}

/// What all connections share.
struct Door {
    database: Arc<dyn Database>,
    random: Arc<dyn Random>,
    limits: Limits,
    sessions: Semaphore,
    starting: Arc<Semaphore>,
    cancels: Arc<CancelRegistry>,
    metrics: Arc<GatewayMetrics>,
    next_process: AtomicI32,
    is_closing: AtomicBool,
    stop: CancellationToken,
}

impl Gateway {
    /// Listens on the node's SQL port and serves the database there.
    pub async fn start(config: &NodeConfig, world: &World, database: Arc<dyn Database>) -> std::io::Result<Self> {
        let listener = world.network.listen(&config.sql_listen()).await?;
        let limits = Limits {
            max_connections: config.max_connections,
            authentication: config.authentication,
            reads: config.reads,
        };
        Ok(Self::serve(
            listener,
            limits,
            Arc::clone(&world.random),
            database,
            Arc::default(),
        ))
    }

    /// Serves the database to whoever comes to this listener.
    pub fn serve(
        listener: Box<dyn Listener>,
        limits: Limits,
        random: Arc<dyn Random>,
        database: Arc<dyn Database>,
        metrics: Arc<GatewayMetrics>,
    ) -> Self {
        let address = listener.local_address();
        let door = Arc::new(Door {
            database,
            random,
            limits,
            sessions: Semaphore::new(limits.max_connections),
            starting: Arc::new(Semaphore::new(MAX_STARTING)),
            cancels: Arc::default(),
            metrics,
            next_process: AtomicI32::new(1),
            is_closing: AtomicBool::new(false),
            stop: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&door), tasks.clone()));
        Self {
            door,
            address,
            tasks,
            accepting,
        }
    }

    /// The address that it listens on, `ip:port`.
    pub fn local_address(&self) -> &str {
        &self.address
    }

    /// Its counters.
    pub fn metrics(&self) -> Arc<GatewayMetrics> {
        Arc::clone(&self.door.metrics)
    }

    /// Begins no session any more (57P03), so that clients go to other nodes; those that are there go on.
    pub fn close(&self) {
        self.door.is_closing.store(true, Relaxed);
    }

    /// Accepts nobody any more, lets running statements end, and says goodbye; bounded in time.
    pub async fn stop(&self) {
        self.accepting.abort();
        self.door.stop.cancel();
        self.tasks.close();
        let _ = timeout(STOP_TIMEOUT, self.tasks.wait()).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
        self.door.stop.cancel();
    }
}

async fn accept(listener: Box<dyn Listener>, door: Arc<Door>, tasks: TaskTracker) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a SQL connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Too many that have not said what they want: dropped without a word.
        let Ok(starting) = Arc::clone(&door.starting).try_acquire_owned() else {
            tracing::warn!(%peer, "too many SQL connections are starting; dropped one");
            continue;
        };
        let door = Arc::clone(&door);
        tasks.spawn(async move {
            if let Err(error) = door.connection(stream, starting).await {
                tracing::debug!(%peer, %error, "a SQL connection ended");
            }
        });
    }
}

impl Door {
    async fn connection(
        &self,
        mut stream: Box<dyn Stream>,
        starting: tokio::sync::OwnedSemaphorePermit,
    ) -> std::io::Result<()> {
        let stream = stream.as_mut();
        let mut input = BytesMut::with_capacity(BUFFER_BYTES);
        let opening = timeout(Duration::from_secs(STARTUP_SECONDS), self.open(stream, &mut input)).await;
        drop(starting);
        let startup = match opening {
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(startup))) => startup,
            Ok(Err(Refusal::Connection(error))) => return Err(error),
            Ok(Err(Refusal::Fatal(error))) => return refuse(stream, &error).await,
        };
        if let Some(error) = self.refuses() {
            return refuse(stream, &error).await;
        }
        let Ok(_session) = self.sessions.try_acquire() else {
            return refuse(stream, &SqlError::new("53300", "sorry, too many clients already")).await;
        };
        let _counted = Counted::new(&self.metrics);
        self.session(stream, input, &startup).await
    }

    /// Why no session may begin now; a client that knows other nodes goes there.
    fn refuses(&self) -> Option<SqlError> {
        if self.is_closing.load(Relaxed) {
            return Some(SqlError::new("57P03", "the database system is shutting down"));
        }
        self.database.refuses_sessions()
    }

    /// What the client wants; None: it wanted to cancel something, and that is done.
    async fn open(&self, stream: &mut dyn Stream, input: &mut BytesMut) -> Result<Option<Startup>, Refusal> {
        match startup::open(stream, input).await? {
            Opening::Cancel(key) => {
                self.cancels.cancel(key);
                Ok(None)
            }
            Opening::Session(startup) => {
                startup::authenticate(stream, &startup, self.limits.authentication).await?;
                Ok(Some(startup))
            }
        }
    }

    async fn session(&self, stream: &mut dyn Stream, input: BytesMut, startup: &Startup) -> std::io::Result<()> {
        let process = self.next_process.fetch_add(1, Relaxed) & i32::MAX;
        let registration = self.cancels.register(process, &*self.random);
        let key = registration.key;
        let reads = startup
            .reading
            .iter()
            .fold(self.limits.reads, |reads, change| change.of(reads, self.limits.reads));
        let mut session = Session::new(Arc::clone(&self.database), registration, reads);
        if let Err(error) = startup::greet(&mut session.output.bytes, startup, key) {
            return farewell(&mut session, stream, &error).await;
        }
        serve(&mut session, stream, input, &self.metrics, &self.stop).await
    }
}

/// Counts a session while it is there, however it ends.
struct Counted<'a>(&'a GatewayMetrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a GatewayMetrics) -> Self {
        metrics.sessions.fetch_add(1, Relaxed);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

async fn refuse(stream: &mut dyn Stream, error: &SqlError) -> std::io::Result<()> {
    let mut out = Vec::new();
    error_response(&mut out, Severity::Fatal, error);
    let told = async {
        stream.write_all(&out).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    timeout(REFUSAL_TIMEOUT, told).await.unwrap_or(Ok(()))
}
