//! Transactions of every kind, by clients of all nodes at once, while a node is killed: their history is checked as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::sleep;
use volt_tests::serializable::clients::{self, Procedures, Recorder, Session};
use volt_tests::serializable::{check, explain};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Clients of each node.
const CLIENTS: u32 = 3;
/// After this time an answer is taken for lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const BEFORE_THE_DEATH: Duration = Duration::from_secs(4);
const AFTER_IT: Duration = Duration::from_secs(6);
/// A run in which less happened checks nothing.
const MIN_HAPPENED: usize = 100;

async fn open(port: u16, recorder: &Recorder, number: u32) -> Option<Session> {
    let client = connect(port).await.ok()?;
    Session::open(client, recorder, number, ANSWER_LIMIT, Procedures::Called).await
}

/// One transaction after another, on its own node while that lives, then on the next.
async fn work(ports: Vec<u16>, recorder: Recorder, number: u32, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(u64::from(number));
    let mut place = number as usize;
    while !stop.load(Ordering::Relaxed) {
        let Some(session) = open(ports[place % ports.len()], &recorder, number).await else {
            place += 1;
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) && session.transaction(&mut random).await {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
    }
}

#[test]
fn histories_are_strictly_serialisable_while_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        clients::make(&connect(cluster.sql(1)).await?, Procedures::Called).await?;
        cluster.whole().await?;
        let recorder = Recorder::new(|_| {});
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS * 3 {
            tasks.spawn(work(
                cluster.sql_ports.clone(),
                recorder.clone(),
                number,
                Arc::clone(&stop),
            ));
        }
        sleep(BEFORE_THE_DEATH).await;
        let victim = cluster.leader().await?;
        cluster.nodes.node(victim).kill()?;
        let at_death = recorder.history().len();
        sleep(AFTER_IT).await;
        stop.store(true, Ordering::Relaxed);
        while let Some(worked) = tasks.join_next().await {
            worked?;
        }
        let before_the_end = recorder.history().len();
        ensure!(before_the_end > at_death, "nothing was done after the death");
        cluster.nodes.node(victim).start()?;
        cluster.whole().await?;
        read_at_the_end(&cluster, &recorder).await?;
        let history = recorder.history();
        let checked = check(&history).map_err(|anomalies| anyhow::anyhow!("{}", explain(&history, &anomalies)))?;
        println!("{at_death} transactions before a node died, {before_the_end} in all; {checked:?}");
        ensure!(checked.happened >= MIN_HAPPENED, "only {checked:?}");
        Ok(())
    });
}

async fn read_at_the_end(cluster: &Cluster, recorder: &Recorder) -> Result<()> {
    for node in 1..=3 {
        let session = open(cluster.sql(node), recorder, 100 + node).await;
        let session = session.with_context(|| format!("node {node} takes no session at the end"))?;
        let is_read = session.read_everything().await;
        ensure!(is_read, "node {node} does not read lists and sets at the end");
    }
    Ok(())
}
