//! The operator's pods: who leads.

use anyhow::{Context, Result};

use crate::command::get;

/// What all of them have.
pub const PODS: &str = "app.kubernetes.io/name=volt-operator";

/// The names of the operator's pods.
pub async fn names() -> Result<Vec<String>> {
    let pods = get(&["pods", "-l", PODS]).await?;
    let pods = pods["items"].as_array().context("a list of pods")?;
    let names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(str::to_string).collect())
}

/// The pod that holds the operator's Lease.
pub async fn leader() -> Result<String> {
    let lease = get(&["lease", "volt-operator"]).await?;
    let holder = lease["spec"]["holderIdentity"]
        .as_str()
        .context("a holder of the Lease")?;
    let mut names = names().await?.into_iter();
    names
        .find(|name| name == holder)
        .with_context(|| format!("an operator pod that is the holder {holder:?}"))
}
