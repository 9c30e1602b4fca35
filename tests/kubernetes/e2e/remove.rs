//! The end of a VoltCluster.

use anyhow::{Context, Result, ensure};

use crate::chart::RELEASE;
use crate::cluster::wait_for_nodes;
use crate::command::{get, kubectl, run, wait_until};
use crate::session;

const CHILDREN: &str = "statefulsets,services,poddisruptionbudgets,pods";

/// The names of all that is left of `demo`.
async fn children() -> Result<Vec<String>> {
    let objects = get(&[CHILDREN]).await?;
    let objects = objects["items"].as_array().cloned().unwrap_or_default();
    let name = |object: &serde_json::Value| {
        let name = object["metadata"]["name"].as_str()?;
        (name == "demo" || name.starts_with("demo-"))
            .then(|| format!("{} {name}", object["kind"].as_str().unwrap_or_default()))
    };
    Ok(objects.iter().filter_map(name).collect())
}

/// Deletes the VoltCluster, whose finalizer lets it go; sees its children go.
async fn delete() -> Result<()> {
    ensure!(!children().await?.is_empty(), "demo has no children to begin with");
    kubectl(&["delete", "voltcluster", "demo", "--timeout=90s"]).await?;
    wait_until(60, "every child of demo is gone", async || {
        let left = children().await?;
        ensure!(left.is_empty(), "there is still {left:?}");
        Ok(true)
    })
    .await
}

async fn uuid() -> Result<String> {
    let demo = get(&["voltcluster", "demo"]).await?;
    let uuid = demo["status"]["clusterUuid"].as_str().context("status.clusterUuid")?;
    Ok(uuid.to_string())
}

/// Its volumes stay, and a VoltCluster of the same name is the same database.
pub async fn and_again() -> Result<String> {
    let first = uuid().await?;
    delete().await?;
    kubectl(&["apply", "-f", "examples.yaml"]).await?;
    wait_for_nodes(3, 120).await?;
    let second = uuid().await?;
    ensure!(second == first, "it was {first} and is {second}");
    session::still_there().await
}

/// What the chart brought goes with it.
pub async fn all() -> Result<String> {
    delete().await?;
    run("helm", &["uninstall", RELEASE, "--wait", "--timeout=60s"], None).await?;
    Ok(String::new())
}
