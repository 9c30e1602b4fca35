//! What the node tells over replication links, in figures.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::links::LinkReport;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLink {
    link: u64,
}

#[derive(Default)]
pub(super) struct Linked {
    behind: Family<OfLink, Gauge>,
    failing: Family<OfLink, Gauge>,
    changes: Counter,
    conflicts: Counter,
}

impl Linked {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "link_behind_records",
            "Of each replication link, by its number: records of partitions led here that are committed and not told",
            self.behind.clone(),
        );
        registry.register(
            "link_failing",
            "1 while the node can't tell a replication link's database",
            self.failing.clone(),
        );
        registry.register(
            "link_changes",
            "Changes of rows that the node has told over replication links since its start",
            self.changes.clone(),
        );
        registry.register(
            "link_conflicts",
            "Of these, changes that met others there",
            self.conflicts.clone(),
        );
    }

    pub(super) fn refresh(&self, report: &LinkReport) {
        self.behind.clear();
        self.failing.clear();
        for ((link, _), told) in &report.partitions {
            let behind = i64::try_from(told.behind).unwrap_or(i64::MAX);
            self.behind.get_or_create(&OfLink { link: *link }).inc_by(behind);
            let _ = self.failing.get_or_create(&OfLink { link: *link });
        }
        for (link, _) in &report.errors {
            self.failing.get_or_create(&OfLink { link: *link }).set(1);
        }
        for (counter, total) in [(&self.changes, report.changes), (&self.conflicts, report.conflicts)] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
