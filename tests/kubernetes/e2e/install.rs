//! What the chart brings: the operator, its deputy, and a test of its own.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cluster::wait_for_nodes;
use crate::command::{NAMESPACE, get, kubectl, run, wait_until};

const CHART: &str = "charts/volt-operator";
const RELEASE: &str = "volt-operator";
const OPERATOR_PODS: &str = "app.kubernetes.io/name=volt-operator";
const SETTINGS: [&str; 2] = ["--set=replicaCount=2", "--wait"];

/// `helm lint --strict`.
pub async fn lint() -> Result<String> {
    run("helm", &["lint", "--strict", CHART], None).await?;
    Ok(String::new())
}

/// `helm install`, with two replicas of the operator.
pub async fn operator() -> Result<String> {
    run(
        "helm",
        &[
            &["install", RELEASE, CHART, "--namespace", NAMESPACE, "--timeout=90s"],
            &SETTINGS[..],
        ]
        .concat(),
        None,
    )
    .await?;
    let pods = get(&["pods", "-l", OPERATOR_PODS]).await?;
    let pods = pods["items"].as_array().context("a list of pods")?;
    ensure!(pods.len() == 2, "{} operator pods instead of 2", pods.len());
    Ok(String::new())
}

/// `kubectl apply -f examples.yaml`, as the README has it.
pub async fn example() -> Result<String> {
    let started = Instant::now();
    kubectl(&["apply", "-f", "examples.yaml"]).await?;
    wait_for_nodes(3, 120).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!("three nodes serve SQL {seconds:.1} s after kubectl apply"))
}

/// `helm test`.
pub async fn chart_test() -> Result<String> {
    run(
        "helm",
        &["test", RELEASE, "--namespace", NAMESPACE, "--timeout=90s"],
        None,
    )
    .await?;
    Ok(String::new())
}

/// The pod that holds the operator's Lease.
async fn leader() -> Result<String> {
    let leases = get(&["leases"]).await?;
    let holders = leases["items"].as_array().context("a list of leases")?.iter();
    let ours = holders.filter(|lease| {
        lease["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.contains("volt-operator"))
    });
    let holder = ours
        .filter_map(|lease| lease["spec"]["holderIdentity"].as_str())
        .next()
        .context("a holder of the Lease")?;
    let pods = get(&["pods", "-l", OPERATOR_PODS]).await?;
    let names = pods["items"]
        .as_array()
        .context("a list of pods")?
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    let pod = names.filter(|name| holder.contains(name)).max_by_key(|name| name.len());
    Ok(pod
        .with_context(|| format!("an operator pod that is the holder {holder:?}"))?
        .to_string())
}

/// Kills the leading operator, then removes a child of `demo` to see that somebody still puts it back.
pub async fn operator_dies() -> Result<String> {
    let first = leader().await?;
    let started = Instant::now();
    kubectl(&["delete", "pod", &first, "--grace-period=0", "--force"]).await?;
    wait_until(60, "another holder of the operator's Lease", async || {
        Ok(leader().await? != first)
    })
    .await?;
    let seconds = started.elapsed().as_secs_f64();
    kubectl(&["delete", "poddisruptionbudget", "demo"]).await?;
    wait_until(30, "PodDisruptionBudget demo made again", async || {
        kubectl(&["get", "poddisruptionbudget", "demo"]).await?;
        Ok(true)
    })
    .await?;
    Ok(format!("{} leads after {seconds:.1} s and works", leader().await?))
}
