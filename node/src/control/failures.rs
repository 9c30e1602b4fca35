//! Failures as metrics: how many there were, by what they were found, and how long that took. Every node counts all that
//! the map tells it of, as it does failovers.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::metadata::map::ClusterMap;

/// Bounds of the histogram, in seconds: a broken connection is seen in milliseconds, silence in two seconds, and a
/// replica that differs at the next comparison.
const BOUNDS: [f64; 11] = [0.005, 0.02, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 30.0, 600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    strategy: String,
    medium: String,
}

type Seconds = Family<By, Histogram, fn() -> Histogram>;

/// What is counted.
pub(super) struct Failures {
    found: Family<By, Counter>,
    seconds: Seconds,
    /// The newest failure that was counted.
    counted: AtomicU64,
}

impl Default for Failures {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BOUNDS);
        Self {
            found: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            counted: AtomicU64::new(0),
        }
    }
}

impl Failures {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("failures", "Failures, by what they were found", self.found.clone());
        registry.register_with_unit(
            "failure_detection",
            "From the last sign of life, or of health, to the verdict",
            Unit::Seconds,
            self.seconds.clone(),
        );
    }

    /// Counts those that the map has and that were not counted yet.
    pub(super) fn refresh(&self, map: &ClusterMap) {
        let counted = self.counted.fetch_max(map.last_failure, Relaxed);
        for failure in map.failures.iter().filter(|failure| failure.failure_id > counted) {
            let by = By {
                strategy: failure.finding.strategy.to_string(),
                medium: failure.finding.medium.to_string(),
            };
            let seconds = Duration::from_micros(failure.finding.silence_micros).as_secs_f64();
            self.found.get_or_create(&by).inc();
            self.seconds.get_or_create(&by).observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::failure::{Failure, Finding, Medium, Strategy};

    #[test]
    fn each_failure_is_counted_once() {
        let mut map = ClusterMap::default();
        let found = (Strategy::Interval, Medium::FileSystem);
        for failure_id in 1..=2 {
            map.last_failure = failure_id;
            map.failures.push_back(Failure {
                failure_id,
                at_micros: 0,
                node_id: 2,
                partition: None,
                finding: Finding::new(found, "", Duration::from_millis(1_600), 1),
                promoted: 0,
                removed: 0,
                end: None,
            });
        }
        let (failures, mut registry) = (Failures::default(), Registry::with_prefix("volt"));
        failures.register(&mut registry);
        failures.refresh(&map);
        failures.refresh(&map);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let by = "strategy=\"interval\",medium=\"file system\"";
        assert!(text.contains(&format!("volt_failures_total{{{by}}} 2\n")), "{text}");
        assert!(
            text.contains(&format!("volt_failure_detection_seconds_count{{{by}}} 2\n")),
            "{text}"
        );
        assert!(
            text.contains("le=\"1.5\",strategy=\"interval\",medium=\"file system\"} 0\n"),
            "{text}"
        );
    }
}
