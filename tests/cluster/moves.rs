//! Tables that share their partitions get others, while clients read and write them and nodes die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::load::{Load, run_for};
use crate::{alone, block_on, connect, connect_to_whole};

const ACCOUNTS: i64 = 400;
const EACH_HAS: i64 = 100;
/// A client that gets no answer within this has lost its node.
const ANSWERS_WITHIN: Duration = Duration::from_secs(12);
/// A node knows by then what another one's client was told.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// A table has moved by then, whoever died.
const MOVES_WITHIN: Duration = Duration::from_secs(60);

/// Clients that go on until they are told to stop; what they see wrong is their error.
struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<u64>>>,
}

impl Clients {
    fn start(ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for first in 0..ports.len() {
            let mut ports = ports.to_vec();
            ports.rotate_left(first);
            tasks.push(tokio::spawn(transfer(ports.clone(), first as i64, Arc::clone(&stop))));
            tasks.push(tokio::spawn(sum(ports.clone(), Arc::clone(&stop))));
        }
        tasks.push(tokio::spawn(count(ports.to_vec(), Arc::clone(&stop))));
        tasks.push(tokio::spawn(count_backups(ports.to_vec(), Arc::clone(&stop))));
        Self { stop, tasks }
    }

    /// The steps that all of them have made.
    async fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut steps = Vec::new();
        for task in self.tasks {
            steps.push(task.await??);
        }
        Ok(steps)
    }
}

