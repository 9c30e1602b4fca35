//! Where objects lie: a directory that the nodes share, or an object store.

#[cfg(any(test, feature = "simulation"))]
pub mod contract;
mod directory;
mod remote;

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::world::World;

/// Objects by name. Nothing is ever written again with other content, so that whoever reads needs no more than this.
#[async_trait]
pub(crate) trait Objects: Send + Sync {
    /// Writes one, whole or not at all, for good when this returns. One that is there already stays: with the same content that is as good,
    /// with other content it is `AlreadyExists`.
    async fn put(&self, path: &Path, content: Bytes) -> io::Result<()>;
    /// Reads one.
    async fn get(&self, path: &Path) -> io::Result<Bytes>;
    /// The names of those in a folder that sort after this one, all after an empty one; sorted, others among them; none if there is no such
    /// folder.
    async fn names(&self, folder: &Path, after: &str) -> io::Result<Vec<String>>;
    /// Removes one; that it isn't there is no error.
    async fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Whose an archive is: for each of them the environment may have credentials of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This cluster's.
    Own,
    /// That of the cluster as which this one begins, or which it follows.
    Anothers,
}

/// What this URL means, or why not.
pub(super) fn open(world: &World, url: &str, whose: Whose) -> Result<Arc<dyn Objects>, String> {
    match url.strip_prefix("file://") {
        Some(directory) => Ok(Arc::new(directory::Directory::new(world, directory))),
        None => Ok(Arc::new(remote::Remote::open(url, whose)?)),
    }
}

/// An object that is there already must not become another.
async fn must_be_the_same(objects: &(impl Objects + ?Sized), path: &Path, content: &Bytes) -> io::Result<()> {
    match objects.get(path).await? == *content {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is there already, with other content",
        )),
    }
}
