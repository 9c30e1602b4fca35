//! An object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.
//!
//! Credentials, endpoint and region come from the environment, under the names that the stores' own tools use: `AWS_*`, `GOOGLE_*`,
//! `AZURE_*`; for another cluster's archive `VOLT_RESTORE_` before each of them counts, if there is any. Whatever fails is tried again by the client, a bounded number of times with jitter, and in the end by who asked for it.

use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    RetryConfig,
};

use super::{Objects, Whose, must_be_the_same};
use crate::config::store_url;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for one request: an object of 8 MiB over a slow line.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// How often a request is tried again.
const RETRIES: usize = 4;
/// No try begins after so long.
const RETRY_WITHIN: Duration = Duration::from_secs(25);
/// Waits between tries grow from this, with jitter,
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Objects below a prefix of a bucket or container.
pub(super) struct Remote {
    store: Box<dyn ObjectStore>,
    prefix: ObjectPath,
}

/// Before the names of variables that are for another cluster's archive.
const ANOTHERS: &str = "VOLT_RESTORE_";

/// What of the environment a store's client heeds.
fn settings<K: FromStr>(prefix: &str, whose: Whose) -> impl Iterator<Item = (K, String)> {
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let heeded = heeded(texts, prefix, whose).into_iter();
    heeded.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)))
}

/// Those that begin so, under the stores' own names. What is said for another cluster's archive alone is all that counts for it: it must not
/// be asked at this one's endpoint.
fn heeded(variables: impl Iterator<Item = (String, String)>, prefix: &str, whose: Whose) -> Vec<(String, String)> {
    let (mut own, mut anothers) = (Vec::new(), Vec::new());
    for (name, value) in variables {
        match name.strip_prefix(ANOTHERS) {
            Some(name) if name.starts_with(prefix) => anothers.push((name.to_owned(), value)),
            None if name.starts_with(prefix) => own.push((name, value)),
            _ => {}
        }
    }
    match whose {
        Whose::Anothers if !anothers.is_empty() => anothers,
        _ => own,
    }
}

/// What the environment says of the same is heeded later, and counts.
fn client() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_WAIT)
        .with_timeout(REQUEST_WAIT)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: FIRST_PAUSE,
            max_backoff: LONGEST_PAUSE,
            ..BackoffConfig::default()
        },
        max_retries: RETRIES,
        retry_timeout: RETRY_WITHIN,
    }
}

/// The client that this URL needs.
fn store(scheme: &ObjectStoreScheme, url: &str, whose: Whose) -> object_store::Result<Box<dyn ObjectStore>> {
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::new()
                .with_client_options(client())
                .with_retry(retries());
            let settings = settings::<AmazonS3ConfigKey>("AWS_", whose);
            let builder = settings.fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Box::new(builder.with_url(url).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::new()
                .with_client_options(client())
                .with_retry(retries());
            let settings = settings::<GoogleConfigKey>("GOOGLE_", whose);
            let builder = settings.fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Box::new(builder.with_url(url).build()?)
        }
        _ => {
            let builder = MicrosoftAzureBuilder::new()
                .with_client_options(client())
                .with_retry(retries());
            let settings = settings::<AzureConfigKey>("AZURE_", whose);
            let builder = settings.fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Box::new(builder.with_url(url).build()?)
        }
    })
}

impl Remote {
    pub(super) fn open(url: &str, whose: Whose) -> Result<Self, String> {
        let (scheme, prefix) = store_url(url)?;
        let store = store(&scheme, url, whose).map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { store, prefix })
    }

    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self {
            store: Box::new(object_store::memory::InMemory::new()),
            prefix: ObjectPath::from("a/b"),
        }
    }

    /// Names are ours: nothing in them needs to be escaped.
    fn path(&self, path: &Path) -> ObjectPath {
        let parts = path.components().filter_map(|part| part.as_os_str().to_str());
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

fn failed(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[async_trait]
impl Objects for Remote {
    async fn put(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let at = self.path(path);
        match self
            .store
            .put_opts(&at, content.clone().into(), PutMode::Create.into())
            .await
        {
            // Also what an earlier try of this very call wrote, whose answer was lost.
            Err(Error::AlreadyExists { .. }) => must_be_the_same(self, path, &content).await,
            done => done.map(|_| ()).map_err(failed),
        }
    }

    async fn get(&self, path: &Path) -> io::Result<Bytes> {
        let found = self.store.get(&self.path(path)).await.map_err(failed)?;
        found.bytes().await.map_err(failed)
    }

    async fn names(&self, folder: &Path, after: &str) -> io::Result<Vec<String>> {
        let folder = self.path(folder);
        let objects = match after {
            "" => {
                let listed = self.store.list_with_delimiter(Some(&folder)).await;
                listed.map_err(failed)?.objects
            }
            // So that the store does not tell of what is before: there may be a hundred thousand. Azure's emulator tells of it all the same.
            after => {
                let listed = self.store.list_with_offset(Some(&folder), &folder.clone().join(after));
                listed.try_collect().await.map_err(failed)?
            }
        };
        let name = |object: &ObjectMeta| {
            let mut parts = object.location.prefix_match(&folder)?;
            let name = parts.next()?.as_ref().to_owned();
            (parts.next().is_none() && *name > *after).then_some(name)
        };
        let mut names: Vec<String> = objects.iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        match self.store.delete(&self.path(path)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_clusters_archive_has_its_own_variables_or_the_same_and_no_mixture() {
        let variables = |names: &[&str]| {
            let pairs = names.iter().map(|name| ((*name).to_owned(), String::new()));
            pairs.collect::<Vec<_>>().into_iter()
        };
        let names = |all: &[&str], whose| {
            let heeded = heeded(variables(all), "AWS_", whose);
            heeded.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let own = ["AWS_ENDPOINT", "AWS_REGION", "GOOGLE_X", "PATH", "VOLT_RESTORE_AZURE_X"];
        for whose in [Whose::Own, Whose::Anothers] {
            assert_eq!(names(&own, whose), ["AWS_ENDPOINT", "AWS_REGION"]);
        }
        let both = ["AWS_ENDPOINT", "VOLT_RESTORE_AWS_REGION", "VOLT_RESTORE_OTHER"];
        assert_eq!(names(&both, Whose::Own), ["AWS_ENDPOINT"]);
        assert_eq!(names(&both, Whose::Anothers), ["AWS_REGION"]);
    }
}
