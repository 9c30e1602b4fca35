//! How replicas recover: what is copied, by which strategy, and what need not be copied again.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use volt_proto::v1::SwitchPrimariesRequest;
use volt_tests::operator;
use volt_tests::postgres::Postgres;
use volt_tests::processes::Nodes;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Of each row; all rows lie in one partition.
const ROW_BYTES: usize = 64 << 10;
const ROWS: i64 = 48;
const WIDE: &str = "CREATE TABLE wide (place INT, id BIGINT, filler TEXT, amount NUMERIC(10, 2), ratio DOUBLE PRECISION, at TIMESTAMP, raw BYTEA,
    ok BOOLEAN, code VARCHAR(9), PRIMARY KEY (place, id))";
/// So slow that a fill can be caught in the middle.
const SLOW_BYTES_PER_SECOND: &str = "1048576";
const LIMIT: Duration = Duration::from_secs(60);

/// The newest fill of a node's replica, as another node shows it.
#[derive(Debug)]
struct Fill {
    strategy: String,
    state: String,
    percent: i32,
    rows: i64,
    received: i64,
    reused: i64,
}

/// The newest fill of the partition of the rows.
async fn fill(client: &Client, node: i32) -> anyhow::Result<Option<Fill>> {
    let newest = "SELECT strategy, state, percent, rows, received_bytes, reused_bytes FROM system.recoveries
                  WHERE node_id = $1 AND total_rows >= $2 ORDER BY began_at DESC LIMIT 1";
    let rows = client.query(newest, &[&node, &ROWS]).await?;
    Ok(rows.first().map(|row| Fill {
        strategy: row.get(0),
        state: row.get(1),
        percent: row.get(2),
        rows: row.get(3),
        received: row.get(4),
        reused: row.get(5),
    }))
}

async fn start(archive: &[&str]) -> anyhow::Result<(Cluster, Client)> {
    let more = [&["--recovery-bytes-per-second", SLOW_BYTES_PER_SECOND], archive].concat();
    let cluster = Cluster::of(Nodes::start_with(3, |_| "127.0.0.1".to_owned(), &more)?);
    cluster.form_with(3).await?;
    let client = connect(cluster.sql(1)).await?;
    let table = format!("{WIDE} WITH REPLICATION = 2 PARTITION BY (place)");
    client.batch_execute(&table).await?;
    for id in 1..=ROWS {
        let filler = format!("{id} {}", "x".repeat(ROW_BYTES));
        let insert = match id % 4 {
            0 => "INSERT INTO wide (place, id, filler) VALUES (1, $1, $2)",
            _ => {
                "INSERT INTO wide VALUES (1, $1, $2, 1.50, 0.1, '1999-12-31 23:59:59.000001', '\\x00ff', true, 'it''s')"
            }
        };
        client.execute(insert, &[&id, &filler]).await?;
    }
    Ok((cluster, client))
}

/// Writes one row until more has been written than a primary keeps of a partition's records for backups that were away.
async fn write_one_row_often(client: &Client) -> anyhow::Result<()> {
    for time in 0..100 {
        let filler = format!("{time} {}", "y".repeat(ROW_BYTES));
        client
            .execute("UPDATE wide SET filler = $1 WHERE place = 1 AND id = 40", &[&filler])
            .await?;
    }
    Ok(())
}

/// Each row is there, as it was written last.
async fn holds_what_was_written(client: &Client) -> anyhow::Result<()> {
    let all = "SELECT count(*), sum(CASE WHEN filler LIKE '% xxx%' THEN 1 ELSE 0 END),
                      sum(CASE WHEN filler LIKE '99 yyy%' THEN 1 ELSE 0 END) FROM wide";
    let row = client.query_one(all, &[]).await?;
    let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    ensure!(found == (ROWS, ROWS - 1, 1), "{found:?}");
    Ok(())
}

