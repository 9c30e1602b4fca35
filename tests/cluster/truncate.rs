//! TRUNCATE while clients write and read on every node: it happens everywhere at one moment, and stays so when a node dies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const NODES: u32 = 3;
const WRITERS_A_NODE: i64 = 2;
const ROUNDS: u32 = 6;
/// Time for writes between two TRUNCATEs.
const WRITE_FOR: Duration = Duration::from_millis(200);
/// Rows of one INSERT, in many partitions.
const TOGETHER: i64 = 40;

/// An INSERT that was acknowledged.
#[derive(Clone, Copy)]
struct Put {
    id: i64,
    began: Instant,
    ended: Instant,
}

type Puts = Arc<Mutex<Vec<Put>>>;

/// Inserts one row after the other until told to stop; an error is no row that anyone may count on.
async fn write(port: u16, writer: i64, puts: Puts, stop: Arc<AtomicBool>) -> Result<()> {
    let client = connect(port).await?;
    let insert = client.prepare("INSERT INTO load (id, writer) VALUES ($1, 0)").await?;
    let mut id = writer * 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        let began = Instant::now();
        client.execute(&insert, &[&id]).await?;
        let ended = Instant::now();
        puts.lock().expect("no panic").push(Put { id, began, ended });
    }
    Ok(())
}

async fn ids(port: u16) -> Result<BTreeSet<i64>> {
    let rows = connect(port).await?.query("SELECT id FROM load", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What was acknowledged before is gone, and what began afterwards is there.
async fn holds(puts: &Puts, began: Instant, ended: Instant, port: u16) -> Result<()> {
    let looked_at = Instant::now();
    let there = ids(port).await?;
    for put in puts.lock().expect("no panic").iter() {
        ensure!(
            put.ended > began || !there.contains(&put.id),
            "row {} has survived",
            put.id
        );
        let must_be = put.began > ended && put.ended < looked_at;
        ensure!(!must_be || there.contains(&put.id), "row {} is missing", put.id);
    }
    Ok(())
}

#[test]
fn every_write_comes_before_or_after_it() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let (puts, stop) = (Puts::default(), Arc::new(AtomicBool::new(false)));
        let mut writers = JoinSet::new();
        for writer in 0..i64::from(NODES) * WRITERS_A_NODE {
            let port = cluster.sql(writer as u32 % NODES + 1);
            writers.spawn(write(port, writer + 1, Arc::clone(&puts), Arc::clone(&stop)));
        }
        let mut last = (Instant::now(), Instant::now());
        for round in 0..ROUNDS {
            sleep(WRITE_FOR).await;
            let client = connect(cluster.sql(round % NODES + 1)).await?;
            let began = Instant::now();
            client.batch_execute("TRUNCATE load").await?;
            last = (began, Instant::now());
            // At once, and when more was written.
            holds(&puts, last.0, last.1, cluster.sql((round + 1) % NODES + 1)).await?;
            sleep(WRITE_FOR).await;
            holds(&puts, last.0, last.1, cluster.sql((round + 2) % NODES + 1)).await?;
        }
        stop.store(true, Ordering::Relaxed);
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        let count = puts.lock().expect("no panic").len();
        ensure!(count > ROUNDS as usize * 20, "only {count} rows were written");
        // Also of a node that dies, and of what it reads back.
        let victim = cluster.leader().await?;
        cluster.nodes.node(victim).kill()?;
        let other = cluster.sql(victim % NODES + 1);
        holds(&puts, last.0, last.1, other).await?;
        let before = ids(other).await?;
        cluster.nodes.node(victim).start()?;
        cluster.whole().await?;
        holds(&puts, last.0, last.1, cluster.sql(victim)).await?;
        cluster.nodes.node(victim % NODES + 1).kill()?;
        ensure!(ids(cluster.sql(victim)).await? == before, "its rows are others");
        Ok(())
    });
}

#[test]
fn readers_see_all_rows_or_none() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for node in 1..=NODES {
            let (port, stop) = (cluster.sql(node), Arc::clone(&stop));
            readers.spawn(async move {
                let (client, mut seen) = (connect(port).await?, BTreeSet::new());
                while !stop.load(Ordering::Relaxed) {
                    seen.insert(
                        client
                            .query_one("SELECT count(*) FROM load", &[])
                            .await?
                            .get::<_, i64>(0),
                    );
                }
                anyhow::Ok(seen)
            });
        }
        let values: Vec<String> = (0..TOGETHER).map(|id| format!("({id}, 0)")).collect();
        let insert = format!("INSERT INTO load VALUES {}", values.join(","));
        for round in 0..3 * ROUNDS {
            let client = connect(cluster.sql(round % NODES + 1)).await?;
            client.batch_execute(&insert).await?;
            connect(cluster.sql((round + 1) % NODES + 1))
                .await?
                .batch_execute("TRUNCATE load")
                .await?;
        }
        stop.store(true, Ordering::Relaxed);
        let mut seen = BTreeSet::new();
        while let Some(counts) = readers.join_next().await {
            seen.extend(counts??);
        }
        ensure!(seen == BTreeSet::from([0, TOGETHER]), "counts of {seen:?}");
        Ok(())
    });
}
