//! `volt-node bench failover`: how long do writes stop when a node is killed, and is every acknowledged one there?
//!
//! One synchronous writer per node, each at first connected to its own node, inserts rows that fall into all partitions.
//! When an insert fails, the writer goes on to the next node and repeats it under the same key, so that a duplicate key
//! then means that the first attempt had happened. The gap of a run is the longest pause between two acknowledged
//! writes that any of the writers saw.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, bail};
use clap::Args;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::{OwnCluster, connect};
use crate::dev::cluster::DevCluster;

/// Writing before the kill.
const BEFORE: Duration = Duration::from_millis(1500);
/// Writing after it.
const AFTER: Duration = Duration::from_millis(3500);
/// How long one attempt may take before the writer tries elsewhere.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// Keys of each writer and run.
const KEYS: i64 = 1 << 32;

/// Arguments of `volt-node bench failover`.
#[derive(Args, Clone, Debug)]
pub struct FailoverArguments {
    /// How many nodes are killed, one after the other
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// The longest pause that is still good, in milliseconds: a longer one ends the command with an error
    #[arg(long)]
    limit_ms: Option<u64>,
    #[command(flatten)]
    cluster: OwnCluster,
}

/// What came of one run.
struct Run {
    killed: u32,
    was_leader: bool,
    gap: Duration,
    acknowledged: usize,
    lost: usize,
}

/// Starts a cluster of its own, kills its nodes in turn, and prints what the writers saw.
pub async fn run(arguments: FailoverArguments) -> anyhow::Result<()> {
    let mut cluster = DevCluster::start(&arguments.cluster.of(arguments.nodes)).await?;
    let done = measure(&arguments, &mut cluster).await;
    cluster.stop().await;
    let runs = done?;
    print_table(&runs);
    let lost: usize = runs.iter().map(|run| run.lost).sum();
    if lost > 0 {
        bail!("{lost} acknowledged writes are lost");
    }
    let worst = runs.iter().map(|run| run.gap).max().unwrap_or_default();
    if let Some(limit) = arguments.limit_ms.map(Duration::from_millis)
        && worst > limit
    {
        bail!(
            "writes stopped for {} ms, more than {} ms",
            worst.as_millis(),
            limit.as_millis()
        );
    }
    Ok(())
}

async fn measure(arguments: &FailoverArguments, cluster: &mut DevCluster) -> anyhow::Result<Vec<Run>> {
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.settings.sql_port).collect();
    let client = connect(ports[0]).await?;
    let table = "CREATE TABLE failover (id BIGINT PRIMARY KEY, writer INT NOT NULL) WITH REPLICATION = 2";
    client.batch_execute(table).await.context("cannot create the table")?;
    let mut runs: Vec<Run> = Vec::new();
    for number in 0..arguments.runs {
        cluster.wait_until_whole().await?;
        let leader = cluster.status().await.map_or(0, |status| status.metadata_leader);
        let times = |node_id: u32| runs.iter().filter(|run| run.killed == node_id).count();
        let killed = match (number, leader) {
            (0, leader) if leader > 0 => leader,
            _ => (1..=arguments.nodes).min_by_key(|node_id| times(*node_id)).unwrap_or(1),
        };
        let run = one_run(cluster, &ports, number, killed).await?;
        runs.push(Run {
            was_leader: killed == leader,
            ..run
        });
        cluster.nodes[killed as usize - 1].start()?;
    }
    Ok(runs)
}

/// Lets the writers write, kills a node meanwhile, and looks for what they were told is there.
async fn one_run(cluster: &mut DevCluster, ports: &[u16], number: u32, killed: u32) -> anyhow::Result<Run> {
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..ports.len()).map(|place| {
        let first_key = (i64::from(number) * ports.len() as i64 + place as i64) * KEYS;
        tokio::spawn(write(ports.to_vec(), place, first_key, Arc::clone(&stop)))
    });
    let writers: Vec<_> = writers.collect();
    sleep(BEFORE).await;
    cluster.nodes[killed as usize - 1].kill().await?;
    let at = Instant::now();
    sleep(AFTER).await;
    stop.store(true, Relaxed);
    let ended = Instant::now();
    let mut gap = Duration::ZERO;
    let mut acknowledged = Vec::new();
    for writer in writers {
        let acknowledgements = writer.await?;
        gap = gap.max(longest_gap(&acknowledgements, at, ended));
        acknowledged.extend(acknowledgements.into_iter().map(|(key, _)| key));
    }
    let survivor = ports.iter().enumerate().find(|(place, _)| *place as u32 + 1 != killed);
    let client = connect(*survivor.context("nobody is left")?.1).await?;
    let present = keys(&client).await?;
    let lost = acknowledged.iter().filter(|key| !present.contains(key)).count();
    Ok(Run {
        killed,
        was_leader: false,
        gap,
        acknowledged: acknowledged.len(),
        lost,
    })
}