#[test]
fn only_what_differs_is_copied_and_nothing_twice() {
    let _alone = alone();
    block_on(async {
        let (mut cluster, client) = start(&[]).await?;
        let all = ROWS * ROW_BYTES as i64;

        // Away for so long that the records are gone: one row of 48 has changed.
        cluster.nodes.node(3).kill()?;
        write_one_row_often(&client).await?;
        cluster.nodes.node(3).start()?;
        cluster.whole().await?;
        let filled = fill(&client, 3).await?.context("no fill is shown")?;
        ensure!(
            (filled.strategy.as_str(), filled.state.as_str()) == ("automatic", "done"),
            "{filled:?}"
        );
        ensure!((filled.percent, filled.rows) == (100, ROWS), "{filled:?}");
        ensure!(filled.received < all / 3 && filled.reused > all / 2, "{filled:?}");

        // All of it, though the records are there, for somebody says so.
        cluster.nodes.node(3).kill()?;
        let dead = "SELECT count(*) FROM system.nodes WHERE node_id = 3 AND NOT is_alive";
        until("node 3 is dead", async || {
            Ok(client.query_one(dead, &[]).await?.get::<_, i64>(0) == 1)
        })
        .await?;
        let recover = connect(cluster.sql(2)).await?;
        let recovered =
            tokio::spawn(async move { recover.simple_query("RECOVER NODE 3 WITH (strategy = one_shot)").await });
        let asked = "SELECT count(*) FROM system.recoveries WHERE node_id = 3 AND state = 'asked for' AND strategy = 'one-shot'";
        until("the wish is there", async || {
            Ok(client.query_one(asked, &[]).await?.get::<_, i64>(0) == 1)
        })
        .await?;
        cluster.nodes.node(3).start()?;
        recovered.await??;
        let filled = fill(&client, 3).await?.context("no fill is shown")?;
        ensure!(
            (filled.strategy.as_str(), filled.state.as_str()) == ("one-shot", "done"),
            "{filled:?}"
        );
        ensure!(filled.received >= all && filled.reused == 0, "{filled:?}");
        ensure!(
            client.query_one(asked, &[]).await?.get::<_, i64>(0) == 0,
            "the wish is done"
        );

        // A node that dies in the middle of a fill takes what it has copied into the next one.
        cluster.nodes.node(3).kill()?;
        cluster.nodes.node(3).lose_data()?;
        sleep(Duration::from_secs(2)).await;
        cluster.nodes.node(3).start()?;
        until("the fill is half-way", async || {
            let now = fill(&client, 3).await.ok().flatten();
            Ok(now.is_some_and(|now| now.state == "copying" && (40..90).contains(&now.percent)))
        })
        .await?;
        cluster.nodes.node(3).kill()?;
        cluster.nodes.node(3).start()?;
        cluster.whole().await?;
        let filled = fill(&client, 3).await?.context("no fill is shown")?;
        ensure!(filled.state == "done" && filled.rows == ROWS, "{filled:?}");
        ensure!(filled.reused > all / 5 && filled.received < all, "{filled:?}");

        lead_all(&cluster, 3).await?;
        holds_what_was_written(&client).await
    });
}

/// An empty disk, and the statement that brings it back, on another node.
async fn recover_from_nothing(cluster: &mut Cluster, source: &str) -> anyhow::Result<()> {
    cluster.nodes.node(3).kill()?;
    cluster.nodes.node(3).lose_data()?;
    let client = connect(cluster.sql(1)).await?;
    let dead = "SELECT count(*) FROM system.nodes WHERE node_id = 3 AND NOT is_alive";
    until("node 3 is dead", async || {
        Ok(client.query_one(dead, &[]).await?.get::<_, i64>(0) == 1)
    })
    .await?;
    let recover = connect(cluster.sql(2)).await?;
    let statement = format!("RECOVER NODE 3 WITH (source = '{source}', strategy = one_shot)");
    let recovered = tokio::spawn(async move { recover.simple_query(&statement).await });
    let asked = "SELECT count(*) FROM system.recoveries WHERE node_id = 3 AND state = 'asked for' AND source = $1";
    until("the wish is there", async || {
        Ok(client.query_one(asked, &[&source]).await?.get::<_, i64>(0) == 1)
    })
    .await?;
    cluster.nodes.node(3).start()?;
    recovered.await??;
    Ok(())
}

