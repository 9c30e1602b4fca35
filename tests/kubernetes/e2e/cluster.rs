//! Questions about the VoltCluster `demo`: to Kubernetes and to the database itself.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{get, kubectl, psql, wait_until};

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

/// Waits until one of the conditions has this word in it, and returns that condition.
pub async fn condition_that_says(cluster: &str, word: &str, limit_s: u64) -> Result<String> {
    let mut found = None;
    let ask = async || {
        let seen = conditions(cluster).await?;
        found = seen
            .iter()
            .find(|condition| condition.to_lowercase().contains(word))
            .cloned();
        ensure!(found.is_some(), "its conditions are {seen:#?}");
        Ok(true)
    };
    wait_until(
        limit_s,
        &format!("a condition of {cluster} that mentions {word:?}"),
        ask,
    )
    .await?;
    found.context("the condition that was found")
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
    let rows = psql("SELECT \"primary\", in_sync FROM system.partitions ORDER BY partition_id").await?;
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

/// Waits until there are `wanted` in-sync replicas again, and some of them on `node`.
pub async fn wait_in_sync(node: u64, wanted: usize, limit_s: u64) -> Result<()> {
    wait_until(
        limit_s,
        &format!("node {node} back in sync, {wanted} in-sync replicas"),
        async || {
            let partitions = partitions().await?;
            ensure!(copies(&partitions) >= wanted, "there are {}", copies(&partitions));
            Ok(partitions.iter().any(|partition| partition.in_sync.contains(&node)))
        },
    )
    .await
}

/// What tells one life of a pod from the next.
pub async fn pod_uid(pod: &str) -> Result<String> {
    kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]).await
}
