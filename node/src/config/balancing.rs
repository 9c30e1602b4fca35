//! How sessions read that say nothing of it: the cluster's defaults of `volt.read_from`, `volt.balance` and `volt.max_staleness`; and the
//! directory whose files are loaded, and the table whose statements are run.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::ConfigError;
use crate::balancing::Strategy;
use crate::balancing::queue::QueueSettings;
use crate::balancing::spool::SpoolSettings;
use crate::statement::{DEFAULT_MAX_STALENESS_MS, LONGEST_STALENESS_MS, ReadFrom, ReadSettings};

/// Milliseconds between two looks at the spool directory, unless others are given.
pub const DEFAULT_SPOOL_EVERY_MS: u64 = 500;
/// Milliseconds between two looks at the queue, unless others are given.
pub const DEFAULT_QUEUE_EVERY_MS: u64 = 100;

/// The arguments about reading and about the spool directory of `volt-node start` and `volt-node dev`.
#[derive(Args, Clone, Debug)]
pub struct BalancingArguments {
    /// Where sessions read unless they set volt.read_from
    #[arg(long, env = "VOLT_READ_FROM", value_enum, default_value = "primary")]
    read_from: ReadFrom,
    /// How one of several backups is chosen, unless a session sets volt.balance
    #[arg(long, env = "VOLT_BALANCE", value_enum, default_value = "round-robin")]
    balance: Strategy,
    /// Milliseconds that a backup's answer may be old, unless a session sets volt.max_staleness
    #[arg(long, env = "VOLT_MAX_STALENESS_MS", default_value_t = DEFAULT_MAX_STALENESS_MS, value_parser = clap::value_parser!(u64).range(1..=LONGEST_STALENESS_MS))]
    max_staleness_ms: u64,
    /// A directory, shared by all nodes, whose CSV and JSON files are loaded into tables
    #[arg(long, env = "VOLT_SPOOL", value_name = "DIRECTORY")]
    spool: Option<PathBuf>,
    /// How the node is chosen that loads a file of --spool
    #[arg(long, env = "VOLT_SPOOL_BALANCE", value_enum, default_value = "round-robin")]
    spool_balance: Strategy,
    /// Milliseconds between two looks at --spool
    #[arg(long, env = "VOLT_SPOOL_EVERY_MS", default_value_t = DEFAULT_SPOOL_EVERY_MS, value_parser = clap::value_parser!(u64).range(10..=1_000))]
    spool_every_ms: u64,
    /// Runs the statements of the table volt_queue, which is made if it is not there; for all nodes
    #[arg(long, env = "VOLT_QUEUE")]
    queue: bool,
    /// How the node is chosen that runs a statement of the queue
    #[arg(long, env = "VOLT_QUEUE_BALANCE", value_enum, default_value = "round-robin")]
    queue_balance: Strategy,
    /// Milliseconds between two looks at the queue
    #[arg(long, env = "VOLT_QUEUE_EVERY_MS", default_value_t = DEFAULT_QUEUE_EVERY_MS, value_parser = clap::value_parser!(u64).range(10..=1_000))]
    queue_every_ms: u64,
}

impl Default for BalancingArguments {
    fn default() -> Self {
        let ReadSettings {
            from,
            balance,
            max_staleness_ms,
        } = ReadSettings::default();
        Self {
            read_from: from,
            balance,
            max_staleness_ms,
            spool: None,
            spool_balance: Strategy::default(),
            spool_every_ms: DEFAULT_SPOOL_EVERY_MS,
            queue: false,
            queue_balance: Strategy::default(),
            queue_every_ms: DEFAULT_QUEUE_EVERY_MS,
        }
    }
}

impl BalancingArguments {
    /// What they mean.
    pub fn reads(&self) -> ReadSettings {
        ReadSettings {
            from: self.read_from,
            balance: self.balance,
            max_staleness_ms: self.max_staleness_ms,
        }
    }