/// A session with one of these nodes, another one at each try.
async fn any(ports: &mut [u16]) -> Client {
    loop {
        ports.rotate_left(1);
        if let Ok(Ok(client)) = timeout(ANSWERS_WITHIN, connect(ports[0])).await {
            return client;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Moves money between accounts, most of them in different partitions.
async fn transfer(mut ports: Vec<u16>, seed: i64, stop: Arc<AtomicBool>) -> Result<u64> {
    let (mut client, mut steps) = (any(&mut ports).await, 0);
    while !stop.load(Ordering::Relaxed) {
        steps += 1;
        let from = 1 + (seed * 131 + steps as i64 * 7) % ACCOUNTS;
        let to = 1 + (from + 13 + steps as i64 % 17) % ACCOUNTS;
        let update = format!(
            "UPDATE accounts SET balance = balance + CASE WHEN id = {from} THEN -1 ELSE 1 END WHERE id IN ({from}, {to})"
        );
        let done = timeout(ANSWERS_WITHIN, client.batch_execute(&update)).await;
        if !matches!(done, Ok(Ok(()))) {
            client = any(&mut ports).await;
        }
    }
    Ok(steps)
}

/// At every moment there is as much money as there was.
async fn sum(mut ports: Vec<u16>, stop: Arc<AtomicBool>) -> Result<u64> {
    let (mut client, mut steps) = (any(&mut ports).await, 0);
    while !stop.load(Ordering::Relaxed) {
        let read = client.query_one("SELECT sum(balance)::BIGINT, count(*) FROM accounts", &[]);
        let Ok(Ok(row)) = timeout(ANSWERS_WITHIN, read).await else {
            client = any(&mut ports).await;
            continue;
        };
        let seen: (Option<i64>, i64) = (row.get(0), row.get(1));
        ensure!(seen == (Some(ACCOUNTS * EACH_HAS), ACCOUNTS), "{seen:?} was seen");
        steps += 1;
    }
    Ok(steps)
}

/// Backups show rows of different moments, and never a part of a table.
async fn count_backups(mut ports: Vec<u16>, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        let client = any(&mut ports).await;
        let reads = client.batch_execute("SET volt.read_from = 'backup'");
        let mut goes_on = matches!(timeout(ANSWERS_WITHIN, reads).await, Ok(Ok(())));
        while goes_on && !stop.load(Ordering::Relaxed) {
            let read = client.query_one("SELECT count(*) FROM accounts", &[]);
            let Ok(Ok(row)) = timeout(ANSWERS_WITHIN, read).await else {
                goes_on = false;
                continue;
            };
            let seen: i64 = row.get(0);
            ensure!(seen == ACCOUNTS, "a backup showed {seen} accounts");
            steps += 1;
        }
    }
    Ok(steps)
}

/// Whoever is told of a write sees it, at whatever node he asks then, and no version is less than one before.
async fn count(mut ports: Vec<u16>, stop: Arc<AtomicBool>) -> Result<u64> {
    let (mut known, mut known_version, mut steps) = (0_i64, 0_i64, 0);
    while !stop.load(Ordering::Relaxed) {
        let client = any(&mut ports).await;
        for _ in 0..20 {
            let read = client.query_one("SELECT n, _version FROM counters WHERE id = 1", &[]);
            let Ok(Ok(row)) = timeout(ANSWERS_WITHIN, read).await else {
                break;
            };
            let (seen, version): (i64, i64) = (row.get(0), row.get(1));
            ensure!(seen >= known, "{seen} was seen after {known}");
            ensure!(
                version >= known_version,
                "version {version} was seen after {known_version}"
            );
            (known, known_version) = (seen, version);
            let write = client.query_one("UPDATE counters SET n = n + 1 WHERE id = 1 RETURNING n", &[]);
            let Ok(Ok(row)) = timeout(ANSWERS_WITHIN, write).await else {
                break;
            };
            ensure!(row.get::<_, i64>(0) == seen + 1, "nobody else counts");
            (known, steps) = (seen + 1, steps + 1);
        }
    }
    Ok(steps)
}

/// Who is told that an UPDATE of one row was done, once, by a key.
async fn keyed(client: &Client) -> Result<i64> {
    let update = "/* volt.idempotency_key = 'moved' */ UPDATE counters SET n = n + 1 WHERE id = 2";
    ensure!(client.execute(update, &[]).await? == 1);
    let row = client.query_one("SELECT n FROM counters WHERE id = 2", &[]).await?;
    Ok(row.get(0))
}

async fn has_become(port: u16, table: &str, wanted: (i32, &str)) -> Result<()> {
    let client = connect(port).await?;
    let query =
        "SELECT t.replication, t.mode, (SELECT count(*) FROM system.moves) FROM system.tables t WHERE name = $1";
    let limit = Instant::now() + KNOWN_WITHIN;
    loop {
        let row = client.query_one(query, &[&table]).await?;
        let is: (i32, String, i64) = (row.get(0), row.get(1), row.get(2));
        if (is.0, is.1.as_str(), is.2) == (wanted.0, wanted.1, 0) {
            return Ok(());
        }
        ensure!(Instant::now() < limit, "{table} is {is:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn set(port: u16, table: &str, what: &str) -> Result<()> {
    let client = connect(port).await?;
    let alter = format!("ALTER TABLE {table} SET ({what})");
    timeout(MOVES_WITHIN, client.batch_execute(&alter))
        .await
        .with_context(|| alter.clone())??;
    Ok(())
}

#[test]
fn a_table_gets_other_partitions_while_it_is_used_and_nodes_die() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute(
                "CREATE TABLE stays (id BIGINT PRIMARY KEY) WITH REPLICATION = 2;
                 CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner INT, balance BIGINT) WITH REPLICATION = 2;
                 CREATE INDEX accounts_owner ON accounts (owner);
                 CREATE TABLE counters (id BIGINT PRIMARY KEY, n BIGINT) WITH REPLICATION = 2;
                 INSERT INTO counters VALUES (1, 0), (2, 0)",
            )
            .await?;
        let values: Vec<String> = (1..=ACCOUNTS)
            .map(|id| format!("({id}, {}, {EACH_HAS})", id % 7))
            .collect();
        client
            .batch_execute(&format!("INSERT INTO accounts VALUES {}", values.join(",")))
            .await?;
        client
            .batch_execute("CREATE MATERIALIZED VIEW owners AS SELECT owner, count(*) AS n, sum(balance) AS total FROM accounts GROUP BY owner")
            .await?;
        ensure!(keyed(&client).await? == 1);
        let (load, clients) = (Load::start(&cluster.sql_ports), Clients::start(&cluster.sql_ports));
        let some = Duration::from_millis(500);

        for (table, what, becomes) in [
            ("counters", "replication = 1", (1, "sync")),
            ("accounts", "mode = 'semi_sync'", (2, "semi_sync")),
            ("load", "replication = 1", (1, "sync")),
            ("counters", "replication = 2", (2, "sync")),
        ] {
            run_for(&load, some).await?;
            set(cluster.sql(1), table, what).await?;
            has_become(cluster.sql(2), table, becomes).await?;
            // Wherever the table lies, it is known what has happened.
            ensure!(
                keyed(&connect(cluster.sql(3)).await?).await? == 1,
                "it has happened twice"
            );
        }

        // A node dies while its partitions are copied, and comes back.
        for (table, what, becomes) in [
            ("load", "replication = 2", (2, "sync")),
            ("accounts", "mode = 'sync', replication = 1", (1, "sync")),
        ] {
            let port = cluster.sql(1);
            let moving = tokio::spawn(async move { set(port, table, what).await });
            sleep(Duration::from_millis(300)).await;
            cluster.nodes.node(3).kill()?;
            moving.await??;
            has_become(cluster.sql(2), table, becomes).await?;
            run_for(&load, some).await?;
            cluster.nodes.node(3).start()?;
            cluster.whole().await?;
        }

        let (told, steps) = (load.stop().await, clients.stop().await?);
        println!("steps of the clients: {steps:?}");
        ensure!(
            steps.iter().all(|steps| *steps > 10),
            "somebody was not served: {steps:?}"
        );
        told.assert_all_there(cluster.sql(2)).await?;
        let client = connect_to_whole(cluster.sql(3)).await?;
        let query = "SELECT o.owner, o.n, o.total::BIGINT FROM owners o ORDER BY 1";
        let view: Vec<(i32, i64, i64)> = rows(&client, query).await?;
        let query = "SELECT owner, count(*), sum(balance)::BIGINT FROM accounts GROUP BY owner ORDER BY 1";
        ensure!(view == rows(&client, query).await?, "the view is {view:?}");
        let by_index = client.query("SELECT id FROM accounts WHERE owner = 3", &[]).await?;
        ensure!(
            by_index.len() as i64 == view[3].1,
            "the index has {} rows",
            by_index.len()
        );
        Ok(())
    });
}