/// What every source beside the primary holds to: what it has is not copied from there, and what is wrong there does no harm.
async fn holds_contract(
    source: &str,
    (mut cluster, client): (Cluster, Client),
    bend: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let all = ROWS * ROW_BYTES as i64;
    recover_from_nothing(&mut cluster, source).await?;
    let filled = fill(&client, 3).await?.context("no fill is shown")?;
    ensure!(source_of_newest(&client).await? == source, "{filled:?}");
    ensure!(filled.received < all / 3 && filled.reused > all / 2, "{filled:?}");
    lead_all(&cluster, 3).await?;
    holds_what_was_written(&connect(cluster.sql(3)).await?).await?;

    bend().await?;
    recover_from_nothing(&mut cluster, source).await?;
    let client = connect(cluster.sql(1)).await?;
    let filled = fill(&client, 3).await?.context("no fill is shown")?;
    ensure!(filled.received >= all && filled.reused == 0, "{filled:?}");
    lead_all(&cluster, 3).await?;
    holds_what_was_written(&connect(cluster.sql(3)).await?).await
}

async fn source_of_newest(client: &Client) -> anyhow::Result<String> {
    let newest =
        "SELECT source FROM system.recoveries WHERE node_id = 3 AND total_rows >= $1 ORDER BY began_at DESC LIMIT 1";
    Ok(client.query_one(newest, &[&ROWS]).await?.get(0))
}

#[test]
fn what_the_archive_has_is_not_copied_and_what_is_wrong_there_does_no_harm() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let url = format!("file://{}", folder.path().display());
        let (cluster, client) = start(&["--archive", &url, "--archive-interval-ms", "300"]).await?;
        write_one_row_often(&client).await?;
        sleep(Duration::from_secs(2)).await;
        // Of each object of records and rows a byte is another.
        let bend = async || {
            let mut bent = 0;
            for object in walk(folder.path())? {
                let text = object.display().to_string();
                let mut bytes = std::fs::read(&object)?;
                if (text.contains("/log/") || text.contains("/base/")) && !bytes.is_empty() {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                    std::fs::write(&object, bytes)?;
                    bent += 1;
                }
            }
            ensure!(bent > 0, "nothing was archived");
            Ok(())
        };
        holds_contract("file-system", (cluster, client), bend).await
    });
}

#[test]
fn what_a_linked_database_has_is_not_copied_and_what_is_wrong_there_does_no_harm() {
    let _alone = alone();
    block_on(async {
        let postgres = Postgres::start()?;
        let there = connect(postgres.port).await?;
        there.batch_execute(WIDE).await?;
        // Whatever its settings are.
        let settings =
            "ALTER DATABASE volt SET datestyle = 'SQL, DMY'; ALTER DATABASE volt SET extra_float_digits = -3;
                        ALTER DATABASE volt SET bytea_output = 'escape'";
        there.batch_execute(settings).await?;
        let (cluster, client) = start(&[]).await?;
        let refused = client
            .batch_execute("RECOVER NODE 3 WITH (source = database)")
            .await
            .expect_err("there is no link");
        ensure!(refused.code().map(|code| code.code()) == Some("55000"), "{refused:?}");
        let link = format!("CREATE REPLICATION LINK there TO '{}' FOR TABLE wide", postgres.url());
        client.batch_execute(&link).await?;
        write_one_row_often(&client).await?;
        let last = "SELECT count(*), sum(CASE WHEN filler LIKE '99 yyy%' THEN 1 ELSE 0 END) FROM wide";
        until("all is told", async || {
            let row = there.query_one(last, &[]).await?;
            Ok((row.get::<_, i64>(0), row.get::<_, Option<i64>>(1)) == (ROWS, Some(1)))
        })
        .await?;
        let bend = async || Ok(there.batch_execute("UPDATE wide SET amount = 7.25").await?);
        holds_contract("database", (cluster, client), bend).await
    });
}

/// The files below a folder.
fn walk(folder: &std::path::Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files.extend(walk(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    Ok(files)
}

/// The other two hold no primary any more: what is read is what this one holds.
async fn lead_all(cluster: &Cluster, leader: u32) -> anyhow::Result<()> {
    let mut operator = operator::control(cluster.peer(leader)).await?;
    for node_id in (1..=3).filter(|node| *node != leader) {
        let request = SwitchPrimariesRequest { node_id, timeout_ms: 0 };
        operator.switch_primaries(request).await?;
    }
    until("it leads all", async || {
        let partitions = cluster.status().await?.partitions;
        Ok(partitions.iter().all(|partition| partition.primary == leader))
    })
    .await
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    while !done().await? {
        ensure!(Instant::now() < limit, "{what}: not in {LIMIT:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
