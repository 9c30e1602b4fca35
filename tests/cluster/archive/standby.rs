//! A cluster that follows the archive of another one, and becomes one of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::work::{self, Work, all, is_a_cut};
use super::{LIMIT, Place, directory, init_with};
use crate::cluster::Cluster;
use crate::{PARTITIONS, alone, block_on, connect};

const OFTEN: [&str; 4] = ["--archive-interval-ms", "300", "--archive-moment-ms", "200"];

/// A cluster that is archived.
pub async fn archived(place: &Place) -> anyhow::Result<Cluster> {
    let more: Vec<&str> = ["--archive", &place.url].into_iter().chain(OFTEN).collect();
    let cluster = place.nodes(&more)?;
    cluster.form_with(PARTITIONS).await?;
    Ok(cluster)
}

/// Nodes that follow what is archived there, and serve.
pub async fn standby_of(place: &Place) -> anyhow::Result<Cluster> {
    let cluster = place.nodes(&[])?;
    let limit = Instant::now() + LIMIT;
    while let Err(error) = init_with(&cluster, &["--standby", &place.url]) {
        ensure!(Instant::now() < limit, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    until(cluster.sql(1), "SELECT state = 'following' FROM system.standby", "t").await?;
    cluster.whole().await?;
    Ok(cluster)
}

async fn value(client: &Client, query: &str) -> anyhow::Result<String> {
    let answer = client.simple_query(query).await?;
    let value = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    Ok(value.unwrap_or_else(|| "no row".to_owned()))
}

/// Returns when a query gives this.
pub(super) async fn until(port: u16, query: &str, wanted: &str) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    loop {
        let found = async { value(&connect(port).await?, query).await }.await;
        match found {
            Ok(found) if found == wanted => return Ok(()),
            found => ensure!(Instant::now() < limit, "{query}: {found:?} rather than {wanted}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Readers of a standby, for whom every moment must be whole and none older than the one before.
struct Readers {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Readers {
    fn start(ports: &[u16]) -> Self {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let read = |&port: &u16| tokio::spawn(read(port, Arc::clone(&stop), Arc::clone(&looks)));
        let tasks = ports.iter().map(read).collect();
        Self { stop, looks, tasks }
    }

    async fn stop(self) -> anyhow::Result<usize> {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.looks.load(SeqCst))
    }
}

async fn read(port: u16, stop: Arc<AtomicBool>, looks: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut before = vec![0; 3];
    while !stop.load(SeqCst) {
        let Ok(client) = connect(port).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // What a death takes away is tried again; what is no cut is no error of a statement.
        while !stop.load(SeqCst) {
            match is_a_cut(&client).await {
                Ok(steps) => {
                    ensure!(
                        steps.iter().zip(&before).all(|(now, then)| now >= then),
                        "{before:?}, then {steps:?}"
                    );
                    before = steps;
                }
                Err(error) if error.downcast_ref::<tokio_postgres::Error>().is_some() => break,
                Err(error) => return Err(error),
            }
            // A block reads one cut, however long it takes.
            let steps = "SELECT count(*) FROM steps";
            let twice = async {
                client.batch_execute("BEGIN").await?;
                let first = value(&client, steps).await?;
                sleep(Duration::from_millis(30)).await;
                let second = value(&client, steps).await?;
                client.batch_execute("COMMIT").await?;
                anyhow::Ok((first, second))
            };
            match twice.await {
                Ok((first, second)) => ensure!(first == second, "{first} steps, then {second}"),
                Err(_) => break,
            }
            looks.fetch_add(1, SeqCst);
        }
    }
    Ok(())
}

pub(super) async fn refusal(client: &Client, statement: &str) -> anyhow::Result<(String, String)> {
    let refused = client.simple_query(statement).await;
    let error = refused.err().with_context(|| format!("{statement} is not refused"))?;
    let error = error.as_db_error().context("an error of the server")?;
    Ok((error.code().code().to_owned(), error.message().to_owned()))
}

#[test]
fn a_standby_follows_cut_by_cut_and_is_promoted() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let place = directory(folder.path());
        let first = archived(&place).await?;
        let writer = connect(first.sql(1)).await?;
        work::begin(&writer).await?;
        let work = Work::start(first.sql_ports.clone());
        sleep(Duration::from_secs(2)).await;

        let mut second = standby_of(&place).await?;
        let client = connect(second.sql(1)).await?;
        for statement in [
            "INSERT INTO accounts VALUES (1000, 1)",
            "UPDATE accounts SET balance = 0",
            "CREATE TABLE mine (id INT PRIMARY KEY)",
            "TRUNCATE accounts",
            "BEGIN; DELETE FROM accounts",
        ] {
            let (code, message) = refusal(&client, statement).await?;
            ensure!(
                code == "25006" && message.contains("standby of file://"),
                "{statement}: {message}"
            );
            client.batch_execute("ROLLBACK").await?;
        }
        let refused = refusal(&writer, "PROMOTE").await?;
        ensure!(refused.0 == "55000", "{refused:?}");

        // It goes on while nodes die, the one that sees to that among them.
        let readers = Readers::start(&second.sql_ports);
        sleep(Duration::from_secs(3)).await;
        let told = work.told();
        until(second.sql(2), &as_far_as(&told), "3").await?;
        for node in [second.leader().await?, 2] {
            second.nodes.node(node).kill()?;
            sleep(Duration::from_secs(1)).await;
            let told = work.told();
            let other = second.sql(node % 3 + 1);
            until(other, &as_far_as(&told), "3").await?;
            second.nodes.node(node).start()?;
            second.whole().await?;
        }

        // What becomes of the catalog becomes of its own.
        writer
            .batch_execute(
                "CREATE TABLE later (id INT PRIMARY KEY, name TEXT) WITH REPLICATION = 0;
                 INSERT INTO later VALUES (1, 'one'), (2, 'two');
                 ALTER TABLE rates ADD COLUMN note TEXT DEFAULT 'none';
                 CREATE INDEX by_name ON later (name);
                 CREATE UNIQUE INDEX by_rate ON later (id, name);
                 UPDATE rates SET note = 'some' WHERE code = 'EUR';
                 DROP VIEW rich;
                 CREATE VIEW rich AS SELECT id FROM accounts WHERE balance > 100;
                 CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (1); DROP TABLE gone;
                 CREATE MATERIALIZED VIEW names AS SELECT name, count(*) AS ids FROM later GROUP BY name;
                 INSERT INTO later VALUES (3, 'one')",
            )
            .await?;
        until(second.sql(3), "SELECT ids FROM names WHERE name = 'one'", "2").await?;
        until(second.sql(3), "SELECT note FROM rates WHERE code = 'EUR'", "some").await?;
        until(second.sql(1), "SELECT note FROM rates WHERE code = 'USD'", "none").await?;
        until(
            second.sql(1),
            "SELECT count(*) FROM system.indexes WHERE state = 'ready' AND name IN ('by_name', 'by_rate')",
            "2",
        )
        .await?;
        writer
            .batch_execute("DROP MATERIALIZED VIEW names; DROP TABLE later")
            .await?;

        // Tables that get other partitions there have them here, too, and every look is at one cut. Each has a sibling that stays.
        writer
            .batch_execute(
                "CREATE TABLE beside_accounts (id INT PRIMARY KEY) WITH REPLICATION = 2;
                 CREATE TABLE beside_steps (id INT PRIMARY KEY) WITH REPLICATION = 1",
            )
            .await?;
        for (table, replication) in [("accounts", 1), ("steps", 2)] {
            let alter = format!("ALTER TABLE {table} SET (replication = {replication})");
            writer.batch_execute(&alter).await?;
            let now = format!("SELECT replication FROM system.tables WHERE name = '{table}'");
            until(second.sql(1), &now, &replication.to_string()).await?;
            let beside = format!("SELECT replication FROM system.tables WHERE name = 'beside_{table}'");
            until(second.sql(1), &beside, &(3 - replication).to_string()).await?;
            let told = work.told();
            until(second.sql(2), &as_far_as(&told), "3").await?;
        }

        work.stop().await?;
        let at_the_end = all(&writer).await?;
        let mine: i64 = writer.query_one("SELECT max(mine) FROM steps", &[]).await?.get(0);
        let last = "SELECT count(*) FROM steps";
        until(second.sql(1), last, &value(&writer, last).await?).await?;
        let looks = readers.stop().await?;
        println!("{looks} looks, each of them at one cut");
        ensure!(looks > 20, "{looks} looks");
        until(second.sql(1), "SELECT lag_records FROM system.standby", "0").await?;
        let lag = "SELECT lag_seconds < 10 FROM system.standby";
        until(second.sql(1), lag, "t").await?;

        let client = connect(second.sql(2)).await?;
        client.batch_execute("PROMOTE").await?;
        writer.batch_execute("INSERT INTO accounts VALUES (500, 1)").await?;
        let found = all(&client).await?;
        ensure!(found == at_the_end, "{found:#?}\nrather than\n{at_the_end:#?}");
        for node in 1..=3 {
            let client = connect(second.sql(node)).await?;
            client
                .execute("INSERT INTO accounts VALUES ($1, 1)", &[&i64::from(1_000 + node)])
                .await?;
        }
        let next = client
            .query_one("INSERT INTO steps (writer, step) VALUES (77, 1) RETURNING mine", &[])
            .await?;
        ensure!(next.get::<_, i64>(0) > mine, "a sequence repeats itself");
        client
            .batch_execute("CREATE TABLE mine (id INT PRIMARY KEY); INSERT INTO mine VALUES (1)")
            .await?;
        ensure!(refusal(&client, "PROMOTE").await?.0 == "55000", "it is promoted");
        ensure!(value(&client, "SELECT count(*) FROM system.standby").await? == "0");
        // The first one's further writes are its own.
        sleep(Duration::from_secs(3)).await;
        let theirs = "SELECT count(*) FROM accounts WHERE id = 500";
        ensure!(value(&client, theirs).await? == "0", "it still follows");
        Ok(())
    });
}

/// How many writers have come as far.
fn as_far_as(told: &[i64]) -> String {
    let reached = (0..)
        .zip(told)
        .map(|(writer, step): (usize, _)| format!("writer = {writer} AND last >= {step}"));
    let reached: Vec<String> = reached.collect();
    let last = "SELECT writer, max(step) AS last FROM steps GROUP BY writer";
    format!(
        "SELECT count(*) FROM ({last}) AS each_one WHERE {}",
        reached.join(" OR ")
    )
}

/// The archive's place in this folder, where it may lie, and where none can.
pub(super) fn places(folder: &Path) -> anyhow::Result<[PathBuf; 3]> {
    let places = ["archive", "real", "nothing"].map(|name| folder.join(name));
    std::fs::create_dir(&places[1])?;
    std::fs::write(&places[2], "")?;
    Ok(places)
}

/// From now on the archive is there, at once: who writes makes a folder that is missing.
pub(super) fn lies_at(archive: &Path, place: &Path) -> anyhow::Result<()> {
    let new = archive.with_extension("new");
    std::os::unix::fs::symlink(place, &new)?;
    Ok(std::fs::rename(new, archive)?)
}

#[test]
fn a_standby_says_why_it_stops_and_takes_over_at_once_what_it_has_missed() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let place = directory(folder.path());
        let [archive, real, nothing] = places(folder.path())?;
        lies_at(&archive, &real)?;
        let first = archived(&place).await?;
        let writer = connect(first.sql(1)).await?;
        let schema = "CREATE TABLE blobs (id BIGINT PRIMARY KEY, body TEXT) WITH REPLICATION = 1";
        writer.batch_execute(schema).await?;
        writer.batch_execute("INSERT INTO blobs VALUES (0, 'first')").await?;
        let second = standby_of(&place).await?;
        until(second.sql(1), "SELECT body FROM blobs WHERE id = 0", "first").await?;

        lies_at(&archive, &nothing)?;
        until(second.sql(1), "SELECT state FROM system.standby", "failing").await?;
        let why = value(&connect(second.sql(1)).await?, "SELECT error FROM system.standby").await?;
        ensure!(why.contains("archive"), "{why}");
        // More than one transaction may change.
        let body = "x".repeat(500_000);
        let rows = i64::from(PARTITIONS) * 10;
        for id in 1..=rows {
            writer
                .execute("INSERT INTO blobs VALUES ($1, $2)", &[&id, &body])
                .await?;
        }
        writer.batch_execute("DELETE FROM blobs WHERE id = 0").await?;
        lies_at(&archive, &real)?;
        // One row came after the other, and so they do here.
        let in_order = "SELECT count(*) = coalesce(max(id), 0) FROM blobs WHERE id > 0";
        let limit = Instant::now() + LIMIT;
        loop {
            ensure!(Instant::now() < limit, "it does not get on");
            let client = connect(second.sql(2)).await?;
            match value(&client, in_order).await {
                Ok(is_in_order) => ensure!(is_in_order == "t", "rows are missing among others"),
                Err(error) => println!("meanwhile: {error:#}"),
            }
            let count = value(&client, "SELECT count(*) FROM blobs").await;
            if count.is_ok_and(|count| count == rows.to_string()) {
                break;
            }
        }
        let client = connect(second.sql(3)).await?;
        ensure!(value(&client, "SELECT count(*) FROM blobs WHERE length(body) = 500000").await? == rows.to_string());
        writer
            .batch_execute("UPDATE blobs SET body = 'little' WHERE id = 7")
            .await?;
        until(second.sql(1), "SELECT body FROM blobs WHERE id = 7", "little").await?;

        // The archive is lost: it begins with what it has.
        lies_at(&archive, &nothing)?;
        until(second.sql(1), "SELECT state FROM system.standby", "failing").await?;
        client.batch_execute("PROMOTE IMMEDIATE").await?;
        client
            .batch_execute("UPDATE blobs SET body = 'mine' WHERE id = 7")
            .await?;
        ensure!(value(&client, "SELECT count(*) FROM blobs").await? == rows.to_string());
        Ok(())
    });
}
