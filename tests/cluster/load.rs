//! Clients that write without a pause, and remember what was acknowledged, and when.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{connect, connect_to_whole};

/// Writers at a time.
const WRITERS: usize = 8;
/// A writer takes an answer for lost after this, and opens another session.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A writer that was refused tries again after this.
const PAUSE: Duration = Duration::from_millis(5);

/// Writers at work on the table `load (id BIGINT PRIMARY KEY, writer INT)`.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    ports: Vec<u16>,
    stop: AtomicBool,
    next: AtomicI64,
    acknowledged: Mutex<Vec<(Instant, i64)>>,
}

/// What the writers were told.
pub struct Told {
    /// When each acknowledgement came, in order, and of which row.
    pub acknowledged: Vec<(Instant, i64)>,
}

impl Load {
    /// Starts the writers, spread over the nodes at these SQL ports. The table must be there.
    pub fn start(ports: &[u16]) -> Self {
        let shared = Arc::new(Shared {
            ports: ports.to_vec(),
            stop: AtomicBool::new(false),
            next: AtomicI64::new(1),
            acknowledged: Mutex::default(),
        });
        let writers = (0..WRITERS)
            .map(|writer| tokio::spawn(write(Arc::clone(&shared), writer)))
            .collect();
        Self { shared, writers }
    }

    /// Rows acknowledged so far.
    pub fn count(&self) -> usize {
        self.shared
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Stops the writers.
    pub async fn stop(self) -> Told {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            let _ = writer.await;
        }
        let mut acknowledged =
            std::mem::take(&mut *self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
        acknowledged.sort();
        Told { acknowledged }
    }
}

async fn write(shared: Arc<Shared>, writer: usize) {
    let mut place = writer;
    while !shared.stop.load(Ordering::Relaxed) {
        let port = shared.ports[place % shared.ports.len()];
        place += 1;
        let Ok(Ok(client)) = timeout(ANSWER_TIMEOUT, connect(port)).await else {
            sleep(PAUSE).await;
            continue;
        };
        let insert = client.prepare("INSERT INTO load VALUES ($1, $2)");
        let Ok(Ok(insert)) = timeout(ANSWER_TIMEOUT, insert).await else {
            sleep(PAUSE).await;
            continue;
        };
        while !shared.stop.load(Ordering::Relaxed) {
            let id = shared.next.fetch_add(1, Ordering::Relaxed);
            match timeout(ANSWER_TIMEOUT, client.execute(&insert, &[&id, &(writer as i32)])).await {
                Ok(Ok(_)) => {
                    let mut acknowledged = shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                    acknowledged.push((Instant::now(), id));
                }
                Ok(Err(error)) if error.code().is_some() => sleep(PAUSE).await,
                _ => break,
            }
        }
    }
}

impl Told {
    /// The longest time without any acknowledgement around `moment`: from the last one before it, or from it, to the next.
    pub fn pause_after(&self, moment: Instant) -> Option<Duration> {
        let window = Duration::from_secs(10);
        let mut before = moment;
        let mut longest = None;
        for (at, _) in self
            .acknowledged
            .iter()
            .filter(|(at, _)| *at >= moment && *at < moment + window)
        {
            longest = longest.max(Some(*at - before));
            before = *at;
        }
        longest
    }

    /// Fails unless the node at this SQL port has every acknowledged row, once.
    pub async fn assert_all_there(&self, port: u16) -> anyhow::Result<()> {
        let client = connect_to_whole(port).await?;
        let rows = client.query("SELECT id FROM load", &[]).await?;
        let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        anyhow::ensure!(there.len() == rows.len(), "rows are there more than once");
        let lost: Vec<i64> = self
            .acknowledged
            .iter()
            .map(|(_, id)| *id)
            .filter(|id| !there.contains(id))
            .collect();
        let all = self.acknowledged.len();
        anyhow::ensure!(
            lost.is_empty(),
            "{} of {all} acknowledged rows are lost: {:?}",
            lost.len(),
            &lost[..lost.len().min(20)]
        );
        Ok(())
    }
}

/// Lets the load run for a while and asserts that it does run.
pub async fn run_for(load: &Load, time: Duration) -> anyhow::Result<()> {
    let before = load.count();
    sleep(time).await;
    ensure!(load.count() > before, "no write was acknowledged in {time:?}");
    Ok(())
}

/// How long writes stopped after `moment`.
pub fn report(what: &str, told: &Told, moment: Instant) -> anyhow::Result<Duration> {
    let pause = told
        .pause_after(moment)
        .with_context(|| format!("{what}: no write was acknowledged any more"))?;
    println!(
        "{what}: writes stopped for {} ms; {} acknowledged",
        pause.as_millis(),
        told.acknowledged.len()
    );
    Ok(pause)
}
