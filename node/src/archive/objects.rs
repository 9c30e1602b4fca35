//! Where objects lie: a directory that the nodes share, behind what an object store can do too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::world::{Disk, World};

/// Objects by name. Nothing is ever written again with other content, so that whoever reads needs no more than this.
#[async_trait]
pub(crate) trait Objects: Send + Sync {
    /// Writes one, whole or not at all, for good when this returns.
    async fn put(&self, path: &Path, content: Bytes) -> io::Result<()>;
    /// Reads one.
    async fn get(&self, path: &Path) -> io::Result<Bytes>;
    /// The names of those in a folder, sorted, others among them; none if there is no such folder.
    async fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Removes one; that it isn't there is no error.
    async fn remove(&self, path: &Path) -> io::Result<()>;
}

/// A directory.
struct Directory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

/// What this URL means, or why not.
pub(super) fn open(world: &World, url: &str) -> Result<Arc<dyn Objects>, String> {
    let Some(directory) = url.strip_prefix("file://") else {
        return Err(format!("{url}: an archive lies in a directory: file:///PATH"));
    };
    Ok(Arc::new(Directory {
        disk: Arc::clone(&world.disk),
        root: PathBuf::from(directory),
    }))
}

#[async_trait]
impl Objects for Directory {
    async fn put(&self, path: &Path, content: Bytes) -> io::Result<()> {
        let path = self.root.join(path);
        match self.disk.write_atomic(&path, content.clone()).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_directory(path.parent().unwrap_or(&self.root)).await?;
                self.disk.write_atomic(&path, content).await
            }
            done => done,
        }
    }

    async fn get(&self, path: &Path) -> io::Result<Bytes> {
        self.disk.read(&self.root.join(path)).await
    }

    async fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let files = self.disk.list(&self.root.join(folder)).await?;
        let name = |file: &PathBuf| Some(file.file_name()?.to_str()?.to_owned());
        Ok(files.iter().filter_map(name).collect())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(&self.root.join(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
