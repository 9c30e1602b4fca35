//! What is wrong with an archive is shown, and what was wrong and is so no more does no harm.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use volt_tests::operator;

use super::{LIMIT, MOMENT_ROOM, Place, directory, init};
use crate::{PARTITIONS, alone, block_on, connect};

const ROWS: i32 = 60;

/// The files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

/// Changes the last byte of each object with rows; once more, and all is as before.
fn bend(archive: &Path) -> anyhow::Result<()> {
    let is_of_rows = |path: &PathBuf| path.iter().any(|part| part == "log" || part == "base");
    let objects: Vec<PathBuf> = files(archive)?.into_iter().filter(is_of_rows).collect();
    ensure!(!objects.is_empty(), "nothing is archived");
    for object in objects {
        let mut bytes = std::fs::read(&object)?;
        *bytes.last_mut().context("an empty object")? ^= 1;
        std::fs::write(object, bytes)?;
    }
    Ok(())
}

/// A row of `system.archive`: node, state, records that lag, error.
type Row = (Option<i32>, String, Option<i64>, Option<String>);

/// All that is said of partitions there.
async fn shown(client: &Client) -> anyhow::Result<Vec<Row>> {
    let query = "SELECT node_id, state, lag_records, error FROM system.archive ORDER BY partition_id";
    let rows = client.query(query, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect())
}

#[test]
fn a_damaged_archive_is_shown_and_nothing_is_served_before_it_is_mended() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("archive");
        is_shown(&directory(folder.path()), async || bend(&archive)).await
    });
}

/// `bend` damages all that is archived there, and mends it when it is called again.
pub async fn is_shown(place: &Place, bend: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let cluster = place.nodes(&[
        "--archive",
        &place.url,
        "--archive-interval-ms",
        "200",
        "--archive-moment-ms",
        "200",
    ])?;
    cluster.form_with(PARTITIONS).await?;
    let client = connect(cluster.sql(1)).await?;
    for id in 0..ROWS {
        client
            .execute("INSERT INTO load VALUES ($1, 1)", &[&i64::from(id)])
            .await?;
    }
    sleep(MOMENT_ROOM).await;
    let archived = shown(&client).await?;
    ensure!(archived.len() == PARTITIONS as usize, "{archived:?}");
    let is_whole = |row: &Row| row.0.is_some() && row.1 == "archiving" && row.2 == Some(0) && row.3.is_none();
    ensure!(archived.iter().all(is_whole), "{archived:?}");
    let newest = format!(
        "SELECT count(*) FROM system.archive WHERE newest_moment IS NOT NULL AND url LIKE '{}/%' AND sealed_lsn = committed_lsn",
        place.url
    );
    let newest: i64 = client.query_one(&newest, &[]).await?.get(0);
    ensure!(newest == i64::from(PARTITIONS), "{newest}");
    drop(client);
    drop(cluster);

    bend().await?;
    // The queue's table, which each node makes if it is missing, must not be there before the others.
    let cluster = place.nodes(&["--queue"])?;
    let limit = Instant::now() + LIMIT;
    while let Err(error) = init(&cluster, &place.url, None) {
        ensure!(Instant::now() < limit, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }
    let (client, mut rows) = loop {
        // It has just joined.
        let tried = async {
            let client = connect(cluster.sql(2)).await?;
            let rows = shown(&client).await?;
            anyhow::Ok((client, rows))
        };
        match tried.await {
            Ok(found) => break found,
            Err(error) => ensure!(Instant::now() < limit, "{error:#}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    loop {
        let is_told = |(node, state, _, error): &Row| {
            let damage = error.as_ref().is_some_and(|error| error.contains("checksum is wrong"));
            node.is_some() && state == "restoring" && damage
        };
        if !rows.is_empty() && rows.iter().all(is_told) {
            break;
        }
        ensure!(Instant::now() < limit, "{rows:?}");
        sleep(Duration::from_millis(200)).await;
        rows = shown(&client).await?;
    }
    let refused = client.simple_query("SELECT count(*) FROM load").await;
    let refused = refused.expect_err("it is not restored");
    ensure!(refused.code().is_some_and(|code| code.code() == "57P03"), "{refused}");
    for node in 1..=3 {
        let is_told = |restoration: &volt_proto::v1::Restoration| restoration.problem.contains("checksum is wrong");
        operator::status_when(cluster.peer(node), "the damage is told", LIMIT, |status| {
            status.restored_micros != 0 && status.restoration.as_ref().is_some_and(is_told)
        })
        .await?;
    }

    bend().await?;
    loop {
        if let Ok(row) = client.query_one("SELECT count(*) FROM load", &[]).await {
            ensure!(row.get::<_, i64>(0) == i64::from(ROWS), "{row:?}");
            break;
        }
        ensure!(Instant::now() < limit, "it is not restored");
        sleep(Duration::from_millis(200)).await;
    }
    let status = operator::status(cluster.peer(1)).await?;
    ensure!(
        status.restoration.is_none() && status.restored_micros != 0,
        "{status:?}"
    );
    while let Err(error) = client.simple_query("SELECT count(*) FROM volt_queue").await {
        ensure!(Instant::now() < limit, "{error}");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
