//! More nodes, fewer nodes, and too few, while clients write.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{conditions, copies, partitions, wait_for_condition, wait_for_event, wait_for_nodes};
use crate::command::{get, kubectl, psql, wait_until};
use crate::load::Load;
use crate::machines::Container;
use crate::operators::leader;

/// A pod with this one ends, and stays for Kubernetes until it is taken off.
const HOLD: &str = "e2e.voltcluster.dev/hold";

/// Until a fourth node carries its share.
const OUT_WITHIN_S: u64 = 120;
/// Until the operator has begun to drain a node.
const BEGUN_WITHIN_S: u64 = 60;
/// Until the other operator leads: the Lease of one that died lasts 15 s.
const LED_WITHIN_S: u64 = 60;
/// A new leader has looked at its clusters by then.
const LOOKED: Duration = Duration::from_secs(4);
/// Until nothing is left of a node that was scaled in.
const IN_WITHIN_S: u64 = 120;

async fn scale(nodes: u64) -> Result<()> {
    kubectl(&["scale", "voltcluster", "demo", &format!("--replicas={nodes}")]).await?;
    Ok(())
}

/// `kubectl scale` to four nodes, until the fourth carries its share, and back to three; the leading operator dies while
/// the fourth node is on its way out.
pub async fn out_and_in() -> Result<String> {
    let load = Load::start("scaling").await?;
    let before = copies(&partitions().await?);
    let out_s = out(&load).await?;
    let started = Instant::now();
    let handover = operator_dies_on_the_way_in().await?;
    wait_until(IN_WITHIN_S, "nothing is left of node 4", async || {
        nothing_is_left(before).await
    })
    .await?;
    wait_for_nodes(3, IN_WITHIN_S).await?;
    let in_s = started.elapsed().as_secs_f64();
    load.progress(50).await?;
    Ok(format!(
        "{}; out in {out_s:.1} s, in after {in_s:.1} s, {handover}",
        load.finish().await?
    ))
}

async fn out(load: &Load) -> Result<f64> {
    let started = Instant::now();
    scale(4).await?;
    wait_for_nodes(4, OUT_WITHIN_S).await?;
    wait_until(OUT_WITHIN_S, "node 4 is primary of some partitions", async || {
        Ok(partitions().await?.iter().any(|partition| partition.primary == Some(4)))
    })
    .await?;
    wait_for_condition("demo", "Scaled=True", "", OUT_WITHIN_S).await?;
    load.progress(50).await?;
    Ok(started.elapsed().as_secs_f64())
}

/// `status.operation`.
async fn operation() -> Result<serde_json::Value> {
    Ok(get(&["voltcluster", "demo"]).await?["status"]["operation"].clone())
}

/// The leader is lost while node 4 goes, and the next one takes up the work that the status names. The node's pod is held,
/// so that its going takes until then.
async fn operator_dies_on_the_way_in() -> Result<String> {
    let patch = |finalizers: &str| format!(r#"{{"metadata": {{"finalizers": [{finalizers}]}}}}"#);
    let hold = patch(&format!("{HOLD:?}"));
    kubectl(&["patch", "pod", "demo-3", "--type=merge", "-p", &hold]).await?;
    let first = leader().await?;
    let container = Container::of(&first).await?;
    scale(3).await?;
    wait_until(BEGUN_WITHIN_S, "the scale-in of node 4 is under way", async || {
        let seen = operation().await?;
        ensure!(
            seen["kind"] == "ScaleIn" && seen["nodeId"] == 4,
            "status.operation is {seen}"
        );
        Ok(true)
    })
    .await?;
    let begun = operation().await?;
    let died = Instant::now();
    container.lose().await?;
    wait_until(LED_WITHIN_S, "another operator leads", async || {
        Ok(leader().await? != first)
    })
    .await?;
    let led_s = died.elapsed().as_secs_f64();
    // It has looked by then; the pod is held, so that node 4 is still going.
    tokio::time::sleep(LOOKED).await;
    let now = operation().await?;
    ensure!(
        now == begun,
        "the new leader's operation is {now}, the old one's was {begun}"
    );
    kubectl(&["patch", "pod", "demo-3", "--type=merge", "-p", &patch("")]).await?;
    Ok(format!("the other operator led {led_s:.1} s after the first had died"))
}

/// The cluster has forgotten node 4, its volume is gone, and there are as many copies as before.
async fn nothing_is_left(copies_before: usize) -> Result<bool> {
    let nodes = psql("SELECT node_id FROM system.nodes ORDER BY node_id").await?;
    ensure!(nodes == "1\n2\n3", "system.nodes has {nodes:?}");
    let volumes = kubectl(&["get", "persistentvolumeclaims", "-o", "name"]).await?;
    ensure!(!volumes.contains("data-demo-3"), "there are the volumes {volumes}");
    let operation = operation().await?;
    ensure!(operation.is_null(), "status.operation is {operation}");
    let conditions = conditions("demo").await?;
    ensure!(
        conditions.iter().any(|condition| condition.starts_with("Scaled=True")),
        "its conditions are {conditions:#?}"
    );
    let copies = copies(&partitions().await?);
    ensure!(copies >= copies_before, "{copies} replicas are in sync");
    Ok(true)
}

/// REPLICATION = 2 needs three nodes: a wish for two is not followed, and the VoltCluster says why.
pub async fn too_few() -> Result<String> {
    scale(2).await?;
    let condition = wait_for_condition("demo", "Scaled=False BelowReplication", "REPLICATION = 2", 30).await?;
    wait_for_event("BelowReplication", "REPLICATION = 2", 30).await?;
    let pods = get(&["statefulset", "demo"]).await?["spec"]["replicas"].as_u64();
    ensure!(pods == Some(3), "the StatefulSet was scaled to {pods:?}");
    ensure!(
        psql("SELECT count(*) FROM system.nodes WHERE is_alive").await? == "3",
        "a node was stopped"
    );
    scale(3).await?;
    wait_for_condition("demo", "Scaled=True", "", 30).await?;
    wait_for_nodes(3, 60).await?;
    Ok(condition)
}
