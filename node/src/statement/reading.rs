//! Where a session reads: `volt.read_from`, `volt.balance` and `volt.max_staleness`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;

use crate::balancing::Strategy;
use crate::error::SqlError;

/// How old an answer of a backup may be, unless another time is given, in milliseconds.
pub const DEFAULT_MAX_STALENESS_MS: u64 = 1_000;
/// The longest that may be given: a day.
pub const LONGEST_STALENESS_MS: u64 = 86_400_000;

/// Which replicas a session's reads go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReadFrom {
    /// Primaries: strictly serialisable.
    #[default]
    Primary,
    /// Backups: what was committed a moment ago.
    Backup,
}

impl ReadFrom {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// How a session reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSettings {
    /// `volt.read_from`.
    pub from: ReadFrom,
    /// `volt.balance`.
    pub balance: Strategy,
    /// `volt.max_staleness`.
    pub max_staleness_ms: u64,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            from: ReadFrom::default(),
            balance: Strategy::default(),
            max_staleness_ms: DEFAULT_MAX_STALENESS_MS,
        }
    }
}

/// A setting about reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadSetting {
    /// `volt.read_from`.
    From,
    /// `volt.balance`.
    Balance,
    /// `volt.max_staleness`.
    MaxStaleness,
    /// `volt.last_staleness`, which is only shown.
    LastStaleness,
}

impl ReadSetting {
    const ALL: [Self; 4] = [Self::From, Self::Balance, Self::MaxStaleness, Self::LastStaleness];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::From => "volt.read_from",
            Self::Balance => "volt.balance",
            Self::MaxStaleness => "volt.max_staleness",
            Self::LastStaleness => "volt.last_staleness",
        }
    }

    /// The setting of this name, in lower case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

/// A change of one setting; None: its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadChange {
    /// `volt.read_from`.
    From(Option<ReadFrom>),
    /// `volt.balance`.
    Balance(Option<Strategy>),
    /// `volt.max_staleness`.
    MaxStaleness(Option<u64>),
}

impl ReadChange {
    /// What this value means for this setting; None: DEFAULT.
    pub fn parse(setting: ReadSetting, value: Option<&str>) -> Result<Self, SqlError> {
        let name = setting.name();
        let invalid = |said: &str, hint: &str| {
            let message = format!("invalid value for parameter \"{name}\": \"{said}\"");
            SqlError::new("22023", message).hint(hint)
        };
        Ok(match (setting, value.map(str::trim)) {
            (ReadSetting::From, None) => Self::From(None),
            (ReadSetting::From, Some(said)) => match said.to_lowercase().as_str() {
                "primary" => Self::From(Some(ReadFrom::Primary)),
                "backup" => Self::From(Some(ReadFrom::Backup)),
                _ => return Err(invalid(said, "Available values: primary, backup.")),
            },
            (ReadSetting::Balance, None) => Self::Balance(None),
            (ReadSetting::Balance, Some(said)) => match Strategy::named(&said.to_lowercase()) {
                Some(strategy) => Self::Balance(Some(strategy)),
                None => return Err(invalid(said, "Available values: round_robin, random, weighted.")),
            },
            (ReadSetting::MaxStaleness, None) => Self::MaxStaleness(None),
            (ReadSetting::MaxStaleness, Some(said)) => match milliseconds(said) {
                Some(time) if (1..=LONGEST_STALENESS_MS).contains(&time) => Self::MaxStaleness(Some(time)),
                _ => {
                    return Err(invalid(
                        said,
                        "Give a time of 1 ms to 1 d, with a unit of ms, s, min, h or d; without one it is ms.",
                    ));
                }
            },
            (ReadSetting::LastStaleness, _) => {
                return Err(SqlError::new(
                    "55P02",
                    format!("parameter \"{name}\" cannot be changed"),
                ));
            }
        })
    }

