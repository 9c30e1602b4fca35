//! The StatefulSet: a pod and a volume for each node.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, GRPCAction, KeyToPath,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretEnvSource, SecretVolumeSource,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{
    CONTAINER, Defaults, HTTP_PORT, PEER_PORT, SQL_PORT, headless_name, labels, match_pods, metadata, selector,
};
use crate::crd::{VoltCluster, VolumesWhenDeleted};

/// The user and group that the image has.
const USER: i64 = 10001;
const DATA: &str = "/var/lib/volt";
/// Where nodes renew their liveness files, and the volume's name in the pod.
const LIVENESS: &str = "/var/lib/volt-liveness";
const LIVENESS_VOLUME: &str = "liveness";
/// Where files are that are to be loaded, and the volume's name in the pod.
const SPOOL: &str = "/var/lib/volt-spool";
const SPOOL_VOLUME: &str = "spool";
/// Where the cluster is archived, and the volume's name in the pod.
const ARCHIVE: &str = "/var/lib/volt-archive";
const ARCHIVE_VOLUME: &str = "archive";
/// Where the archive is that the cluster begins with, or follows, and the volume's name in the pod.
pub(crate) const RESTORE: &str = "/var/lib/volt-restore";
const RESTORE_VOLUME: &str = "restore";
/// Before the names of variables for that archive, as volt-node has it.
const ANOTHERS_PREFIX: &str = "VOLT_RESTORE_";
/// Where the password of the database is that has their rows, its file, and the volume's name in the pod.
const PASSWORD: &str = "/var/run/volt-liveness-database";
const PASSWORD_FILE: &str = "password";
const PASSWORD_VOLUME: &str = "liveness-database";
/// Where the passwords of replication links are, and the volume's name in the pod.
const LINKS: &str = "/var/run/volt-links";
const LINKS_VOLUME: &str = "links";
/// Only the node's own user reads them.
const PASSWORD_MODE: i32 = 0o440;
/// Seconds for handing primaries over and closing the log.
const GRACE_S: i64 = 30;
/// A node joins through these, whatever the cluster's size: the list is part of the template, and scaling must not
/// change that.
const JOIN_THROUGH: i32 = 3;

/// Its pods start at the same time, and only the operator replaces them.
pub(super) fn stateful_set(cluster: &VoltCluster, defaults: &Defaults, replicas: i32) -> StatefulSet {
    let name = cluster.name_any();
    StatefulSet {
        metadata: metadata(cluster, name.clone()),
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas),
            service_name: Some(headless_name(&name)),
            selector: match_pods(cluster),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                ..StatefulSetUpdateStrategy::default()
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(cluster)),
                    annotations: Some(BTreeMap::from([
                        ("prometheus.io/scrape".to_owned(), "true".to_owned()),
                        ("prometheus.io/port".to_owned(), HTTP_PORT.to_string()),
                    ])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(cluster, defaults)),
            },
            volume_claim_templates: Some(vec![claim(cluster)]),
            // A node that was scaled in is forgotten, and its replicas are elsewhere.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_scaled: Some("Delete".to_owned()),
                when_deleted: Some(
                    match cluster.spec.storage.when_deleted {
                        VolumesWhenDeleted::Retain => "Retain",
                        VolumesWhenDeleted::Delete => "Delete",
                    }
                    .to_owned(),
                ),
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod(cluster: &VoltCluster, defaults: &Defaults) -> PodSpec {
    let spec = &cluster.spec;
    PodSpec {
        containers: vec![container(cluster, defaults)],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_S),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: (!spec.tolerations.is_empty()).then(|| spec.tolerations.clone()),
        affinity: spec.affinity.clone(),
        topology_spread_constraints: Some(vec![
            spread(cluster, "topology.kubernetes.io/zone"),
            spread(cluster, "kubernetes.io/hostname"),
        ]),
        volumes: shared_volumes(cluster),
        ..PodSpec::default()
    }
}

fn spread(cluster: &VoltCluster, over: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: over.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(match_pods(cluster)),
        ..TopologySpreadConstraint::default()
    }
}

