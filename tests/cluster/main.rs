//! Real processes on loopback: killed, frozen, cut off, all at once. One test at a time, for the processes fill a machine.

mod archive;
mod bad_input;
mod balancing;
mod busy;
mod cluster;
mod columns;
mod complex;
mod detection;
mod dev;
mod endurance;
mod failures;
mod golden;
mod idempotency;
mod indexes;
mod links;
mod liveness;
mod load;
mod memory;
mod modes;
mod moves;
mod network;
mod now;
mod numbers;
mod observe;
mod operator;
mod procedures;
mod quorum;
mod recovery;
mod redefined;
mod refill;
mod replicated;
mod replication;
mod sequences;
mod serializable;
mod session;
mod sharing;
mod spool;
mod transactions;
mod truncate;
mod ttl;
mod version;
mod views;
mod wasm;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// How long a cluster may take to form, and a node to come back into sync.
const WHOLE: Duration = Duration::from_secs(60);
/// From the start of `volt-node dev` to `ready`: what it promises.
const READY: Duration = Duration::from_secs(15);
/// Partitions of these clusters.
const PARTITIONS: u32 = 12;

/// Held by the one test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test's steps.
fn block_on<T>(steps: impl Future<Output = anyhow::Result<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(steps).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A node of a whole cluster serves by then: it may have lost its lease a moment ago, as to an election.
const SERVES_WITHIN: Duration = Duration::from_secs(5);

/// A session with a node of a whole cluster.
async fn connect_to_whole(port: u16) -> anyhow::Result<Client> {
    let limit = tokio::time::Instant::now() + SERVES_WITHIN;
    loop {
        match connect(port).await {
            Err(_) if tokio::time::Instant::now() < limit => tokio::time::sleep(Duration::from_millis(20)).await,
            connected => return connected,
        }
    }
}

/// A session with the node at this SQL port.
async fn connect(port: u16) -> anyhow::Result<Client> {
    let text = format!("host=127.0.0.1 port={port} user=volt dbname=volt connect_timeout=5");
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}