    /// These settings with this changed.
    pub fn of(self, settings: ReadSettings, defaults: ReadSettings) -> ReadSettings {
        match self {
            Self::From(from) => ReadSettings {
                from: from.unwrap_or(defaults.from),
                ..settings
            },
            Self::Balance(balance) => ReadSettings {
                balance: balance.unwrap_or(defaults.balance),
                ..settings
            },
            Self::MaxStaleness(time) => ReadSettings {
                max_staleness_ms: time.unwrap_or(defaults.max_staleness_ms),
                ..settings
            },
        }
    }
}

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A time as PostgreSQL's settings have it: a number, and a unit if it isn't milliseconds.
fn milliseconds(said: &str) -> Option<u64> {
    let digits = said.len() - said.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let (number, unit) = said.split_at(digits);
    let unit = match unit.trim() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The same in the largest unit that leaves a whole number.
fn in_words(milliseconds: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| milliseconds > 0 && milliseconds.is_multiple_of(*unit);
    match UNITS.iter().rev().find(fits) {
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

/// A session's settings about reading, and what its last read from backups was like.
#[derive(Debug, Default)]
pub struct Reads {
    defaults: ReadSettings,
    settings: Mutex<ReadSettings>,
    from_backups: AtomicBool,
    last_staleness_ms: AtomicU64,
}

impl Reads {
    /// Of a session that begins with these.
    pub fn new(defaults: ReadSettings) -> Self {
        Self {
            defaults,
            settings: Mutex::new(defaults),
            from_backups: AtomicBool::new(defaults.from == ReadFrom::Backup),
            last_staleness_ms: AtomicU64::new(0),
        }
    }

    /// What the session began with.
    pub fn defaults(&self) -> ReadSettings {
        self.defaults
    }

    fn lock(&self) -> MutexGuard<'_, ReadSettings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a setting.
    pub fn change(&self, change: ReadChange) {
        let mut settings = self.lock();
        *settings = change.of(*settings, self.defaults);
        self.from_backups.store(settings.from == ReadFrom::Backup, Relaxed);
    }

    /// All as it was at the beginning.
    pub fn reset(&self) {
        for change in [
            ReadChange::From(None),
            ReadChange::Balance(None),
            ReadChange::MaxStaleness(None),
        ] {
            self.change(change);
        }
    }

    /// True when statements that only read go to backups; for the hot path.
    pub fn are_from_backups(&self) -> bool {
        self.from_backups.load(Relaxed)
    }

    /// The settings, if statements that only read go to backups.
    pub fn from_backups(&self) -> Option<ReadSettings> {
        self.are_from_backups().then(|| *self.lock())
    }

    /// An answer was so old at most; 0: primaries gave it.
    pub fn note_staleness(&self, milliseconds: u64) {
        self.last_staleness_ms.store(milliseconds, Relaxed);
    }

    /// A setting, as SHOW says it.
    pub fn show(&self, setting: ReadSetting) -> String {
        let settings = *self.lock();
        match setting {
            ReadSetting::From => settings.from.name().to_owned(),
            ReadSetting::Balance => settings.balance.name().to_owned(),
            ReadSetting::MaxStaleness => in_words(settings.max_staleness_ms),
            ReadSetting::LastStaleness => format!("{}ms", self.last_staleness_ms.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(setting: ReadSetting, value: &str) -> Result<ReadChange, String> {
        ReadChange::parse(setting, Some(value)).map_err(|error| format!("{} {}", error.sqlstate, error.message))
    }

    #[test]
    fn times_are_read_and_shown_as_in_postgresql() {
        for (said, milliseconds, shown) in [
            ("250", 250, "250ms"),
            ("1000", 1_000, "1s"),
            ("1500ms", 1_500, "1500ms"),
            ("2 s", 2_000, "2s"),
            ("5min", 300_000, "5min"),
            ("1d", 86_400_000, "1d"),
        ] {
            let change = parsed(ReadSetting::MaxStaleness, said);
            assert_eq!(change, Ok(ReadChange::MaxStaleness(Some(milliseconds))), "{said}");
            assert_eq!(in_words(milliseconds), shown);
        }
        for said in [
            "",
            "0",
            "-1",
            "1 week",
            "ms",
            "25h",
            "99999999999999999999",
            "18446744073709551615d",
            "1é",
        ] {
            let error = parsed(ReadSetting::MaxStaleness, said).unwrap_err();
            assert!(
                error.starts_with("22023 invalid value for parameter \"volt.max_staleness\""),
                "{error}"
            );
        }
    }

    #[test]
    fn names_are_read() {
        assert_eq!(
            parsed(ReadSetting::From, "BACKUP"),
            Ok(ReadChange::From(Some(ReadFrom::Backup)))
        );
        assert!(parsed(ReadSetting::From, "standby").is_err());
        assert_eq!(
            parsed(ReadSetting::Balance, "weighted"),
            Ok(ReadChange::Balance(Some(Strategy::Weighted)))
        );
        assert!(
            parsed(ReadSetting::LastStaleness, "1")
                .unwrap_err()
                .starts_with("55P02")
        );
    }

    #[test]
    fn a_session_goes_back_to_what_it_began_with() {
        let defaults = ReadSettings {
            from: ReadFrom::Backup,
            balance: Strategy::Random,
            max_staleness_ms: 5,
        };
        let reads = Reads::new(defaults);
        assert_eq!(reads.from_backups(), Some(defaults));
        reads.change(ReadChange::From(Some(ReadFrom::Primary)));
        assert_eq!(reads.from_backups(), None);
        reads.change(ReadChange::From(None));
        reads.change(ReadChange::Balance(Some(Strategy::Weighted)));
        assert_eq!(reads.show(ReadSetting::Balance), "weighted");
        reads.reset();
        assert_eq!(reads.from_backups(), Some(defaults));
    }
}
