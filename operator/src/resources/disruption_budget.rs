//! How many pods an eviction may take: one while every replica is in sync, else none.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{match_pods, metadata};
use crate::crd::VoltCluster;

/// A pod is ready before its replicas are in sync; taking another one then could take a partition's last copy.
pub(super) fn disruption_budget(cluster: &VoltCluster, may_disrupt: bool) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(cluster, cluster.name_any()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(i32::from(may_disrupt))),
            selector: Some(match_pods(cluster)),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
