//! More nodes, fewer nodes, and too few, while clients write.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cluster::{condition_that_says, copies, partitions, wait_for_nodes};
use crate::command::{get, kubectl, psql, wait_until};
use crate::load::Load;

async fn scale(nodes: u64) -> Result<()> {
    kubectl(&["scale", "voltcluster", "demo", &format!("--replicas={nodes}")]).await?;
    Ok(())
}

/// `kubectl scale` to four nodes, until the fourth carries its share, and back to three.
pub async fn out_and_in() -> Result<String> {
    let load = Load::start("scaling").await?;
    let before = copies(&partitions().await?);
    let started = Instant::now();
    scale(4).await?;
    wait_for_nodes(4, 120).await?;
    wait_until(120, "node 4 is primary of some partitions", async || {
        Ok(partitions().await?.iter().any(|partition| partition.primary == Some(4)))
    })
    .await?;
    let out_s = started.elapsed().as_secs_f64();
    load.progress(50).await?;

    let started = Instant::now();
    scale(3).await?;
    wait_for_nodes(3, 180).await?;
    wait_until(60, "nothing is left on node 4, as many copies as before", async || {
        let partitions = partitions().await?;
        let left = partitions
            .iter()
            .any(|partition| partition.primary == Some(4) || partition.in_sync.contains(&4));
        Ok(!left && copies(&partitions) >= before)
    })
    .await?;
    let in_s = started.elapsed().as_secs_f64();
    load.progress(50).await?;
    Ok(format!(
        "{}; out in {out_s:.1} s, in after {in_s:.1} s",
        load.finish().await?
    ))
}

/// REPLICATION = 2 needs three nodes: a wish for two is not followed, and the VoltCluster says why.
pub async fn too_few() -> Result<String> {
    scale(2).await?;
    let condition = condition_that_says("demo", "replication", 30).await?;
    let pods = get(&["statefulset", "demo"]).await?["spec"]["replicas"].as_u64();
    ensure!(pods == Some(3), "the StatefulSet was scaled to {pods:?}");
    ensure!(
        psql("SELECT count(*) FROM system.nodes WHERE is_alive").await? == "3",
        "a node was stopped"
    );
    scale(3).await?;
    wait_for_nodes(3, 60).await?;
    Ok(condition)
}
