//! A pod is gone from one moment to the next, as when its machine loses power.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cluster::{copies, partitions, pod_uid, wait_for_nodes, wait_in_sync};
use crate::command::{kubectl, psql, wait_until};
use crate::load::Load;
use crate::session;

/// Force-deletes the pod of a primary while clients write, and recovers the node.
pub async fn primary_dies() -> Result<String> {
    let load = Load::start("failover").await?;
    let before = partitions().await?;
    let node = before
        .iter()
        .find_map(|partition| partition.primary)
        .context("a partition with a primary")?;
    let pod = format!("demo-{}", node - 1);
    let first_life = pod_uid(&pod).await?;
    let killed = Instant::now();
    kubectl(&["delete", "pod", &pod, "--grace-period=0", "--force"]).await?;

    wait_until(30, "no partition is left to the dead node", async || {
        Ok(partitions()
            .await?
            .iter()
            .all(|partition| partition.primary.is_some_and(|primary| primary != node)))
    })
    .await?;
    session::still_there().await?;
    load.progress(50).await?;

    let recovered = psql(&format!("RECOVER NODE {node};")).await?;
    wait_for_nodes(3, 120).await?;
    wait_in_sync(node, copies(&before), 120).await?;
    let back_s = killed.elapsed().as_secs_f64();
    ensure!(pod_uid(&pod).await? != first_life, "{pod} was never replaced");
    load.progress(50).await?;
    let report = load.finish().await?;
    Ok(format!(
        "{report}; {pod} back in sync after {back_s:.1} s; RECOVER NODE {node} said {recovered:?}"
    ))
}
