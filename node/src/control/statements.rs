//! What the gateway counts, as Prometheus reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::gateway::{GatewayMetrics, LATENCY_BOUNDS_MICROS};

type NoLabels = [(&'static str, &'static str); 0];

/// Reads the gateway's counters when somebody looks.
#[derive(Debug)]
pub(super) struct Statements(pub(super) Arc<GatewayMetrics>);

impl Collector for Statements {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Transactions, by how they ended";
        let mut transactions = encoder.encode_descriptor("transactions", help, None, MetricType::Counter)?;
        for (outcome, count) in [("committed", &self.0.succeeded), ("failed", &self.0.failed)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count.load(Relaxed)).encode(transactions.encode_family(&labels)?)?;
        }
        let help = "SQL connections";
        let connections = encoder.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        let open = i64::try_from(self.0.sessions.load(Relaxed)).unwrap_or(i64::MAX);
        ConstGauge::new(open).encode(connections)?;
        self.encode_latency(encoder)
    }
}

impl Statements {
    fn encode_latency(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "From a statement's arrival to its answer";
        let unit = Unit::Seconds;
        let mut latency = encoder.encode_descriptor("transaction", help, Some(&unit), MetricType::Histogram)?;
        let bounds = LATENCY_BOUNDS_MICROS
            .iter()
            .map(|&micros| micros as f64 / 1e6)
            .chain([f64::MAX]);
        let counts = self.0.latency.iter().map(|count: &AtomicU64| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.latency_micros.load(Relaxed) as f64 / 1e6;
        latency.encode_histogram::<NoLabels>(sum, total, &buckets, None)
    }
}
