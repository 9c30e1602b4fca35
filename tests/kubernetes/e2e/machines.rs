//! What an outage does to the machines below Kubernetes: no new pods, a container that is gone without a word.

use anyhow::{Context, Result, ensure};

use crate::command::{get, kubectl, run};

/// From now on no machine takes a new pod: one that dies stays away. What runs goes on.
pub async fn close() -> Result<()> {
    on_all("cordon").await
}

/// Pods that wait are started.
pub async fn open() -> Result<()> {
    on_all("uncordon").await
}

async fn on_all(verb: &str) -> Result<()> {
    let machines = kubectl(&["get", "nodes", "-o", "name"]).await?;
    let machines: Vec<&str> = machines.lines().collect();
    ensure!(!machines.is_empty(), "there are no machines to {verb}");
    kubectl(&[&[verb], &machines[..]].concat()).await?;
    Ok(())
}

/// `kubectl delete pod --grace-period=0 --force`: gone for Kubernetes at once; its process is asked to stop.
pub async fn force_delete(pod: &str) -> Result<()> {
    kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"]).await?;
    Ok(())
}

/// The one container of a pod.
pub struct Container {
    pod: String,
    socket: String,
    id: String,
}

impl Container {
    /// Finds it, on the machine where it runs.
    pub async fn of(pod: &str) -> Result<Self> {
        // Where this cluster's machines keep their files; `e2e.sh` names it.
        let folder = std::env::var("CLUSTER_DIR").context("CLUSTER_DIR")?;
        let object = get(&["pod", pod]).await?;
        let machine = object["spec"]["nodeName"].as_str().context("the pod's machine")?;
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str();
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        Ok(Self {
            pod: pod.to_string(),
            socket: format!("{folder}/{machine}/containerd.sock"),
            id: id.with_context(|| format!("a container of {pod}"))?.to_string(),
        })
    }

    /// `kill -9`: it has no time for a word to anybody.
    pub async fn kill(&self) -> Result<()> {
        let arguments = [
            "-a",
            &self.socket,
            "-n",
            "k8s.io",
            "tasks",
            "kill",
            "--signal",
            "SIGKILL",
            &self.id,
        ];
        run("ctr", &arguments, None).await?;
        Ok(())
    }

    /// The pod is gone from one moment to the next, as when its machine loses power.
    pub async fn lose(&self) -> Result<()> {
        self.kill().await?;
        force_delete(&self.pod).await
    }
}
