//! What Prometheus reads from the operator.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::crd::{VoltCluster, VoltClusterStatus};
use crate::decide::Action;
use kube::ResourceExt;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum Outcome {
    Done,
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByAction {
    action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCluster {
    namespace: String,
    cluster: String,
}

/// All of them.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ByOutcome, Counter>,
    durations: Histogram,
    actions: Family<ByAction, Counter>,
    leader: Gauge,
    alive: Family<ByCluster, Gauge>,
    wanted: Family<ByCluster, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("volt_operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciliations, by outcome", reconciles.clone());
        // 5 ms to 20 s
        let durations = Histogram::new(exponential_buckets(0.005, 2.0, 13));
        registry.register_with_unit(
            "reconcile_duration",
            "Time that one reconciliation took",
            Unit::Seconds,
            durations.clone(),
        );
        let actions = Family::default();
        registry.register("actions", "What was asked of nodes and of Kubernetes", actions.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this operator holds the Lease", leader.clone());
        let (alive, wanted) = (Family::default(), Family::default());
        registry.register("nodes_alive", "Nodes alive, by VoltCluster", alive.clone());
        registry.register("nodes_wanted", "Nodes wanted, by VoltCluster", wanted.clone());
        Self {
            registry,
            reconciles,
            durations,
            actions,
            leader,
            alive,
            wanted,
        }
    }
}

fn by_cluster(cluster: &VoltCluster) -> ByCluster {
    ByCluster {
        namespace: cluster.namespace().unwrap_or_default(),
        cluster: cluster.name_any(),
    }
}

impl Metrics {
    /// One reconciliation is over.
    pub fn reconciled(&self, took: Duration, done: bool) {
        let outcome = if done { Outcome::Done } else { Outcome::Failed };
        self.reconciles.get_or_create(&ByOutcome { outcome }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Something was asked for.
    pub fn asked(&self, action: &Action) {
        let action = action.name();
        self.actions.get_or_create(&ByAction { action }).inc();
    }

    /// This operator leads, or not.
    pub fn leads(&self, yes: bool) {
        self.leader.set(i64::from(yes));
    }

    /// A cluster was looked at.
    pub fn saw(&self, cluster: &VoltCluster, status: &VoltClusterStatus) {
        let alive = status.nodes.iter().filter(|node| node.state != "Dead").count();
        self.alive
            .get_or_create(&by_cluster(cluster))
            .set(i64::try_from(alive).unwrap_or(i64::MAX));
        self.wanted
            .get_or_create(&by_cluster(cluster))
            .set(i64::from(cluster.spec.replicas));
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &VoltCluster) {
        self.alive.remove(&by_cluster(cluster));
        self.wanted.remove(&by_cluster(cluster));
    }

    /// As OpenMetrics text.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
