//! What the node archives, in figures.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::archive::{Figures, Following};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPartition {
    partition: u32,
}

#[derive(Default)]
pub(super) struct Archived {
    objects: Counter,
    bytes: Counter,
    failures: Counter,
    failing: Gauge,
    behind: Family<OfPartition, Gauge>,
    standby_lag: Gauge<f64, AtomicU64>,
    standby_behind: Gauge,
    standby_failing: Gauge,
}

impl Archived {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "archive_objects",
            "Objects that the node has written to the archive since its start",
            self.objects.clone(),
        );
        registry.register(
            "archive_bytes",
            "Bytes that the node has written to the archive since its start",
            self.bytes.clone(),
        );
        registry.register(
            "archive_failures",
            "Tries to archive a partition that failed since the start",
            self.failures.clone(),
        );
        registry.register(
            "archive_failing",
            "1 while the archive can't be written",
            self.failing.clone(),
        );
        registry.register(
            "archive_behind_records",
            "Of each partition led here: records that are committed and not archived yet",
            self.behind.clone(),
        );
        registry.register(
            "standby_lag_seconds",
            "How long ago the moment was as of which this standby is read, on the node that sees to it",
            self.standby_lag.clone(),
        );
        registry.register(
            "standby_behind_records",
            "Records up to the newest moment in the archive that this standby does not have, on the node that sees to it",
            self.standby_behind.clone(),
        );
        registry.register(
            "standby_failing",
            "1 while this standby does not get on, on the node that sees to it",
            self.standby_failing.clone(),
        );
    }

    pub(super) fn refresh_standby(&self, following: Option<Following>) {
        let following = following.unwrap_or_default();
        self.standby_lag.set(following.lag_micros.unwrap_or(0) as f64 / 1e6);
        self.standby_behind
            .set(i64::try_from(following.behind_records).unwrap_or(i64::MAX));
        self.standby_failing.set(i64::from(following.problem.is_some()));
    }

    pub(super) fn refresh(&self, figures: Option<Figures>) {
        let Some(figures) = figures else { return };
        let add = |counter: &Counter, total: u64| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        add(&self.objects, figures.objects);
        add(&self.bytes, figures.bytes);
        add(&self.failures, figures.failures);
        self.failing.set(i64::from(figures.error.is_some()));
        self.behind.clear();
        for (partition, records) in figures.behind {
            let gauge = self.behind.get_or_create(&OfPartition { partition });
            gauge.set(i64::try_from(records).unwrap_or(i64::MAX));
        }
    }
}
