//! Questions about the VoltCluster `demo`: to Kubernetes and to the database itself.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{SERVICE, get, kubectl, psql, psql_at, wait_until};

/// `type=status reason: message` of each condition.
pub async fn conditions(cluster: &str) -> Result<Vec<String>> {
    let object = get(&["voltcluster", cluster]).await?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_string();
    let line = |c: &Value| {
        format!(
            "{}={} {}: {}",
            text(c, "type"),
            text(c, "status"),
            text(c, "reason"),
            text(c, "message")
        )
    };
    Ok(conditions.iter().map(line).collect())
}

/// Waits until one of the conditions begins like this, `Scaled=False BelowReplication`, and has these words in it;
/// returns it.
pub async fn wait_for_condition(cluster: &str, beginning: &str, words: &str, limit_s: u64) -> Result<String> {
    let mut found = None;
    let ask = async || {
        let seen = conditions(cluster).await?;
        let is_it = |condition: &&String| condition.starts_with(beginning) && condition.contains(words);
        found = seen.iter().find(is_it).cloned();
        ensure!(found.is_some(), "its conditions are {seen:#?}");
        Ok(true)
    };
    let what = format!("a condition of {cluster} that begins {beginning:?} and has {words:?} in it");
    wait_until(limit_s, &what, ask).await?;
    found.context("the condition that was found")
}

/// Waits until Kubernetes has an event of `demo` with this reason and these words.
pub async fn wait_for_event(reason: &str, words: &str, limit_s: u64) -> Result<()> {
    let what = format!("an event {reason} of demo with {words:?} in it");
    wait_until(limit_s, &what, async || {
        let events = get(&[
            "events",
            &format!("--field-selector=reason={reason},involvedObject.name=demo"),
        ])
        .await?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let said: Vec<_> = events.iter().filter_map(|event| event["message"].as_str()).collect();
        ensure!(
            said.iter().any(|said| said.contains(words)),
            "events {reason}: {said:?}"
        );
        Ok(true)
    })
    .await
}

/// The pods' number that the StatefulSet `demo` has, if all of them are ready.
async fn ready_pods() -> Result<u64> {
    let set = get(&["statefulset", "demo"]).await?;
    let wanted = set["spec"]["replicas"].as_u64().unwrap_or(0);
    let ready = set["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let present = set["status"]["replicas"].as_u64().unwrap_or(0);
    Ok(if wanted == ready && wanted == present {
        wanted
    } else {
        0
    })
}

async fn is_ready() -> Result<bool> {
    let object = get(&["voltcluster", "demo"]).await?;
    let current = object["status"]["observedGeneration"].as_i64() == object["metadata"]["generation"].as_i64();
    Ok(current
        && conditions("demo")
            .await?
            .iter()
            .any(|condition| condition.starts_with("Ready=True")))
}

/// Waits until Kubernetes and the database both say that `nodes` nodes work.
pub async fn wait_for_nodes(nodes: u64, limit_s: u64) -> Result<()> {
    wait_until(limit_s, &format!("{nodes} pods of demo ready"), async || {
        Ok(ready_pods().await? == nodes)
    })
    .await?;
    wait_until(limit_s, "condition Ready of demo", is_ready).await?;
    wait_until(limit_s, &format!("{nodes} nodes alive in system.nodes"), async || {
        Ok(psql("SELECT count(*) FROM system.nodes WHERE is_alive").await? == nodes.to_string())
    })
    .await
}

/// One line of `system.partitions`.
pub struct Partition {
    /// The node that serves it; none while a new one is being chosen.
    pub primary: Option<u64>,
    /// The nodes that hold all of it.
    pub in_sync: Vec<u64>,
}

/// What the cluster map says about every partition.
pub async fn partitions() -> Result<Vec<Partition>> {
    partitions_at(SERVICE).await
}

/// What one host says of them.
pub async fn partitions_at(host: &str) -> Result<Vec<Partition>> {
    let statement = "SELECT \"primary\", in_sync FROM system.partitions ORDER BY partition_id";
    let rows = psql_at(host, statement).await?;
    rows.lines()
        .map(|row| {
            let (primary, in_sync) = row
                .split_once('|')
                .with_context(|| format!("a row of two columns, not {row:?}"))?;
            let numbers = in_sync
                .split(|c: char| !c.is_ascii_digit())
                .filter(|word| !word.is_empty());
            Ok(Partition {
                primary: primary.parse().ok(),
                in_sync: numbers.map(str::parse).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

/// How many in-sync replicas there are in all.
pub fn copies(partitions: &[Partition]) -> usize {
    partitions.iter().map(|partition| partition.in_sync.len()).sum()
}

/// Fails unless there are `wanted` in-sync replicas, and some of them on `node`.
pub fn ensure_in_sync(partitions: &[Partition], node: u64, wanted: usize) -> Result<()> {
    ensure!(
        copies(partitions) >= wanted,
        "{} replicas are in sync, not {wanted}",
        copies(partitions)
    );
    ensure!(
        partitions.iter().any(|partition| partition.in_sync.contains(&node)),
        "none of them is on node {node}"
    );
    Ok(())
}

/// Waits until there are `wanted` in-sync replicas again, and some of them on `node`.
pub async fn wait_in_sync(node: u64, wanted: usize, limit_s: u64) -> Result<()> {
    wait_until(
        limit_s,
        &format!("node {node} back in sync, {wanted} in-sync replicas"),
        async || {
            ensure_in_sync(&partitions().await?, node, wanted)?;
            Ok(true)
        },
    )
    .await
}

/// The pod of a node of `demo`.
pub fn pod_of(node: u64) -> String {
    format!("demo-{}", node - 1)
}

/// Where that pod answers, whatever the Service thinks of it.
pub fn host_of(node: u64) -> String {
    format!("{}.demo-nodes", pod_of(node))
}

/// What tells one life of a pod from the next.
pub async fn pod_uid(pod: &str) -> Result<String> {
    kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]).await
}
