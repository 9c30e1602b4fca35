//! Stored procedures called by many clients at once while a node dies: atomic, none that was acknowledged lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::{Client, Statement};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const ACCOUNTS: i64 = 20;
const EACH: i64 = 1_000;
const CLIENTS: u64 = 6;
/// A call is tried again for so long.
const CALL_LIMIT: Duration = Duration::from_secs(20);

const TABLES: &str = "
    CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL) WITH REPLICATION = 2;
    CREATE TABLE entries (account BIGINT, client BIGINT, number BIGINT, PRIMARY KEY (account, client, number)) WITH REPLICATION = 2";

/// In one partition: an entry, and the account's balance with it.
const BOOK: &str = "
    CREATE PROCEDURE book(which BIGINT, who BIGINT, n BIGINT, OUT total BIGINT) PARTITION ON TABLE accounts COLUMN id AS $$
    DECLARE
      found_one BIGINT;
    BEGIN
      INSERT INTO entries VALUES (which, who, n);
      UPDATE accounts SET balance = balance + 1 WHERE id = which;
      SELECT count(*) INTO found_one FROM entries WHERE account = which AND client = who AND number = n;
      SELECT balance INTO STRICT total FROM accounts WHERE id = which;
      IF found_one <> 1 THEN
        RAISE EXCEPTION 'its own entry is not there';
      END IF;
    END $$";

/// Over two partitions.
const TRANSFER: &str = "
    CREATE PROCEDURE transfer(source BIGINT, target BIGINT) AS $$
    DECLARE
      has BIGINT;
    BEGIN
      SELECT balance INTO has FROM accounts WHERE id = source;
      UPDATE accounts SET balance = has - 1 WHERE id = source;
      UPDATE accounts SET balance = balance + 1 WHERE id = target;
    END $$";

/// Whether the call was acknowledged; false: nobody can say.
async fn call(client: &Client, statement: &Statement, arguments: &[i64]) -> Result<bool> {
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| argument as &(dyn tokio_postgres::types::ToSql + Sync))
        .collect();
    let deadline = Instant::now() + CALL_LIMIT;
    loop {
        let Err(error) = client.query(statement, &arguments).await else {
            return Ok(true);
        };
        match error.code().map(|code| code.code()) {
            Some("40003") => return Ok(false),
            Some("40001" | "57P03" | "55P03") if Instant::now() < deadline => {}
            _ => bail!("{error:?}"),
        }
    }
}

/// Books and transfers until it is told to stop: the entries that were acknowledged, and how many may be there besides.
async fn work(client: Client, who: i64, stop: Arc<AtomicBool>) -> Result<(BTreeSet<(i64, i64, i64)>, usize)> {
    let book = client.prepare("CALL book($1, $2, $3, NULL)").await?;
    let transfer = client.prepare("CALL transfer($1, $2)").await?;
    let (mut booked, mut unknown) = (BTreeSet::new(), 0);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let account = (who * 7 + number * 3) % ACCOUNTS;
        if call(&client, &book, &[account, who, number]).await? {
            booked.insert((account, who, number));
        } else {
            unknown += 1;
        }
        let other = (account + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
        if other != account {
            call(&client, &transfer, &[account, other]).await?;
        }
    }
    Ok((booked, unknown))
}

#[test]
fn calls_are_whole_and_none_is_lost_while_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute(TABLES).await?;
        let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {EACH})")).collect();
        client
            .batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")))
            .await?;
        cluster.whole().await?;
        client.batch_execute(BOOK).await?;
        client.batch_execute(TRANSFER).await?;
        let victim = cluster.leader().await?;
        let others: Vec<u32> = (1..=3).filter(|node| *node != victim).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for who in 0..CLIENTS {
            let client = connect(cluster.sql(others[who as usize % others.len()])).await?;
            tasks.spawn(work(client, who as i64, Arc::clone(&stop)));
        }
        sleep(Duration::from_secs(2)).await;
        cluster.nodes.node(victim).kill()?;
        sleep(Duration::from_secs(4)).await;
        stop.store(true, Ordering::Relaxed);
        let (mut booked, mut unknown) = (BTreeSet::new(), 0);
        while let Some(worked) = tasks.join_next().await {
            let (entries, lost) = worked??;
            booked.extend(entries);
            unknown += lost;
        }
        cluster.nodes.node(victim).start()?;
        cluster.whole().await?;
        println!("{} calls acknowledged, {unknown} of which nobody can say", booked.len());
        ensure!(booked.len() > 100, "few calls came through: {}", booked.len());
        for node in 1..=3 {
            check(&connect(cluster.sql(node)).await?, &booked, unknown).await?;
        }
        let statistics = connect(cluster.sql(others[0])).await?;
        let calls = "SELECT calls FROM system.procedures WHERE name = 'book'";
        let calls: i64 = statistics.query_one(calls, &[]).await?.get(0);
        ensure!(calls > 50, "{calls} calls were counted");
        Ok(())
    });
}

/// Every entry that was acknowledged is there, and money was made by entries alone.
async fn check(client: &Client, booked: &BTreeSet<(i64, i64, i64)>, unknown: usize) -> Result<()> {
    let rows = client.query("SELECT account, client, number FROM entries", &[]).await?;
    let there: BTreeSet<(i64, i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let lost: Vec<_> = booked.difference(&there).collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    ensure!(there.len() <= booked.len() + unknown, "entries that nobody made");
    let sum = "SELECT CAST(sum(balance) AS BIGINT) FROM accounts";
    let sum: i64 = client.query_one(sum, &[]).await?.get(0);
    let expected = ACCOUNTS * EACH + there.len() as i64;
    ensure!(sum == expected, "the balances are {sum}, by the entries {expected}");
    Ok(())
}
