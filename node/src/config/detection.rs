//! How failures are found: the strategies that are on, what each of them waits for, and the arguments that say so.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tokio::time::Duration;

use super::ConfigError;
use super::remote_database::RemoteDatabase;
use crate::metadata::failure::{Medium, Strategy};

/// How sure the heartbeat strategy must be, unless another number is given: wrong once in 10^8.
pub const DEFAULT_PHI_THRESHOLD: f64 = 8.0;
/// Milliseconds between two probes, unless another number is given.
pub const DEFAULT_PROBE_INTERVAL_MS: u64 = 500;
/// Probes missed in a row that are a failure, unless another number is given.
pub const DEFAULT_PROBE_MISSES: u32 = 3;
/// Records that a backup may be behind for `--max-lag-ms`, unless another number is given.
pub const DEFAULT_MAX_LAG_RECORDS: u64 = 100_000;
/// Milliseconds for which it may be so, unless another number is given.
pub const DEFAULT_MAX_LAG_MS: u64 = 2_000;
/// Seconds between two comparisons of a partition's replicas, unless another number is given.
pub const DEFAULT_CHECKSUM_INTERVAL_S: u64 = 600;

/// A strategy that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Detect {
    /// Heartbeats, and how regularly a node sends them (phi accrual).
    Heartbeat,
    /// Probes of the other nodes, of the own disk, of --liveness-dir and of --liveness-database at fixed intervals.
    Interval,
    /// Replicas that lag, or that differ from their primary at the same LSN.
    DataChange,
}

/// The strategies that are on. A broken connection and the operator's word count always.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Heartbeats.
    pub heartbeat: Option<HeartbeatDetection>,
    /// Probes.
    pub interval: Option<IntervalDetection>,
    /// Lag and checksums.
    pub data_change: Option<DataChangeDetection>,
    /// From this hazard on primaries move away from a node before it fails; None: they stay.
    pub preempt: Option<f64>,
}

/// When silence is a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeartbeatDetection {
    /// From this phi on.
    pub threshold: f64,
}

/// When missed probes are a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntervalDetection {
    /// Time between two probes, and the longest wait for an answer.
    pub every: Duration,
    /// So many missed in a row.
    pub misses: u32,
    /// A directory that the nodes share, where each renews a file.
    pub liveness_directory: Option<PathBuf>,
    /// A database that the nodes share, where each renews a row.
    pub liveness_database: Option<RemoteDatabase>,
}

/// When a replica's data is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataChangeDetection {
    /// It is behind by more records than this,
    pub max_lag_records: u64,
    /// for so long.
    pub max_lag_time: Duration,
    /// Time between two comparisons of a partition's replicas.
    pub checksum_interval: Duration,
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            heartbeat: Some(HeartbeatDetection::default()),
            interval: None,
            data_change: None,
            preempt: None,
        }
    }
}

impl Default for HeartbeatDetection {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_PHI_THRESHOLD,
        }
    }
}

impl Default for IntervalDetection {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(DEFAULT_PROBE_INTERVAL_MS),
            misses: DEFAULT_PROBE_MISSES,
            liveness_directory: None,
            liveness_database: None,
        }
    }
}

impl Default for DataChangeDetection {
    fn default() -> Self {
        Self {
            max_lag_records: DEFAULT_MAX_LAG_RECORDS,
            max_lag_time: Duration::from_millis(DEFAULT_MAX_LAG_MS),
            checksum_interval: Duration::from_secs(DEFAULT_CHECKSUM_INTERVAL_S),
        }
    }
}

