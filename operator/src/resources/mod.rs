//! The children of a VoltCluster, one file each. Pure: from the VoltCluster to objects that are applied as they are.

mod disruption_budget;
mod services;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};

use crate::crd::VoltCluster;

/// The peer protocol's port, and that of gRPC health.
pub const PEER_PORT: i32 = 7000;
/// SQL's port.
pub const SQL_PORT: i32 = 5432;
/// The port of `/metrics`.
pub const HTTP_PORT: i32 = 8080;
/// The container's name.
pub const CONTAINER: &str = "volt-node";

/// What the operator brings to every cluster that doesn't say otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The image of volt-node.
    pub image: String,
    /// When it is pulled; None: as Kubernetes decides.
    pub image_pull_policy: Option<String>,
}

/// All children of one VoltCluster.
pub struct Children {
    /// Names for each pod: `demo-nodes`.
    pub headless: Service,
    /// SQL: `demo-sql`.
    pub sql: Service,
    /// How many pods may be evicted: `demo`.
    pub disruption_budget: PodDisruptionBudget,
    /// The pods: `demo`.
    pub stateful_set: StatefulSet,
}

/// The children, with so many pods; `may_disrupt` lets evictions take one of them.
pub fn children(cluster: &VoltCluster, defaults: &Defaults, replicas: i32, may_disrupt: bool) -> Children {
    Children {
        headless: services::headless(cluster),
        sql: services::sql(cluster),
        disruption_budget: disruption_budget::disruption_budget(cluster, may_disrupt),
        stateful_set: stateful_set::stateful_set(cluster, defaults, replicas),
    }
}

/// What selects a cluster's pods.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "voltcluster".to_owned()),
        ("app.kubernetes.io/instance".to_owned(), cluster.to_owned()),
    ])
}

/// The same, as text.
pub fn selector_text(cluster: &str) -> String {
    let pairs: Vec<String> = selector(cluster)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn labels(cluster: &VoltCluster) -> BTreeMap<String, String> {
    let mut labels = selector(&cluster.name_any());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "volt-operator".to_owned());
    labels
}

fn match_pods(cluster: &VoltCluster) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector(&cluster.name_any())),
        ..LabelSelector::default()
    }
}

fn metadata(cluster: &VoltCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cluster.namespace(),
        labels: Some(labels(cluster)),
        owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The headless Service, by which a pod has a name of its own.
pub fn headless_name(cluster: &str) -> String {
    format!("{cluster}-nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> VoltCluster {
        let text = "{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {name: demo, namespace: shop, uid: u-1},
                     spec: {replicas: 3, durability: async, maxConnections: 50}}";
        serde_yaml::from_str(text).expect("a VoltCluster")
    }

    fn defaults() -> Defaults {
        Defaults {
            image: "volt-node:1".to_owned(),
            image_pull_policy: None,
        }
    }

    #[test]
    fn scaling_leaves_the_template_alone() {
        let (three, four) = (
            children(&demo(), &defaults(), 3, true),
            children(&demo(), &defaults(), 4, true),
        );
        let template = |children: &Children| children.stateful_set.spec.as_ref().map(|spec| spec.template.clone());
        assert_eq!(template(&three), template(&four), "scaling must not replace pods");
    }

    #[test]
    fn children_are_owned_and_named() {
        let all = children(&demo(), &defaults(), 3, false);
        let names = [
            &all.headless.metadata,
            &all.sql.metadata,
            &all.disruption_budget.metadata,
            &all.stateful_set.metadata,
        ];
        let names: Vec<_> = names
            .iter()
            .map(|metadata| {
                assert_eq!(metadata.owner_references.as_ref().map(Vec::len), Some(1));
                assert_eq!(metadata.namespace.as_deref(), Some("shop"));
                metadata.name.clone().unwrap_or_default()
            })
            .collect();
        assert_eq!(names, ["demo-nodes", "demo-sql", "demo", "demo"]);
    }

    #[test]
    fn the_spec_reaches_the_container() {
        let set = children(&demo(), &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let value = |name: &str| {
            let variables = pod.containers[0].env.iter().flatten();
            let mut found = variables.filter(|variable| variable.name == name);
            found.next().and_then(|variable| variable.value.clone())
        };
        assert_eq!(value("VOLT_DURABILITY").as_deref(), Some("async"));
        assert_eq!(value("VOLT_MAX_CONNECTIONS").as_deref(), Some("50"));
        assert_eq!(
            value("VOLT_ADVERTISE").as_deref(),
            Some("$(VOLT_NAME).demo-nodes.shop.svc")
        );
    }
}
