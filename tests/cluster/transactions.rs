//! Transactions of several statements, between clients of different nodes: no anomaly is committed, and a node that dies
//! takes nothing half-way with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const ACCOUNTS: i64 = 20;
const EACH: i64 = 1_000;
/// Clients that transfer at a time.
const CLIENTS: u64 = 6;
/// How often what was just committed is read back.
const OWN_ROUNDS: i64 = 40;
/// A transfer, with all its tries, takes no longer than this, though a node dies.
const TRANSFER_LIMIT: Duration = Duration::from_secs(30);

async fn accounts(cluster: &Cluster) -> Result<()> {
    let client = connect(cluster.sql(1)).await?;
    let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {EACH})")).collect();
    client
        .batch_execute("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL) WITH REPLICATION = 2")
        .await?;
    client
        .batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")))
        .await?;
    Ok(())
}

async fn balance(client: &Client, id: i64) -> Result<i64> {
    let row = client
        .query_one("SELECT balance FROM accounts WHERE id = $1", &[&id])
        .await?;
    Ok(row.get(0))
}

async fn set(client: &Client, id: i64, balance: i64) -> Result<()> {
    let update = "UPDATE accounts SET balance = $2 WHERE id = $1";
    ensure!(client.execute(update, &[&id, &balance]).await? == 1, "no account {id}");
    Ok(())
}

async fn sum(client: &Client, among: &str) -> Result<i64> {
    let query = format!("SELECT CAST(sum(balance) AS BIGINT) FROM accounts {among}");
    Ok(client.query_one(&query, &[]).await?.get(0))
}

/// Whether it committed; any error but 40001 is one.
async fn commits(client: &Client) -> Result<bool> {
    match client.batch_execute("COMMIT").await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What two transactions do, one statement of each in turn, and whether the second, which commits last, may commit.
async fn lost_update(a: &Client, b: &Client) -> Result<()> {
    let (mine, theirs) = (balance(a, 1).await?, balance(b, 1).await?);
    set(a, 1, mine + 1).await?;
    set(b, 1, theirs + 1).await
}

async fn write_skew(a: &Client, b: &Client) -> Result<()> {
    let both = "WHERE id IN (2, 3)";
    let (mine, theirs) = (sum(a, both).await?, sum(b, both).await?);
    set(a, 2, mine - 1).await?;
    set(b, 3, theirs - 1).await
}

async fn write_skew_by_keys(a: &Client, b: &Client) -> Result<()> {
    let (mine, theirs) = (balance(a, 4).await?, balance(b, 5).await?);
    set(a, 5, mine).await?;
    set(b, 4, theirs).await
}

async fn phantom(a: &Client, b: &Client) -> Result<()> {
    let count = "SELECT count(*) FROM accounts WHERE balance < 0";
    for (client, id) in [(a, 100_i64), (b, 101)] {
        let found: i64 = client.query_one(count, &[]).await?.get(0);
        client
            .execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &-(found + 1)])
            .await?;
    }
    Ok(())
}

async fn removed(a: &Client, b: &Client) -> Result<()> {
    let there = balance(b, 6).await?;
    a.execute("DELETE FROM accounts WHERE id = 6", &[]).await?;
    set(b, 7, there).await
}

async fn nothing_in_common(a: &Client, b: &Client) -> Result<()> {
    let (mine, theirs) = (balance(a, 8).await?, balance(b, 9).await?);
    set(a, 8, mine + 1).await?;
    set(b, 9, theirs - 1).await
}

#[test]
fn no_anomaly_is_committed() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        accounts(&cluster).await?;
        let (a, b) = (connect(cluster.sql(1)).await?, connect(cluster.sql(2)).await?);
        // (isolation, what is done, whether both may commit)
        macro_rules! case {
            ($isolation:literal, $steps:ident, $both:expr) => {{
                let begin = concat!("BEGIN ISOLATION LEVEL ", $isolation);
                a.batch_execute(begin).await?;
                b.batch_execute(begin).await?;
                $steps(&a, &b).await?;
                ensure!(
                    commits(&a).await?,
                    "the first of two has nobody to lose to: {}",
                    stringify!($steps)
                );
                let both = commits(&b).await?;
                ensure!(
                    both == $both,
                    "{} {}: both {both}",
                    $isolation,
                    stringify!($steps)
                );
            }};
        }
        case!("SERIALIZABLE", lost_update, false);
        case!("SERIALIZABLE", write_skew, false);
        case!("SERIALIZABLE", write_skew_by_keys, false);
        case!("SERIALIZABLE", phantom, false);
        case!("SERIALIZABLE", removed, false);
        case!("SERIALIZABLE", nothing_in_common, true);
        // Snapshot isolation allows write skew, and nothing else of these.
        case!("REPEATABLE READ", lost_update, false);
        case!("REPEATABLE READ", write_skew_by_keys, true);
        case!("REPEATABLE READ", nothing_in_common, true);
        reads_that_never_were_are_not_committed(&a, &b).await?;
        what_is_committed_is_found(&cluster).await?;
        a_snapshot_stays(&a, &b).await
    });
}

