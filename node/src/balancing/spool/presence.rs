//! What a node says in the directory while it takes part, and who was seen there lately. Pure: moments are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use volt_engine::NodeId;

use super::LEASE;

/// The longest file that is one.
pub(super) const MAX_BYTES: usize = 4 << 10;

/// A node's file: a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Presence {
    /// The process.
    pub(super) boot_id: u64,
    /// Grows with each renewal.
    pub(super) sequence: u64,
    /// The file that it loads now; empty: none.
    pub(super) file: String,
    /// Rows of it that are loaded.
    pub(super) loaded: u64,
    /// Rows of it that were rejected.
    pub(super) rejected: u64,
    /// How long a row takes it, a moving average in microseconds; None: it has loaded none.
    pub(super) row_micros: Option<u64>,
}

impl Presence {
    pub(super) fn render(&self) -> Bytes {
        // A struct of numbers and a text is always JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// None: this is no such file.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }
}

/// Who renewed what when, on this node's clock.
#[derive(Debug, Default)]
pub(super) struct Sightings(BTreeMap<NodeId, (Presence, Duration)>);

impl Sightings {
    /// A file was read. Only one that has changed says that its node is there.
    pub(super) fn saw(&mut self, node: NodeId, presence: Presence, now: Duration) {
        let same =
            |(last, _): &(Presence, Duration)| (last.boot_id, last.sequence) == (presence.boot_id, presence.sequence);
        if !self.0.get(&node).is_some_and(same) {
            self.0.insert(node, (presence, now));
        }
    }

    /// What the node said last; None: too long ago.
    pub(super) fn present(&self, node: NodeId, now: Duration) -> Option<&Presence> {
        let (presence, at) = self.0.get(&node)?;
        (now.saturating_sub(*at) <= LEASE).then_some(presence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_renewing_is_gone_after_the_lease() {
        let mut sightings = Sightings::default();
        let at = Duration::from_secs;
        let presence = |sequence| Presence {
            boot_id: 7,
            sequence,
            ..Presence::default()
        };
        assert_eq!(sightings.present(1, at(100)), None, "never seen");
        sightings.saw(1, presence(1), at(100));
        sightings.saw(1, presence(1), at(105));
        assert!(sightings.present(1, at(105)).is_some());
        assert_eq!(sightings.present(1, at(106)), None);
        sightings.saw(1, presence(2), at(107));
        assert!(sightings.present(1, at(112)).is_some());
    }

    #[test]
    fn files_lead_back_and_torn_ones_are_none() {
        let presence = Presence {
            boot_id: u64::MAX,
            sequence: 3,
            file: "a.b.csv".to_owned(),
            loaded: 4,
            rejected: 1,
            row_micros: Some(90),
        };
        let bytes = presence.render();
        assert_eq!(Presence::parse(&bytes), Some(presence));
        assert_eq!(Presence::parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Presence::parse(b""), None);
    }
}
