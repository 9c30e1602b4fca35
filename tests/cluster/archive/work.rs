//! Work whose every moment can be told from what is no moment of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect;

const ACCOUNTS: i64 = 24;
const EACH: i64 = 100;
const WRITERS: i64 = 3;

const SCHEMA: &str = "
    CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, CHECK (balance >= 0)) WITH REPLICATION = 2;
    CREATE TABLE steps (writer BIGINT, step BIGINT, mine BIGSERIAL, PRIMARY KEY (step, writer), UNIQUE (step, mine)) WITH REPLICATION = 1;
    CREATE TABLE rates (code TEXT PRIMARY KEY, rate NUMERIC(10, 4)) REPLICATED;
    CREATE MATERIALIZED VIEW by_writer AS SELECT writer, count(*) AS steps, max(step) AS last FROM steps GROUP BY writer;
    CREATE VIEW rich AS SELECT id FROM accounts WHERE balance > 100;
    INSERT INTO rates VALUES ('EUR', 1), ('USD', 1.0875);";

/// The tables and the accounts.
pub async fn begin(client: &Client) -> anyhow::Result<()> {
    client.batch_execute(SCHEMA).await?;
    for id in 1..=ACCOUNTS {
        client
            .execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &EACH])
            .await?;
    }
    Ok(())
}

/// Writers, each of which moves money and notes its steps, one after another.
pub struct Work {
    stop: Arc<AtomicBool>,
    /// The last step that each was told of.
    told: Vec<Arc<AtomicI64>>,
    writers: Vec<JoinHandle<anyhow::Result<()>>>,
}

async fn try_step(client: &Client, writer: i64, step: i64) -> Result<(), tokio_postgres::Error> {
    let (from, to) = (step * 7 % ACCOUNTS, step * 11 % ACCOUNTS + 1);
    let from = if from == 0 { ACCOUNTS } else { from };
    let transfer = format!(
        "BEGIN;
         UPDATE accounts SET balance = balance - 1 WHERE id = {from} AND balance > 0;
         UPDATE accounts SET balance = balance + 1 WHERE id = {to};
         COMMIT;"
    );
    // What a conflict, a poor account or a death of a node takes away is taken away whole.
    let moved = client
        .query_one("SELECT balance FROM accounts WHERE id = $1", &[&from])
        .await?;
    if moved.get::<_, i64>(0) > 0 && from != to && client.batch_execute(&transfer).await.is_err() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    let insert = "INSERT INTO steps (writer, step) VALUES ($1, $2) ON CONFLICT (step, writer) DO NOTHING";
    client.execute(insert, &[&writer, &step]).await.map(|_| ())
}

impl Work {
    pub fn start(ports: Vec<u16>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told: Vec<Arc<AtomicI64>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let writers = (0..WRITERS)
            .map(|writer| {
                let (stop, told, ports) = (Arc::clone(&stop), Arc::clone(&told[writer as usize]), ports.clone());
                tokio::spawn(async move {
                    let (mut step, mut client) = (1, None);
                    while !stop.load(SeqCst) {
                        let connected = match client.take() {
                            Some(connected) => connected,
                            None => match connect(ports[(writer + step) as usize % ports.len()]).await {
                                Ok(connected) => connected,
                                Err(_) => {
                                    sleep(Duration::from_millis(50)).await;
                                    continue;
                                }
                            },
                        };
                        if try_step(&connected, writer, step).await.is_ok() {
                            told.store(step, SeqCst);
                            step += 1;
                            client = Some(connected);
                        } else {
                            sleep(Duration::from_millis(50)).await;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, told, writers }
    }

    pub fn told(&self) -> Vec<i64> {
        self.told.iter().map(|told| told.load(SeqCst)).collect()
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, SeqCst);
        for writer in self.writers {
            writer.await??;
        }
        Ok(())
    }
}

/// Everything that clients can see.
pub async fn all(client: &Client) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for query in [
        "SELECT * FROM accounts ORDER BY id",
        "SELECT * FROM steps ORDER BY step, writer",
        "SELECT * FROM rates ORDER BY code",
        "SELECT * FROM by_writer ORDER BY writer",
        "SELECT * FROM rich ORDER BY id",
        "SELECT name, definition, state FROM system.indexes ORDER BY name",
    ] {
        for message in client.simple_query(query).await? {
            if let SimpleQueryMessage::Row(row) = message {
                let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
                all.push(values.join("|"));
            }
        }
    }
    Ok(all)
}

/// What must hold at every moment; the last step of each writer.
pub async fn is_a_cut(client: &Client) -> anyhow::Result<Vec<i64>> {
    let total: Option<i64> = client
        .query_one("SELECT sum(balance)::BIGINT FROM accounts", &[])
        .await?
        .get(0);
    ensure!(total == Some(ACCOUNTS * EACH), "money came or went: {total:?}");
    let mut last = Vec::new();
    for writer in 0..WRITERS {
        let steps = "SELECT count(*), coalesce(max(step), 0) FROM steps WHERE writer = $1";
        let row = client.query_one(steps, &[&writer]).await?;
        let (count, newest): (i64, i64) = (row.get(0), row.get(1));
        ensure!(
            count == newest,
            "writer {writer}: {count} steps, the last of which is {newest}"
        );
        last.push(newest);
    }
    let view = "SELECT count(*) FROM by_writer b WHERE steps <> last";
    ensure!(
        client.query_one(view, &[]).await?.get::<_, i64>(0) == 0,
        "the view is another"
    );
    Ok(last)
}
