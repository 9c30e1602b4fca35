//! Columns come and go while clients write on every node, and a node dies and comes back. Each column has its number for its
//! values and for its default, so that what is read from another column's place shows, and what is read from a place that
//! its column has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::numbers::Numbers;
use crate::{alone, block_on, connect};

const NODES: u32 = 3;
const WRITERS: u32 = 6;
/// Columns that follow each other, in each part of the test.
const ROUNDS: u64 = 4;
/// How long a column is written.
const ROUND: Duration = Duration::from_millis(300);
/// A statement whose primary has just died is sent again.
const TRIES: u32 = 20;

/// What all writers share.
struct Load {
    /// The number of the column that there is.
    column: AtomicU64,
    stop: AtomicBool,
    written: AtomicU64,
    /// Statements that came too late for their column.
    late: AtomicU64,
}

/// Writes until told to stop, on one node as long as it answers.
async fn write(port: u16, writer: u32, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(u64::from(writer));
    let mut id = i64::from(writer) * 10_000_000;
    while !load.stop.load(Ordering::Relaxed) {
        id += 1;
        let column = load.column.load(Ordering::Relaxed);
        let earlier = id - 1 - numbers.below(5) as i64;
        let statement = match numbers.below(5) {
            0 => format!("INSERT INTO parcels (id, kept) VALUES ({id}, {})", id * 7),
            1 => format!("UPDATE parcels SET kept = kept + (extra_{column} - {column}) WHERE id = {earlier}"),
            2 => format!("UPDATE parcels SET extra_{column} = {column} WHERE id = {earlier}"),
            3 => format!(
                "BEGIN; UPDATE parcels SET extra_{column} = {column} WHERE id = {earlier}; INSERT INTO parcels (id, kept) VALUES ({id}, {}); COMMIT",
                id * 7
            ),
            _ => format!(
                "INSERT INTO parcels (id, extra_{column}, kept) VALUES ({id}, {column}, {})",
                id * 7
            ),
        };
        match client.batch_execute(&statement).await {
            Ok(()) => drop(load.written.fetch_add(1, Ordering::Relaxed)),
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                let has_read_null = error.code() == Some(&SqlState::NOT_NULL_VIOLATION);
                ensure!(!has_read_null, "{statement}: {error:?}");
                let is_late = error.code() == Some(&SqlState::UNDEFINED_COLUMN);
                load.late.fetch_add(u64::from(is_late), Ordering::Relaxed);
                // After a failed block.
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }
    Ok(())
}

/// Another column in the place of the last one, with an index.
async fn replace(client: &Client, load: &Load) -> Result<()> {
    let column = load.column.load(Ordering::Relaxed);
    let next = column + 1;
    let statement = format!(
        "ALTER TABLE parcels DROP COLUMN extra_{column}, ADD COLUMN extra_{next} BIGINT NOT NULL DEFAULT {next}"
    );
    let mut tries = 0;
    while let Err(error) = client.batch_execute(&statement).await {
        tries += 1;
        // Of an attempt whose answer was lost.
        if error.code() == Some(&SqlState::UNDEFINED_COLUMN) {
            break;
        }
        ensure!(tries < TRIES, "{error:?}");
        sleep(ROUND).await;
    }
    load.column.store(next, Ordering::Relaxed);
    Ok(())
}

/// Every value is its own column's.
async fn check(port: u16, column: u64) -> Result<()> {
    let client = connect(port).await?;
    let wrong =
        format!("SELECT count(*) FROM parcels WHERE kept <> id * 7 OR extra_{column} IS DISTINCT FROM {column}");
    let mut tries = 0;
    let wrong: i64 = loop {
        match client.query_one(&wrong, &[]).await {
            Ok(row) => break row.get(0),
            Err(error) => ensure!(tries < TRIES, "{error:?}"),
        }
        tries += 1;
        sleep(ROUND).await;
    };
    ensure!(wrong == 0, "{wrong} rows have values of another column");
    let all = client.query("SELECT * FROM parcels WHERE id = 10000001", &[]).await?;
    let names: Vec<Vec<&str>> = all
        .iter()
        .map(|row| row.columns().iter().map(|one| one.name()).collect())
        .collect();
    let expected = ["id", "kept", &format!("extra_{column}")];
    ensure!(names.iter().all(|names| *names == expected), "{names:?}");
    Ok(())
}

/// What an index finds is what a walk finds.
async fn check_index(client: &Client, column: u64) -> Result<()> {
    let index = format!("CREATE INDEX parcels_extra_{column} ON parcels (extra_{column})");
    client.batch_execute(&index).await?;
    client.batch_execute("BEGIN READ ONLY").await?;
    let count = |condition: String| async move {
        let query = format!("SELECT count(*) FROM parcels WHERE {condition}");
        let row = client.query_one(&query, &[]).await?;
        anyhow::Ok(row.get::<_, i64>(0))
    };
    let by_index = count(format!("extra_{column} = {column}")).await?;
    let by_walk = count(format!("extra_{column} + 0 = {column}")).await?;
    client.batch_execute("COMMIT").await?;
    ensure!(by_index == by_walk && by_index > 0, "{by_index} is not {by_walk}");
    Ok(())
}

#[test]
fn columns_come_and_go_while_clients_write_and_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let table = "CREATE TABLE parcels (id BIGINT PRIMARY KEY, extra_0 BIGINT NOT NULL DEFAULT 0, kept BIGINT NOT NULL) WITH REPLICATION = 1";
        client.batch_execute(table).await?;
        let load = Arc::new(Load {
            column: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            late: AtomicU64::new(0),
        });
        let mut writers = JoinSet::new();
        for writer in 1..=WRITERS {
            writers.spawn(write(cluster.sql(writer % NODES + 1), writer, Arc::clone(&load)));
        }
        sleep(ROUND).await;
        for _ in 0..ROUNDS {
            replace(&client, &load).await?;
            sleep(ROUND).await;
            let column = load.column.load(Ordering::Relaxed);
            check(cluster.sql(column as u32 % NODES + 1), column).await?;
            check_index(&client, column).await?;
        }
        let victim = cluster.leader().await?;
        let survivor = victim % NODES + 1;
        cluster.nodes.node(victim).kill()?;
        let client = connect(cluster.sql(survivor)).await?;
        for _ in 0..ROUNDS {
            replace(&client, &load).await?;
            sleep(ROUND).await;
            check(cluster.sql(survivor), load.column.load(Ordering::Relaxed)).await?;
        }
        cluster.nodes.node(victim).start()?;
        replace(&client, &load).await?;
        cluster.whole().await?;
        // What came back answers alone for what it holds.
        cluster.nodes.node(survivor).kill()?;
        sleep(ROUND).await;
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            // Some have lost their node.
            let wrong = ended?
                .err()
                .filter(|error| error.downcast_ref::<tokio_postgres::Error>().is_none());
            wrong.map_or(Ok(()), Err)?;
        }
        check(cluster.sql(victim), load.column.load(Ordering::Relaxed))
            .await
            .context("at the node that came back")?;
        let (written, late) = (load.written.load(Ordering::Relaxed), load.late.load(Ordering::Relaxed));
        println!("{written} written, {late} too late for their column");
        ensure!(written > 500, "{written} written");
        Ok(())
    });
}