impl Detection {
    /// Every strategy and medium that there is, with its settings in words; None: it is off.
    pub fn in_words(&self) -> Vec<((Strategy, Medium), Option<String>)> {
        let always = || Some("always".to_owned());
        let interval = self.interval.as_ref();
        let probes = |settings: &IntervalDetection| {
            let (every, misses) = (settings.every.as_millis(), settings.misses);
            format!("{misses} misses in a row, one each {every} ms")
        };
        let through_files = |settings: &IntervalDetection| match &settings.liveness_directory {
            Some(directory) => format!("{}: the own disk, and {}", probes(settings), directory.display()),
            None => format!("{}: the own disk", probes(settings)),
        };
        let through_a_database = |settings: &IntervalDetection| {
            let database = settings.liveness_database.as_ref()?;
            Some(format!("{}: volt_liveness in {database}", probes(settings)))
        };
        let heartbeat = |settings: HeartbeatDetection| format!("phi {}", settings.threshold);
        let data_change = |settings: DataChangeDetection| {
            let (records, lag) = (settings.max_lag_records, settings.max_lag_time.as_millis());
            let checksums = settings.checksum_interval.as_secs();
            format!("behind by more than {records} records for {lag} ms; checksums each {checksums} s")
        };
        vec![
            ((Strategy::Connection, Medium::Network), always()),
            ((Strategy::Operator, Medium::Network), always()),
            ((Strategy::Heartbeat, Medium::Network), self.heartbeat.map(heartbeat)),
            ((Strategy::Interval, Medium::Network), interval.map(probes)),
            ((Strategy::Interval, Medium::FileSystem), interval.map(through_files)),
            (
                (Strategy::Interval, Medium::Database),
                interval.and_then(through_a_database),
            ),
            (
                (Strategy::DataChange, Medium::Network),
                self.data_change.map(data_change),
            ),
        ]
    }
}

/// The arguments that say how failures are found; each may also come from the environment.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct DetectionArguments {
    /// How failures are found, one strategy or several
    #[arg(
        long,
        env = "VOLT_DETECT",
        value_enum,
        value_delimiter = ',',
        default_value = "heartbeat"
    )]
    detect: Vec<Detect>,
    /// heartbeat: how sure one must be; 8 is wrong once in 10^8 [default: 8]
    #[arg(long, env = "VOLT_PHI_THRESHOLD", value_parser = phi)]
    phi_threshold: Option<f64>,
    /// interval: milliseconds between two probes, and the longest wait for an answer [default: 500]
    #[arg(long, env = "VOLT_PROBE_INTERVAL_MS", value_parser = clap::value_parser!(u64).range(20..=60_000))]
    probe_interval_ms: Option<u64>,
    /// interval: probes missed in a row that are a failure [default: 3]
    #[arg(long, env = "VOLT_PROBE_MISSES", value_parser = clap::value_parser!(u32).range(2..=100))]
    probe_misses: Option<u32>,
    /// interval: a directory that all nodes share, where each renews a file and looks at the others'
    #[arg(long, env = "VOLT_LIVENESS_DIR", value_name = "DIR")]
    liveness_dir: Option<PathBuf>,
    /// interval: a database that all nodes share, by its PostgreSQL protocol, where each renews a row of the table
    /// volt_liveness and looks at the others'; postgres://USER@HOST:PORT/DATABASE, without a password
    #[arg(long, env = "VOLT_LIVENESS_DATABASE", value_name = "URL")]
    liveness_database: Option<String>,
    /// interval: the file that has the password for --liveness-database
    #[arg(long, env = "VOLT_LIVENESS_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    liveness_database_password_file: Option<PathBuf>,
    /// data-change: records that a backup may be behind for --max-lag-ms [default: 100000]
    #[arg(long, env = "VOLT_MAX_LAG_RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    max_lag_records: Option<u64>,
    /// data-change: for how long it may be so [default: 2000]
    #[arg(long, env = "VOLT_MAX_LAG_MS", value_parser = clap::value_parser!(u64).range(100..=600_000))]
    max_lag_ms: Option<u64>,
    /// data-change: seconds between two comparisons of a partition's replicas [default: 600]
    #[arg(long, env = "VOLT_CHECKSUM_INTERVAL_S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    checksum_interval_s: Option<u64>,
    /// Primaries move away from a node whose hazard (system.nodes) stays over this, 0.1 to 1 [default: they stay]
    #[arg(long, env = "VOLT_PREEMPT", value_name = "HAZARD", value_parser = hazard)]
    preempt: Option<f64>,
}

