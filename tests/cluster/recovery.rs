//! Nodes that come back with less than the others keep for them in memory: they are filled, under load.

use std::time::Duration;

use anyhow::{Context, ensure};
use volt_tests::processes::Nodes;

use crate::cluster::Cluster;
use crate::load::{Load, run_for};
use crate::{alone, block_on, connect};

/// Few, so that each gets much.
const PARTITIONS: u32 = 3;
/// More than the 4 MiB that a primary keeps of each partition's records for backups that were away.
const BACKLOG_BYTES: usize = 6 << 20;
const ROW_BYTES: usize = 64 << 10;
/// Rows of one statement.
const ROWS_AT_ONCE: usize = 8;
/// What a node prints when a replica of its own is filled.
const FILLED: &str = "replication::fill: filled";

/// Three nodes with much in each partition.
async fn start() -> anyhow::Result<Cluster> {
    let cluster = Cluster::of(Nodes::start(3, |_| "127.0.0.1".to_owned())?);
    cluster.form_with(PARTITIONS).await?;
    let client = connect(cluster.sql(1)).await?;
    client
        .batch_execute("CREATE TABLE wide (id BIGINT PRIMARY KEY, filler TEXT) WITH REPLICATION = 2")
        .await?;
    Ok(cluster)
}

/// Writes a backlog of new rows, from this id on; returns the next id.
async fn write_much(cluster: &Cluster, first: i64) -> anyhow::Result<i64> {
    let client = connect(cluster.sql(1)).await?;
    let filler = "x".repeat(ROW_BYTES);
    let rows = BACKLOG_BYTES * PARTITIONS as usize / ROW_BYTES;
    let mut next = first;
    for _ in 0..rows.div_ceil(ROWS_AT_ONCE) {
        let values: Vec<String> = (next..next + ROWS_AT_ONCE as i64)
            .map(|id| format!("({id}, '{filler}')"))
            .collect();
        client
            .batch_execute(&format!("INSERT INTO wide VALUES {}", values.join(",")))
            .await?;
        next += ROWS_AT_ONCE as i64;
    }
    Ok(next)
}

async fn wide_rows(cluster: &Cluster, node: u32) -> anyhow::Result<i64> {
    let client = connect(cluster.sql(node)).await?;
    let row = client
        .query_one("SELECT count(*) FROM wide WHERE filler LIKE 'xxx%'", &[])
        .await?;
    Ok(row.get(0))
}

/// Without `other`, much is read from what `filled` holds: it leads partitions then.
async fn holds_all(cluster: &mut Cluster, filled: u32, other: u32, load: Load, rows: i64) -> anyhow::Result<()> {
    run_for(&load, Duration::from_secs(1)).await?;
    let told = load.stop().await;
    cluster.nodes.node(other).kill()?;
    told.assert_all_there(cluster.sql(filled)).await?;
    ensure!(wide_rows(cluster, filled).await? == rows, "rows are missing");
    let log = cluster.nodes.node(filled).log()?;
    ensure!(log.contains(FILLED), "nothing was filled:\n{log}");
    cluster.nodes.node(other).start()?;
    cluster.whole().await
}

#[test]
fn a_node_that_was_down_for_long_is_filled() {
    let _alone = alone();
    block_on(async {
        let mut cluster = start().await?;
        cluster.nodes.node(3).kill()?;
        let next = write_much(&cluster, 1).await?;
        let load = Load::start(&cluster.sql_ports[..2]);
        run_for(&load, Duration::from_secs(1)).await?;
        cluster.nodes.node(3).start()?;
        cluster.whole().await?;
        holds_all(&mut cluster, 3, 2, load, next - 1).await
    });
}

#[test]
fn a_node_that_lost_its_data_comes_back_as_another_incarnation() {
    let _alone = alone();
    block_on(async {
        let mut cluster = start().await?;
        let next = write_much(&cluster, 1).await?;
        let load = Load::start(&cluster.sql_ports[..2]);
        run_for(&load, Duration::from_secs(1)).await?;
        cluster.nodes.node(3).kill()?;
        cluster.nodes.node(3).lose_data()?;
        // An empty directory is let in once the node that had the number is known to be dead.
        run_for(&load, Duration::from_secs(1)).await?;
        cluster.nodes.node(3).start()?;
        cluster.whole().await?;
        let status = cluster.status().await?;
        let node = status.nodes.iter().find(|node| node.node_id == 3);
        ensure!(node.context("node 3 is unknown")?.incarnation == 2, "{node:?}");
        holds_all(&mut cluster, 3, 2, load, next - 1).await
    });
}

/// So little that the load below is many checkpoints.
const CHECKPOINT_BYTES: u64 = 16 << 10;
/// So many bytes of log stay at most: a checkpoint's worth, and what is written while the next one is taken.
const LOG_BYTES: u64 = 16 * CHECKPOINT_BYTES;
/// What a node prints when it starts from a checkpoint.
const LOADED: &str = "recovery::checkpoint: loaded a checkpoint";

fn log_bytes(cluster: &mut Cluster, node: u32) -> anyhow::Result<(u64, bool)> {
    let folder = cluster.nodes.node(node).data().join("log");
    let (mut bytes, mut from_the_start) = (0, false);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += entry.metadata()?.len();
        from_the_start |= entry.file_name() == "00000000000000000001.log";
    }
    Ok((bytes, from_the_start))
}

#[test]
fn nodes_killed_under_load_come_back_from_checkpoints_and_their_logs_stay_short() {
    let _alone = alone();
    block_on(async {
        let bound = CHECKPOINT_BYTES.to_string();
        let mut cluster = Cluster::start_with(&["--checkpoint-bytes", &bound]).await?;
        let load = Load::start(&cluster.sql_ports);
        for node in [3, 1] {
            run_for(&load, Duration::from_secs(4)).await?;
            cluster.nodes.node(node).kill()?;
            let (bytes, from_the_start) = log_bytes(&mut cluster, node)?;
            ensure!(!from_the_start, "node {node}: no segment was removed");
            ensure!(bytes < LOG_BYTES, "node {node}: {bytes} bytes of log");
            run_for(&load, Duration::from_secs(2)).await?;
            cluster.nodes.node(node).start()?;
            cluster.whole().await?;
        }
        run_for(&load, Duration::from_secs(1)).await?;
        // All at once, so that what there is afterwards comes from disks alone.
        (1..=3).try_for_each(|node| cluster.nodes.node(node).kill())?;
        let told = load.stop().await;
        (1..=3).try_for_each(|node| cluster.nodes.node(node).start())?;
        cluster.whole().await?;
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
            let log = cluster.nodes.node(node).log()?;
            ensure!(log.contains(LOADED), "node {node} loaded no checkpoint:\n{log}");
        }
        Ok(())
    });
}
