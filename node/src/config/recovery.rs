//! How a replica that lacks more than its primary's log has comes by the rest, and how fast.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Bytes a second that a node sends to those whom it fills, unless another number is given.
pub const DEFAULT_RECOVERY_BYTES_PER_SECOND: u64 = 128 << 20;

/// How a replica that was away, or is new, comes by what it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum RecoveryStrategy {
    /// The records that it lacks, if its primary still has them; else what its rows lack, and everything when most of them are of no use.
    #[default]
    Automatic,
    /// All rows, as fast as they go, then the records since.
    OneShot,
    /// The rows that it lacks or has otherwise, no faster than writers bear, then the records since. What was copied when either side
    /// dies need not be copied again.
    Incremental,
}

impl RecoveryStrategy {
    /// As SQL says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::OneShot => "one-shot",
            Self::Incremental => "incremental",
        }
    }

    /// The strategy of this name, with `_` or `-`.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_lowercase().replace('_', "-");
        [Self::Automatic, Self::OneShot, Self::Incremental]
            .into_iter()
            .find(|strategy| strategy.name() == name)
    }
}

/// Where a replica that must be filled takes its rows from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum RecoverySource {
    /// Its primary.
    #[default]
    Network,
    /// The archive, and from its primary what is not there or otherwise by now.
    FileSystem,
    /// The databases to which replication links tell its tables, and from its primary what is not there or otherwise by now.
    Database,
}

impl RecoverySource {
    /// As SQL says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::FileSystem => "file-system",
            Self::Database => "database",
        }
    }

    /// The source of this name, with `_` or `-`.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_lowercase().replace('_', "-");
        [Self::Network, Self::FileSystem, Self::Database]
            .into_iter()
            .find(|source| source.name() == name)
    }
}

/// What `RECOVER NODE` says of one recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryOrder {
    /// None: as the node was told at its start.
    pub strategy: Option<RecoveryStrategy>,
    /// None: as the node was told at its start.
    pub source: Option<RecoverySource>,
}

impl RecoveryOrder {
    /// True when the records that a replica's primary still has are not what is asked for.
    pub fn wants_fill(self) -> bool {
        let all = self
            .strategy
            .is_some_and(|strategy| strategy != RecoveryStrategy::Automatic);
        all || self.source.is_some_and(|source| source != RecoverySource::Network)
    }
}

/// How replicas recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Unless `RECOVER NODE` says otherwise.
    pub source: RecoverySource,
    /// Unless `RECOVER NODE` says otherwise.
    pub strategy: RecoveryStrategy,
    /// Bytes a second that this node sends to those whom it fills; 0: as fast as its own commits bear.
    pub bytes_per_second: u64,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            source: RecoverySource::Network,
            strategy: RecoveryStrategy::Automatic,
            bytes_per_second: DEFAULT_RECOVERY_BYTES_PER_SECOND,
        }
    }
}

/// The arguments that say so; each may also come from the environment.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct RecoveryArguments {
    /// How a replica comes by what it lacks, unless RECOVER NODE says otherwise
    #[arg(long, env = "VOLT_RECOVERY_STRATEGY", value_enum, default_value = "automatic")]
    recovery_strategy: RecoveryStrategy,
    /// Where a replica that must be filled takes its rows from, unless RECOVER NODE says otherwise; file-system: --archive
    #[arg(long, env = "VOLT_RECOVERY_SOURCE", value_enum, default_value = "network")]
    recovery_source: RecoverySource,
    /// Bytes a second that the node sends to replicas that it fills, one-shot ones aside; 0: as fast as its own commits bear
    #[arg(long, env = "VOLT_RECOVERY_BYTES_PER_SECOND", value_name = "BYTES", default_value_t = DEFAULT_RECOVERY_BYTES_PER_SECOND)]
    recovery_bytes_per_second: u64,
}

impl Default for RecoveryArguments {
    fn default() -> Self {
        let Recovery {
            source,
            strategy,
            bytes_per_second,
        } = Recovery::default();
        Self {
            recovery_strategy: strategy,
            recovery_source: source,
            recovery_bytes_per_second: bytes_per_second,
        }
    }
}

impl RecoveryArguments {
    /// The same arguments, for a process that is started with them.
    pub fn words(&self) -> Vec<String> {
        vec![
            "--recovery-strategy".to_owned(),
            self.recovery_strategy.name().to_owned(),
            "--recovery-source".to_owned(),
            self.recovery_source.name().to_owned(),
            "--recovery-bytes-per-second".to_owned(),
            self.recovery_bytes_per_second.to_string(),
        ]
    }

    /// What they mean.
    pub fn recovery(&self) -> Recovery {
        Recovery {
            source: self.recovery_source,
            strategy: self.recovery_strategy,
            bytes_per_second: self.recovery_bytes_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        arguments: RecoveryArguments,
    }

    #[test]
    fn arguments_are_handed_on() {
        let parsed = |words: Vec<String>| {
            let words = Words::try_parse_from(std::iter::once("x".to_owned()).chain(words));
            words.map(|words| words.arguments).map_err(|error| error.to_string())
        };
        assert_eq!(parsed(Vec::new()), Ok(RecoveryArguments::default()));
        let arguments = RecoveryArguments {
            recovery_strategy: RecoveryStrategy::OneShot,
            recovery_source: RecoverySource::FileSystem,
            recovery_bytes_per_second: 7,
        };
        assert_eq!(parsed(arguments.words()), Ok(arguments));
    }

    #[test]
    fn strategies_have_names() {
        for strategy in RecoveryStrategy::value_variants() {
            assert_eq!(RecoveryStrategy::of_name(strategy.name()), Some(*strategy));
        }
        assert_eq!(RecoveryStrategy::of_name("ONE_SHOT"), Some(RecoveryStrategy::OneShot));
        assert_eq!(RecoveryStrategy::of_name("twice"), None);
        for source in RecoverySource::value_variants() {
            assert_eq!(RecoverySource::of_name(source.name()), Some(*source));
        }
        assert_eq!(RecoverySource::of_name("file_system"), Some(RecoverySource::FileSystem));
    }
}