impl Default for DetectionArguments {
    fn default() -> Self {
        Self {
            detect: vec![Detect::Heartbeat],
            phi_threshold: None,
            probe_interval_ms: None,
            probe_misses: None,
            liveness_dir: None,
            liveness_database: None,
            liveness_database_password_file: None,
            max_lag_records: None,
            max_lag_ms: None,
            checksum_interval_s: None,
            preempt: None,
        }
    }
}

fn phi(text: &str) -> Result<f64, String> {
    number_in(text, 1.0, 16.0)
}

fn hazard(text: &str) -> Result<f64, String> {
    number_in(text, 0.1, 1.0)
}

fn number_in(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("{text} is not in {least}..={most}")),
    }
}

impl DetectionArguments {
    /// What they mean, or what is wrong with them.
    pub fn detection(&self) -> Result<Detection, ConfigError> {
        let on = |strategy| self.detect.contains(&strategy);
        let (heartbeat, interval, data_change) = (on(Detect::Heartbeat), on(Detect::Interval), on(Detect::DataChange));
        if !heartbeat && !interval {
            return Err(ConfigError::NobodyDetected);
        }
        let settings = [
            (
                "--phi-threshold",
                "heartbeat",
                self.phi_threshold.is_some() && !heartbeat,
            ),
            (
                "--probe-interval-ms",
                "interval",
                self.probe_interval_ms.is_some() && !interval,
            ),
            ("--probe-misses", "interval", self.probe_misses.is_some() && !interval),
            ("--liveness-dir", "interval", self.liveness_dir.is_some() && !interval),
            (
                "--liveness-database",
                "interval",
                self.liveness_database.is_some() && !interval,
            ),
            (
                "--max-lag-records",
                "data-change",
                self.max_lag_records.is_some() && !data_change,
            ),
            ("--max-lag-ms", "data-change", self.max_lag_ms.is_some() && !data_change),
            (
                "--checksum-interval-s",
                "data-change",
                self.checksum_interval_s.is_some() && !data_change,
            ),
        ];
        if let Some((setting, strategy, _)) = settings.into_iter().find(|(.., is_idle)| *is_idle) {
            return Err(ConfigError::IdleSetting { setting, strategy });
        }
        let liveness_directory = self.liveness_dir.clone();
        if let Some(directory) = liveness_directory.as_ref().filter(|path| !path.is_absolute()) {
            return Err(ConfigError::RelativeDirectory(
                "--liveness-dir",
                directory.display().to_string(),
            ));
        }
        let liveness_database = self.database()?;
        Ok(Detection {
            preempt: self.preempt,
            heartbeat: heartbeat.then(|| HeartbeatDetection {
                threshold: self.phi_threshold.unwrap_or(DEFAULT_PHI_THRESHOLD),
            }),
            interval: interval.then(|| IntervalDetection {
                every: Duration::from_millis(self.probe_interval_ms.unwrap_or(DEFAULT_PROBE_INTERVAL_MS)),
                misses: self.probe_misses.unwrap_or(DEFAULT_PROBE_MISSES),
                liveness_directory,
                liveness_database,
            }),
            data_change: data_change.then(|| DataChangeDetection {
                max_lag_records: self.max_lag_records.unwrap_or(DEFAULT_MAX_LAG_RECORDS),
                max_lag_time: Duration::from_millis(self.max_lag_ms.unwrap_or(DEFAULT_MAX_LAG_MS)),
                checksum_interval: Duration::from_secs(self.checksum_interval_s.unwrap_or(DEFAULT_CHECKSUM_INTERVAL_S)),
            }),
        })
    }

    fn database(&self) -> Result<Option<RemoteDatabase>, ConfigError> {
        let password_file = self.liveness_database_password_file.clone();
        let Some(url) = &self.liveness_database else {
            return match password_file {
                Some(_) => Err(ConfigError::NoDatabase),
                None => Ok(None),
            };
        };
        if let Some(file) = password_file.as_ref().filter(|path| !path.is_absolute()) {
            return Err(ConfigError::RelativeFile(file.display().to_string()));
        }
        RemoteDatabase::new(url, password_file)
            .map(Some)
            .map_err(ConfigError::UnusableDatabase)
    }

