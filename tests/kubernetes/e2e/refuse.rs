//! What nobody should be able to ask for, and what comes of asking.

use anyhow::{Result, bail, ensure};

use crate::cluster::condition_that_says;
use crate::command::{apply, kubectl};

/// The API server refuses it by the CRD's own rules; no operator is needed for that.
pub async fn no_replicas() -> Result<String> {
    let manifest =
        "{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {name: none}, spec: {replicas: 0}}";
    let Err(error) = apply(manifest).await else {
        bail!("the API server took a VoltCluster with no replicas")
    };
    let error = format!("{error:#}");
    ensure!(
        error.contains("replicas"),
        "the refusal does not name the field: {error}"
    );
    Ok(error.lines().last().unwrap_or_default().trim().to_string())
}

/// An image that does not exist shows in a condition; the cluster can be deleted though it never lived.
pub async fn nonsense_image() -> Result<String> {
    let manifest = "{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {name: typo}, \
                    spec: {replicas: 1, image: 'voltcluster/no-such-image:nonsense'}}";
    apply(manifest).await?;
    let condition = condition_that_says("typo", "image", 60).await?;
    kubectl(&["delete", "voltcluster", "typo", "--timeout=60s"]).await?;
    Ok(condition)
}

/// What is fixed for a cluster's life is refused by the CRD's transition rules.
pub async fn fixed_fields() -> Result<String> {
    let patch = r#"{"spec": {"partitions": 24}}"#;
    let Err(error) = kubectl(&["patch", "voltcluster", "demo", "--type=merge", "-p", patch]).await else {
        bail!("the API server took another number of partitions")
    };
    let error = format!("{error:#}");
    ensure!(error.contains("partitions is fixed"), "the refusal says {error}");
    Ok(String::new())
}
