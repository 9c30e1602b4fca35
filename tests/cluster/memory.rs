//! A node at its limit of memory: it puts no more rows, and goes on with everything else.

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};
use volt_tests::processes::Nodes;
use volt_tests::{http, operator};

use crate::cluster::Cluster;
use crate::{WHOLE, alone, block_on, connect};

/// A node without rows takes a third of it.
const LIMIT: u64 = 160 << 20;
/// What a limit lets a node take beyond it: the traffic between two looks, and what the limit's own page says.
const SLACK: u64 = LIMIT / 4;
const PARTITIONS: u32 = 3;
const FILLER_BYTES: usize = 2_000;
const ROWS_AT_ONCE: i64 = 200;
/// A node looks at its memory ten times a second.
const NOTICED: Duration = Duration::from_secs(5);
const LOOKED_AGAIN: Duration = Duration::from_millis(500);
/// A move that can't go on says why by then.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A session and its INSERT of so many rows.
struct Writer {
    client: Client,
    insert: Statement,
}

impl Writer {
    async fn new(port: u16) -> Result<Self> {
        let client = connect(port).await?;
        let values: Vec<String> = (0..ROWS_AT_ONCE).map(|row| format!("(${}, $1)", row + 2)).collect();
        let types: Vec<Type> = [Type::TEXT]
            .into_iter()
            .chain(vec![Type::INT8; ROWS_AT_ONCE as usize])
            .collect();
        let text = format!("INSERT INTO wide VALUES {}", values.join(","));
        let insert = client.prepare_typed(&text, &types).await?;
        Ok(Self { client, insert })
    }

