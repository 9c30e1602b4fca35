//! What nobody should be able to ask for, and what comes of asking.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::cluster::{copies, partitions, pod_of, pod_uid, wait_for_condition, wait_for_nodes};
use crate::command::{apply, apply_dry, kubectl, wait_until};
use crate::load::Load;

/// Nobody has it, and nobody can be asked for it.
const NO_IMAGE: &str = "voltcluster/no-such-image:nonsense";
/// Until a condition says what is wrong with an image.
const SAID_WITHIN_S: u64 = 60;
/// Until the cluster is whole after the image was put right.
const RIGHT_WITHIN_S: u64 = 120;
/// An operator that takes a second pod away, though the first is not back, has done so by then: it looks every second.
const SECOND_THOUGHTS: Duration = Duration::from_secs(8);

async fn ensure_refused(attempt: Result<String>, words: &str) -> Result<String> {
    let Err(error) = attempt else {
        bail!("the API server took what should be refused with {words:?}")
    };
    let error = format!("{error:#}");
    ensure!(error.contains(words), "the refusal does not say {words:?}: {error}");
    Ok(error.lines().last().unwrap_or_default().trim().to_string())
}

/// The API server refuses it by the CRD's own rules; no operator is needed for that.
pub async fn no_replicas() -> Result<String> {
    let manifest =
        "{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {name: none}, spec: {replicas: 0}}";
    ensure_refused(apply(manifest).await, "replicas").await
}

/// Of a standby and of what a new cluster is restored from, each rule refuses what it is there for, and nothing else.
pub async fn standbys() -> Result<String> {
    const ARCHIVE: &str = "url: 's3://backups/shop'";
    let dry_run = async |spec: &str| {
        let manifest = format!(
            "{{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {{name: none}}, spec: {{{spec}}}}}"
        );
        apply_dry(&manifest).await
    };
    for (spec, words) in [
        (
            format!("standby: {{{ARCHIVE}, claimName: backups}}"),
            "a url or a claimName, and not both",
        ),
        (format!("standby: {{{ARCHIVE}, immediate: true}}"), "it needs promote"),
        (
            format!("standby: {{{ARCHIVE}}}, restore: {{{ARCHIVE}}}"),
            "and not both",
        ),
    ] {
        ensure_refused(dry_run(&spec).await, words).await?;
    }
    dry_run(&format!(
        "standby: {{{ARCHIVE}, secretName: a, promote: true, immediate: true}}, archive: {{{ARCHIVE}, secretName: b}}"
    ))
    .await
}

/// Nor can a running one be scaled to nothing, get another number of partitions, or become a standby.
pub async fn changes() -> Result<String> {
    let to_none = kubectl(&["scale", "voltcluster", "demo", "--replicas=0"]).await;
    ensure_refused(to_none, "replicas").await?;
    let patch = r#"{"spec": {"partitions": 24}}"#;
    let partitions = kubectl(&["patch", "voltcluster", "demo", "--type=merge", "-p", patch]).await;
    ensure_refused(partitions, "partitions is fixed").await?;
    let patch = r#"{"spec": {"standby": {"url": "s3://backups/shop"}}}"#;
    let standby = kubectl(&["patch", "voltcluster", "demo", "--type=merge", "-p", patch]).await;
    ensure_refused(standby, "can't be set later").await?;
    Ok(String::new())
}

/// A cluster whose image does not exist says so; it can be deleted though it never lived.
pub async fn nonsense_image() -> Result<String> {
    let manifest = format!(
        "{{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {{name: typo}}, \
         spec: {{replicas: 1, image: '{NO_IMAGE}'}}}}"
    );
    apply(&manifest).await?;
    let condition = wait_for_condition("typo", "Ready=False", NO_IMAGE, SAID_WITHIN_S).await?;
    kubectl(&["delete", "voltcluster", "typo", "--timeout=60s"]).await?;
    Ok(condition)
}

async fn set_image(image: &str) -> Result<()> {
    let patch = format!(r#"{{"spec": {{"image": {image}}}}}"#);
    kubectl(&["patch", "voltcluster", "demo", "--type=merge", "-p", &patch]).await?;
    Ok(())
}

/// Which of these pods are not what they were; one that can't be asked about is gone.
async fn replaced(lives: &[(String, String)]) -> Vec<String> {
    let mut others = Vec::new();
    for (pod, uid) in lives {
        if pod_uid(pod).await.ok().as_ref() != Some(uid) {
            others.push(pod.clone());
        }
    }
    others
}

/// An image that does not exist, put into a running cluster, costs it one pod and no more: it serves on and says what is
/// wrong. With the image put right it is whole again.
pub async fn nonsense_update() -> Result<String> {
    let load = Load::start("updating").await?;
    let wanted = copies(&partitions().await?);
    let mut lives = Vec::new();
    for node in 1..=3 {
        lives.push((pod_of(node), pod_uid(&pod_of(node)).await?));
    }
    set_image(&format!("{NO_IMAGE:?}")).await?;
    let condition = wait_for_condition("demo", "Ready=False", NO_IMAGE, SAID_WITHIN_S).await?;
    load.progress(50).await?;
    tokio::time::sleep(SECOND_THOUGHTS).await;
    let gone = replaced(&lives).await;
    ensure!(gone.len() == 1, "{gone:?} were replaced, not one pod");
    load.progress(50).await?;

    let righted = Instant::now();
    set_image("null").await?;
    wait_until(RIGHT_WITHIN_S, "every replica in sync again", async || {
        let copies = copies(&partitions().await?);
        ensure!(copies >= wanted, "{copies} of {wanted} are");
        Ok(true)
    })
    .await?;
    wait_for_nodes(3, RIGHT_WITHIN_S).await?;
    wait_for_condition("demo", "Updated=True", "", RIGHT_WITHIN_S).await?;
    let right_s = righted.elapsed().as_secs_f64();
    ensure!(replaced(&lives).await == gone, "another pod than {gone:?} was replaced");
    Ok(format!(
        "{}; {gone:?} replaced, whole {right_s:.1} s after the image was put right; {condition}",
        load.finish().await?
    ))
}