async fn rows(client: &Client, query: &str) -> Result<Vec<(i32, i64, i64)>> {
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// A block that has read `beside`, of the partitions to which `moved` goes.
async fn begun(port: u16, begin: &str) -> Result<Client> {
    let client = connect(port).await?;
    client.batch_execute(begin).await?;
    let beside = client.query_one("SELECT n FROM beside WHERE id = 3", &[]).await?;
    ensure!(beside.get::<_, i64>(0) == 3);
    Ok(client)
}

/// Whether the block was shown the table, all of it; otherwise it was told to run again.
async fn is_shown(client: &Client, query: &str, wanted: i64) -> Result<bool> {
    match client.query(query, &[]).await {
        Ok(rows) => {
            let seen: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            ensure!(seen == [wanted], "{query} gave {seen:?}");
            Ok(true)
        }
        Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn a_block_that_began_before_its_table_moved_is_not_shown_a_part_of_it() {
    const ROWS: i64 = 3_000;
    const LEVELS: [&str; 3] = ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN"];
    // The whole of the table by a scan, a row by its key, a row by an index; of a serializable block, which takes a partition's
    // snapshot when it first reads there, the key that lies with what it has read.
    let queries = [
        ("SELECT count(*) FROM moved", ROWS),
        ("SELECT n FROM moved WHERE id = 3", 3),
        ("SELECT n FROM moved WHERE n = 77", 77),
    ];
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, {id})")).collect();
        client
            .batch_execute(&format!(
                "CREATE TABLE stays (id BIGINT PRIMARY KEY) WITH REPLICATION = 2;
                 CREATE TABLE moved (id BIGINT PRIMARY KEY, n BIGINT) WITH REPLICATION = 2;
                 CREATE INDEX moved_n ON moved (n);
                 CREATE TABLE beside (id BIGINT PRIMARY KEY, n BIGINT) WITH REPLICATION = 1;
                 INSERT INTO beside VALUES (3, 3);
                 INSERT INTO moved VALUES {}",
                rows.join(",")
            ))
            .await?;
        let mut blocks = Vec::new();
        for begin in LEVELS {
            for (query, wanted) in queries {
                blocks.push((begun(cluster.sql(2), begin).await?, query, wanted));
            }
        }
        let began_before = blocks.len();
        let port = cluster.sql(1);
        let moving = tokio::spawn(async move { set(port, "moved", "replication = 1").await });
        while !moving.is_finished() {
            let begin = LEVELS[blocks.len() % LEVELS.len()];
            let (query, wanted) = queries[blocks.len() / LEVELS.len() % queries.len()];
            blocks.push((begun(cluster.sql(3), begin).await?, query, wanted));
            sleep(Duration::from_millis(15)).await;
        }
        moving.await??;
        has_become(cluster.sql(2), "moved", (1, "sync")).await?;
        has_become(cluster.sql(3), "moved", (1, "sync")).await?;

        let mut shown = 0;
        for (at, (block, query, wanted)) in blocks.iter().enumerate() {
            let is_shown = is_shown(block, query, *wanted).await;
            let is_shown = is_shown.with_context(|| format!("block {at}"))?;
            ensure!(
                !is_shown || at >= began_before,
                "block {at} is shown what was not there then"
            );
            shown += usize::from(is_shown);
        }
        println!(
            "{} blocks, {began_before} of them from before it moved; {shown} were shown the table",
            blocks.len()
        );
        ensure!(blocks.len() > began_before + 5, "it moved at once");
        let after = begun(cluster.sql(2), LEVELS[0]).await?;
        for (query, wanted) in queries {
            ensure!(
                is_shown(&after, query, wanted).await?,
                "{query} is refused after the move"
            );
        }
        Ok(())
    });
}

#[test]
fn a_block_finds_what_it_has_written_or_is_told_to_run_again() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute(
                "CREATE TABLE stays (id BIGINT PRIMARY KEY) WITH REPLICATION = 2;
                 CREATE TABLE moved (id BIGINT PRIMARY KEY, n BIGINT) WITH REPLICATION = 2",
            )
            .await?;
        let block = connect(cluster.sql(2)).await?;
        block.batch_execute("BEGIN; INSERT INTO moved VALUES (1, 1)").await?;
        set(cluster.sql(1), "moved", "replication = 1").await?;
        has_become(cluster.sql(2), "moved", (1, "sync")).await?;
        for query in ["SELECT n FROM moved WHERE id = 1", "SELECT sum(n)::BIGINT FROM moved"] {
            block.batch_execute("SAVEPOINT here").await?;
            ensure!(
                !is_shown(&block, query, 1).await?,
                "{query} is answered where nothing was written"
            );
            block.batch_execute("ROLLBACK TO here").await?;
        }
        Ok(())
    });
}
