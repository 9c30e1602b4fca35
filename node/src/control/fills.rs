//! What the node's fills come to, in figures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Fills of a node's replicas, and those that it serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillFigures {
    /// Replicas here that copy rows now.
    pub under_way: usize,
    /// Bytes of rows since the start: that came from primaries, that were here already, and that were sent to others.
    pub received_bytes: u64,
    /// See `received_bytes`.
    pub reused_bytes: u64,
    /// See `received_bytes`.
    pub sent_bytes: u64,
    /// Bytes a second that the node sends at most, now.
    pub rate: u64,
}

#[derive(Default)]
pub(super) struct Fills {
    under_way: Gauge,
    received: Counter,
    reused: Counter,
    sent: Counter,
    rate: Gauge,
}

impl Fills {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "fills_under_way",
            "Replicas of this node that copy rows from their primaries",
            self.under_way.clone(),
        );
        registry.register(
            "fill_received_bytes",
            "Bytes of rows that fills brought since the start",
            self.received.clone(),
        );
        registry.register(
            "fill_reused_bytes",
            "Bytes of rows that fills found to be here already, since the start",
            self.reused.clone(),
        );
        registry.register(
            "fill_sent_bytes",
            "Bytes of rows that were sent to replicas of other nodes since the start",
            self.sent.clone(),
        );
        registry.register(
            "fill_rate_bytes",
            "Bytes a second that the node sends to replicas of others at most: less while its commits suffer",
            self.rate.clone(),
        );
    }

    pub(super) fn refresh(&self, figures: FillFigures) {
        self.under_way.set(i64::try_from(figures.under_way).unwrap_or(i64::MAX));
        self.rate.set(i64::try_from(figures.rate).unwrap_or(i64::MAX));
        let counters = [
            (&self.received, figures.received_bytes),
            (&self.reused, figures.reused_bytes),
            (&self.sent, figures.sent_bytes),
        ];
        for (counter, now) in counters {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}
