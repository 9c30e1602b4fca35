//! How failures are found.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How failures are found. A broken connection and the operator's word count always.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.strategies.exists(strategy, strategy == 'Heartbeat' || strategy == 'Interval')").message("strategies needs Heartbeat or Interval: DataChange finds replicas that lag or differ, not nodes that are silent"),
    validation = Rule::new("!has(self.phiThreshold) || 'Heartbeat' in self.strategies").message("phiThreshold says nothing without Heartbeat in strategies"),
    validation = Rule::new("'Interval' in self.strategies || !(has(self.probeIntervalMilliseconds) || has(self.probeMisses) || has(self.livenessClaimName) || has(self.livenessDatabase))").message("probeIntervalMilliseconds, probeMisses, livenessClaimName and livenessDatabase say nothing without Interval in strategies"),
    validation = Rule::new("'DataChange' in self.strategies || !(has(self.maxLagRecords) || has(self.maxLagMilliseconds) || has(self.checksumIntervalSeconds))").message("maxLagRecords, maxLagMilliseconds and checksumIntervalSeconds say nothing without DataChange in strategies")
)]
pub struct FailureDetection {
    /// One strategy or several; `Heartbeat` by default.
    #[serde(default = "default_strategies")]
    #[schemars(length(min = 1, max = 3))]
    pub strategies: Vec<Detect>,
    /// `Heartbeat`: how sure a node must be, 1 to 16; 8 by default, wrong once in 10^8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub phi_threshold: Option<i32>,
    /// `Interval`: time between two probes, and the longest wait for an answer: 20 to 60,000; 500 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 60_000))]
    pub probe_interval_milliseconds: Option<i32>,
    /// `Interval`: probes missed in a row that are a failure: 2 to 100; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100))]
    pub probe_misses: Option<i32>,
    /// `Interval`: a PersistentVolumeClaim of the same namespace that all pods can write (`ReadWriteMany`), where each node
    /// renews a file and looks at the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub liveness_claim_name: Option<String>,
    /// `Interval`: a database that speaks PostgreSQL's protocol, where each node renews a row of the table `volt_liveness`, which
    /// is made if it is missing, and looks at the others'. Several clusters may share it; it is best not one of its own cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_database: Option<LivenessDatabase>,
    /// `DataChange`: records that a backup may be behind for `maxLagMilliseconds`; 100,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_lag_records: Option<i64>,
    /// `DataChange`: for how long it may be so: 100 to 600,000; 2,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 600_000))]
    pub max_lag_milliseconds: Option<i32>,
    /// `DataChange`: time between two comparisons of a partition's replicas: 1 to 86,400; 600 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub checksum_interval_seconds: Option<i32>,
}

/// A database that nodes share.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.url.matches('^[^/]*//[^/@]*:[^/@]*@') && !self.url.contains('password=')").message("url must not have a password in it: passwordSecret names a Secret")
)]
pub struct LivenessDatabase {
    /// `postgres://USER@HOST:PORT/DATABASE`, without a password; several hosts may be given, with commas between. Nodes speak to it without TLS.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^postgres(ql)?://"))]
    pub url: String,
    /// Where the user's password is, if it needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKey>,
}

/// A value in a Secret of the same namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it; `password` by default.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A strategy that finds failures.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema)]
pub enum Detect {
    /// Heartbeats, and how regularly a node sends them (phi accrual).
    Heartbeat,
    /// Probes of the other nodes, of each node's own disk and of files in a shared volume, at fixed intervals.
    Interval,
    /// Replicas that lag, or that differ from their primary.
    DataChange,
}

impl Detect {
    /// As volt-node spells it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Interval => "interval",
            Self::DataChange => "data-change",
        }
    }
}

impl Default for FailureDetection {
    fn default() -> Self {
        Self {
            strategies: default_strategies(),
            phi_threshold: None,
            probe_interval_milliseconds: None,
            probe_misses: None,
            liveness_claim_name: None,
            liveness_database: None,
            max_lag_records: None,
            max_lag_milliseconds: None,
            checksum_interval_seconds: None,
        }
    }
}

impl FailureDetection {
    /// The Secret that has the password of the database that nodes share.
    pub fn password_secret(&self) -> Option<&SecretKey> {
        self.liveness_database.as_ref()?.password_secret.as_ref()
    }

    /// As volt-node takes it from its environment, but for the directory and the password.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let strategies: Vec<&str> = self.strategies.iter().map(|strategy| strategy.as_str()).collect();
        let numbers = [
            ("VOLT_PHI_THRESHOLD", self.phi_threshold.map(i64::from)),
            (
                "VOLT_PROBE_INTERVAL_MS",
                self.probe_interval_milliseconds.map(i64::from),
            ),
            ("VOLT_PROBE_MISSES", self.probe_misses.map(i64::from)),
            ("VOLT_MAX_LAG_RECORDS", self.max_lag_records),
            ("VOLT_MAX_LAG_MS", self.max_lag_milliseconds.map(i64::from)),
            (
                "VOLT_CHECKSUM_INTERVAL_S",
                self.checksum_interval_seconds.map(i64::from),
            ),
        ];
        let given = numbers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.to_string())));
        let database = self.liveness_database.as_ref();
        let database = database.map(|database| ("VOLT_LIVENESS_DATABASE", database.url.clone()));
        [("VOLT_DETECT", strategies.join(","))]
            .into_iter()
            .chain(given)
            .chain(database)
            .collect()
    }
}

fn default_key() -> String {
    "password".to_owned()
}

fn default_strategies() -> Vec<Detect> {
    vec![Detect::Heartbeat]
}