    /// The spool directory, if there is one.
    pub fn spool(&self) -> Result<Option<SpoolSettings>, ConfigError> {
        let Some(directory) = self.spool.clone() else {
            return Ok(None);
        };
        if !directory.is_absolute() {
            return Err(ConfigError::RelativeDirectory(
                "--spool",
                directory.display().to_string(),
            ));
        }
        Ok(Some(SpoolSettings {
            directory,
            every: Duration::from_millis(self.spool_every_ms),
            strategy: self.spool_balance,
        }))
    }

    /// How the queue is looked at, if it is.
    pub fn queue(&self) -> Option<QueueSettings> {
        self.queue.then(|| QueueSettings {
            every: Duration::from_millis(self.queue_every_ms),
            strategy: self.queue_balance,
        })
    }

    /// The same arguments, for a process that is started with them.
    pub fn words(&self) -> Vec<String> {
        let spool = self
            .spool
            .iter()
            .map(|directory| ("--spool", directory.display().to_string()));
        let name = |value: Option<PossibleValue>| value.map_or_else(String::new, |value| value.get_name().to_owned());
        [
            ("--read-from", name(self.read_from.to_possible_value())),
            ("--balance", name(self.balance.to_possible_value())),
            ("--max-staleness-ms", self.max_staleness_ms.to_string()),
            ("--spool-balance", name(self.spool_balance.to_possible_value())),
            ("--spool-every-ms", self.spool_every_ms.to_string()),
            ("--queue-balance", name(self.queue_balance.to_possible_value())),
            ("--queue-every-ms", self.queue_every_ms.to_string()),
        ]
        .into_iter()
        .chain(spool)
        .flat_map(|(name, value)| [name.to_owned(), value])
        .chain(self.queue.then(|| "--queue".to_owned()))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        balancing: BalancingArguments,
    }

    fn reads(words: &str) -> Option<ReadSettings> {
        let words = ["volt-node"].into_iter().chain(words.split_whitespace());
        Words::try_parse_from(words).ok().map(|words| words.balancing.reads())
    }

    #[test]
    fn defaults_and_others() {
        assert_eq!(reads(""), Some(ReadSettings::default()));
        let all = ReadSettings {
            from: ReadFrom::Backup,
            balance: Strategy::Weighted,
            max_staleness_ms: 250,
        };
        assert_eq!(
            reads("--read-from backup --balance weighted --max-staleness-ms 250"),
            Some(all)
        );
        assert_eq!(reads("--max-staleness-ms 0"), None);
        let again = Words::parse_from(["volt-node", "--read-from", "backup", "--balance", "random"]);
        let words = again.balancing.words().join(" ");
        assert_eq!(reads(&words), Some(again.balancing.reads()));
        assert_eq!(reads("--read-from nobody"), None);
    }

    #[test]
    fn a_spool_directory_is_the_same_for_all_nodes() {
        let spool = |words: &str| {
            let words = ["volt-node"].into_iter().chain(words.split_whitespace());
            let balancing = Words::parse_from(words).balancing;
            (balancing.spool(), balancing.words().join(" "))
        };
        assert_eq!(spool("").0, Ok(None));
        let (settings, words) = spool("--spool /spool --spool-balance weighted --spool-every-ms 50");
        let expected = SpoolSettings {
            directory: "/spool".into(),
            every: Duration::from_millis(50),
            strategy: Strategy::Weighted,
        };
        assert_eq!(settings, Ok(Some(expected)));
        assert_eq!(spool(&words).0, settings);
        let queue = |words: &str| {
            let words = ["volt-node"].into_iter().chain(words.split_whitespace());
            let balancing = Words::parse_from(words).balancing;
            (balancing.queue(), balancing.words().join(" "))
        };
        assert_eq!(queue("--queue-balance random").0, None);
        let (settings, words) = queue("--queue --queue-balance random --queue-every-ms 20");
        let expected = QueueSettings {
            every: Duration::from_millis(20),
            strategy: Strategy::Random,
        };
        assert_eq!(settings, Some(expected));
        assert_eq!(queue(&words).0, settings);
        let refused = spool("--spool here").0.unwrap_err().to_string();
        assert_eq!(refused, "--spool here must be absolute: it is the same for all nodes");
    }
}
