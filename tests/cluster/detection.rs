//! Each way in which a failure is found, on real nodes: what finds it says so in `system.failures`, the same on every node.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use volt_tests::processes::Nodes;
use volt_tests::{http, proxy};

use crate::cluster::Cluster;
use crate::load::{Load, report, run_for};
use crate::{alone, block_on, connect};

/// Three probes of 200 ms each find a failure; nothing else looks for silence.
const PROBES: [&str; 4] = ["--detect", "interval", "--probe-interval-ms", "200"];
/// Until a failure that three probes find is a row on every node.
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// Until writes go on: three probes, the rest of a lease, a promotion; on a busy machine.
const FAILED_OVER_WITHIN: Duration = Duration::from_secs(6);

/// A row of `system.failures`.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    failure_id: i64,
    pub node_id: i32,
    pub strategy: String,
    pub medium: String,
    pub evidence: String,
    seconds: f64,
    pub outcome: String,
}

/// All of them, as this node tells.
pub async fn failures(port: u16) -> Result<Vec<Failure>> {
    let query = "SELECT failure_id, node_id, strategy, medium, evidence, seconds_to_detect, outcome \
                 FROM system.failures ORDER BY failure_id";
    let rows = connect(port).await?.query(query, &[]).await?;
    let row = |row: &tokio_postgres::Row| Failure {
        failure_id: row.get(0),
        node_id: row.get(1),
        strategy: row.get(2),
        medium: row.get(3),
        evidence: row.get(4),
        seconds: row.get(5),
        outcome: row.get(6),
    };
    Ok(rows.iter().map(row).collect())
}

/// The first failure that this holds for, once this node knows of one.
pub async fn found(port: u16, wanted: impl Fn(&Failure) -> bool) -> Result<Failure> {
    let end = Instant::now() + FOUND_WITHIN;
    loop {
        // Who is asked may have no lease for a moment.
        let all = failures(port).await.unwrap_or_default();
        if let Some(failure) = all.iter().find(|failure| wanted(failure)) {
            return Ok(failure.clone());
        }
        ensure!(Instant::now() < end, "not among the failures: {all:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A node that does not lead the metadata group, and one that is neither.
async fn follower(cluster: &Cluster) -> Result<(u32, u32)> {
    let leader = cluster.leader().await?;
    Ok((leader % 3 + 1, leader))
}

#[test]
fn a_frozen_node_is_found_by_probes() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start_with(&PROBES).await?;
        let (victim, other) = follower(&cluster).await?;
        cluster.nodes.node(victim).freeze()?;
        let failure = found(cluster.sql(other), |failure| failure.node_id == victim as i32).await?;
        println!("frozen: {failure:?}");
        ensure!(
            failure.strategy == "interval" && failure.medium == "network",
            "{failure:?}"
        );
        ensure!(
            failure.evidence.contains("3 probes missed in a row, one each 200 ms"),
            "{failure:?}"
        );
        ensure!((0.5..2.0).contains(&failure.seconds), "{failure:?}");
        cluster.nodes.node(victim).thaw()?;
        cluster.whole().await?;
        let ended = found(cluster.sql(other), |failure| failure.outcome.contains("heard again")).await?;
        ensure!(ended.failure_id == failure.failure_id, "{ended:?}");
        ensure!(ended.outcome.contains("replica"), "{ended:?}");
        let told = failures(cluster.sql(other)).await?;
        for node in 1..=3 {
            found(cluster.sql(node), |failure| failure.outcome == ended.outcome).await?;
            ensure!(
                failures(cluster.sql(node)).await? == told,
                "node {node} tells another story"
            );
        }
        let port = cluster.nodes.node(other).http_port;
        let metrics = http::get(port, "/metrics").await?.body;
        let counted = "volt_failures_total{strategy=\"interval\",medium=\"network\"} 1\n";
        ensure!(metrics.contains(counted), "{metrics}");
        let on = "SELECT strategy, medium, settings FROM system.detectors WHERE is_on ORDER BY strategy, medium";
        let on = connect(cluster.sql(other)).await?.query(on, &[]).await?;
        let on: Vec<String> = on
            .iter()
            .map(|row| format!("{}, {}", row.get::<_, String>(0), row.get::<_, String>(1)))
            .collect();
        let expected = [
            "connection, network",
            "interval, file system",
            "interval, network",
            "operator, network",
        ];
        ensure!(on == expected, "{on:?}");
        Ok(())
    });
}

#[test]
fn a_node_that_sends_and_does_not_receive_is_found_by_probes() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::of(Nodes::start_with(
            3,
            proxy::host,
            &["--detect", "heartbeat,interval", "--probe-interval-ms", "200"],
        )?);
        let proxies = cluster.proxies().await?;
        cluster.form().await?;
        let (victim, leader) = follower(&cluster).await?;
        let load = Load::start(&[cluster.sql(leader)]);
        run_for(&load, Duration::from_secs(1)).await?;
        let moment = Instant::now();
        // It sends heartbeats, and asks for leases; nobody who asks it hears anything.
        proxies.deafen(victim);
        let failure = found(cluster.sql(leader), |failure| failure.node_id == victim as i32).await?;
        println!("deaf: {failure:?}");
        ensure!(
            failure.strategy == "interval" && failure.medium == "network",
            "{failure:?}"
        );
        run_for(&load, FAILED_OVER_WITHIN).await?;
        let told = load.stop().await;
        let pause = report("a node that does not receive", &told, moment)?;
        ensure!(pause < FAILED_OVER_WITHIN, "writes stopped for {pause:?}");
        let status = volt_tests::operator::status(cluster.peer(leader)).await?;
        ensure!(
            status.partitions.iter().all(|partition| partition.primary != victim),
            "it still leads partitions"
        );
        let ids = failures(cluster.sql(leader)).await?;
        ensure!(
            ids.len() == 1,
            "it was found once, and stays so while it is deaf: {ids:?}"
        );
        proxies.undeafen(victim);
        cluster.whole().await?;
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
        }
        // Dropped before the proxies, whose streams they use.
        cluster.nodes.nodes.clear();
        Ok(())
    });
}

