//! A directory that the nodes share, with a file `node-N` of each. It belongs to one cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use volt_engine::NodeId;

use super::{LivenessMedium, NoLook, Own};
use crate::membership::interval::Mark;
use crate::metadata::failure::Medium;
use crate::world::Disk;

/// The longest content that is one.
const MAX_CONTENT_BYTES: usize = 200;

/// The directory.
pub struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Directory {
    /// It is made when it is first used.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path }
    }
}

#[async_trait]
impl LivenessMedium for Directory {
    fn medium(&self) -> Medium {
        Medium::FileSystem
    }

    async fn renew_and_look(&self, own: Own<'_>, others: &[NodeId]) -> Result<BTreeMap<NodeId, Mark>, NoLook> {
        let failed = |error: std::io::Error| NoLook(format!("{}: {error}", self.path.display()));
        self.disk.create_directory(&self.path).await.map_err(failed)?;
        let file = file_of(&self.path, own.node_id);
        self.disk.write_atomic(&file, render(own.mark)).await.map_err(failed)?;
        let mut marks = BTreeMap::new();
        for node in others {
            let file = file_of(&self.path, *node);
            let content = self.disk.read_range(&file, 0, MAX_CONTENT_BYTES).await;
            if let Some(mark) = content.ok().and_then(|content| parse(&content)) {
                marks.insert(*node, mark);
            }
        }
        Ok(marks)
    }
}

fn file_of(directory: &Path, node: NodeId) -> PathBuf {
    directory.join(format!("node-{node}"))
}

/// `boot 4711 sequence 12`
fn render(mark: Mark) -> Bytes {
    format!("boot {} sequence {}\n", mark.boot_id, mark.sequence).into()
}

/// None: this is no such file.
fn parse(content: &[u8]) -> Option<Mark> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    let (boot_id, sequence) = text.strip_prefix("boot ")?.split_once(" sequence ")?;
    Some(Mark {
        boot_id: boot_id.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_is_one() {
        let mark = Mark {
            boot_id: 4711,
            sequence: 12,
        };
        assert_eq!(parse(&render(mark)), Some(mark));
        for torn in [
            "",
            "boot 4711",
            "boot 4711 sequence 1",
            "boot x sequence 1\n",
            "boot 1 sequence 1\nmore\n",
        ] {
            assert_eq!(parse(torn.as_bytes()), None, "{torn}");
        }
        assert_eq!(parse(&[0xff, b'\n']), None);
    }
}
