//! Clients that write without pause and remember what was acknowledged.
//!
//! Each writer has one connection at a time, to the pod of its own choice, and goes to the next address when that one
//! fails, as any client of the product may. A write whose answer got lost is sent again with the same id: a duplicate
//! key then means that the first one had been done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::command::{DATABASE, USER, psql};

const WRITERS: usize = 4;
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// No writer goes without an acknowledgement for so long, whatever is broken: one answer that never comes, then some
/// addresses at which nobody answers. How long the database itself stands still, `volt-node bench failover` measures.
const GAP_LIMIT: Duration = Duration::from_secs(15);
/// Two cores carry the nodes, Kubernetes and the writers: a pause leaves room for what is being tested.
const PAUSE: Duration = Duration::from_millis(4);

/// Running writers, into one table.
pub struct Load {
    table: &'static str,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Written>>,
}

#[derive(Default)]
struct Written {
    acknowledged: BTreeSet<i64>,
    longest_gap: Duration,
    errors: BTreeMap<String, u32>,
}

/// What the writers did, after every acknowledged write was found in the table.
pub struct Report {
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// The longest time that a writer went without an acknowledgement.
    pub longest_gap: Duration,
    /// What clients got to see, and how often.
    pub errors: BTreeMap<String, u32>,
}

impl Load {
    /// Creates the table and starts writing into it.
    pub async fn start(table: &'static str) -> Result<Self> {
        psql(&format!(
            "CREATE TABLE {table} (id BIGINT PRIMARY KEY, writer INT, note TEXT) WITH REPLICATION = 2"
        ))
        .await?;
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS)
            .map(|n| tokio::spawn(write(table, n, Arc::clone(&stop))))
            .collect();
        let load = Self { table, stop, writers };
        load.progress(20).await.context("before anything was broken")?;
        Ok(load)
    }

    /// Returns when the table has at least `more` rows more than now: writes are going on.
    pub async fn progress(&self, more: u64) -> Result<()> {
        let count =
            async || -> Result<u64> { Ok(psql(&format!("SELECT count(*) FROM {}", self.table)).await?.parse()?) };
        let mut enough = None;
        crate::command::wait_until(30, &format!("{more} more rows in {}", self.table), async || {
            let now = count().await?;
            Ok(now >= *enough.get_or_insert(now + more))
        })
        .await
    }

    /// Stops the writers and looks for every row that was acknowledged.
    pub async fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report {
            acknowledged: 0,
            longest_gap: Duration::ZERO,
            errors: BTreeMap::new(),
        };
        let mut acknowledged = BTreeSet::new();
        for writer in self.writers {
            let written = writer.await?;
            acknowledged.extend(written.acknowledged);
            report.longest_gap = report.longest_gap.max(written.longest_gap);
            for (error, times) in written.errors {
                *report.errors.entry(error).or_default() += times;
            }
        }
        let rows = psql(&format!("SELECT id FROM {}", self.table)).await?;
        let found: BTreeSet<i64> = rows.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(
            rows.lines().count() == found.len(),
            "{} has rows with the same key",
            self.table
        );
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
        report.acknowledged = acknowledged.len();
        ensure!(
            report.longest_gap < GAP_LIMIT,
            "a writer got no acknowledgement for longer than {} s: {report}",
            GAP_LIMIT.as_secs()
        );
        Ok(report)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} acknowledged, 0 lost, longest gap {} ms",
            self.acknowledged,
            self.longest_gap.as_millis()
        )?;
        if self.errors.is_empty() {
            Ok(())
        } else {
            write!(f, ", clients saw {:?}", self.errors)
        }
    }
}

async fn connect(writer: usize, attempt: usize) -> Result<Client> {
    let pod = (writer + attempt) % 4;
    // every fifth attempt goes by the Service, which is what a client knows that knows no pods
    let host = if attempt % 5 == 4 {
        "demo-sql".to_string()
    } else {
        format!("demo-{pod}.demo-nodes")
    };
    let settings = format!(
        "host={host} port=5432 user={USER} dbname={DATABASE} connect_timeout=1 application_name=writer-{writer}"
    );
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn write(table: &'static str, writer: usize, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let mut client = None;
    let (mut attempt, mut next, mut last) = (0, 0, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let id = next * WRITERS as i64 + writer as i64;
        match insert(table, writer, id, attempt, &mut client).await {
            Ok(()) => {
                let now = Instant::now();
                written.longest_gap = written.longest_gap.max(now - last);
                written.acknowledged.insert(id);
                (next, last) = (next + 1, now);
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                *written.errors.entry(error).or_default() += 1;
                (client, attempt) = (None, attempt + 1);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // A writer that got none until the end has waited, too.
    written.longest_gap = written.longest_gap.max(last.elapsed());
    written
}

/// One write on the connection at hand, or on a new one; the error is what a user would read, in a few words.
async fn insert(
    table: &str,
    writer: usize,
    id: i64,
    attempt: usize,
    client: &mut Option<Client>,
) -> Result<(), String> {
    if client.is_none() {
        *client = Some(
            connect(writer, attempt)
                .await
                .map_err(|_| "no connection".to_string())?,
        );
    }
    let statement = format!("INSERT INTO {table} VALUES ({id}, {writer}, 'write {id}')");
    let Some(client) = client else {
        return Err("no connection".to_string());
    };
    match tokio::time::timeout(WRITE_LIMIT, client.batch_execute(&statement)).await {
        Err(_) => Err(format!("no answer in {} s", WRITE_LIMIT.as_secs())),
        Ok(Err(error)) => match error.code() {
            Some(state) if *state == SqlState::UNIQUE_VIOLATION => Ok(()),
            Some(state) => Err(state.code().to_string()),
            None => Err("connection lost".to_string()),
        },
        Ok(Ok(())) => Ok(()),
    }
}
