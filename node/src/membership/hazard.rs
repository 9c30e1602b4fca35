//! How likely a node is to fail soon, from how it has been lately: a weighted sum of four terms, each between 0 and 1, each
//! with its reason in words. Pure.
//!
//! | term | 0 up to | 1 from | weight |
//! | --- | --- | --- | --- |
//! | flushes: median of the last 30 s, against that of the 5 minutes before | the greater of 20 ms and 3 times as long | the greater of 200 ms and 10 times as long | 0.6 |
//! | jitter: deviation of the times between its heartbeats | 100 ms | 300 ms | 0.5 |
//! | memory: the time until its limit is reached, if it grows on as it does (above half of the limit) | 120 s | 20 s | 0.6 |
//! | failures of it within 10 minutes | 1 | 3 | 0.7 |
//!
//! Growth is Theil's slope, the median of the slopes between samples half a window apart, for Garg et al. (A methodology for
//! detection and estimation of software aging, 1998) extrapolate resources that run out so. That a disk grows slow long before it fails is
//! Gunawi et al.'s (Fail-slow at scale, 2018). A median says nothing of one bad second.

use std::collections::VecDeque;
use std::time::Duration;

pub use crate::metadata::hazard::Hazard;

/// A sample is taken so often.
pub const SAMPLE: Duration = Duration::from_secs(1);
/// Samples that are now. A disk has slow spells of its own, a compaction's, which half of these must outlast.
const RECENT: usize = 30;
/// The same of heartbeats, each sample of which is over several seconds already.
const RECENT_JITTER: usize = 10;
/// Samples before those with which they are compared.
const BASELINE: usize = 300;
/// Fewer are no base to compare with.
const LEAST_BASELINE: usize = 30;
/// Samples that a slope is taken over.
const SLOPE: usize = 30;
/// Failures that are counted, back from now.
pub const FAILURES_WITHIN: Duration = Duration::from_secs(600);

const FLUSH_WEIGHT: f64 = 0.6;
const JITTER_WEIGHT: f64 = 0.5;
const MEMORY_WEIGHT: f64 = 0.6;
const FAILURES_WEIGHT: f64 = 0.7;

/// Milliseconds of a flush that nobody minds, and that everybody does.
const FLUSH_MS: (f64, f64) = (20.0, 200.0);
/// The same as multiples of what was usual.
const FLUSH_TIMES: (f64, f64) = (3.0, 10.0);
const JITTER_MS: (f64, f64) = (100.0, 300.0);
/// Less of its memory is no reason to worry, however it grows.
const MEMORY_SHARE: f64 = 0.5;
/// Seconds until the limit.
const MEMORY_LEFT_S: (f64, f64) = (120.0, 20.0);
const FAILURES: (f64, f64) = (1.0, 3.0);

/// How a node was in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Milliseconds of the longest flush; None: there was none.
    pub flush_ms: Option<f64>,
    /// Deviation of the times between its heartbeats, in milliseconds; None: it sends this observer none.
    pub jitter_ms: Option<f64>,
    /// Its memory, as a part of its limit; None: nobody says.
    pub memory_share: Option<f64>,
    /// Its failures within `FAILURES_WITHIN`.
    pub failures: u32,
}

/// The newest samples of one node.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Sample>);

