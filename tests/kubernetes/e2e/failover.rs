//! Pods that are gone from one moment to the next, while clients write.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cluster::{
    copies, ensure_in_sync, host_of, partitions, partitions_at, pod_of, pod_uid, wait_for_event, wait_for_nodes,
    wait_in_sync,
};
use crate::command::{get, psql_at, wait_until};
use crate::load::Load;
use crate::machines::{self, Container};
use crate::session;

/// Until every living node knows of a death, and every partition has a primary that lives.
const NOTICED_WITHIN_S: u64 = 30;
/// Until a pod that may start again is in sync.
const BACK_WITHIN_S: u64 = 120;
/// Until the operator has told of what it saw.
const TOLD_WITHIN_S: u64 = 30;
/// Until RECOVER NODE has written its wish down.
const WISHED_WITHIN_S: u64 = 15;

/// A node that is primary of something, and is not this one.
async fn some_primary(other_than: Option<u64>) -> Result<u64> {
    let partitions = partitions().await?;
    let mut primaries = partitions.iter().filter_map(|partition| partition.primary);
    primaries
        .find(|primary| Some(*primary) != other_than)
        .context("a partition with another primary")
}

fn others(dead: u64) -> impl Iterator<Item = u64> {
    (1..=3).filter(move |node| *node != dead)
}

/// Through each living node: the dead one is shown as dead and has no partition, every row is there, and rows can be written.
async fn goes_on_without(dead: u64) -> Result<()> {
    let alive: Vec<String> = (1..=3)
        .map(|node| format!("{node}|{}", if node == dead { "f" } else { "t" }))
        .collect();
    let alive = alive.join("\n");
    for node in others(dead) {
        let host = host_of(node);
        wait_until(
            NOTICED_WITHIN_S,
            &format!("node {node} shows node {dead} dead"),
            async || {
                let seen = psql_at(&host, session::NODES).await?;
                ensure!(seen == alive, "system.nodes says {seen:?}");
                Ok(true)
            },
        )
        .await?;
        wait_until(NOTICED_WITHIN_S, "no partition is left to the dead node", async || {
            let partitions = partitions_at(&host).await?;
            Ok(partitions
                .iter()
                .all(|partition| partition.primary.is_some_and(|primary| primary != dead)))
        })
        .await?;
        session::still_there_at(&host).await?;
        psql_at(
            &host,
            &format!("INSERT INTO example VALUES ({}, 'meanwhile');", 100 + node),
        )
        .await?;
        psql_at(&host, &format!("DELETE FROM example WHERE id = {};", 100 + node)).await?;
    }
    Ok(())
}

/// RECOVER NODE, typed while the pod can't start; returns what it said, as soon as it said it.
async fn recover(node: u64, host: &str) -> Result<String> {
    let answer = {
        let host = host.to_string();
        tokio::spawn(async move { psql_at(&host, &format!("RECOVER NODE {node};")).await })
    };
    let wishes = format!("SELECT count(*) FROM system.recoveries WHERE node_id = {node}");
    wait_until(WISHED_WITHIN_S, "RECOVER NODE waits for the pod", async || {
        ensure!(
            !answer.is_finished(),
            "RECOVER NODE returned while the pod could not start"
        );
        Ok(psql_at(host, &wishes).await? == "1")
    })
    .await?;
    machines::open().await?;
    answer.await?
}

/// The pod of a primary is force-deleted and can't start again: the others go on. RECOVER NODE returns when the node is
/// in sync; then, at once, another primary is lost without a word, and comes back by itself.
pub async fn primaries_die() -> Result<String> {
    let load = Load::start("failover").await?;
    let wanted = copies(&partitions().await?);
    let first = some_primary(None).await?;
    let first_life = pod_uid(&pod_of(first)).await?;
    machines::close().await?;
    machines::force_delete(&pod_of(first)).await?;
    goes_on_without(first).await?;
    load.progress(50).await?;
    let through = others(first).next().map(host_of).context("a living node")?;
    let said = recover(first, &through).await?;
    ensure_in_sync(&partitions_at(&through).await?, first, wanted).context("when RECOVER NODE had returned")?;
    ensure!(
        pod_uid(&pod_of(first)).await? != first_life,
        "{} is the same pod",
        pod_of(first)
    );

    let second = some_primary(Some(first)).await?;
    let container = Container::of(&pod_of(second)).await?;
    machines::close().await?;
    container.lose().await?;
    goes_on_without(second).await?;
    load.progress(50).await?;
    let opened = Instant::now();
    machines::open().await?;
    wait_for_nodes(3, BACK_WITHIN_S).await?;
    wait_in_sync(second, wanted, BACK_WITHIN_S).await?;
    let back_s = opened.elapsed().as_secs_f64();
    for node in [first, second] {
        wait_for_event("NodeDied", &format!("node {node} "), TOLD_WITHIN_S).await?;
        wait_for_event("NodeRejoined", &format!("node {node} "), TOLD_WITHIN_S).await?;
    }
    let report = load.finish().await?;
    Ok(format!(
        "{report}; RECOVER NODE {first} said {said:?}; node {second} came back by itself in {back_s:.1} s"
    ))
}

/// `kill -9` of a primary's process, as when it runs out of memory: its container is started again in the same pod.
pub async fn container_is_killed() -> Result<String> {
    let load = Load::start("killed").await?;
    let wanted = copies(&partitions().await?);
    let node = some_primary(None).await?;
    let pod = pod_of(node);
    let (life, container) = (pod_uid(&pod).await?, Container::of(&pod).await?);
    let killed = Instant::now();
    container.kill().await?;
    wait_until(
        BACK_WITHIN_S,
        &format!("the container of {pod} is started again"),
        async || {
            let status = &get(&["pod", &pod]).await?["status"]["containerStatuses"][0];
            Ok(status["restartCount"] == 1 && status["ready"] == true)
        },
    )
    .await?;
    load.progress(50).await?;
    wait_for_nodes(3, BACK_WITHIN_S).await?;
    wait_in_sync(node, wanted, BACK_WITHIN_S).await?;
    let back_s = killed.elapsed().as_secs_f64();
    ensure!(pod_uid(&pod).await? == life, "{pod} was replaced");
    Ok(format!(
        "{}; {pod} back in sync after {back_s:.1} s",
        load.finish().await?
    ))
}