/// The longest pause between acknowledgements that ended after the kill; without any more, all the time until the end.
fn longest_gap(acknowledgements: &[(i64, Instant)], at: Instant, ended: Instant) -> Duration {
    let last_before = acknowledgements
        .iter()
        .rev()
        .map(|(_, when)| *when)
        .find(|when| *when <= at);
    let mut previous = last_before.unwrap_or(at);
    let mut longest = Duration::ZERO;
    for when in acknowledgements
        .iter()
        .map(|(_, when)| *when)
        .filter(|when| *when > at)
        .chain([ended])
    {
        longest = longest.max(when.saturating_duration_since(previous));
        previous = when;
    }
    longest
}

/// Inserts until it is told to stop; returns what was acknowledged, and when.
async fn write(ports: Vec<u16>, home: usize, first_key: i64, stop: Arc<AtomicBool>) -> Vec<(i64, Instant)> {
    let mut acknowledged = Vec::new();
    let mut place = home;
    let mut key = first_key;
    let mut connection: Option<(Client, Statement)> = None;
    let mut repeated = false;
    while !stop.load(Relaxed) {
        if connection.is_none() {
            connection = open(ports[place]).await;
        }
        let written = match &connection {
            Some((client, insert)) => attempt(client, insert, key, home as i32, repeated).await,
            None => false,
        };
        if written {
            acknowledged.push((key, Instant::now()));
            key += 1;
            repeated = false;
            continue;
        }
        repeated = true;
        connection = None;
        place = (place + 1) % ports.len();
        sleep(RETRY_PAUSE).await;
    }
    acknowledged
}

async fn open(port: u16) -> Option<(Client, Statement)> {
    let client = connect(port).await.ok()?;
    let insert = timeout(
        ATTEMPT_TIMEOUT,
        client.prepare("INSERT INTO failover (id, writer) VALUES ($1, $2)"),
    );
    let insert = insert.await.ok()?.ok()?;
    Some((client, insert))
}

/// True: the row is there for good.
async fn attempt(client: &Client, insert: &Statement, key: i64, writer: i32, repeated: bool) -> bool {
    match timeout(ATTEMPT_TIMEOUT, client.execute(insert, &[&key, &writer])).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => repeated && error.code().is_some_and(|code| code.code() == "23505"),
        Err(_) => false,
    }
}

async fn keys(client: &Client) -> anyhow::Result<HashSet<i64>> {
    let rows = client.simple_query("SELECT id FROM failover").await?;
    let keys = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).and_then(|id| id.parse().ok()),
        _ => None,
    });
    Ok(keys.collect())
}

fn print_table(runs: &[Run]) {
    println!(
        "{:>4}  {:>6}  {:>15}  {:>7}  {:>12}  {:>5}",
        "run", "killed", "metadata leader", "gap ms", "acknowledged", "lost"
    );
    for (number, run) in runs.iter().enumerate() {
        let leader = if run.was_leader { "yes" } else { "no" };
        let Run {
            killed,
            gap,
            acknowledged,
            lost,
            ..
        } = run;
        println!(
            "{:>4}  {killed:>6}  {leader:>15}  {:>7}  {acknowledged:>12}  {lost:>5}",
            number + 1,
            gap.as_millis()
        );
    }
    let mut gaps: Vec<u128> = runs.iter().map(|run| run.gap.as_millis()).collect();
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or(0);
    println!(
        "failover: median {median} ms, worst {} ms",
        gaps.last().copied().unwrap_or(0)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gap_begins_before_the_kill() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let acknowledged = [(1, at(0)), (2, at(90)), (3, at(300)), (4, at(301))];
        assert_eq!(longest_gap(&acknowledged, at(100), at(302)), Duration::from_millis(210));
        assert_eq!(longest_gap(&[], at(100), at(302)), Duration::from_millis(202));
    }
}
