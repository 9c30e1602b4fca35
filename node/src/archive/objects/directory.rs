//! A directory, through the world's disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Objects, must_be_the_same};
use crate::world::{Disk, World};

/// A directory. A file appears under its name when it is whole; of two that are written at the same moment under one name, which nodes of
/// one cluster do only with the same content, the later one stays.
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(world: &World, root: &str) -> Self {
        Self {
            disk: Arc::clone(&world.disk),
            root: PathBuf::from(root),
        }
    }
}

#[async_trait]
impl Objects for Directory {
    async fn put(&self, path: &Path, content: Bytes) -> io::Result<()> {
        match must_be_the_same(self, path, &content).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            there => return there,
        }
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

    async fn names(&self, folder: &Path, after: &str) -> io::Result<Vec<String>> {
        let files = self.disk.list(&self.root.join(folder)).await?;
        let names = files.iter().filter_map(|file| file.file_name()?.to_str());
        Ok(names.filter(|name| *name > after).map(str::to_owned).collect())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(&self.root.join(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
