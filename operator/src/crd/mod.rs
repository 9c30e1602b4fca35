//! The `VoltCluster` custom resource, `voltcluster.dev/v1alpha1`: what a user wants, and what the operator says of it.
//!
//! `volt-operator crd` prints the manifest; `crds/voltclusters.yaml` and the chart's copy are held equal to it by a test.

mod archive;
mod failure_detection;
mod load_balancing;
mod recovery;
mod spec;
mod status;

use kube::CustomResourceExt;

pub use archive::{Archive, Restore, Standby};
pub use failure_detection::{Detect, FailureDetection, LivenessDatabase, SecretKey};
pub use load_balancing::{LoadBalancing, Queue, ReadFrom, Spool, Strategy};
pub use recovery::{Recovery, RecoverySource, RecoveryStrategy, Replication};
pub use spec::{Durability, Failover, FailoverMode, Storage, VoltCluster, VoltClusterSpec, VolumesWhenDeleted};
pub use status::{NodeSummary, Operation, OperationKind, Phase, StandbyStatus, VoltClusterStatus};

/// The first line of a generated manifest.
const HEADER: &str = "# Generated from operator/src/crd by `volt-operator crd`; a test holds it equal.\n";

/// The CustomResourceDefinition, as YAML.
pub fn manifest() -> Result<String, serde_yaml::Error> {
    Ok(format!("{HEADER}{}", serde_yaml::to_string(&VoltCluster::crd())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `VOLT_BLESS=1 cargo test` writes the files anew.
    #[test]
    fn generated_manifests_are_current() {
        let generated = manifest().expect("YAML");
        for file in ["crds/voltclusters.yaml", "charts/volt-operator/crds/voltclusters.yaml"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            if std::env::var_os("VOLT_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for it");
                std::fs::write(&path, &generated).expect("written");
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == generated,
                "{file} is not what `volt-operator crd` prints: VOLT_BLESS=1 cargo test"
            );
        }
    }

    #[test]
    fn defaults_fill_an_empty_spec() {
        let spec: VoltClusterSpec = serde_json::from_str("{}").expect("an empty spec");
        assert_eq!((spec.replicas, spec.partitions), (3, 12));
        assert_eq!(spec.durability, Durability::Fsync);
        assert_eq!(spec.failover.mode, FailoverMode::Automatic);
        assert_eq!(spec.failure_detection.strategies, [Detect::Heartbeat]);
        assert_eq!(spec.storage.size.0, "1Gi");
    }
}
