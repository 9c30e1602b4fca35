//! The interval strategy through a shared directory: each node renews a file there, `node-N`, and looks at the others'.
//! It finds a node that is cut off from what the nodes share though its messages come through.
//!
//! Who can't use the directory itself blames nobody, as far as it can tell: it counts nothing while its own file can't be
//! renewed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use volt_engine::NodeId;

use super::Membership;

/// The longest content that is one.
const MAX_CONTENT_BYTES: usize = 200;

impl Membership {
    /// Renews this node's file and looks at the others', each interval. One round is under way at most: a directory that
    /// hangs keeps one task.
    pub(super) async fn keep_liveness_file(self: Arc<Self>) {
        let Some(settings) = self.config.detection.interval.clone() else {
            return;
        };
        let Some(directory) = settings.liveness_directory else {
            return;
        };
        let directory: Arc<Path> = directory.into();
        let mut ticks = interval(settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sequence, mut round): (u64, Option<JoinHandle<()>>) = (0, None);
        loop {
            ticks.tick().await;
            if round.as_ref().is_some_and(|round| !round.is_finished()) {
                continue;
            }
            sequence += 1;
            let (this, directory) = (Arc::clone(&self), Arc::clone(&directory));
            round = Some(tokio::spawn(async move {
                if let Err(error) = this.renew_and_look(&directory, sequence, settings.every).await {
                    tracing::debug!(directory = %directory.display(), %error, "the liveness file was not renewed");
                }
            }));
        }
    }

    async fn renew_and_look(&self, directory: &Path, sequence: u64, every: Duration) -> std::io::Result<()> {
        let began = self.now();
        let disk = &self.world.disk;
        disk.create_directory(directory).await?;
        let content = render(self.metadata.boot_id(), sequence);
        disk.write_atomic(&file_of(directory, self.metadata.node_id()), content)
            .await?;
        let others: Vec<NodeId> = self.metadata.map().nodes.keys().copied().collect();
        let mut seen = Vec::new();
        for node in others.into_iter().filter(|node| *node != self.metadata.node_id()) {
            let content = disk.read_range(&file_of(directory, node), 0, MAX_CONTENT_BYTES).await;
            seen.push((node, content.ok().and_then(|content| parse(&content))));
        }
        let now = self.now();
        // A round that took so long saw files of different moments.
        if now.saturating_sub(began) > every {
            return Ok(());
        }
        let mut state = self.lock();
        for (node, content) in seen {
            state.sightings.saw_file(node, content, now);
        }
        Ok(())
    }
}

fn file_of(directory: &Path, node: NodeId) -> PathBuf {
    directory.join(format!("node-{node}"))
}

/// `boot 4711 sequence 12`
fn render(boot_id: u64, sequence: u64) -> Bytes {
    format!("boot {boot_id} sequence {sequence}\n").into()
}

/// The process that wrote it, and its sequence number; None: this is no such file.
fn parse(content: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('\n')?;
    let (boot_id, sequence) = text.strip_prefix("boot ")?.split_once(" sequence ")?;
    Some((boot_id.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_is_one() {
        assert_eq!(parse(&render(4711, 12)), Some((4711, 12)));
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
