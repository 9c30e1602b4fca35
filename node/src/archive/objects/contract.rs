//! What every place for objects does, the same for all.

use std::path::Path;
use std::{io, sync::Arc};

use bytes::Bytes;

use super::{Objects, Whose, open};
use crate::world::World;

/// Tries the place that this URL names, below `folder`, which must be empty; what is otherwise than it must be.
pub async fn holds(world: &World, url: &str, folder: &str) -> Result<(), String> {
    let objects = open(world, url, Whose::Own)?;
    check(objects, Path::new(folder)).await
}

fn must(what: &str, holds: bool) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("it must be that {what}"))
    }
}

fn kind<T>(done: io::Result<T>) -> Option<io::ErrorKind> {
    done.err().map(|error| error.kind())
}

pub(super) async fn check(objects: Arc<dyn Objects>, root: &Path) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let (folder, path) = (root.join("log"), root.join("log").join("000002-00"));
    let large = Bytes::from((0..3_000_000_u32).map(|at| at as u8).collect::<Vec<u8>>());

    must(
        "there is nothing",
        objects.names(&folder, "").await.map_err(text)?.is_empty(),
    )?;
    must(
        "what isn't there is not found",
        kind(objects.get(&path).await) == Some(io::ErrorKind::NotFound),
    )?;
    objects.remove(&path).await.map_err(text)?;

    objects.put(&path, large.clone()).await.map_err(text)?;
    must(
        "an object is read back",
        objects.get(&path).await.map_err(text)? == large,
    )?;
    let other = objects.put(&path, Bytes::from_static(b"other")).await;
    must(
        "none is written over",
        kind(other) == Some(io::ErrorKind::AlreadyExists),
    )?;
    must("the first one stays", objects.get(&path).await.map_err(text)? == large)?;
    objects.put(&path, large.clone()).await.map_err(text)?;

    let empty = root.join("log").join("000001-00");
    objects.put(&empty, Bytes::new()).await.map_err(text)?;
    must(
        "an empty object is one",
        objects.get(&empty).await.map_err(text)?.is_empty(),
    )?;
    let deeper = folder.join("deeper").join("000003");
    objects.put(&deeper, Bytes::from_static(b"x")).await.map_err(text)?;
    let beside = root.join("logs");
    objects.put(&beside, Bytes::from_static(b"y")).await.map_err(text)?;
    let names = objects.names(&folder, "").await.map_err(text)?;
    must(
        "a folder's objects are listed in order, and no others",
        names == ["000001-00", "000002-00"],
    )?;
    for (after, wanted) in [("000001", 2), ("000001-00", 1), ("000002", 1), ("000002-00", 0)] {
        let later = objects.names(&folder, after).await.map_err(text)?;
        must(
            "those are listed that sort after a name",
            later == names[names.len() - wanted..],
        )?;
    }

    objects.remove(&path).await.map_err(text)?;
    must(
        "what was removed is gone",
        objects.names(&folder, "").await.map_err(text)? == ["000001-00"],
    )?;
    objects.put(&path, Bytes::from_static(b"other")).await.map_err(text)?;
    for path in [path, empty, deeper, beside] {
        objects.remove(&path).await.map_err(text)?;
    }
    must(
        "nothing is left",
        objects.names(&folder, "").await.map_err(text)?.is_empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::remote::Remote;
    use super::*;

    #[tokio::test]
    async fn a_directory_holds_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::production(&directory.path().join("data")).expect("a world");
        let url = format!("file://{}/archive", directory.path().display());
        assert_eq!(holds(&world, &url, "a").await, Ok(()));
    }

    #[tokio::test]
    async fn a_simulated_directory_holds_it() {
        let world = crate::archive::tests::world();
        assert_eq!(holds(&world, "file:///backups", "a").await, Ok(()));
    }

    #[tokio::test]
    async fn an_object_store_holds_it() {
        assert_eq!(check(Arc::new(Remote::in_memory()), Path::new("a")).await, Ok(()));
    }
}
