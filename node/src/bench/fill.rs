//! `volt-node bench fill`: what do writers lose while a node that has lost its volume is filled?
//!
//! Writers that each wait for their answer change rows of the nodes that stay. Their rate is taken while all three nodes are there, while one is
//! away, and while that one is filled, from the first row that it gets to the moment when it is in sync again. What is asked for is a share of the
//! rate with all nodes: while one is away every write has a copy less to make, which it has again from the fill on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::time::{Duration, Instant, sleep};

use super::{OwnCluster, connect};
use crate::dev::cluster::DevCluster;

/// The node that is filled.
const FILLED: u32 = 3;
/// How long a rate is taken while nothing changes.
const STEADY: Duration = Duration::from_secs(5);
/// Until writers have found their pace.
const WARM_UP: Duration = Duration::from_secs(2);
/// Longest time until a fill begins, and until it has ended.
const FILL_LIMIT: Duration = Duration::from_secs(600);
/// Rows in a statement that loads.
const ROWS_AT_ONCE: u64 = 500;

/// Arguments of `volt-node bench fill`.
#[derive(Args, Clone, Debug)]
pub struct FillArguments {
    /// MiB of rows that are filled
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(16..=16_384))]
    mib: u64,
    /// Bytes of a row
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=100_000))]
    row_bytes: u64,
    /// Writers, on each of the two nodes that stay
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    writers: u32,
    /// The least share of the rate with all nodes, in percent, that is still good: less ends the command with an error
    #[arg(long)]
    limit_percent: Option<u64>,
    #[command(flatten)]
    cluster: OwnCluster,
}

/// Writes a second.
#[derive(Clone, Copy)]
struct Rate(f64);

/// Starts a cluster of its own, fills one of its nodes, and prints the rates.
pub async fn run(arguments: FillArguments) -> anyhow::Result<()> {
    let mut cluster = DevCluster::start(&arguments.cluster.of(FILLED)).await?;
    let done = measure(&arguments, &mut cluster).await;
    cluster.stop().await;
    let share = done?;
    if let Some(limit) = arguments.limit_percent
        && share < limit as f64
    {
        bail!("writers kept {share:.0} %, less than {limit} %");
    }
    Ok(())
}

async fn measure(arguments: &FillArguments, cluster: &mut DevCluster) -> anyhow::Result<f64> {
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.settings.sql_port).collect();
    let rows = (arguments.mib << 20) / arguments.row_bytes;
    load(ports[0], rows, arguments.row_bytes).await?;
    cluster.wait_until_whole().await?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for number in 0..arguments.writers * 2 {
        let port = ports[(number % 2) as usize];
        let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
        writers.push(tokio::spawn(write(port, u64::from(number), rows, stop, written)));
    }
    let before = steady(&written).await;
    let node = &mut cluster.nodes[FILLED as usize - 1];
    node.kill().await?;
    lose_volume(&node.settings.folder)?;
    let away = steady(&written).await;
    cluster.nodes[FILLED as usize - 1].start()?;
    let client = connect(ports[0]).await?;
    wait_for(
        &client,
        "SELECT count(*) > 0 FROM system.recoveries WHERE node_id = 3 AND rows > 0",
    )
    .await?;
    let (begun, at_begin) = (Instant::now(), written.load(Relaxed));
    let whole = "SELECT count(*) = 0 FROM system.partitions WHERE degraded";
    wait_for(&client, whole).await?;
    let (took, writes) = (begun.elapsed(), written.load(Relaxed) - at_begin);
    let filling = Rate(writes as f64 / took.as_secs_f64());
    stop.store(true, Relaxed);
    for writer in writers {
        writer.await??;
    }
    let mib = arguments.mib;
    let share = |of: Rate| filling.0 * 100.0 / of.0;
    println!("writes a second, of {} writers:", arguments.writers * 2);
    println!("{:>10.0}  with all nodes", before.0);
    println!("{:>10.0}  with one away", away.0);
    println!(
        "{:>10.0}  while it is filled: {mib} MiB of rows in {:.1} s, {:.0} MiB/s",
        filling.0,
        took.as_secs_f64(),
        mib as f64 / took.as_secs_f64()
    );
    println!(
        "fill: writers kept {:.0} % of what they did with all nodes, {:.0} % of what with one away",
        share(before),
        share(away)
    );
    Ok(share(before))
}

/// The rate in a while in which nothing changes.
async fn steady(written: &AtomicU64) -> Rate {
    sleep(WARM_UP).await;
    let (begun, before) = (Instant::now(), written.load(Relaxed));
    sleep(STEADY).await;
    Rate((written.load(Relaxed) - before) as f64 / begun.elapsed().as_secs_f64())
}

async fn load(port: u16, rows: u64, row_bytes: u64) -> anyhow::Result<()> {
    let client = connect(port).await?;
    let table = "CREATE TABLE filled (id BIGINT PRIMARY KEY, changes BIGINT NOT NULL DEFAULT 0, filler TEXT) WITH REPLICATION = 2";
    client.batch_execute(table).await.context("cannot create the table")?;
    let filler = "x".repeat(row_bytes as usize);
    for first in (0..rows).step_by(ROWS_AT_ONCE as usize) {
        let ids = first..(first + ROWS_AT_ONCE).min(rows);
        let values: Vec<String> = ids.map(|id| format!("({id}, '{filler}')")).collect();
        let insert = format!("INSERT INTO filled (id, filler) VALUES {}", values.join(", "));
        client.batch_execute(&insert).await?;
    }
    Ok(())
}

/// Changes one row after the other until it is told to stop. A failover in between is no failure.
async fn write(
    port: u16,
    number: u64,
    rows: u64,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let client = connect(port).await?;
    let update = client
        .prepare("UPDATE filled SET changes = changes + 1 WHERE id = $1")
        .await?;
    let mut place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while !stop.load(Relaxed) {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let id = ((place >> 33) % rows) as i64;
        match client.execute(&update, &[&id]).await {
            Ok(changed) => {
                ensure!(changed == 1, "row {id} is not there");
                written.fetch_add(1, Relaxed);
            }
            Err(error) => {
                ensure!(!client.is_closed(), "{error}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
    Ok(())
}

/// All that a node that does not run has.
fn lose_volume(folder: &std::path::Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(folder)?;
    std::fs::create_dir(folder)
}

async fn wait_for(client: &tokio_postgres::Client, query: &str) -> anyhow::Result<()> {
    let limit = Instant::now() + FILL_LIMIT;
    while !client.query_one(query, &[]).await?.get::<_, bool>(0) {
        ensure!(Instant::now() < limit, "not within {} s: {query}", FILL_LIMIT.as_secs());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
