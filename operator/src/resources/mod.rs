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

pub(crate) use stateful_set::RESTORE;

use crate::crd::VoltCluster;

/// The peer protocol's port, and that of gRPC health.
pub const PEER_PORT: u16 = 7000;
/// SQL's port.
pub const SQL_PORT: u16 = 5432;
/// The port of `/metrics`.
pub const HTTP_PORT: u16 = 8080;
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
    mod archives;

    use k8s_openapi::api::core::v1::{PodSpec, Probe};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::crd::{
        Detect, FailureDetection, LivenessDatabase, LoadBalancing, Queue, ReadFrom, Recovery, RecoverySource,
        RecoveryStrategy, Replication, SecretKey, Spool, Strategy,
    };

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
    fn probes_ask_the_node_itself_by_grpc() {
        let set = children(&demo(), &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let container = &pod.containers[0];
        let asked = |probe: &Option<Probe>| {
            let grpc = probe
                .as_ref()
                .and_then(|probe| probe.grpc.clone())
                .expect("a gRPC probe");
            (grpc.port, grpc.service.unwrap_or_default())
        };
        let expected = |service: &str| (7000, service.to_owned());
        assert_eq!(asked(&container.liveness_probe), expected("liveness"));
        assert_eq!(asked(&container.startup_probe), expected("liveness"));
        assert_eq!(asked(&container.readiness_probe), expected("readiness"));
        let ports = container.ports.iter().flatten();
        assert!(ports.map(|port| port.container_port).any(|port| port == 7000));
    }

    #[test]
    fn evictions_may_take_one_pod_or_none() {
        let most = |may_disrupt| {
            let budget = children(&demo(), &defaults(), 3, may_disrupt).disruption_budget;
            let spec = budget.spec.expect("a spec");
            assert_eq!(
                spec.selector.and_then(|selector| selector.match_labels),
                Some(selector("demo"))
            );
            spec.max_unavailable
        };
        assert_eq!(most(true), Some(IntOrString::Int(1)));
        assert_eq!(most(false), Some(IntOrString::Int(0)));
    }

    #[test]
    fn each_pod_has_a_volume_as_the_spec_says() {
        let mut cluster = demo();
        cluster.spec.storage.size = Quantity("5Gi".to_owned());
        cluster.spec.storage.storage_class_name = Some("fast".to_owned());
        let spec = children(&cluster, &defaults(), 3, true)
            .stateful_set
            .spec
            .expect("a spec");
        let claims = spec.volume_claim_templates.unwrap_or_default();
        let claim = claims[0].spec.as_ref().expect("a claim");
        assert_eq!(claim.storage_class_name.as_deref(), Some("fast"));
        assert_eq!(claim.access_modes.as_deref(), Some(&["ReadWriteOnce".to_owned()][..]));
        let requests = claim
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        assert_eq!(
            requests.and_then(|requests| requests.get("storage")),
            Some(&Quantity("5Gi".to_owned()))
        );
        let kept = spec.persistent_volume_claim_retention_policy.expect("a policy");
        assert_eq!(
            (kept.when_scaled.as_deref(), kept.when_deleted.as_deref()),
            (Some("Delete"), Some("Retain"))
        );
        let pod = spec.template.spec.expect("a pod");
        let mounts = pod.containers[0].volume_mounts.iter().flatten();
        let mounts: Vec<&str> = mounts.map(|mount| mount.name.as_str()).collect();
        assert_eq!(mounts, [claims[0].metadata.name.as_deref().unwrap_or_default()]);
    }

    #[test]
    fn failure_detection_reaches_the_container_and_its_claim_the_pod() {
        let mut cluster = demo();
        let pod = |cluster: &VoltCluster| {
            let set = children(cluster, &defaults(), 3, true).stateful_set;
            set.spec.and_then(|spec| spec.template.spec).expect("a pod")
        };
        let variables = |pod: &PodSpec| {
            let variables = pod.containers[0].env.clone().unwrap_or_default();
            let asked = [
                "VOLT_DETECT",
                "VOLT_PHI_THRESHOLD",
                "VOLT_PROBE_MISSES",
                "VOLT_LIVENESS_DIR",
            ];
            let asked = variables.into_iter().filter(|one| asked.contains(&one.name.as_str()));
            asked.map(|one| one.value.unwrap_or_default()).collect::<Vec<_>>()
        };
        let plain = pod(&cluster);
        assert_eq!(variables(&plain), ["heartbeat"]);
        assert_eq!(plain.volumes, None);
        cluster.spec.failure_detection = FailureDetection {
            strategies: vec![Detect::Interval, Detect::DataChange],
            probe_misses: Some(5),
            liveness_claim_name: Some("shared".to_owned()),
            ..FailureDetection::default()
        };
        let asked = pod(&cluster);
        assert_eq!(
            variables(&asked),
            ["interval,data-change", "5", "/var/lib/volt-liveness"]
        );
        let volume = &asked.volumes.as_ref().expect("a volume")[0];
        let claim = volume.persistent_volume_claim.as_ref().expect("a claim");
        assert_eq!(claim.claim_name, "shared");
        let mounts = asked.containers[0].volume_mounts.iter().flatten();
        let mounts: Vec<&str> = mounts.map(|mount| mount.name.as_str()).collect();
        assert_eq!(mounts, ["data", volume.name.as_str()]);
    }

    #[test]
    fn the_password_of_a_liveness_database_reaches_the_pod_as_a_file_only() {
        let mut cluster = demo();
        cluster.spec.failure_detection = FailureDetection {
            strategies: vec![Detect::Interval],
            liveness_database: Some(LivenessDatabase {
                url: "postgres://volt@db:5432/liveness".to_owned(),
                password_secret: Some(SecretKey {
                    name: "db".to_owned(),
                    key: "volt".to_owned(),
                }),
            }),
            ..FailureDetection::default()
        };
        let set = children(&cluster, &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let variables = pod.containers[0].env.clone().unwrap_or_default();
        let variable = |name: &str| {
            let found = variables.iter().find(|one| one.name == name);
            found.and_then(|one| one.value.clone()).unwrap_or_default()
        };
        assert_eq!(variable("VOLT_LIVENESS_DATABASE"), "postgres://volt@db:5432/liveness");
        let file = variable("VOLT_LIVENESS_DATABASE_PASSWORD_FILE");
        let volume = &pod.volumes.as_ref().expect("a volume")[0];
        let secret = volume.secret.as_ref().expect("a Secret");
        assert_eq!(secret.secret_name.as_deref(), Some("db"));
        let item = &secret.items.as_ref().expect("one key")[0];
        assert_eq!(item.key, "volt");
        let mounts = pod.containers[0].volume_mounts.iter().flatten();
        let mount = mounts
            .into_iter()
            .find(|mount| mount.name == volume.name)
            .expect("mounted");
        assert_eq!(file, format!("{}/{}", mount.mount_path, item.path));
        assert_eq!(mount.read_only, Some(true));
    }

    #[test]
    fn recovery_and_replication_reach_the_container_when_they_are_set() {
        let mut cluster = demo();
        let variables = |cluster: &VoltCluster| {
            let set = children(cluster, &defaults(), 3, true).stateful_set;
            let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
            let variables = pod.containers[0].env.clone().unwrap_or_default();
            let ours = |name: &str| name.starts_with("VOLT_RECOVERY_") || name == "VOLT_ASYNC_MAX_LAG";
            let ours = variables.into_iter().filter(|one| ours(&one.name));
            ours.map(|one| format!("{}={}", one.name, one.value.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        // So that another operator, which knows of them, leaves the pods as they are.
        assert!(variables(&cluster).is_empty());
        cluster.spec.recovery = Recovery {
            strategy: Some(RecoveryStrategy::OneShot),
            source: Some(RecoverySource::Database),
            bytes_per_second: Some(1 << 20),
        };
        cluster.spec.replication = Replication {
            async_max_lag_records: Some(7),
            ..Replication::default()
        };
        assert_eq!(
            variables(&cluster),
            [
                "VOLT_RECOVERY_STRATEGY=one-shot",
                "VOLT_RECOVERY_SOURCE=database",
                "VOLT_RECOVERY_BYTES_PER_SECOND=1048576",
                "VOLT_ASYNC_MAX_LAG=7"
            ]
        );
    }

    #[test]
    fn every_key_of_the_links_secret_is_a_file_of_each_node() {
        let mut cluster = demo();
        cluster.spec.replication.link_secret_name = Some("links".to_owned());
        let set = children(&cluster, &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let volume = &pod.volumes.as_ref().expect("a volume")[0];
        let secret = volume.secret.as_ref().expect("a Secret");
        assert_eq!(
            (secret.secret_name.as_deref(), secret.optional),
            (Some("links"), Some(true))
        );
        assert_eq!((&secret.items, secret.default_mode), (&None, Some(0o440)));
        let mut mounts = pod.containers[0].volume_mounts.iter().flatten();
        let mount = mounts.find(|mount| mount.name == volume.name).expect("mounted");
        assert_eq!(mount.mount_path, "/var/run/volt-links");
        assert_eq!((mount.read_only, mount.sub_path.as_ref()), (Some(true), None));
    }

    #[test]
    fn load_balancing_reaches_the_container() {
        let mut cluster = demo();
        let variables = |cluster: &VoltCluster| {
            let set = children(cluster, &defaults(), 3, true).stateful_set;
            let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
            let variables = pod.containers[0].env.clone().unwrap_or_default();
            let asked = ["VOLT_READ_FROM", "VOLT_BALANCE", "VOLT_MAX_STALENESS_MS"];
            let is_asked = |name: &str| asked.contains(&name) || name.starts_with("VOLT_QUEUE");
            let asked = variables.into_iter().filter(|one| is_asked(&one.name));
            asked.map(|one| one.value.unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(variables(&cluster), ["primary", "round-robin"]);
        cluster.spec.load_balancing = LoadBalancing {
            read_from: ReadFrom::Backup,
            strategy: Strategy::Weighted,
            max_staleness_milliseconds: Some(250),
            spool: None,
            queue: Some(Queue {
                strategy: Strategy::Random,
                interval_milliseconds: Some(20),
            }),
        };
        assert_eq!(
            variables(&cluster),
            ["backup", "weighted", "250", "true", "random", "20"]
        );
    }

    #[test]
    fn a_spool_directory_reaches_the_pods_beside_other_shared_volumes() {
        let mut cluster = demo();
        cluster.spec.failure_detection.strategies = vec![Detect::Interval];
        cluster.spec.failure_detection.liveness_claim_name = Some("alive".to_owned());
        cluster.spec.load_balancing.spool = Some(Spool {
            claim_name: "files".to_owned(),
            strategy: Strategy::Random,
            interval_milliseconds: Some(100),
        });
        let set = children(&cluster, &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let claims = pod.volumes.iter().flatten().map(|volume| {
            let claim = volume.persistent_volume_claim.as_ref().expect("a claim");
            (volume.name.as_str(), claim.claim_name.as_str())
        });
        assert_eq!(claims.collect::<Vec<_>>(), [("liveness", "alive"), ("spool", "files")]);
        let mounts = pod.containers[0].volume_mounts.iter().flatten();
        let spool = mounts.clone().find(|mount| mount.name == "spool").expect("a mount");
        assert_eq!(mounts.count(), 3);
        let variables = pod.containers[0].env.iter().flatten();
        let variables = variables.filter(|one| one.name.starts_with("VOLT_SPOOL"));
        let variables: Vec<&str> = variables.filter_map(|one| one.value.as_deref()).collect();
        assert_eq!(variables, [spool.mount_path.as_str(), "random", "100"]);
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
