//! The archive: a cluster as it was at a moment, after work through which nodes were killed.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::processes::{Nodes, binary};

use crate::cluster::Cluster;
use crate::{PARTITIONS, alone, block_on, connect};

const ACCOUNTS: i64 = 24;
const EACH: i64 = 100;
const WRITERS: i64 = 3;
/// Moments are so far apart, with some room for a busy machine.
const MOMENT_ROOM: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(90);

const SCHEMA: &str = "
    CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, CHECK (balance >= 0)) WITH REPLICATION = 2;
    CREATE TABLE steps (writer BIGINT, step BIGINT, mine BIGSERIAL, PRIMARY KEY (step, writer), UNIQUE (step, mine)) WITH REPLICATION = 1;
    CREATE TABLE rates (code TEXT PRIMARY KEY, rate NUMERIC(10, 4)) REPLICATED;
    CREATE MATERIALIZED VIEW by_writer AS SELECT writer, count(*) AS steps, max(step) AS last FROM steps GROUP BY writer;
    CREATE VIEW rich AS SELECT id FROM accounts WHERE balance > 100;
    INSERT INTO rates VALUES ('EUR', 1), ('USD', 1.0875);";

/// Writers, each of which moves money and notes its steps, one after another.
struct Work {
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
    fn start(ports: Vec<u16>) -> Self {
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

    fn told(&self) -> Vec<i64> {
        self.told.iter().map(|told| told.load(SeqCst)).collect()
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, SeqCst);
        for writer in self.writers {
            writer.await??;
        }
        Ok(())
    }
}

/// Everything that clients can see.
async fn all(client: &Client) -> anyhow::Result<Vec<String>> {
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
async fn is_a_cut(client: &Client) -> anyhow::Result<Vec<i64>> {
    let total: i64 = client
        .query_one("SELECT sum(balance)::BIGINT FROM accounts", &[])
        .await?
        .get(0);
    ensure!(total == ACCOUNTS * EACH, "money came or went: {total}");
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

fn init(cluster: &Cluster, url: &str, until: Option<&str>) -> anyhow::Result<String> {
    let mut command = Command::new(binary());
    command.args([
        "init",
        "--address",
        &format!("127.0.0.1:{}", cluster.peer(1)),
        "--restore",
        url,
    ]);
    if let Some(until) = until {
        command.args(["--restore-until", until]);
    }
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{said}");
    Ok(said)
}

/// Nodes that become what was archived.
async fn restored(url: &str, until: Option<&str>) -> anyhow::Result<(Cluster, Client)> {
    let cluster = Cluster::of(Nodes::start(3, |_| "127.0.0.1".to_owned())?);
    let limit = Instant::now() + LIMIT;
    while let Err(error) = init(&cluster, url, until) {
        ensure!(Instant::now() < limit, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    loop {
        let tried = async {
            let client = connect(cluster.sql(2)).await?;
            client.simple_query("SELECT count(*) FROM rates").await?;
            anyhow::Ok(client)
        };
        match tried.await {
            Ok(client) => return Ok((cluster, client)),
            Err(error) => ensure!(Instant::now() < limit, "{error:#}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn now(client: &Client) -> anyhow::Result<String> {
    let row = client.simple_query("SELECT now()").await?;
    let text = row.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    text.context("no time")
}

fn archiving(folder: &Path) -> String {
    format!("file://{}/archive", folder.display())
}

#[test]
fn a_cluster_is_restored_as_it_was_at_a_moment() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let url = archiving(folder.path());
        let more = [
            "--archive",
            &url,
            "--archive-interval-ms",
            "300",
            "--archive-moment-ms",
            "200",
        ];
        let mut cluster = Cluster::of(Nodes::start_with(3, |_| "127.0.0.1".to_owned(), &more)?);
        cluster.form_with(PARTITIONS).await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute(SCHEMA).await?;
        for id in 1..=ACCOUNTS {
            client
                .execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &EACH])
                .await?;
        }
        let work = Work::start(cluster.sql_ports.clone());
        sleep(Duration::from_secs(3)).await;
        cluster.nodes.node(2).kill()?;
        sleep(Duration::from_secs(3)).await;
        cluster.nodes.node(2).start()?;
        cluster.whole().await?;
        cluster.nodes.node(3).kill()?;
        sleep(Duration::from_secs(2)).await;

        let long_before = work.told();
        sleep(MOMENT_ROOM).await;
        let moment = now(&client).await?;
        sleep(Duration::from_secs(1)).await;
        let after = work.told();
        // What comes later is no part of it, not a table, nor that one is gone.
        client
            .batch_execute("CREATE TABLE later (id INT PRIMARY KEY); DROP TABLE rates")
            .await?;
        sleep(Duration::from_secs(2)).await;
        work.stop().await?;
        client.batch_execute("CREATE TABLE rates (code TEXT PRIMARY KEY, rate NUMERIC(10, 4), at TIMESTAMP); INSERT INTO later VALUES (1)").await?;
        let at_the_end = all(&client).await?;
        sleep(MOMENT_ROOM).await;
        drop(cluster);

        let (first, then) = restored(&url, Some(&moment)).await?;
        let steps = is_a_cut(&then).await?;
        for (writer, step) in steps.iter().enumerate() {
            let told = (long_before[writer], after[writer]);
            ensure!(
                told.0 <= *step && *step <= told.1 + 1,
                "writer {writer}: {step}, told {told:?}"
            );
        }
        ensure!(
            then.simple_query("SELECT * FROM later").await.is_err(),
            "it was made later"
        );
        let rates: i64 = then.query_one("SELECT count(*) FROM rates", &[]).await?.get(0);
        ensure!(rates == 2, "{rates} rates");
        // It is a cluster like any other.
        let told = then
            .query_one("SELECT max(mine) FROM steps", &[])
            .await?
            .get::<_, i64>(0);
        let next = then
            .query_one("INSERT INTO steps (writer, step) VALUES (77, 1) RETURNING mine", &[])
            .await?;
        ensure!(next.get::<_, i64>(0) > told, "a sequence repeats itself");
        then.batch_execute("CREATE TABLE new (id INT PRIMARY KEY); INSERT INTO new VALUES (1)")
            .await?;
        let refused = then.simple_query("RECOVER NODE 1 WITH (source = file_system)").await;
        let refused = refused.expect_err("it has no archive of its own");
        ensure!(refused.code().is_some_and(|code| code.code() == "55000"), "{refused}");
        drop(then);
        drop(first);

        let (_second, newest) = restored(&url, None).await?;
        let found = all(&newest).await?;
        ensure!(found == at_the_end, "{found:#?}\nrather than\n{at_the_end:#?}");
        ensure!(newest.query_one("SELECT id FROM later", &[]).await?.get::<_, i32>(0) == 1);
        Ok(())
    });
}
