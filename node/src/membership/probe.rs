//! The interval strategy's drivers over the network and on this node's own disk: they ask, and note what came back. What
//! that means is `interval`'s and `verdict`'s.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use volt_engine::NodeId;

use super::Membership;

/// The file that probes write in the data directory.
const PROBE_FILE: &str = "probe";

impl Membership {
    /// Asks a node who it is, each interval, and waits no longer than that for the answer. Unlike heartbeats, which go both
    /// ways, this finds a node that can send and not receive.
    pub(super) async fn probe_node(self: Arc<Self>, node: NodeId) {
        let Some(every) = self.config.detection.interval.as_ref().map(|settings| settings.every) else {
            return;
        };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let asked = self.now();
            let boot_id = self.hello(node, every).await;
            let now = self.now();
            // A timer that is so late says that this process stood still, not the other one.
            if boot_id.is_none() && now.saturating_sub(asked) > every * 2 {
                continue;
            }
            self.lock().sightings.probed(node, boot_id, now);
        }
    }

    /// Writes a small file into the data directory, each interval. While that hangs, or fails, this node says so in its
    /// heartbeats, and is unfit.
    pub(super) async fn probe_disk(self: Arc<Self>) {
        let Some(settings) = self.config.detection.interval.clone() else {
            return;
        };
        let mut ticks = interval(settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = 0_u64;
        loop {
            ticks.tick().await;
            let now = self.now();
            if self.lock().disk.begin(now) {
                written += 1;
                tokio::spawn(Arc::clone(&self).write_probe(written));
            }
        }
    }

    async fn write_probe(self: Arc<Self>, written: u64) {
        let content = Bytes::from(format!("{written}\n"));
        let result = self.world.disk.write_atomic(Path::new(PROBE_FILE), content).await;
        let now = self.now();
        self.lock().disk.ended(result.map_err(|error| error.to_string()), now);
    }
}