    /// Rows with ids from this one on.
    async fn insert(&self, first: i64) -> Result<(), tokio_postgres::Error> {
        let filler = "x".repeat(FILLER_BYTES);
        let ids: Vec<i64> = (first..first + ROWS_AT_ONCE).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&filler];
        parameters.extend(ids.iter().map(|id| id as &(dyn ToSql + Sync)));
        self.client.execute(&self.insert, &parameters).await?;
        Ok(())
    }

    /// Inserts until the node refuses; returns the next id, and the refusal.
    async fn fill(&self, mut next: i64) -> Result<(i64, DbError)> {
        let enough = next + 4 * LIMIT as i64 / FILLER_BYTES as i64;
        while next < enough {
            match self.insert(next).await {
                Ok(()) => next += ROWS_AT_ONCE,
                Err(error) => return Ok((next, error.as_db_error().context("no answer")?.clone())),
            }
        }
        bail!("{next} rows fit into {LIMIT} bytes")
    }

    /// Inserts until the node refuses, and refuses still when it has looked at its memory again.
    async fn fill_up(&self, next: i64) -> Result<(i64, DbError)> {
        let (mut next, mut refusal) = self.fill(next).await?;
        loop {
            sleep(LOOKED_AGAIN).await;
            let (after, again) = self.fill(next).await?;
            if after == next {
                return Ok((next, refusal));
            }
            (next, refusal) = (after, again);
        }
    }

    /// Inserts until it is let, or for too long; returns the next id.
    async fn insert_again(&self, next: i64) -> Result<i64> {
        let end = Instant::now() + NOTICED;
        loop {
            match self.insert(next).await {
                Ok(()) => return Ok(next + ROWS_AT_ONCE),
                Err(error) if Instant::now() > end => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn rows(client: &Client) -> Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM wide", &[]).await?.get(0))
}

async fn resident(client: &Client) -> Result<u64> {
    let row = client
        .query_one("SELECT resident_bytes FROM system.memory", &[])
        .await?;
    Ok(row.get::<_, i64>(0).try_into()?)
}

async fn refused(port: u16) -> Result<u64> {
    let answer = http::get(port, "/metrics").await?;
    let line = answer
        .body
        .lines()
        .find_map(|line| line.strip_prefix("volt_memory_refused_writes "));
    Ok(line.context("no such metric")?.parse()?)
}

#[test]
fn a_full_node_refuses_rows_reads_and_deletes_go_on() {
    let _alone = alone();
    block_on(async {
        let limit = LIMIT.to_string();
        let more = ["--memory-limit", limit.as_str(), "--durability", "async"];
        let mut cluster = Cluster::of(Nodes::start_with(1, |_| "127.0.0.1".to_owned(), &more)?);
        operator::initialise(cluster.peer(1), PARTITIONS, WHOLE).await?;
        cluster.whole().await?;
        let client = connect(cluster.sql(1)).await?;
        let create = "CREATE TABLE wide (id BIGINT PRIMARY KEY, filler TEXT) WITH REPLICATION = 0";
        client.batch_execute(create).await?;
        let writer = Writer::new(cluster.sql(1)).await?;

        let (next, refusal) = writer.fill_up(0).await?;
        ensure!(refusal.code().code() == "53200", "{refusal}");
        ensure!(refusal.hint().is_some() && refusal.detail().is_some(), "{refusal:?}");
        let full = resident(&client).await?;
        ensure!(full < LIMIT + SLACK, "{full} bytes");
        ensure!(
            refused(cluster.nodes.nodes[0].http_port).await? > 0,
            "it is not counted"
        );
        ensure!(rows(&client).await? == next, "a refused statement left rows");

        // In a block the statement hears it, and not only the block's end.
        writer.client.batch_execute("BEGIN").await?;
        let (_, refusal) = writer.fill(next).await?;
        ensure!(refusal.code().code() == "53200", "{refusal}");
        writer.client.batch_execute("ROLLBACK").await?;
        ensure!(rows(&client).await? == next, "a block that was rolled back left rows");

        // Every other row: what that frees, new rows take.
        let deleted = client
            .execute("DELETE FROM wide WHERE id % 2 = 0 AND id < 20000", &[])
            .await?;
        ensure!(deleted > 0, "nothing was deleted");
        sleep(Duration::from_secs(1)).await;
        let emptied = resident(&client).await?;
        let after = writer.insert_again(next).await?;
        let (next, _) = writer.fill_up(after).await?;
        let (put, now) = ((next - after) as u64, resident(&client).await?);
        println!("{full} bytes with {after} rows, {emptied} without {deleted} of them, {now} with {put} more");
        ensure!(put * 2 > deleted, "{put} rows in place of {deleted}");
        ensure!(now < LIMIT + SLACK, "{now} bytes");
        let left = rows(&client).await?;

        // A higher limit, and all is well.
        let node = cluster.nodes.node(1);
        node.kill()?;
        node.set_argument("--memory-limit", &(3 * LIMIT).to_string());
        node.start()?;
        cluster.whole().await?;
        let writer = Writer::new(cluster.sql(1)).await?;
        ensure!(rows(&writer.client).await? <= left);
        writer.insert(next).await?;
        Ok(())
    });
}

/// What system.moves says of the only move; None: it has nothing to complain of, or there is none.
async fn complaint(client: &Client) -> Result<Option<String>> {
    let row = client.query_opt("SELECT message FROM system.moves", &[]).await?;
    Ok(row.and_then(|row| row.get(0)))
}

#[test]
fn a_move_that_finds_no_memory_says_so_and_can_be_called_off() {
    let _alone = alone();
    block_on(async {
        let limit = LIMIT.to_string();
        let more = ["--memory-limit", limit.as_str(), "--durability", "async"];
        let cluster = Cluster::of(Nodes::start_with(1, |_| "127.0.0.1".to_owned(), &more)?);
        operator::initialise(cluster.peer(1), PARTITIONS, WHOLE).await?;
        cluster.whole().await?;
        let (client, altering) = (connect(cluster.sql(1)).await?, connect(cluster.sql(1)).await?);
        client
            .batch_execute(
                "CREATE TABLE wide (id BIGINT PRIMARY KEY, filler TEXT) WITH REPLICATION = 0;
                 CREATE TABLE beside (id BIGINT PRIMARY KEY) WITH REPLICATION = 0",
            )
            .await?;
        let (next, _) = Writer::new(cluster.sql(1)).await?.fill_up(0).await?;
        let altering = tokio::spawn(async move {
            let alter = "ALTER TABLE wide SET (mode = 'async')";
            altering.batch_execute(alter).await
        });
        let end = Instant::now() + TOLD_WITHIN;
        let message = loop {
            if let Some(message) = complaint(&client).await? {
                break message;
            }
            ensure!(
                Instant::now() < end,
                "system.moves does not say that there is no memory"
            );
            sleep(Duration::from_millis(50)).await;
        };
        println!("{message}");
        ensure!(
            message.starts_with("partition ") && message.contains("out of memory"),
            "{message}"
        );
        sleep(Duration::from_secs(1)).await;
        let log = cluster.nodes.nodes[0].log()?;
        let warnings = log.matches("a table can't be moved on now").count();
        ensure!((1..=PARTITIONS as usize).contains(&warnings), "{warnings} warnings");

        // It stays where it is, with all its rows.
        client.batch_execute("ALTER TABLE wide SET (mode = 'sync')").await?;
        altering.await??;
        let moves = client.query("SELECT * FROM system.moves", &[]).await?;
        ensure!(moves.is_empty(), "{moves:?}");
        ensure!(rows(&client).await? == next, "it lost rows");
        Ok(())
    });
}