#[test]
fn a_node_that_is_cut_off_from_the_shared_directory_is_found_by_its_file() {
    let _alone = alone();
    block_on(async {
        let shared = tempfile::tempdir()?;
        let path = shared.path().to_str().context("a path")?;
        let arguments = [&PROBES[..], &["--liveness-dir", path]].concat();
        let cluster = Cluster::start_with(&arguments).await?;
        let (victim, other) = follower(&cluster).await?;
        let file = shared.path().join(format!("node-{victim}"));
        ensure!(file.is_file(), "{} is not there", file.display());
        block(&file)?;
        let failure = found(cluster.sql(other), |failure| failure.node_id == victim as i32).await?;
        println!("cut off: {failure:?}");
        ensure!(
            failure.strategy == "interval" && failure.medium == "file system",
            "{failure:?}"
        );
        ensure!(
            failure
                .evidence
                .contains("its liveness file was not renewed at 3 looks"),
            "{failure:?}"
        );
        std::fs::remove_dir_all(&file)?;
        cluster.whole().await?;
        found(cluster.sql(victim), |failure| failure.outcome.contains("heard again")).await?;
        Ok(())
    });
}

/// Puts a folder in a file's place, with something in it, so that the file can't be put there again.
fn block(file: &Path) -> Result<()> {
    // The file is renewed all the time.
    for _ in 0..1_000 {
        let _ = std::fs::remove_file(file);
        if std::fs::create_dir(file).is_ok() {
            std::fs::write(file.join("here"), "")?;
            return Ok(());
        }
    }
    anyhow::bail!("{} was renewed again and again", file.display())
}

/// A text that stands in one row alone.
const MARKED: &str = "the-row-that-rots";

#[test]
fn a_replica_that_rots_is_found_by_its_checksum_and_filled_anew() {
    let _alone = alone();
    block_on(async {
        let arguments = ["--detect", "heartbeat,data-change", "--checksum-interval-s", "1"];
        let mut cluster = Cluster::start_with(&arguments).await?;
        let (victim, leader) = follower(&cluster).await?;
        let client = connect(cluster.sql(leader)).await?;
        client
            .batch_execute("CREATE TABLE marked (id INT PRIMARY KEY, word TEXT) WITH REPLICATION = 2")
            .await?;
        client.execute("INSERT INTO marked VALUES (1, $1)", &[&MARKED]).await?;
        cluster.whole().await?;
        let load = Load::start(&[cluster.sql(leader)]);
        run_for(&load, Duration::from_secs(4)).await?;
        ensure!(
            failures(cluster.sql(leader)).await?.is_empty(),
            "replicas that are the same are in doubt"
        );
        // Its disk changes a byte while it is away, and makes its checksum fit.
        cluster.nodes.node(victim).kill()?;
        let rotten = rot(&cluster.nodes.node(victim).data().join("log"), MARKED.as_bytes())?;
        ensure!(rotten == 1, "{rotten} records have the row");
        cluster.nodes.node(victim).start()?;
        let failure = found(cluster.sql(leader), |failure| failure.strategy == "data change").await?;
        println!("rotten: {failure:?}");
        ensure!(
            failure.node_id == victim as i32 && failure.medium == "network",
            "{failure:?}"
        );
        ensure!(failure.evidence.contains("2 of 3 copies agree"), "{failure:?}");
        ensure!(failure.evidence.contains("of 1 rows, not checksum"), "{failure:?}");
        let id = failure.failure_id;
        found(cluster.sql(leader), |failure| {
            failure.failure_id == id && failure.outcome.contains("in sync again")
        })
        .await?;
        cluster.whole().await?;
        // The next comparisons find nothing more.
        let told = failures(cluster.sql(leader)).await?;
        run_for(&load, Duration::from_secs(4)).await?;
        ensure!(failures(cluster.sql(leader)).await? == told, "it differs still");
        let acknowledged = load.stop().await;
        for node in 1..=3 {
            acknowledged.assert_all_there(cluster.sql(node)).await?;
            let word = connect(cluster.sql(node))
                .await?
                .query_one("SELECT word FROM marked", &[])
                .await?;
            ensure!(word.get::<_, String>(0) == MARKED, "{word:?}");
        }
        Ok(())
    });
}

/// Changes a byte of what is in these records of a log, and makes their checksums fit. Returns how many there were.
fn rot(folder: &Path, content: &[u8]) -> Result<usize> {
    /// As `recovery/log/layout.rs` has them.
    const HEADER_BYTES: usize = 48;
    const ENTRY_BYTES: usize = 29;
    let mut rotten = 0;
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        let mut bytes = std::fs::read(&path)?;
        let mut start = HEADER_BYTES;
        while let Some(length) = bytes.get(start..start + 4) {
            let length = u32::from_le_bytes(length.try_into()?) as usize;
            let end = start + ENTRY_BYTES + length;
            let Some(entry) = bytes.get_mut(start..end) else { break };
            let place = entry.windows(content.len()).position(|window| window == content);
            if let Some(place) = place {
                entry[place] ^= 1;
                let checksum = crc32c::crc32c_append(crc32c::crc32c(&entry[..4]), &entry[8..]);
                entry[4..8].copy_from_slice(&checksum.to_le_bytes());
                rotten += 1;
            }
            start = end;
        }
        std::fs::write(&path, bytes)?;
    }
    Ok(rotten)
}