fn container(cluster: &VoltCluster, defaults: &Defaults) -> Container {
    let spec = &cluster.spec;
    let port = |name: &str, port: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.clone().unwrap_or_else(|| defaults.image.clone())),
        image_pull_policy: spec
            .image_pull_policy
            .clone()
            .or_else(|| defaults.image_pull_policy.clone()),
        args: Some(vec!["start".to_owned()]),
        env: Some(environment(cluster)),
        env_from: secret_environment(cluster),
        ports: Some(vec![
            port("peer", PEER_PORT),
            port("sql", SQL_PORT),
            port("http", HTTP_PORT),
        ]),
        // A log takes its time to replay; a node that hangs afterwards is restarted after 15 s, and was failed over
        // long before that.
        startup_probe: Some(probe("liveness", 1, 1, 900)),
        liveness_probe: Some(probe("liveness", 5, 3, 3)),
        readiness_probe: Some(probe("readiness", 2, 2, 2)),
        resources: spec.resources.clone(),
        volume_mounts: Some(mounts(cluster)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn mounts(cluster: &VoltCluster) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let shared = shared_claims(cluster).into_iter().map(|shared| VolumeMount {
        read_only: shared.read_only.then_some(true),
        ..mount(shared.volume, shared.path)
    });
    let password = cluster.spec.failure_detection.password_secret();
    let password = password.map(|_| VolumeMount {
        read_only: Some(true),
        ..mount(PASSWORD_VOLUME, PASSWORD)
    });
    let links = cluster.spec.replication.link_secret_name.as_ref();
    let links = links.map(|_| VolumeMount {
        read_only: Some(true),
        ..mount(LINKS_VOLUME, LINKS)
    });
    [mount("data", DATA)]
        .into_iter()
        .chain(shared)
        .chain(password)
        .chain(links)
        .collect()
}

/// A claim that all pods have.
struct SharedClaim<'a> {
    volume: &'static str,
    path: &'static str,
    claim: &'a str,
    read_only: bool,
}

fn shared_claims(cluster: &VoltCluster) -> Vec<SharedClaim<'_>> {
    let liveness = cluster.spec.failure_detection.liveness_claim_name.as_deref();
    let spool = cluster.spec.load_balancing.spool.as_ref();
    let spool = spool.map(|spool| spool.claim_name.as_str());
    let archive = cluster.spec.archive.as_ref();
    let archive = archive.and_then(|archive| archive.claim_name.as_deref());
    let restore = cluster.spec.restore.as_ref();
    let restore = restore.and_then(|restore| restore.claim_name.as_deref());
    let standby = cluster.spec.standby.as_ref();
    let standby = standby.and_then(|standby| standby.claim_name.as_deref());
    let shared = [
        (LIVENESS_VOLUME, LIVENESS, liveness),
        (SPOOL_VOLUME, SPOOL, spool),
        (ARCHIVE_VOLUME, ARCHIVE, archive),
        (RESTORE_VOLUME, RESTORE, restore.or(standby)),
    ];
    let claimed = shared.into_iter().filter_map(|(volume, path, claim)| {
        Some(SharedClaim {
            volume,
            path,
            claim: claim?,
            read_only: volume == RESTORE_VOLUME,
        })
    });
    claimed.collect()
}

/// Variables of object stores, by the Secrets that have them. Those of the archive that is restored or followed are told apart from this
/// cluster's own by a prefix, if there are both.
fn secret_environment(cluster: &VoltCluster) -> Option<Vec<EnvFromSource>> {
    let spec = &cluster.spec;
    let restore = spec.restore.as_ref().map(|restore| &restore.secret_name);
    let standby = spec.standby.as_ref().map(|standby| &standby.secret_name);
    let anothers = restore.or(standby).cloned().flatten();
    let (own, prefix) = match &spec.archive {
        Some(archive) => (archive.secret_name.clone(), Some(ANOTHERS_PREFIX)),
        None => (None, None),
    };
    let anothers = anothers.filter(|name| own.as_ref() != Some(name));
    let source = |name: Option<String>, prefix: Option<&str>| {
        Some(EnvFromSource {
            prefix: prefix.map(str::to_owned),
            secret_ref: Some(SecretEnvSource {
                name: name?,
                ..SecretEnvSource::default()
            }),
            ..EnvFromSource::default()
        })
    };
    let sources = [source(own, None), source(anothers, prefix)];
    let sources: Vec<EnvFromSource> = sources.into_iter().flatten().collect();
    (!sources.is_empty()).then_some(sources)
}

