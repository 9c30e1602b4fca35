//! What a network that is neither whole nor cut may not do: stop writes for good, or keep a node out.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;
use volt_tests::processes::Nodes;
use volt_tests::proxy;

use crate::cluster::Cluster;
use crate::load::{Load, report, run_for};
use crate::{alone, block_on};

/// Until a member that does not acknowledge is dropped, and writes go on.
const GOES_ON_WITHIN: Duration = Duration::from_secs(6);
/// Until connections to a machine that vanished are given up, after it is back: less than a write's patience.
const REACHED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn two_nodes_that_do_not_hear_each_other_do_not_stop_writes() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::of(Nodes::start(3, proxy::host)?);
        let proxies = cluster.proxies().await?;
        cluster.form().await?;
        // The group's leader hears both, so that nobody is dead.
        let leader = cluster.leader().await?;
        let (a, b) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        let load = Load::start(&[cluster.sql(leader)]);
        run_for(&load, Duration::from_secs(1)).await?;
        let moment = Instant::now();
        proxies.part(a, b);
        sleep(GOES_ON_WITHIN).await;
        run_for(&load, Duration::from_secs(2)).await?;
        let status = cluster.status().await?;
        ensure!(
            status.nodes.iter().all(|node| node.is_alive),
            "a node is taken for dead"
        );
        for partition in &status.partitions {
            let both = partition.in_sync.contains(&a) && partition.in_sync.contains(&b);
            let led_by_one = [a, b].contains(&partition.primary);
            ensure!(
                !(both && led_by_one),
                "still in sync with who is not heard: {partition:?}"
            );
        }
        proxies.join(a, b);
        cluster.whole().await?;
        let told = load.stop().await;
        let pause = report("two nodes apart", &told, moment)?;
        ensure!(pause < GOES_ON_WITHIN, "writes stopped for {pause:?}");
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
        }
        // Dropped before the proxies, whose streams they use.
        cluster.nodes.nodes.clear();
        Ok(())
    });
}

#[test]
fn a_machine_that_vanished_without_a_word_is_reached_again_when_it_is_back() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::of(Nodes::start(3, proxy::host)?);
        let proxies = cluster.proxies().await?;
        cluster.form().await?;
        let victim = cluster.leader().await?;
        let others: Vec<u16> = (1..=3)
            .filter(|node| *node != victim)
            .map(|node| cluster.sql(node))
            .collect();
        let load = Load::start(&others);
        run_for(&load, Duration::from_secs(1)).await?;
        proxies.vanish(victim);
        cluster.nodes.node(victim).kill()?;
        cluster.nodes.node(victim).start()?;
        let pid = cluster.nodes.node(victim).pid().context("not running")?;
        proxies.process(victim, pid);
        let moment = Instant::now();
        cluster.whole().await?;
        println!("a machine replaced: whole after {} ms", moment.elapsed().as_millis());
        ensure!(
            moment.elapsed() < REACHED_WITHIN,
            "whole only after {:?}",
            moment.elapsed()
        );
        let told = load.stop().await;
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
        }
        cluster.nodes.nodes.clear();
        Ok(())
    });
}