impl History {
    /// One more second.
    pub fn add(&mut self, sample: Sample) {
        if self.0.len() >= RECENT + BASELINE {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What they say together.
    pub fn hazard(&self) -> Hazard {
        let mut terms: Vec<(f64, String)> = [self.flushes(), self.jitter(), self.memory(), self.failures()]
            .into_iter()
            .flatten()
            .filter(|(part, _)| *part > 0.0)
            .collect();
        terms.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        // `sum` of nothing is -0.
        let score = terms.iter().fold(0.0, |score, (part, _)| score + part);
        Hazard {
            score: f64::min(score, 1.0),
            reasons: terms.into_iter().map(|(_, reason)| reason).collect(),
        }
    }

    fn recent(&self, samples: usize) -> impl Iterator<Item = &Sample> {
        self.0.iter().rev().take(samples)
    }

    fn flushes(&self) -> Option<(f64, String)> {
        // Half of the recent seconds had a flush at least.
        let now: Vec<f64> = self.recent(RECENT).filter_map(|sample| sample.flush_ms).collect();
        if now.len() < RECENT / 2 {
            return None;
        }
        let now = median(now)?;
        if now <= FLUSH_MS.0 {
            return None;
        }
        let before: Vec<f64> = self
            .0
            .iter()
            .rev()
            .skip(RECENT)
            .filter_map(|sample| sample.flush_ms)
            .collect();
        let usual = (before.len() >= LEAST_BASELINE).then(|| median(before)).flatten();
        let at_least = |floor: f64, times: f64| usual.map_or(floor, |usual| floor.max(usual * times));
        let (low, high) = (at_least(FLUSH_MS.0, FLUSH_TIMES.0), at_least(FLUSH_MS.1, FLUSH_TIMES.1));
        let compared = usual.map_or_else(String::new, |usual| format!(", {usual:.0} ms before"));
        Some((
            FLUSH_WEIGHT * ramp(now, (low, high)),
            format!("flushes take {now:.0} ms{compared}"),
        ))
    }

    fn jitter(&self) -> Option<(f64, String)> {
        let now = median(
            self.recent(RECENT_JITTER)
                .filter_map(|sample| sample.jitter_ms)
                .collect(),
        )?;
        let reason = format!("its heartbeats come {now:.0} ms early or late");
        Some((JITTER_WEIGHT * ramp(now, JITTER_MS), reason))
    }

    fn memory(&self) -> Option<(f64, String)> {
        let samples: Vec<f64> = self
            .0
            .iter()
            .rev()
            .take(SLOPE)
            .filter_map(|sample| sample.memory_share)
            .collect();
        let share = *samples.first()?;
        if samples.len() < SLOPE || share < MEMORY_SHARE {
            return None;
        }
        let growth = -slope(&samples)? / SAMPLE.as_secs_f64();
        if growth <= 0.0 {
            return None;
        }
        let left = (1.0 - share).max(0.0) / growth;
        let percent = share * 100.0;
        let reason = format!("{percent:.0} % of its memory is used, and all of it in {left:.0} s");
        Some((
            MEMORY_WEIGHT * ramp(-left, (-MEMORY_LEFT_S.0, -MEMORY_LEFT_S.1)),
            reason,
        ))
    }

    fn failures(&self) -> Option<(f64, String)> {
        let failures = self.0.back()?.failures;
        let minutes = FAILURES_WITHIN.as_secs() / 60;
        let reason = format!("it failed {failures} times within {minutes} minutes");
        Some((FAILURES_WEIGHT * ramp(f64::from(failures), FAILURES), reason))
    }
}

/// 0 up to the first, 1 from the second on, and straight between them.
fn ramp(value: f64, (low, high): (f64, f64)) -> f64 {
    ((value - low) / (high - low)).clamp(0.0, 1.0)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A step's change, of values a step apart.
fn slope(values: &[f64]) -> Option<f64> {
    let half = values.len() / 2;
    let pairs = values.iter().zip(values.iter().skip(half));
    median(pairs.map(|(one, other)| (other - one) / half as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seconds: usize, sample: impl Fn(usize) -> Sample) -> History {
        let mut history = History::default();
        (0..seconds).for_each(|second| history.add(sample(second)));
        history
    }

    fn flushes(ms: f64) -> Sample {
        Sample {
            flush_ms: Some(ms),
            ..Sample::default()
        }
    }

    #[test]
    fn a_disk_that_grew_slow_is_a_hazard_and_one_that_always_was_is_none() {
        assert_eq!(history(400, |_| flushes(15.0)).hazard(), Hazard::default());
        assert_eq!(
            history(400, |_| flushes(300.0)).hazard().score,
            0.0,
            "it is slow, and no slower"
        );
        let slower = history(400, |second| flushes(if second < 370 { 5.0 } else { 200.0 })).hazard();
        assert_eq!(slower.score, FLUSH_WEIGHT);
        assert_eq!(slower.reasons, ["flushes take 200 ms, 5 ms before"]);
        let once = history(400, |second| flushes(if second < 386 { 5.0 } else { 900.0 }));
        assert_eq!(once.hazard().score, 0.0, "fourteen bad seconds are none");
    }

    #[test]
    fn memory_that_runs_out_soon_is_a_hazard() {
        let grows = |from: f64, a_second: f64| {
            history(60, |second| Sample {
                memory_share: Some(from + a_second * second as f64),
                ..Sample::default()
            })
            .hazard()
        };
        assert_eq!(grows(0.9, 0.0).score, 0.0, "full, and no fuller");
        assert_eq!(grows(0.1, 0.005).score, 0.0, "it grows, and there is much left");
        assert_eq!(grows(0.4, 0.01).score, MEMORY_WEIGHT);
        let some = grows(0.5, 0.004);
        assert!((0.1..0.5).contains(&some.score), "{some:?}");
        assert!(some.reasons[0].contains("74 % of its memory is used"), "{some:?}");
    }

    #[test]
    fn terms_add_up_and_no_further_than_to_one() {
        let sample = Sample {
            flush_ms: Some(5_000.0),
            jitter_ms: Some(200.0),
            memory_share: None,
            failures: 3,
        };
        let hazard = history(20, |_| sample).hazard();
        assert_eq!(hazard.score, 1.0);
        assert!(hazard.reasons[0].starts_with("it failed 3 times"), "{hazard:?}");
        assert_eq!(hazard.reasons.len(), 3);
        let jitter = Sample {
            flush_ms: None,
            failures: 1,
            ..sample
        };
        assert_eq!(history(20, |_| jitter).hazard().score, JITTER_WEIGHT / 2.0);
    }
}