    /// The same arguments, for a process that is started with them.
    pub fn words(&self) -> Vec<String> {
        let names = self.detect.iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let pairs = [
            ("--detect", Some(names.join(","))),
            ("--phi-threshold", self.phi_threshold.map(|phi| phi.to_string())),
            ("--probe-interval-ms", number(self.probe_interval_ms)),
            ("--probe-misses", number(self.probe_misses.map(u64::from))),
            (
                "--liveness-dir",
                self.liveness_dir.as_ref().map(|path| path.display().to_string()),
            ),
            ("--liveness-database", self.liveness_database.clone()),
            (
                "--liveness-database-password-file",
                self.liveness_database_password_file
                    .as_ref()
                    .map(|path| path.display().to_string()),
            ),
            ("--max-lag-records", number(self.max_lag_records)),
            ("--max-lag-ms", number(self.max_lag_ms)),
            ("--checksum-interval-s", number(self.checksum_interval_s)),
            ("--preempt", self.preempt.map(|hazard| hazard.to_string())),
        ];
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        detection: DetectionArguments,
    }

    fn parse(words: &str) -> DetectionArguments {
        let words = words.split_whitespace().filter(|word| !word.is_empty());
        Words::try_parse_from(["volt-node"].into_iter().chain(words))
            .unwrap()
            .detection
    }

    fn refused(words: &str) -> String {
        parse(words).detection().unwrap_err().to_string()
    }

    #[test]
    fn strategies_and_their_settings() {
        assert_eq!(parse("").detection().unwrap(), Detection::default());
        let all = parse("--detect heartbeat,interval,data-change --probe-interval-ms 100 --liveness-dir /live");
        let detection = all.detection().unwrap();
        assert!(detection.heartbeat.is_some());
        let interval = detection.interval.clone().unwrap();
        assert_eq!((interval.every, interval.misses), (Duration::from_millis(100), 3));
        assert_eq!(detection.data_change, Some(DataChangeDetection::default()));
        assert_eq!(parse(&all.words().join(" ")).detection().unwrap(), detection);
        assert_eq!(parse("--detect interval").detection().unwrap().heartbeat, None);
        let preempting = parse("--preempt 0.5");
        assert_eq!(preempting.detection().unwrap().preempt, Some(0.5));
        assert_eq!(parse(&preempting.words().join(" ")), preempting);
        let words = "--detect interval --liveness-database postgres://a@db:5433/x --liveness-database-password-file /p";
        let database = parse(words);
        let detection = database.detection().unwrap();
        assert_eq!(parse(&database.words().join(" ")).detection().unwrap(), detection);
        let through = |found: &((Strategy, Medium), Option<String>)| found.0.1 == Medium::Database;
        let shown = detection.in_words().into_iter().find(through).unwrap().1.unwrap();
        assert!(
            shown.ends_with("volt_liveness in database x of db:5433, as a"),
            "{shown}"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(refused("--detect data-change").contains("--detect needs heartbeat or interval"));
        assert_eq!(
            refused("--probe-misses 4"),
            "--probe-misses says nothing without interval in --detect"
        );
        assert!(refused("--detect interval --phi-threshold 9").contains("without heartbeat"));
        assert!(refused("--checksum-interval-s 9").contains("without data-change"));
        assert!(refused("--detect interval --liveness-dir live").contains("must be absolute"));
        let database = "--detect interval --liveness-database";
        assert!(refused(&format!("{database} postgres://a:secret@db/x")).contains("has a password in it"));
        assert!(!refused(&format!("{database} postgres://a:secret@db/x")).contains("secret"));
        assert!(refused("--liveness-database postgres://a@db/x").contains("without interval"));
        assert!(
            refused("--detect interval --liveness-database-password-file /p").contains("without --liveness-database")
        );
        assert!(
            refused(&format!(
                "{database} postgres://a@db/x --liveness-database-password-file p"
            ))
            .contains("must be absolute")
        );
    }
}