/// A transaction that only reads two partitions, between which another commits, has read what never was at once.
async fn reads_that_never_were_are_not_committed(a: &Client, b: &Client) -> Result<()> {
    a.batch_execute("BEGIN").await?;
    let before = balance(a, 10).await?;
    b.batch_execute(
        "BEGIN; UPDATE accounts SET balance = balance - 5 WHERE id = 10; \
         UPDATE accounts SET balance = balance + 5 WHERE id = 11; COMMIT",
    )
    .await?;
    let after = balance(a, 11).await?;
    let is_torn = before + after != 2 * EACH;
    ensure!(is_torn, "this case shows nothing: {before} and {after}");
    ensure!(!commits(a).await?, "a fractured read was committed");
    Ok(())
}

/// READ ONLY reads one moment, whatever happens meanwhile, and always commits.
async fn a_snapshot_stays(a: &Client, b: &Client) -> Result<()> {
    a.batch_execute("BEGIN READ ONLY").await?;
    let (first, whole) = (balance(a, 12).await?, sum(a, "").await?);
    b.batch_execute("UPDATE accounts SET balance = 0; DELETE FROM accounts WHERE id = 13")
        .await?;
    ensure!(balance(a, 12).await? == first, "the snapshot moved");
    ensure!(sum(a, "").await? == whole, "the snapshot moved for a query");
    ensure!(balance(a, 13).await? == EACH, "what was removed later is not there");
    ensure!(commits(a).await?, "a READ ONLY transaction was refused");
    Ok(())
}

/// What a client was told that it had committed, in several partitions, its next transaction finds.
async fn what_is_committed_is_found(cluster: &Cluster) -> Result<()> {
    let clients = [connect(cluster.sql(1)).await?, connect(cluster.sql(2)).await?];
    for round in 1..=OWN_ROUNDS {
        for (writer, reader) in [(&clients[0], &clients[0]), (&clients[0], &clients[1])] {
            let all = format!(
                "BEGIN; UPDATE accounts SET balance = {round} WHERE id = 14; UPDATE accounts SET balance = {round} WHERE id = 15; \
                 UPDATE accounts SET balance = {round} WHERE id = 16; UPDATE accounts SET balance = {round} WHERE id = 17; COMMIT"
            );
            writer.batch_execute(&all).await?;
            for id in 14..=17 {
                reader.batch_execute("BEGIN").await?;
                let found = balance(reader, id).await?;
                ensure!(commits(reader).await?, "who read one account lost to nobody");
                ensure!(found == round, "account {id} is {found} after {round} was committed");
            }
        }
    }
    Ok(())
}

/// Moves money between two accounts until it is done, or nobody can say.
async fn transfer(client: &Client, from: i64, to: i64) -> Result<()> {
    let deadline = Instant::now() + TRANSFER_LIMIT;
    loop {
        let tried = async {
            client.batch_execute("BEGIN").await?;
            let (mine, theirs) = (balance(client, from).await?, balance(client, to).await?);
            set(client, from, mine - 1).await?;
            set(client, to, theirs + 1).await?;
            client.batch_execute("COMMIT").await?;
            Ok::<(), anyhow::Error>(())
        };
        let Err(error) = tried.await else { return Ok(()) };
        let code = error
            .downcast_ref::<tokio_postgres::Error>()
            .and_then(|error| error.code().map(|code| code.code().to_owned()));
        client.batch_execute("ROLLBACK").await?;
        match code.as_deref() {
            Some("40003") => return Ok(()),
            Some("40001" | "57P03" | "55P03") if Instant::now() < deadline => {}
            _ => bail!("{error:#}"),
        }
    }
}

