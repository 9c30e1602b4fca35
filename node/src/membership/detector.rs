//! The phi accrual detector (Hayashibara et al. 2004): how sure one may be that a node is dead, from how long it has
//! been silent and how regularly it spoke before.

use std::collections::VecDeque;
use std::time::Duration;

/// Intervals that are remembered.
const WINDOW: usize = 100;
/// A node on a busy machine may fall silent for so long without being suspected.
const ACCEPTED_PAUSE: Duration = Duration::from_millis(1_200);
/// Intervals are taken to spread at least so much.
const LEAST_DEVIATION: Duration = Duration::from_millis(100);
/// However irregularly it spoke, a node that is silent for so long is suspected: a dead one is failed over within three
/// seconds.
const LONGEST_SILENCE: Duration = Duration::from_millis(2_300);

/// What phi is at most of who is silent no longer than one may be who always spoke at once: half of all are.
const PHI_OF_A_PAUSE: f64 = 0.302;

/// The detector for one process.
#[derive(Clone, Debug)]
pub struct Phi {
    last: Duration,
    intervals: VecDeque<Duration>,
}

impl Phi {
    /// First heard of at this moment of the observer's clock.
    pub fn new(now: Duration) -> Self {
        Self {
            last: now,
            intervals: VecDeque::new(),
        }
    }

    /// Heard again.
    pub fn heard(&mut self, now: Duration) {
        if self.intervals.len() >= WINDOW {
            self.intervals.pop_front();
        }
        self.intervals.push_back(now.saturating_sub(self.last));
        self.last = self.last.max(now);
    }

    /// The observer itself stood still for so long: that silence was its own.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        self.last = (self.last + pause).min(now);
    }

    /// Never heard since it was first heard of.
    pub fn is_unheard(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How long it has been silent.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last)
    }

    /// How sure one may be that it is dead: 1 means wrong once in ten times, 8 once in 10^8.
    pub fn phi(&self, now: Duration) -> f64 {
        let (mean, deviation) = self.spread();
        let late = self.silence(now).as_secs_f64() - mean - ACCEPTED_PAUSE.as_secs_f64();
        let y = late / deviation;
        // The logistic approximation of the normal distribution's tail.
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        if late > 0.0 {
            -(e / (1.0 + e)).log10()
        } else {
            -(1.0 - 1.0 / (1.0 + e)).log10()
        }
    }

    /// Taken for dead: silent for too long for a node that spoke as regularly as this one, or for any.
    pub fn is_suspected(&self, threshold: f64, now: Duration) -> bool {
        // Of a thousand nodes that all speak, looked at twenty times a second, the intervals are not.
        if threshold > PHI_OF_A_PAUSE && self.silence(now) <= ACCEPTED_PAUSE {
            return false;
        }
        self.phi(now) >= threshold || self.silence(now) >= LONGEST_SILENCE
    }

    /// How much the times between two signs of life differ; None: there were too few.
    pub fn jitter(&self) -> Option<Duration> {
        if self.intervals.len() < WINDOW / 5 {
            return None;
        }
        Some(Duration::from_secs_f64(self.mean_and_deviation().1))
    }

    fn spread(&self) -> (f64, f64) {
        let least = LEAST_DEVIATION.as_secs_f64();
        if self.intervals.is_empty() {
            return (least, least);
        }
        let (mean, deviation) = self.mean_and_deviation();
        (mean, deviation.max(least))
    }

    fn mean_and_deviation(&self) -> (f64, f64) {
        let count = self.intervals.len() as f64;
        let mean = self.intervals.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
        let variance = self
            .intervals
            .iter()
            .map(|interval| (interval.as_secs_f64() - mean).powi(2))
            .sum::<f64>();
        (mean, (variance / count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HeartbeatDetection;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nobody_is_suspected_within_the_pause_that_is_accepted() {
        for intervals in [
            &[][..],
            &[0],
            &[1],
            &[0; 100],
            &[100; 100],
            &[3, 900, 14, 2_000, 0],
            &[60_000],
        ] {
            let (mut phi, mut now) = (Phi::new(ms(0)), 0);
            for interval in intervals {
                now += interval;
                phi.heard(ms(now));
            }
            for silence in (0..=1_200).step_by(50) {
                let is = phi.phi(ms(now + silence));
                assert!(is < PHI_OF_A_PAUSE, "{intervals:?}, then {silence} ms: {is}");
            }
        }
    }

    fn threshold() -> f64 {
        HeartbeatDetection::default().threshold
    }

    fn regular() -> Phi {
        let mut phi = Phi::new(ms(0));
        for beat in 1..=50 {
            phi.heard(ms(beat * 100));
        }
        phi
    }

    #[test]
    fn suspects_after_two_seconds_not_after_one_and_a_half() {
        let phi = regular();
        assert!(phi.phi(ms(5_000 + 1_500)) < threshold());
        assert!(phi.phi(ms(5_000 + 2_000)) >= threshold());
    }

    #[test]
    fn one_that_was_irregular_gets_more_time() {
        let mut phi = regular();
        phi.heard(ms(6_000));
        phi.heard(ms(7_200));
        assert!(!phi.is_suspected(threshold(), ms(7_200 + 1_900)));
        assert!(phi.phi(ms(7_200 + 2_300)) < threshold());
        assert!(phi.is_suspected(threshold(), ms(7_200 + 2_300)), "but not any time");
    }

    #[test]
    fn the_observers_own_pause_is_forgiven() {
        let mut phi = regular();
        phi.forgive(ms(3_000), ms(8_000));
        assert!(phi.phi(ms(8_100)) < threshold());
    }
}
