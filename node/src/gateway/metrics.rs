//! What the gateway counts, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the latency histogram's buckets, in microseconds; a last bucket holds the rest.
pub const LATENCY_BOUNDS_MICROS: [u64; 15] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400, 6_553_600,
];

/// Counters of one node's gateway; read at any time.
#[derive(Debug, Default)]
pub struct GatewayMetrics {
    /// Sessions that are open.
    pub sessions: AtomicU64,
    /// Statements that succeeded.
    pub succeeded: AtomicU64,
    /// Statements that failed.
    pub failed: AtomicU64,
    /// Statements by latency, from the read that brought them to the write that answers, one a bucket.
    pub latency: [AtomicU64; LATENCY_BOUNDS_MICROS.len() + 1],
    /// The sum of all latencies.
    pub latency_micros: AtomicU64,
}

/// What one batch of messages came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

impl GatewayMetrics {
    pub(crate) fn count(&self, tally: Tally, micros: u64) {
        let statements = tally.succeeded + tally.failed;
        if statements == 0 {
            return;
        }
        self.succeeded.fetch_add(tally.succeeded, Relaxed);
        if tally.failed > 0 {
            self.failed.fetch_add(tally.failed, Relaxed);
        }
        let bucket = LATENCY_BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.latency[bucket].fetch_add(statements, Relaxed);
        self.latency_micros
            .fetch_add(micros.saturating_mul(statements), Relaxed);
    }
}
