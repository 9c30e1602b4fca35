//! Materialized views made, and read, while clients write on every node and one of them dies: at any moment they have what
//! their queries give.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cluster::Cluster;
use crate::numbers::Numbers;
use crate::{WHOLE, alone, block_on, connect};

const NODES: u32 = 3;
const WRITERS: u32 = 6;
/// Rows from before the views, so that they take a while.
const ROWS: u64 = 6_000;
/// Rows of one INSERT.
const TOGETHER: u64 = 250;
const CUSTOMERS: u64 = 40;
const READ_FOR: Duration = Duration::from_secs(2);

/// (view, the query that it is): of one partition a group, of all, and without groups.
const VIEWS: [(&str, &str); 3] = [
    (
        "by_customer",
        "SELECT customer, count(*) AS trades, count(amount) AS amounts, sum(amount) AS total, min(amount) AS least, \
         max(amount) AS most, avg(price) AS price FROM trades WHERE kind <> 2 GROUP BY customer",
    ),
    (
        "by_kind",
        "SELECT kind, count(*) AS trades, sum(amount * price) AS turnover, avg(amount) AS average, min(price) AS least, \
         max(customer) AS last FROM trades GROUP BY kind HAVING count(*) > 1",
    ),
    (
        "totals",
        "SELECT count(*) AS trades, sum(amount) AS total, max(price) AS most FROM trades WHERE amount > 100",
    ),
];

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    written: AtomicU64,
}

impl Numbers {
    /// The values of a row behind its key.
    fn values(&mut self) -> String {
        let amount = match self.below(8) {
            0 => "NULL".to_owned(),
            _ => self.below(500).to_string(),
        };
        let (kind, cents) = (self.below(5), self.below(10_000));
        format!("{kind}, {amount}, {}.{:02}", cents / 100, cents % 100)
    }
}

/// Writes by single statements and by blocks until told to stop, on one node as long as it answers.
async fn write(port: u16, writer: u32, load: Arc<Load>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(u64::from(writer));
    let mut id = u64::from(writer) * 10_000_000;
    while !load.stop.load(Ordering::Relaxed) {
        id += 1;
        let customer = numbers.below(CUSTOMERS);
        let old = numbers.below(ROWS);
        let insert = format!("INSERT INTO trades VALUES ({customer}, {id}, {})", numbers.values());
        let statement = match numbers.below(6) {
            0 => format!(
                "BEGIN; {insert}; DELETE FROM trades WHERE customer = {} AND id = {old}; COMMIT",
                old % CUSTOMERS
            ),
            1 => format!(
                "UPDATE trades SET amount = {} WHERE customer = {} AND id = {old}",
                numbers.below(500),
                old % CUSTOMERS
            ),
            2 => format!(
                "UPDATE trades SET kind = {} WHERE id % 500 = {}",
                numbers.below(5),
                numbers.below(500)
            ),
            3 => format!(
                "DELETE FROM trades WHERE customer = {customer} AND amount < {}",
                numbers.below(20)
            ),
            _ => insert,
        };
        match client.batch_execute(&statement).await {
            Ok(()) => drop(load.written.fetch_add(1, Ordering::Relaxed)),
            Err(error) if client.is_closed() => return Err(error.into()),
            // Conflicts, and what met the death of a node.
            Err(_) => drop(client.batch_execute("ROLLBACK").await),
        }
    }
    Ok(())
}

async fn rows(client: &Client, query: &str) -> Result<Vec<Vec<Option<String>>>> {
    let answers = client.simple_query(query).await?;
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// Every view has what its query gives, of one moment; true: it could be read.
async fn check(client: &Client) -> Result<bool> {
    if client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .is_err()
    {
        return Ok(false);
    }
    for (view, query) in VIEWS {
        let order = if view == "totals" { "" } else { "ORDER BY 1" };
        let found = rows(client, &format!("SELECT * FROM {view} {order}")).await;
        let expected = rows(client, &format!("SELECT * FROM ({query}) AS q {order}")).await;
        let (Ok(found), Ok(expected)) = (found, expected) else {
            let _ = client.batch_execute("ROLLBACK").await;
            return Ok(false);
        };
        ensure!(found == expected, "{view}: {found:?} is not {expected:?}");
        ensure!(!found.is_empty(), "{view} is empty");
    }
    client.batch_execute("COMMIT").await?;
    Ok(true)
}

/// Reads for a while; returns how often it could.
async fn read(port: u16) -> Result<u32> {
    let client = connect(port).await?;
    let until = Instant::now() + READ_FOR;
    let mut read = 0;
    while Instant::now() < until {
        read += u32::from(check(&client).await?);
    }
    Ok(read)
}

#[test]
fn materialized_views_have_at_any_moment_what_their_queries_give() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let table = "CREATE TABLE trades (customer BIGINT, id BIGINT, kind INT, amount INT, price NUMERIC(10, 2), \
                     PRIMARY KEY (customer, id)) WITH REPLICATION = 1";
        client.batch_execute(table).await?;
        let mut numbers = Numbers(17);
        for chunk in 0..ROWS / TOGETHER {
            let rows = (0..TOGETHER).map(|row| chunk * TOGETHER + row);
            let rows: Vec<String> = rows
                .map(|id| format!("({}, {id}, {})", id % CUSTOMERS, numbers.values()))
                .collect();
            let insert = format!("INSERT INTO trades VALUES {}", rows.join(","));
            client.batch_execute(&insert).await?;
        }
        let load = Arc::new(Load::default());
        let mut writers = JoinSet::new();
        for writer in 1..=WRITERS {
            let port = cluster.sql(writer % NODES + 1);
            writers.spawn(write(port, writer, Arc::clone(&load)));
        }
        for (node, (view, query)) in (1..).zip(VIEWS) {
            let client = connect(cluster.sql(node)).await?;
            let create = format!("CREATE MATERIALIZED VIEW {view} AS {query}");
            client.batch_execute(&create).await?;
        }
        let under_load = read(cluster.sql(1)).await?;
        ensure!(under_load > 0, "no view could be read while others wrote");
        cluster.nodes.node(2).kill()?;
        sleep(Duration::from_millis(300)).await;
        let after_death = read(cluster.sql(3)).await?;
        ensure!(after_death > 0, "no view could be read after a node's death");
        cluster.nodes.node(2).start()?;
        cluster.whole().await?;
        load.stop.store(true, Ordering::Relaxed);
        // Those of the node that died have ended.
        while let Some(ended) = writers.join_next().await {
            drop(ended?);
        }
        let written = load.written.load(Ordering::Relaxed);
        ensure!(written > 100, "only {written} statements were written");
        // Each node's own replicas have them, also those that come up from their logs.
        for node in 1..=NODES {
            cluster.nodes.node(node).kill()?;
        }
        for node in 1..=NODES {
            cluster.nodes.node(node).start()?;
        }
        cluster.whole().await?;
        let deadline = Instant::now() + WHOLE;
        while !check(&connect(cluster.sql(2)).await?).await? {
            ensure!(Instant::now() < deadline, "the views can't be read after a restart");
            sleep(Duration::from_millis(100)).await;
        }
        println!("{written} statements; views read {under_load} times under load, {after_death} after a death");
        Ok(())
    });
}
