//! How replicas recover, and how far asynchronous ones may be behind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a replica that was away, or is new, comes by what it lacks.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// `Automatic` by default; `RECOVER NODE ... WITH (strategy = ...)` chooses for one recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RecoveryStrategy>,
    /// `Network` by default; `RECOVER NODE ... WITH (source = ...)` chooses for one recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RecoverySource>,
    /// Bytes a second that each node sends to replicas that it fills, one-shot ones aside: 134,217,728 (128 MiB) by default;
    /// 0: as fast as its own commits bear. It goes slower while its commits suffer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: Option<i64>,
}

/// A way to recover.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum RecoveryStrategy {
    /// The records that it lacks, if its primary still has them; else what its rows lack, and everything when most of them are of no use.
    Automatic,
    /// All rows, as fast as they go.
    OneShot,
    /// The rows that it lacks or has otherwise, no faster than writers bear.
    Incremental,
}

/// Where the rows of a replica that must be filled come from. Whatever they are, only what is the same as its primary's is used.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum RecoverySource {
    /// Its primary.
    Network,
    /// The archive, and from its primary what is not there or otherwise by now.
    FileSystem,
    /// The databases to which replication links tell its tables, and from its primary what is not there or otherwise by now.
    Database,
}

/// How backups are kept.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replication {
    /// Records that a backup of a MODE async table may lack of what is acknowledged; beyond that writers wait for it. 10,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub async_max_lag_records: Option<i64>,
    /// A Secret of the same namespace with the passwords of replication links: each of its keys is a file in `/var/run/volt-links` of every
    /// node, as `CREATE REPLICATION LINK ... WITH (password_file = '/var/run/volt-links/KEY')` names it. A key that is added comes without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub link_secret_name: Option<String>,
}

impl Recovery {
    /// What is set of it, as volt-node takes it from its environment.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let strategy = self.strategy.map(|strategy| match strategy {
            RecoveryStrategy::Automatic => "automatic",
            RecoveryStrategy::OneShot => "one-shot",
            RecoveryStrategy::Incremental => "incremental",
        });
        let strategy = strategy.map(|strategy| ("VOLT_RECOVERY_STRATEGY", strategy.to_owned()));
        let source = self.source.map(|source| match source {
            RecoverySource::Network => "network",
            RecoverySource::FileSystem => "file-system",
            RecoverySource::Database => "database",
        });
        let source = source.map(|source| ("VOLT_RECOVERY_SOURCE", source.to_owned()));
        let bytes = self
            .bytes_per_second
            .map(|bytes| ("VOLT_RECOVERY_BYTES_PER_SECOND", bytes.to_string()));
        strategy.into_iter().chain(source).chain(bytes).collect()
    }
}

impl Replication {
    /// What is set of it, as volt-node takes it from its environment.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let records = self.async_max_lag_records;
        let records = records.map(|records| ("VOLT_ASYNC_MAX_LAG", records.to_string()));
        records.into_iter().collect()
    }
}
