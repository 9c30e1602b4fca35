//! The archive of one cluster: its objects, sealed and opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Duration, timeout};
use uuid::Uuid;
use volt_engine::{Lsn, PartitionId};

use super::chain::Contents;
use super::layout::{Base, CLUSTER, Damage, Kind, Segment, bases_of, from_lsn, log_of, open, seal};
use super::objects::{self, Objects, Whose};
use crate::world::World;

/// Longest wait for one object.
const OBJECT_WAIT: Duration = Duration::from_secs(60);
/// Longest wait for a list.
const LIST_WAIT: Duration = Duration::from_secs(300);

/// Why an archive can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It says so itself, or can't be reached.
    #[error("the archive can't be used: {0}")]
    Store(String),
    /// An object of this name is there, with other content. Nothing was written.
    #[error("the archive's object {0} is there already, with other content")]
    Taken(String),
    /// An object is not what was written.
    #[error("the archive's object {object} is damaged: {damage}")]
    Damaged {
        /// Its path.
        object: String,
        /// In which way.
        damage: Damage,
    },
    /// What is asked for is not there.
    #[error("{0}")]
    Missing(String),
}

/// The archive of one cluster; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    objects: Arc<dyn Objects>,
    /// Where they are, for errors.
    place: Arc<str>,
    /// Below this.
    root: PathBuf,
    pub(super) cluster: Uuid,
}

/// Waits no longer than that.
async fn within<T>(
    limit: Duration,
    (place, what): (&str, &Path),
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, ArchiveError> {
    let object = || format!("{place}/{}", what.display());
    match timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => Err(ArchiveError::Taken(object())),
        Ok(Err(error)) => Err(ArchiveError::Store(format!("{}: {error}", object()))),
        Err(_) => Err(ArchiveError::Store(format!("{}: no answer in {limit:?}", object()))),
    }
}

impl Store {
    /// This cluster's own, at this URL.
    pub(crate) fn new(world: &World, url: &str, cluster: Uuid) -> Result<Self, ArchiveError> {
        let objects = objects::open(world, url, Whose::Own).map_err(ArchiveError::Store)?;
        Ok(Self::of(objects, url, cluster))
    }

    fn of(objects: Arc<dyn Objects>, place: &str, cluster: Uuid) -> Self {
        Self {
            objects,
            place: place.into(),
            root: PathBuf::from(cluster.to_string()),
            cluster,
        }
    }

    /// Another cluster's, that is at this URL; of several the one whose UUID the URL ends with.
    pub(crate) async fn find(world: &World, url: &str) -> Result<Self, ArchiveError> {
        if let Some((place, name)) = url.rsplit_once('/')
            && let Ok(cluster) = Uuid::try_parse(name)
        {
            let objects = objects::open(world, place, Whose::Anothers).map_err(ArchiveError::Store)?;
            return Ok(Self::of(objects, place, cluster));
        }
        let objects = objects::open(world, url, Whose::Anothers).map_err(ArchiveError::Store)?;
        let names = within(LIST_WAIT, (url, Path::new("")), objects.names(Path::new(""), "")).await?;
        let cluster = |name: &String| {
            let (uuid, ending) = name.split_once('.')?;
            Uuid::try_parse(uuid).ok().filter(|_| ending == CLUSTER)
        };
        let found: Vec<Uuid> = names.iter().filter_map(cluster).collect();
        match found.as_slice() {
            [] => Err(ArchiveError::Missing(format!("there is no archive at {url}"))),
            [cluster] => Ok(Self::of(objects, url, *cluster)),
            several => {
                let names: Vec<String> = several.iter().map(Uuid::to_string).collect();
                let names = names.join(", ");
                let message =
                    format!("there are archives of several clusters at {url}: {names}; append the UUID of one");
                Err(ArchiveError::Missing(message))
            }
        }
    }

    /// What finds it again, though there are others at its URL.
    pub(super) fn url(&self, found_at: &str) -> String {
        let uuid = self.cluster.to_string();
        match found_at.ends_with(&uuid) {
            true => found_at.to_owned(),
            false => format!("{found_at}/{uuid}"),
        }
    }

    /// Says that there is one.
    pub(super) async fn sign(&self) -> Result<(), ArchiveError> {
        let name = PathBuf::from(format!("{}.{CLUSTER}", self.cluster));
        within(OBJECT_WAIT, (&self.place, &name), self.objects.put(&name, Bytes::new())).await
    }

    /// Writes an object, whole or not at all; its size.
    pub(super) async fn put<T: Serialize>(&self, path: &Path, kind: Kind, content: &T) -> Result<u64, ArchiveError> {
        let object = seal(kind, self.cluster, content).map_err(|error| ArchiveError::Store(error.to_string()))?;
        let bytes = object.len() as u64;
        let path = self.root.join(path);
        within(OBJECT_WAIT, (&self.place, &path), self.objects.put(&path, object)).await?;
        Ok(bytes)
    }

    /// Reads an object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &Path, kind: Kind) -> Result<T, ArchiveError> {
        let path = self.root.join(path);
        let object = within(OBJECT_WAIT, (&self.place, &path), self.objects.get(&path)).await?;
        open(kind, self.cluster, &object).map_err(|damage| damaged(&path, damage))
    }

    /// The names of what is in a folder, sorted.
    pub(super) async fn names(&self, folder: &Path) -> Result<Vec<String>, ArchiveError> {
        self.names_after(folder, "").await
    }

    /// Those that sort after this one.
    pub(super) async fn names_after(&self, folder: &Path, after: &str) -> Result<Vec<String>, ArchiveError> {
        let folder = self.root.join(folder);
        within(LIST_WAIT, (&self.place, &folder), self.objects.names(&folder, after)).await
    }

    /// Removes an object; one that isn't there is no error.
    pub(super) async fn remove(&self, path: &Path) -> Result<(), ArchiveError> {
        let path = self.root.join(path);
        within(OBJECT_WAIT, (&self.place, &path), self.objects.remove(&path)).await
    }

    /// What there is of a partition.
    pub(super) async fn contents(&self, partition: PartitionId) -> Result<Contents, ArchiveError> {
        self.contents_from(partition, 0).await
    }

    /// Of that what begins at this LSN or later.
    pub(super) async fn contents_from(&self, partition: PartitionId, lsn: Lsn) -> Result<Contents, ArchiveError> {
        let after = from_lsn(lsn);
        let segments = self.names_after(&log_of(partition), &after).await?;
        let bases = self.names_after(&bases_of(partition), &after).await?;
        let whole = |name: &String| Base::of_name(name).filter(|(_, is_whole)| *is_whole);
        Ok(Contents {
            segments: segments.iter().filter_map(|name| Segment::of_name(name)).collect(),
            bases: bases.iter().filter_map(whole).map(|(base, _)| base).collect(),
        })
    }
}

pub(super) fn damaged(path: &Path, damage: Damage) -> ArchiveError {
    let object = path.display().to_string();
    ArchiveError::Damaged { object, damage }
}
