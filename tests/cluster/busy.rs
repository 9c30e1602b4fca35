//! A busy machine is no failure: with every core taken by others, and with nodes that stand still for half a second, the
//! default settings fail nothing over.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::detection::failures;
use crate::load::{Load, run_for};
use crate::{alone, block_on, connect};

/// Seconds of it, unless the variable says otherwise.
const BUSY_SECONDS: u64 = 10;
const SECONDS_VARIABLE: &str = "VOLT_BUSY_SECONDS";
/// How long a node stands still.
const PAUSE: Duration = Duration::from_millis(500);

/// Processes that do nothing, as fast as they can: one a core. They end with this.
struct Spinning(Vec<Child>);

impl Spinning {
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        let mut spinning = Self(Vec::new());
        for _ in 0..cores {
            let mut spin = Command::new("sh");
            spin.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            spinning.0.push(spin.spawn()?);
        }
        Ok(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How many rows `system.failovers` has.
async fn failovers(port: u16) -> Result<i64> {
    let row = connect(port)
        .await?
        .query_one("SELECT count(*) FROM system.failovers", &[])
        .await?;
    Ok(row.get(0))
}

fn pause(cluster: &mut Cluster, nodes: &[u32]) -> Result<()> {
    for node in nodes {
        cluster.nodes.node(*node).freeze()?;
    }
    std::thread::sleep(PAUSE);
    for node in nodes {
        cluster.nodes.node(*node).thaw()?;
    }
    Ok(())
}

#[test]
fn a_busy_machine_and_nodes_that_stand_still_fail_nothing_over() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let seconds = std::env::var(SECONDS_VARIABLE).ok().and_then(|text| text.parse().ok());
        let busy = Duration::from_secs(seconds.unwrap_or(BUSY_SECONDS));
        // What it took to start, on a machine that others use, is another matter.
        let before = (failovers(cluster.sql(1)).await?, failures(cluster.sql(1)).await?.len());
        let load = Load::start(&cluster.sql_ports);
        run_for(&load, Duration::from_secs(1)).await?;
        let moment = Instant::now();
        let spinning = Spinning::start()?;
        let mut pauses = 0;
        // Half of it with nothing else, half of it with pauses: of each node, and of all.
        run_for(&load, busy / 2).await?;
        for nodes in [&[1][..], &[2], &[3], &[1, 2, 3]].into_iter().cycle() {
            if moment.elapsed() >= busy {
                break;
            }
            pause(&mut cluster, nodes)?;
            pauses += 1;
            sleep(PAUSE).await;
        }
        drop(spinning);
        // Whatever was suspected is a row by then.
        run_for(&load, Duration::from_secs(3)).await?;
        let told = load.stop().await;
        let found = failures(cluster.sql(1)).await?;
        println!(
            "{} s busy, {pauses} pauses: {found:?}; {} writes acknowledged",
            busy.as_secs(),
            told.acknowledged.len()
        );
        let after = (failovers(cluster.sql(1)).await?, found.len());
        ensure!(
            after == before,
            "failovers and failures were {before:?}, and are {after:?}: {found:?}"
        );
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
        }
        Ok(())
    });
}
