//! A replicated table while clients write it on every node and one of them dies: whichever partition is asked, it has every
//! write that was acknowledged, and each as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::numbers::Numbers;
use crate::{WHOLE, alone, block_on, connect};

const NODES: u32 = 3;
const SHARES: u64 = 10;
const EACH: i64 = 100;
/// The one row that only grows.
const TURN: i64 = 0;
/// Keys of a partitioned table, enough to come to every partition.
const KEYS: u64 = 200;
const LOADED_FOR: Duration = Duration::from_secs(3);

const SETUP: [&str; 4] = [
    "CREATE TABLE shares (id BIGINT PRIMARY KEY, amount BIGINT CHECK (amount >= 0)) REPLICATED WITH REPLICATION = 1",
    "CREATE TABLE asked (id BIGINT PRIMARY KEY) WITH REPLICATION = 1",
    "CREATE PROCEDURE look(p BIGINT, OUT turn BIGINT, OUT total BIGINT) PARTITION ON TABLE asked COLUMN id AS $$ \
     DECLARE r RECORD; BEGIN total := 0; FOR r IN SELECT * FROM shares LOOP \
     IF r.id = 0 THEN turn := r.amount; ELSE total := total + r.amount; END IF; END LOOP; END $$",
    "CREATE PROCEDURE move(a BIGINT, b BIGINT, n BIGINT) AS $$ BEGIN \
     UPDATE shares SET amount = amount - n WHERE id = a; UPDATE shares SET amount = amount + n WHERE id = b; END $$",
];

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    moved: AtomicI64,
    looked: AtomicI64,
    /// Of the row that grows: what was acknowledged.
    turn: AtomicI64,
}

/// Moves amounts by procedures and by blocks, on one node as long as it answers.
async fn moves(port: u16, seed: u64, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(seed);
    while !load.stop.load(Ordering::Relaxed) {
        let (from, to) = (numbers.below(SHARES) + 1, numbers.below(SHARES) + 1);
        let amount = numbers.below(20);
        let statement = match numbers.below(3) {
            0 => format!(
                "BEGIN; UPDATE shares SET amount = amount - {amount} WHERE id = {from}; \
                 UPDATE shares SET amount = amount + {amount} WHERE id = {to}; COMMIT"
            ),
            _ => format!("CALL move({from}, {to}, {amount})"),
        };
        match client.batch_execute(&statement).await {
            Ok(()) => drop(load.moved.fetch_add(1, Ordering::Relaxed)),
            Err(_) if client.is_closed() => return Ok(()),
            // Nothing left to move, conflicts, and what met the death of a node.
            Err(_) => drop(client.batch_execute("ROLLBACK").await),
        }
    }
    Ok(())
}

/// Lets the one row grow.
async fn grow(port: u16, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    while !load.stop.load(Ordering::Relaxed) {
        let grown = client
            .query_one(
                "UPDATE shares SET amount = amount + 1 WHERE id = 0 RETURNING amount",
                &[],
            )
            .await;
        match grown {
            Ok(row) => drop(load.turn.fetch_max(row.get(0), Ordering::SeqCst)),
            Err(error) => ensure!(!client.is_closed(), "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What the partition of a key has: (the row that grows, the sum of the others).
async fn look(client: &Client, key: u64) -> Result<(i64, i64), tokio_postgres::Error> {
    let row = client.query_one("CALL look($1, NULL, NULL)", &[&(key as i64)]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Looks into partitions at random.
async fn looks(port: u16, seed: u64, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(seed);
    while !load.stop.load(Ordering::Relaxed) {
        let acknowledged = load.turn.load(Ordering::SeqCst);
        match look(&client, numbers.below(KEYS)).await {
            Ok((turn, total)) => {
                ensure!(turn >= acknowledged, "{turn} was seen behind {acknowledged}");
                ensure!(total == SHARES as i64 * EACH, "{total} is the sum of what others move");
                load.looked.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) if client.is_closed() => return Ok(()),
            Err(_) => {}
        }
    }
    Ok(())
}

#[test]
fn a_replicated_table_is_the_same_in_every_partition_while_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        for statement in SETUP {
            client.batch_execute(statement).await.context(statement)?;
        }
        let rows: Vec<String> = (1..=SHARES).map(|id| format!("({id}, {EACH})")).collect();
        let insert = format!("INSERT INTO shares VALUES ({TURN}, 0), {}", rows.join(","));
        client.batch_execute(&insert).await?;
        let load = Arc::new(Load::default());
        let mut clients = JoinSet::new();
        clients.spawn(grow(cluster.sql(1), Arc::clone(&load)));
        for node in 1..=NODES {
            let port = cluster.sql(node);
            clients.spawn(moves(port, u64::from(node), Arc::clone(&load)));
            clients.spawn(looks(port, u64::from(node), Arc::clone(&load)));
        }
        sleep(LOADED_FOR).await;
        cluster.nodes.node(2).kill()?;
        sleep(LOADED_FOR).await;
        cluster.nodes.node(2).start()?;
        cluster.whole().await?;
        load.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        let (moved, looked) = (load.moved.load(Ordering::Relaxed), load.looked.load(Ordering::Relaxed));
        println!(
            "{moved} moves, {looked} looks, {} turns",
            load.turn.load(Ordering::Relaxed)
        );
        ensure!(moved > 20 && looked > 100, "{moved} moves, {looked} looks");
        every_copy_is_the_same(&cluster, load.turn.load(Ordering::Relaxed)).await?;
        // And so they are when they come up from their logs.
        for node in 1..=NODES {
            cluster.nodes.node(node).kill()?;
        }
        for node in 1..=NODES {
            cluster.nodes.node(node).start()?;
        }
        cluster.whole().await?;
        every_copy_is_the_same(&cluster, load.turn.load(Ordering::Relaxed)).await
    });
}

/// Every partition is asked, through every node.
async fn every_copy_is_the_same(cluster: &Cluster, acknowledged: i64) -> Result<()> {
    let mut first = None;
    for key in 0..KEYS {
        let client = connect(cluster.sql(key as u32 % NODES + 1)).await?;
        let deadline = Instant::now() + WHOLE;
        let found = loop {
            match look(&client, key).await {
                Ok(found) => break found,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        ensure!(
            found.0 >= acknowledged,
            "{acknowledged} was acknowledged, {} is there",
            found.0
        );
        let first = first.get_or_insert(found);
        ensure!(
            *first == found,
            "{first:?} in one partition, {found:?} in that of key {key}"
        );
    }
    Ok(())
}
