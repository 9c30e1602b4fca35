//! `helm install` and `kubectl apply`, as the README has them, and what a user sees then.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::chart::{CHART, RELEASE};
use crate::cluster::wait_for_nodes;
use crate::command::{NAMESPACE, get, kubectl, run, wait_until};
use crate::operators;

/// The operator looks at a settled cluster so seldom that a new table's partitions show after this at the latest.
const SHOWN_WITHIN_S: u64 = 30;

/// `helm install volt-operator charts/volt-operator`, with two replicas of the operator instead of one.
pub async fn operator() -> Result<String> {
    let install = ["install", RELEASE, CHART, "--namespace", NAMESPACE];
    let settings = ["--set=replicaCount=2", "--wait", "--timeout=90s"];
    run("helm", &[&install[..], &settings[..]].concat(), None).await?;
    let pods = operators::names().await?;
    ensure!(pods.len() == 2, "{} operator pods instead of 2", pods.len());
    Ok(String::new())
}

/// `kubectl apply -f examples.yaml`.
pub async fn example() -> Result<String> {
    let started = Instant::now();
    kubectl(&["apply", "-f", "examples.yaml"]).await?;
    wait_for_nodes(3, 120).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!("three nodes serve SQL {seconds:.1} s after kubectl apply"))
}

/// `kubectl get voltclusters`, by the long name and by the short one; what keeps its identity and its end safe is set.
pub async fn columns() -> Result<String> {
    for name in ["voltclusters", "vc"] {
        wait_until(
            SHOWN_WITHIN_S,
            &format!("kubectl get {name} shows a running demo"),
            async || {
                let shown = kubectl(&["get", name]).await?;
                let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let (heading, demo) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
                ensure!(
                    heading == ["NAME", "READY", "PHASE", "NODES", "PARTITIONS", "AGE"],
                    "{shown}"
                );
                ensure!(
                    demo.starts_with(&["demo", "True", "Running", "3/3", "12/12"]),
                    "{shown}"
                );
                Ok(true)
            },
        )
        .await?;
    }
    let demo = get(&["voltcluster", "demo"]).await?;
    let uuid = demo["status"]["clusterUuid"].as_str().context("status.clusterUuid")?;
    ensure!(uuid.len() == 36, "status.clusterUuid is {uuid:?}");
    let finalizers = demo["metadata"]["finalizers"].as_array().context("finalizers")?;
    ensure!(
        finalizers.iter().any(|name| name == "voltcluster.dev/operator"),
        "its finalizers are {finalizers:?}"
    );
    Ok(String::new())
}

/// Removes a child of `demo` to see that the operator puts it back.
pub async fn child_is_deleted() -> Result<String> {
    kubectl(&["delete", "poddisruptionbudget", "demo"]).await?;
    wait_until(30, "PodDisruptionBudget demo made again", async || {
        kubectl(&["get", "poddisruptionbudget", "demo"]).await?;
        Ok(true)
    })
    .await?;
    Ok(String::new())
}
