//! A unique index made while clients write on every node, and held to when a node dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::numbers::Numbers;
use crate::{alone, block_on, connect};

const NODES: u32 = 3;
const WRITERS: u32 = 6;
/// Rows from before the index, so that it takes a while.
const ROWS: i64 = 3_000;
/// Rows of one INSERT.
const TOGETHER: i64 = 250;
/// Customers: each has its rows in one partition.
const CUSTOMERS: u64 = 5;
/// Values while the index is made: few are the same.
const MANY: i64 = 5_000_000;
/// And afterwards: most are taken.
const FEW: i64 = 300;
/// A value may be there twice before the index binds: then it is asked for again.
const TRIES: u32 = 5;
const CONTEND_FOR: Duration = Duration::from_secs(1);

/// What all writers share.
struct Load {
    range: AtomicI64,
    stop: AtomicBool,
    written: AtomicU64,
    refused: AtomicU64,
}

/// Writes by single statements and by blocks until told to stop, on one node as long as it answers.
async fn write(port: u16, writer: u32, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(u64::from(writer));
    let mut id = i64::from(writer) * 10_000_000;
    while !load.stop.load(Ordering::Relaxed) {
        id += 1;
        let customer = numbers.below(CUSTOMERS);
        let value = numbers.below(load.range.load(Ordering::Relaxed) as u64);
        let insert = format!("INSERT INTO parcels VALUES ({customer}, {id}, {value})");
        let statement = match numbers.below(4) {
            0 => format!(
                "BEGIN; {insert}; UPDATE parcels SET code = code WHERE customer = {customer} AND id = {id}; COMMIT"
            ),
            1 => format!(
                "UPDATE parcels SET code = {value} WHERE customer = {customer} AND id = {}",
                id - 2
            ),
            _ => insert,
        };
        match client.batch_execute(&statement).await {
            Ok(()) => drop(load.written.fetch_add(1, Ordering::Relaxed)),
            Err(error) if client.is_closed() => return Err(error.into()),
            Err(error) => {
                let code = error.code().cloned();
                load.refused
                    .fetch_add(u64::from(code == Some(SqlState::UNIQUE_VIOLATION)), Ordering::Relaxed);
                // After a failed block.
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }
    Ok(())
}

async fn create(cluster: &Cluster) -> Result<()> {
    for attempt in 0..TRIES {
        let client = connect(cluster.sql(attempt % NODES + 1)).await?;
        match client
            .batch_execute("CREATE UNIQUE INDEX one_code ON parcels (customer, code)")
            .await
        {
            Ok(()) => return Ok(()),
            Err(error) => {
                ensure!(error.code() == Some(&SqlState::UNIQUE_VIOLATION), "{error:?}");
                client.batch_execute("DELETE FROM parcels WHERE id >= 10000000").await?;
            }
        }
    }
    anyhow::bail!("values were there twice {TRIES} times")
}

/// No value is there twice, and the index finds what a walk over all rows finds.
async fn check(port: u16) -> Result<()> {
    let client = connect(port).await?;
    let twice = "SELECT customer, code FROM parcels GROUP BY customer, code HAVING count(*) > 1";
    let twice = client.query(twice, &[]).await?;
    ensure!(twice.is_empty(), "{} values are there twice", twice.len());
    for customer in 0..CUSTOMERS as i64 {
        let by_index = "SELECT id FROM parcels WHERE customer = $1 AND code >= 10 AND code < 60 ORDER BY id";
        let by_walk = "SELECT id FROM parcels WHERE customer = $1 AND code + 0 >= 10 AND code + 0 < 60 ORDER BY id";
        let plan = client
            .query("EXPLAIN SELECT id FROM parcels WHERE customer = 1 AND code >= 10", &[])
            .await?;
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        ensure!(plan.iter().any(|line| line.contains("secondary index")), "{plan:?}");
        let ids = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>();
        // Of one moment, for the writers go on.
        client.batch_execute("BEGIN READ ONLY").await?;
        let found = ids(client.query(by_index, &[&customer]).await?);
        let expected = ids(client.query(by_walk, &[&customer]).await?);
        client.batch_execute("COMMIT").await?;
        ensure!(found == expected && !found.is_empty(), "{found:?} is not {expected:?}");
    }
    Ok(())
}

#[test]
fn a_unique_index_is_made_while_clients_write_and_outlives_a_node() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let table = "CREATE TABLE parcels (customer BIGINT, id BIGINT, code BIGINT, PRIMARY KEY (customer, id)) WITH REPLICATION = 1";
        client.batch_execute(table).await?;
        for chunk in 0..ROWS / TOGETHER {
            let rows = (0..TOGETHER).map(|row| chunk * TOGETHER + row);
            let rows: Vec<String> = rows
                .map(|id| format!("({}, {id}, {})", id % CUSTOMERS as i64, -id - 1))
                .collect();
            client
                .batch_execute(&format!("INSERT INTO parcels VALUES {}", rows.join(",")))
                .await?;
        }
        let load = Arc::new(Load {
            range: AtomicI64::new(MANY),
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut writers = JoinSet::new();
        for writer in 1..=WRITERS {
            writers.spawn(write(cluster.sql(writer % NODES + 1), writer, Arc::clone(&load)));
        }
        sleep(Duration::from_millis(300)).await;
        create(&cluster).await?;
        load.range.store(FEW, Ordering::Relaxed);
        sleep(CONTEND_FOR).await;
        check(cluster.sql(2)).await?;
        let victim = cluster.leader().await?;
        cluster.nodes.node(victim).kill()?;
        sleep(CONTEND_FOR).await;
        check(cluster.sql(victim % NODES + 1)).await?;
        cluster.nodes.node(victim).start()?;
        cluster.whole().await?;
        // What came back has its indexes too.
        cluster.nodes.node(victim % NODES + 1).kill()?;
        sleep(CONTEND_FOR).await;
        load.stop.store(true, Ordering::Relaxed);
        let mut survivors = 0;
        while let Some(ended) = writers.join_next().await {
            survivors += u32::from(ended?.is_ok());
        }
        check(cluster.sql(victim)).await.context("at the node that came back")?;
        let (written, refused) = (
            load.written.load(Ordering::Relaxed),
            load.refused.load(Ordering::Relaxed),
        );
        println!("{written} written, {refused} refused, {survivors} clients to the end");
        ensure!(written > 500 && refused > 100, "{written} written, {refused} refused");
        Ok(())
    });
}
