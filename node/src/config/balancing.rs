//! How sessions read that say nothing of it: the cluster's defaults of `volt.read_from`, `volt.balance` and `volt.max_staleness`.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::balancing::Strategy;
use crate::statement::{DEFAULT_MAX_STALENESS_MS, LONGEST_STALENESS_MS, ReadFrom, ReadSettings};

/// The arguments about reading of `volt-node start` and `volt-node dev`.
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

    /// The same arguments, for a process that is started with them.
    pub fn words(&self) -> Vec<String> {
        let name = |value: Option<PossibleValue>| value.map_or_else(String::new, |value| value.get_name().to_owned());
        [
            ("--read-from", name(self.read_from.to_possible_value())),
            ("--balance", name(self.balance.to_possible_value())),
            ("--max-staleness-ms", self.max_staleness_ms.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
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
}
