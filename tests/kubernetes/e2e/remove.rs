//! The end of a VoltCluster.

use anyhow::{Result, ensure};

use crate::command::{get, kubectl, run, wait_until};

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

/// Deletes the VoltCluster, whose finalizer lets it go; sees its children go, and the chart uninstall.
pub async fn all() -> Result<String> {
    ensure!(!children().await?.is_empty(), "demo has no children to begin with");
    kubectl(&["delete", "voltcluster", "demo", "--timeout=90s"]).await?;
    wait_until(60, "every child of demo is gone", async || {
        let left = children().await?;
        ensure!(left.is_empty(), "there is still {left:?}");
        Ok(true)
    })
    .await?;
    run("helm", &["uninstall", "volt-operator", "--wait", "--timeout=60s"], None).await?;
    Ok(String::new())
}