/// What the pods share; each has a volume of its own by the claim's template.
fn shared_volumes(cluster: &VoltCluster) -> Option<Vec<Volume>> {
    let volume = |shared: SharedClaim<'_>| Volume {
        name: shared.volume.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: shared.claim.to_owned(),
            read_only: Some(false),
        }),
        ..Volume::default()
    };
    let password = cluster.spec.failure_detection.password_secret();
    let password = password.map(|secret| Volume {
        name: PASSWORD_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            items: Some(vec![KeyToPath {
                key: secret.key.clone(),
                path: PASSWORD_FILE.to_owned(),
                mode: Some(PASSWORD_MODE),
            }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    // Whole, so that the kubelet brings keys that are added later; a link without its password says so, and stops no node.
    let links = cluster.spec.replication.link_secret_name.as_ref();
    let links = links.map(|name| Volume {
        name: LINKS_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.clone()),
            default_mode: Some(PASSWORD_MODE),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    let shared = shared_claims(cluster).into_iter().map(volume);
    let volumes: Vec<Volume> = shared.chain(password).chain(links).collect();
    (!volumes.is_empty()).then_some(volumes)
}

fn probe(service: &str, period_s: i32, timeout_s: i32, failures: i32) -> Probe {
    Probe {
        grpc: Some(GRPCAction {
            port: i32::from(PEER_PORT),
            service: Some(service.to_owned()),
        }),
        period_seconds: Some(period_s),
        timeout_seconds: Some(timeout_s),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// As `volt-node start --help` has it.
fn environment(cluster: &VoltCluster) -> Vec<EnvVar> {
    let name = cluster.name_any();
    let domain = format!(
        "{}.{}.svc",
        headless_name(&name),
        cluster.namespace().unwrap_or_default()
    );
    let join: Vec<String> = (0..JOIN_THROUGH)
        .map(|ordinal| format!("{name}-{ordinal}.{domain}:{PEER_PORT}"))
        .collect();
    let variable = |name: &str, value: String| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    let pod_name = |name: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let detection = &cluster.spec.failure_detection;
    let mut handed_on = detection.variables();
    if detection.liveness_claim_name.is_some() {
        handed_on.push(("VOLT_LIVENESS_DIR", LIVENESS.to_owned()));
    }
    if detection.password_secret().is_some() {
        let file = format!("{PASSWORD}/{PASSWORD_FILE}");
        handed_on.push(("VOLT_LIVENESS_DATABASE_PASSWORD_FILE", file));
    }
    let spec = &cluster.spec;
    handed_on.extend(spec.load_balancing.variables());
    if let Some(spool) = &spec.load_balancing.spool {
        handed_on.push(("VOLT_SPOOL", SPOOL.to_owned()));
        handed_on.extend(spool.variables());
    }
    if let Some(archive) = &spec.archive {
        handed_on.extend(archive.variables(ARCHIVE));
    }
    handed_on.extend(spec.recovery.variables());
    handed_on.extend(spec.replication.variables());
    handed_on.extend(spec.failover.preempt.map(|hazard| ("VOLT_PREEMPT", hazard.to_string())));
    let handed_on = handed_on.into_iter().map(|(name, value)| variable(name, value));
    let node = vec![
        pod_name("VOLT_NAME"),
        pod_name("VOLT_NODE_ID_FROM_NAME"),
        variable("VOLT_ADVERTISE", format!("$(VOLT_NAME).{domain}")),
        variable("VOLT_LISTEN", "0.0.0.0".to_owned()),
        variable("VOLT_PEER_PORT", PEER_PORT.to_string()),
        variable("VOLT_SQL_PORT", SQL_PORT.to_string()),
        variable("VOLT_HTTP_PORT", HTTP_PORT.to_string()),
        variable("VOLT_DATA", DATA.to_owned()),
        variable("VOLT_JOIN", join.join(",")),
        variable("VOLT_DURABILITY", cluster.spec.durability.as_str().to_owned()),
        variable("VOLT_FAILOVER", cluster.spec.failover.mode.as_str().to_owned()),
        variable("VOLT_MAX_CONNECTIONS", cluster.spec.max_connections.to_string()),
        variable("VOLT_LOG_FORMAT", "json".to_owned()),
    ];
    node.into_iter().chain(handed_on).collect()
}

fn claim(cluster: &VoltCluster) -> PersistentVolumeClaim {
    let storage = &cluster.spec.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(selector(&cluster.name_any())),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), storage.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
