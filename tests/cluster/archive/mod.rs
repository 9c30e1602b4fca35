//! The archive: a cluster as it was at a moment, after work through which nodes were killed.

mod damaged;
mod object_stores;
mod promotion;
pub mod standby;
mod work;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::processes::{Nodes, binary};

use work::{Work, all, is_a_cut};

use crate::cluster::Cluster;
use crate::{PARTITIONS, alone, block_on, connect};

/// Moments are so far apart, with some room for a busy machine.
const MOMENT_ROOM: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(90);

fn init(cluster: &Cluster, url: &str, until: Option<&str>) -> anyhow::Result<String> {
    let until = until.iter().flat_map(|until| ["--restore-until", until]);
    init_with(
        cluster,
        &["--restore", url].into_iter().chain(until).collect::<Vec<_>>(),
    )
}

fn init_with(cluster: &Cluster, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(binary());
    command.args(["init", "--address", &format!("127.0.0.1:{}", cluster.peer(1))]);
    let done = command.args(words).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{said}");
    Ok(said)
}

/// Where an archive is, and what one must know to get there.
pub struct Place {
    url: String,
    environment: Vec<(String, String)>,
}

impl Place {
    /// Three nodes that form no cluster yet.
    fn nodes(&self, more: &[&str]) -> anyhow::Result<Cluster> {
        let nodes = Nodes::start_in(&self.environment, 3, |_| "127.0.0.1".to_owned(), more)?;
        Ok(Cluster::of(nodes))
    }
}

/// Nodes that become what was archived. Of their own archive they are told another place, where nothing is.
async fn restored(place: &Place, until: Option<&str>) -> anyhow::Result<(Cluster, Client)> {
    let anothers = place.environment.iter().flat_map(|(name, value)| {
        let nowhere = ("http://127.0.0.1:1".to_owned(), format!("VOLT_RESTORE_{name}"));
        [(name.clone(), nowhere.0), (nowhere.1, value.clone())]
    });
    let elsewhere = Place {
        url: place.url.clone(),
        environment: anothers.collect(),
    };
    let cluster = elsewhere.nodes(&[])?;
    let limit = Instant::now() + LIMIT;
    while let Err(error) = init(&cluster, &place.url, until) {
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

/// An archive in a folder.
pub fn directory(folder: &Path) -> Place {
    Place {
        url: format!("file://{}/archive", folder.display()),
        environment: Vec::new(),
    }
}

#[test]
fn a_cluster_is_restored_as_it_was_at_a_moment() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        session(&directory(folder.path())).await
    });
}

/// Work through which nodes are killed; then two clusters, as it was at a moment of that and at its end.
async fn session(place: &Place) -> anyhow::Result<()> {
    let more = [
        "--archive",
        &place.url,
        "--archive-interval-ms",
        "300",
        "--archive-moment-ms",
        "200",
    ];
    let mut cluster = place.nodes(&more)?;
    cluster.form_with(PARTITIONS).await?;
    let client = connect(cluster.sql(1)).await?;
    work::begin(&client).await?;
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

    let (first, then) = restored(place, Some(&moment)).await?;
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

    let (_second, newest) = restored(place, None).await?;
    let found = all(&newest).await?;
    ensure!(found == at_the_end, "{found:#?}\nrather than\n{at_the_end:#?}");
    ensure!(newest.query_one("SELECT id FROM later", &[]).await?.get::<_, i32>(0) == 1);
    Ok(())
}
