//! Where the cluster is archived, and how often.

use clap::Args;
use object_store::ObjectStoreScheme;
use object_store::path::Path as ObjectPath;
use reqwest::Url;
use tokio::time::Duration;
use volt_proto::v1::InitialiseRequest;

/// Milliseconds within which a committed record is archived, unless another number is given.
pub const DEFAULT_ARCHIVE_INTERVAL_MS: u64 = 10_000;
/// Milliseconds between two moments to which the cluster can be restored, unless another number is given.
pub const DEFAULT_ARCHIVE_MOMENT_MS: u64 = 1_000;
/// Hours between two bases of a partition, unless another number is given.
pub const DEFAULT_ARCHIVE_BASE_HOURS: u64 = 24;
/// Hours for which moments are kept, unless another number is given.
pub const DEFAULT_ARCHIVE_KEEP_HOURS: u64 = 168;

const HOUR: Duration = Duration::from_secs(3_600);

/// An archive, the same for all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// `file:///PATH` of a directory that the nodes share, or an object store's.
    pub url: String,
    /// A committed record waits no longer.
    pub interval: Duration,
    /// Between two moments to which the cluster can be restored.
    pub cut_interval: Duration,
    /// Between two bases of a partition.
    pub base_every: Duration,
    /// How long moments are kept; None: for ever.
    pub keep: Option<Duration>,
}

/// The arguments that say so; each may also come from the environment.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct ArchiveArguments {
    /// Archives the cluster here, the same for all nodes: file:///PATH of a directory that they share, s3://BUCKET/PATH, gs://BUCKET/PATH or
    /// az://CONTAINER/PATH, whose credentials come from the environment
    #[arg(long, env = "VOLT_ARCHIVE", value_name = "URL", value_parser = url)]
    archive: Option<String>,
    /// Milliseconds within which a committed write is archived
    #[arg(long, env = "VOLT_ARCHIVE_INTERVAL_MS", value_name = "MS", default_value_t = DEFAULT_ARCHIVE_INTERVAL_MS, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    archive_interval_ms: u64,
    /// Milliseconds between two moments to which the cluster can be restored
    #[arg(long, env = "VOLT_ARCHIVE_MOMENT_MS", value_name = "MS", default_value_t = DEFAULT_ARCHIVE_MOMENT_MS, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    archive_moment_ms: u64,
    /// Hours between two archived states of a partition, behind which its records are archived
    #[arg(long, env = "VOLT_ARCHIVE_BASE_HOURS", value_name = "HOURS", default_value_t = DEFAULT_ARCHIVE_BASE_HOURS, value_parser = clap::value_parser!(u64).range(1..=8_760))]
    archive_base_hours: u64,
    /// Hours for which the cluster can be restored to every moment; 0: nothing is ever removed
    #[arg(long, env = "VOLT_ARCHIVE_KEEP_HOURS", value_name = "HOURS", default_value_t = DEFAULT_ARCHIVE_KEEP_HOURS, value_parser = clap::value_parser!(u64).range(..=876_000))]
    archive_keep_hours: u64,
}

/// What is said of a URL that an archive can't have.
const URLS: &str = "an archive lies in a directory, file:///PATH, or in an object store: s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH";

/// A URL that an archive may have.
pub fn url(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    match text.strip_prefix("file:///") {
        Some(path) if path.trim_matches('/').is_empty() => Err(URLS.to_owned()),
        Some(_) => Ok(trimmed.to_owned()),
        None => store_url(trimmed).map(|_| trimmed.to_owned()),
    }
}

/// The object store that a URL names, and the path in its bucket.
pub(crate) fn store_url(text: &str) -> Result<(ObjectStoreScheme, ObjectPath), String> {
    let parsed = Url::parse(text).map_err(|error| format!("{text}: {error}: {URLS}"))?;
    // Credentials in a URL would be shown wherever it is.
    if parsed.password().is_some() || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(format!(
            "credentials and options of an object store come from the environment, not from its URL: {URLS}"
        ));
    }
    match ObjectStoreScheme::parse(&parsed) {
        Ok((
            scheme @ (ObjectStoreScheme::AmazonS3
            | ObjectStoreScheme::GoogleCloudStorage
            | ObjectStoreScheme::MicrosoftAzure),
            path,
        )) => Ok((scheme, path)),
        _ => Err(URLS.to_owned()),
    }
}

impl Default for ArchiveArguments {
    fn default() -> Self {
        Self {
            archive: None,
            archive_interval_ms: DEFAULT_ARCHIVE_INTERVAL_MS,
            archive_moment_ms: DEFAULT_ARCHIVE_MOMENT_MS,
            archive_base_hours: DEFAULT_ARCHIVE_BASE_HOURS,
            archive_keep_hours: DEFAULT_ARCHIVE_KEEP_HOURS,
        }
    }
}