#[test]
fn transfers_stay_whole_while_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        accounts(&cluster).await?;
        let victim = cluster.leader().await?;
        let others: Vec<u16> = (1..=3)
            .filter(|node| *node != victim)
            .map(|node| cluster.sql(node))
            .collect();
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for worker in 0..CLIENTS {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let client = connect(others[worker as usize % others.len()]).await?;
            tasks.spawn(async move {
                let mut step = worker as i64;
                while !stop.load(Ordering::Relaxed) {
                    // Every pair of accounts, in an order of its own for each worker.
                    step += 7;
                    let (from, to) = (step % ACCOUNTS, (step * 3 + 1) % ACCOUNTS);
                    if from != to {
                        transfer(&client, from, to).await?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok::<(), anyhow::Error>(())
            });
        }
        let reader = connect(others[0]).await?;
        let mut sums = 0;
        let began = Instant::now();
        let mut at_death = None;
        while began.elapsed() < Duration::from_secs(8) {
            if at_death.is_none() && began.elapsed() > Duration::from_secs(2) {
                cluster.nodes.node(victim).kill()?;
                at_death = Some(done.load(Ordering::Relaxed));
            }
            match sum(&reader, "").await {
                Ok(found) => ensure!(found == ACCOUNTS * EACH, "the sum is {found}"),
                Err(error) => println!("a sum was not read: {error:#}"),
            }
            sums += 1;
            sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        while let Some(worker) = tasks.join_next().await {
            worker??;
        }
        let (all, before) = (done.load(Ordering::Relaxed), at_death.unwrap_or_default());
        println!("{before} transfers before a node died, {all} in all; {sums} sums");
        ensure!(before > 0 && all > before, "transfers stopped: {before}, then {all}");
        cluster.nodes.node(victim).start()?;
        cluster.whole().await?;
        for node in 1..=3 {
            let found = sum(&connect(cluster.sql(node)).await?, "").await?;
            ensure!(found == ACCOUNTS * EACH, "node {node}: the sum is {found}");
        }
        Ok(())
    });
}

/// More rows than a program may look at, in one partition.
const MANY: i64 = 66_000;

#[test]
fn a_query_of_more_rows_than_a_program_may_look_at_is_answered_all_the_same() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute("CREATE TABLE many (p INT, k INT, PRIMARY KEY (p, k)) WITH REPLICATION = 2")
            .await?;
        for from in (0..MANY).step_by(2_000) {
            let rows: Vec<String> = (from..from + 2_000).map(|k| format!("(1, {k})")).collect();
            let insert = format!("INSERT INTO many VALUES {}", rows.join(", "));
            client.batch_execute(&insert).await?;
        }
        for sql in [1, 2, 3] {
            let client = connect(cluster.sql(sql)).await?;
            let all = "SELECT count(*), min(k), max(k) FROM many WHERE p = 1";
            for around in ["", "BEGIN"] {
                client.batch_execute(around).await?;
                let row = client.query_one(all, &[]).await?;
                ensure!(
                    row.get::<_, i64>(0) == MANY && row.get::<_, i32>(2) as i64 == MANY - 1,
                    "{row:?}"
                );
                let rows = client.query("SELECT k FROM many WHERE p = 1", &[]).await?;
                ensure!(rows.len() as i64 == MANY, "{} rows", rows.len());
                let last = client
                    .query_one("SELECT k FROM many WHERE p = 1 ORDER BY k DESC LIMIT 1", &[])
                    .await?;
                ensure!(i64::from(last.get::<_, i32>(0)) == MANY - 1, "{last:?}");
                if !around.is_empty() {
                    client.batch_execute("COMMIT").await?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_query_of_a_few_rows_conflicts_only_with_changes_of_what_it_looked_at() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let (mine, theirs) = (connect(cluster.sql(1)).await?, connect(cluster.sql(2)).await?);
        mine.batch_execute("CREATE TABLE log (p INT, k INT, v INT, PRIMARY KEY (p, k)) WITH REPLICATION = 2")
            .await?;
        mine.batch_execute("INSERT INTO log VALUES (1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 4, 4)")
            .await?;
        for (query, change, stands) in [
            (
                "SELECT sum(v) FROM log WHERE p = 1 AND k < 3",
                "UPDATE log SET v = 0 WHERE p = 1 AND k = 3",
                true,
            ),
            (
                "SELECT sum(v) FROM log WHERE p = 1 AND k < 3",
                "UPDATE log SET v = 0 WHERE p = 1 AND k = 2",
                false,
            ),
            (
                "SELECT v FROM log WHERE p = 1 ORDER BY k DESC LIMIT 1",
                "DELETE FROM log WHERE p = 1 AND k = 1",
                true,
            ),
            (
                "SELECT v FROM log WHERE p = 1 ORDER BY k DESC LIMIT 1",
                "INSERT INTO log VALUES (1, 5, 5)",
                false,
            ),
        ] {
            mine.batch_execute("BEGIN").await?;
            mine.query(query, &[]).await?;
            theirs.batch_execute(change).await?;
            mine.batch_execute("INSERT INTO log VALUES (1, 99, 0)").await?;
            ensure!(commits(&mine).await? == stands, "{query}, then {change}");
            theirs.batch_execute("DELETE FROM log WHERE p = 1 AND k = 99").await?;
        }
        Ok(())
    });
}
