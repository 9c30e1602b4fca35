//! How fast a node fills others: no faster than so many bytes a second, and slower while its own commits suffer.
//!
//! A bucket that is allowed to run into debt: who takes bytes waits until the debt is paid. Its rate is halved while commits take
//! too long, and grows back by a tenth (additive increase and multiplicative decrease, Chiu and Jain 1989, with a growth in
//! proportion, for rates from one to thousands of MiB/s). Commits take too long when they take more than twice what they took
//! while nobody was filled, and more than a few milliseconds.

use std::time::Duration;

/// The rate falls no lower, so that a fill comes to its end whatever happens.
const LEAST_RATE: f64 = 1024.0 * 1024.0;
/// How often the rate is looked at.
const LOOK_MS: u64 = 100;
const GROWTH: f64 = 1.1;
/// A pause counts for no more looks than this.
const MOST_LOOKS: u64 = 10;
/// Commits that take less are not slow, whatever they took before.
const SLOW_FROM: Duration = Duration::from_millis(5);
/// Commits that take so many times what they took before are slow.
const SLOW_FACTOR: u32 = 2;
/// Without fills for so long, what commits take is what they take without fills.
const CALM_MS: u64 = 2_000;
/// A commit's share in the mean.
const WEIGHT: f64 = 1.0 / 16.0;
/// The mean of so long ago says nothing.
const STALE_MS: u64 = 1_000;

/// Of one node, for all the fills that it serves.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    /// Bytes a second; None: as fast as commits allow.
    limit: Option<f64>,
    rate: f64,
    /// Bytes that were taken beyond what the rate allowed, at `at_ms`.
    debt: f64,
    at_ms: u64,
    looked_ms: u64,
    commits: Commits,
}

/// What commits take, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Commits {
    mean: f64,
    newest_ms: u64,
    /// The mean while nobody was filled.
    calm: Option<f64>,
}

/// Where a throttle without a limit begins to look for what commits bear.
const FIRST_RATE: f64 = 256.0 * 1024.0 * 1024.0;

impl Throttle {
    /// With a limit in bytes a second; 0: none.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = (limit > 0).then_some((limit as f64).max(LEAST_RATE));
        Self {
            limit,
            rate: limit.unwrap_or(FIRST_RATE),
            debt: 0.0,
            at_ms: 0,
            looked_ms: 0,
            commits: Commits::default(),
        }
    }

    /// A commit took so long.
    pub(crate) fn committed(&mut self, now_ms: u64, took: Duration) {
        let micros = took.as_micros() as f64;
        let commits = &mut self.commits;
        let fresh = now_ms.saturating_sub(commits.newest_ms) > STALE_MS;
        commits.mean = if fresh {
            micros
        } else {
            commits.mean + (micros - commits.mean) * WEIGHT
        };
        commits.newest_ms = now_ms;
        if now_ms.saturating_sub(self.at_ms) > CALM_MS {
            commits.calm = Some(commits.mean);
        }
    }

    /// Takes so many bytes; how long to wait before they are sent.
    pub(crate) fn take(&mut self, now_ms: u64, bytes: usize) -> Duration {
        self.look(now_ms);
        let passed = now_ms.saturating_sub(self.at_ms) as f64 / 1_000.0;
        self.debt = (self.debt - passed * self.rate).max(0.0);
        self.at_ms = now_ms;
        let wait = Duration::from_secs_f64(self.debt / self.rate);
        self.debt += bytes as f64;
        wait
    }

    /// Bytes a second, now.
    pub(crate) fn rate(&self) -> u64 {
        self.rate as u64
    }

    fn look(&mut self, now_ms: u64) {
        let looks = now_ms.saturating_sub(self.looked_ms) / LOOK_MS;
        if looks == 0 {
            return;
        }
        self.looked_ms = now_ms;
        let highest = self.limit.unwrap_or(f64::from(u32::MAX));
        // Who takes seldom, for the rate is low, makes up for the looks between.
        let rate = match self.is_slow(now_ms) {
            true => self.rate / 2.0,
            false => self.rate * GROWTH.powi(looks.min(MOST_LOOKS) as i32),
        };
        self.rate = rate.clamp(LEAST_RATE, highest);
    }

    fn is_slow(&self, now_ms: u64) -> bool {
        let Commits { mean, newest_ms, calm } = self.commits;
        let slow_from = SLOW_FROM.as_micros() as f64;
        let bound = calm.map_or(slow_from, |calm| (calm * f64::from(SLOW_FACTOR)).max(slow_from));
        now_ms.saturating_sub(newest_ms) <= STALE_MS && mean > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Takes one MiB after the other for so long, as commits take what `commits` says; the MiB taken.
    fn fill(throttle: &mut Throttle, from_ms: u64, for_ms: u64, commit: Duration) -> u64 {
        let (mut now, mut taken) = (from_ms, 0);
        while now < from_ms + for_ms {
            throttle.committed(now, commit);
            now += throttle.take(now, MIB).as_millis() as u64;
            now += u64::from(throttle.debt == 0.0);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_fill_is_no_faster_than_its_limit() {
        let mut throttle = Throttle::new(10 * MIB as u64);
        let taken = fill(&mut throttle, 5_000, 10_000, Duration::from_millis(1));
        assert!((99..=102).contains(&taken), "{taken} MiB in 10 s");
    }

    #[test]
    fn a_fill_that_slows_commits_goes_slower_and_comes_back() {
        let mut throttle = Throttle::new(64 * MIB as u64);
        throttle.committed(3_000, Duration::from_millis(4));
        // Before it, commits took 4 ms: 7 are no trouble, 9 are.
        fill(&mut throttle, 3_001, 2_000, Duration::from_millis(7));
        assert_eq!(throttle.rate(), 64 * MIB as u64);
        fill(&mut throttle, 5_001, 3_000, Duration::from_millis(9));
        assert_eq!(throttle.rate(), MIB as u64);
        fill(&mut throttle, 8_001, 8_000, Duration::from_millis(4));
        assert_eq!(throttle.rate(), 64 * MIB as u64);
        // When nobody commits, nobody suffers.
        fill(&mut throttle, 16_001, 2_000, Duration::from_millis(90));
        assert!(throttle.rate() < 4 * MIB as u64);
        let mut now = 20_000;
        while now < 30_000 {
            now += throttle.take(now, MIB).as_millis() as u64 + 1;
        }
        assert_eq!(throttle.rate(), 64 * MIB as u64);
    }

    #[test]
    fn quick_commits_are_never_slow() {
        let mut throttle = Throttle::new(0);
        throttle.committed(3_000, Duration::from_micros(100));
        fill(&mut throttle, 3_001, 3_000, Duration::from_millis(4));
        assert!(throttle.rate() > 256 * MIB as u64);
    }
}
