//! Where reads go.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where sessions read that say nothing of it. A session's `volt.read_from`, `volt.balance` and `volt.max_staleness` come first.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// `Primary` by default: strictly serialisable. `Backup`: what was committed a moment ago.
    #[serde(default)]
    pub read_from: ReadFrom,
    /// How one of several backups is chosen; `RoundRobin` by default.
    #[serde(default)]
    pub strategy: Strategy,
    /// How old a backup's answer may be: 1 to 86,400,000; 1,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_staleness_milliseconds: Option<i32>,
}

/// Which replicas are read.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
pub enum ReadFrom {
    /// The one that takes the writes.
    #[default]
    Primary,
    /// The others, while they are not too old.
    Backup,
}

/// How one of several is chosen.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, schemars::JsonSchema)]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// By lot.
    Random,
    /// By lot, by capacity and observed latency.
    Weighted,
}

impl LoadBalancing {
    /// As volt-node takes it from its environment.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let from = match self.read_from {
            ReadFrom::Primary => "primary",
            ReadFrom::Backup => "backup",
        };
        let strategy = match self.strategy {
            Strategy::RoundRobin => "round-robin",
            Strategy::Random => "random",
            Strategy::Weighted => "weighted",
        };
        let staleness = self.max_staleness_milliseconds;
        [("VOLT_READ_FROM", from), ("VOLT_BALANCE", strategy)]
            .map(|(name, value)| (name, value.to_owned()))
            .into_iter()
            .chain(staleness.map(|time| ("VOLT_MAX_STALENESS_MS", time.to_string())))
            .collect()
    }
}