impl ArchiveArguments {
    /// The same arguments, for a process that is started with them.
    pub fn words(&self) -> Vec<String> {
        let Some(archive) = &self.archive else {
            return Vec::new();
        };
        let numbers = [
            ("--archive-interval-ms", self.archive_interval_ms),
            ("--archive-moment-ms", self.archive_moment_ms),
            ("--archive-base-hours", self.archive_base_hours),
            ("--archive-keep-hours", self.archive_keep_hours),
        ];
        let numbers = numbers.map(|(name, number)| [name.to_owned(), number.to_string()]);
        let url = ["--archive".to_owned(), archive.clone()];
        url.into_iter().chain(numbers.into_iter().flatten()).collect()
    }

    /// What they mean.
    pub fn archive(&self) -> Option<ArchiveConfig> {
        Some(ArchiveConfig {
            url: self.archive.clone()?,
            interval: Duration::from_millis(self.archive_interval_ms),
            cut_interval: Duration::from_millis(self.archive_moment_ms),
            base_every: HOUR * u32::try_from(self.archive_base_hours).unwrap_or(u32::MAX),
            keep: match u32::try_from(self.archive_keep_hours).unwrap_or(u32::MAX) {
                0 => None,
                hours => Some(HOUR * hours),
            },
        })
    }
}

/// What a new cluster begins with, in `volt-node init` and `volt-node dev`.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RestoreArguments {
    /// Begins as the cluster that was archived at this URL; append its UUID if there are several
    #[arg(long, value_name = "URL", value_parser = url)]
    restore: Option<String>,
    /// As it was at this moment, like 2026-01-31T23:59:59.5Z [default: the newest in the archive]
    #[arg(long, value_name = "TIME", requires = "restore", value_parser = moment)]
    restore_until: Option<i64>,
    /// Follows the cluster that is archived at this URL, and takes no writes, until PROMOTE; append its UUID if there are several
    #[arg(long, value_name = "URL", conflicts_with_all = ["restore", "restore_until"], value_parser = url)]
    standby: Option<String>,
}

/// A moment, in microseconds since 1970.
fn moment(text: &str) -> Result<i64, String> {
    let micros = volt_engine::value::parse_timestamp(text);
    micros.ok_or_else(|| "a time in UTC looks like 2026-01-31T23:59:59.5Z".to_owned())
}

impl RestoreArguments {
    /// The request to initialise, without what else it says.
    pub fn in_request(&self) -> InitialiseRequest {
        InitialiseRequest {
            restore_from: self
                .standby
                .as_ref()
                .or(self.restore.as_ref())
                .cloned()
                .unwrap_or_default(),
            restore_until_micros: self.restore_until.unwrap_or_default(),
            is_standby: self.standby.is_some(),
            ..InitialiseRequest::default()
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
        arguments: ArchiveArguments,
    }

    fn parsed(words: Vec<String>) -> Result<ArchiveArguments, String> {
        let words = Words::try_parse_from(std::iter::once("x".to_owned()).chain(words));
        words.map(|words| words.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_handed_on() {
        assert_eq!(parsed(Vec::new()), Ok(ArchiveArguments::default()));
        assert_eq!(ArchiveArguments::default().archive(), None);
        let arguments = ArchiveArguments {
            archive: Some("file:///backups".to_owned()),
            archive_interval_ms: 500,
            archive_moment_ms: 250,
            archive_base_hours: 2,
            archive_keep_hours: 0,
        };
        assert_eq!(arguments.archive().map(|archive| archive.keep), Some(None));
        assert_eq!(parsed(arguments.words()), Ok(arguments));
    }

    #[derive(Parser)]
    struct Beginning {
        #[command(flatten)]
        arguments: RestoreArguments,
    }

    #[test]
    fn a_standby_follows_and_what_is_restored_does_not() {
        let parsed = |words: &[&str]| {
            let words = Beginning::try_parse_from(std::iter::once("x").chain(words.iter().copied()));
            words.ok().map(|words| words.arguments.in_request())
        };
        let request = |restore_from: &str, is_standby| InitialiseRequest {
            restore_from: restore_from.to_owned(),
            is_standby,
            ..InitialiseRequest::default()
        };
        assert_eq!(parsed(&[]), Some(request("", false)));
        assert_eq!(parsed(&["--restore", "file:///b/"]), Some(request("file:///b", false)));
        assert_eq!(parsed(&["--standby", "file:///b/"]), Some(request("file:///b", true)));
        assert_eq!(parsed(&["--standby", "file:///b", "--restore", "file:///b"]), None);
        let until = ["--standby", "file:///b", "--restore-until", "2026-01-31T23:59:59Z"];
        assert_eq!(parsed(&until), None);
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "/backups",
            "file://relative",
            "file:///",
            "s3:///path",
            "s3://name:password@bucket/path",
            "az://container/path?sig=secret",
            "memory:///",
            "https://example.com/backups",
            "postgres://x",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
        for text in [
            "file:///backups",
            "s3://bucket",
            "s3://bucket/a/b",
            "gs://bucket/a",
            "az://container/a",
            "https://account.blob.core.windows.net/container/a",
        ] {
            assert_eq!(url(&format!("{text}/")), Ok(text.to_owned()));
        }
    }
}
