//! How fast a node fills others: no faster than so many bytes a second, and slower while its own commits suffer.
//!
//! A bucket that is allowed to run into debt: who takes bytes waits until the debt is paid. Its rate begins low, is halved while commits
//! take too long, and grows by a tenth else (additive increase and multiplicative decrease, Chiu and Jain 1989, with a growth in
//! proportion, for rates from one to thousands of MiB/s). Commits take too long when they take a quarter more than while nobody
//! was filled, for writers who wait for their answers then do a fifth less.

use std::time::Duration;

/// The rate falls no lower, so that a fill comes to its end whatever happens: this, or a part of the limit.
const LEAST_RATE: f64 = 1024.0 * 1024.0;
const LEAST_PART: f64 = 1.0 / 16.0;
/// The part of the limit at which a fill begins.
const FIRST_PART: f64 = 1.0 / 8.0;
/// How often the rate is looked at.
const LOOK_MS: u64 = 100;
const GROWTH: f64 = 1.1;
/// A pause counts for no more looks than this.
const MOST_LOOKS: u64 = 10;
/// Commits that take less are not slow, whatever they took before.
const SLOW_FROM: Duration = Duration::from_micros(250);
/// Commits that take so many times what they took before are slow.
const SLOW_FACTOR: f64 = 1.25;
/// Without fills for so long, what commits take is what they take without fills.
const CALM_MS: u64 = 2_000;
/// A commit's share in the mean.
const WEIGHT: f64 = 1.0 / 64.0;
/// And in the mean of calm times.
const CALM_WEIGHT: f64 = 1.0 / 512.0;
/// The mean of so long ago says nothing.
const STALE_MS: u64 = 1_000;

/// Of one node, for all the fills that it serves.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    /// Bytes a second.
    limit: f64,
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

/// What a throttle without a limit has in place of one.
const NO_LIMIT: f64 = 4096.0 * 1024.0 * 1024.0;

impl Throttle {
    /// With a limit in bytes a second; 0: none.
    pub(crate) fn new(limit: u64) -> Self {
        let limit = match limit {
            0 => NO_LIMIT,
            limit => (limit as f64).max(LEAST_RATE),
        };
        Self {
            limit,
            rate: (limit * FIRST_PART).max(LEAST_RATE),
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
            let calm = commits.calm.get_or_insert(micros);
            *calm += (micros - *calm) * CALM_WEIGHT;
        }
    }

    /// Takes so many bytes; how long to wait before they are sent.
    pub(crate) fn take(&mut self, now_ms: u64, bytes: usize) -> Duration {
        if now_ms.saturating_sub(self.at_ms) > CALM_MS {
            (self.rate, self.looked_ms) = ((self.limit * FIRST_PART).max(LEAST_RATE), now_ms);
        }
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
        let least = (self.limit * LEAST_PART).max(LEAST_RATE);
        // Who takes seldom, for the rate is low, makes up for the looks between.
        let rate = match self.is_slow(now_ms) {
            true => self.rate / 2.0,
            false => self.rate * GROWTH.powi(looks.min(MOST_LOOKS) as i32),
        };
        self.rate = rate.clamp(least, self.limit);
    }

    fn is_slow(&self, now_ms: u64) -> bool {
        let Commits { mean, newest_ms, calm } = self.commits;
        let slow_from = SLOW_FROM.as_micros() as f64;
        let bound = calm.map_or(slow_from, |calm| (calm * SLOW_FACTOR).max(slow_from));
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
    fn a_fill_is_no_faster_than_its_limit_and_begins_slowly() {
        let mut throttle = Throttle::new(16 * MIB as u64);
        let taken = fill(&mut throttle, 5_000, 2_000, Duration::from_micros(100));
        assert!((8..=20).contains(&taken), "{taken} MiB in the first 2 s");
        fill(&mut throttle, 7_000, 1_000, Duration::from_micros(100));
        let taken = fill(&mut throttle, 8_000, 10_000, Duration::from_micros(100));
        assert!((159..=163).contains(&taken), "{taken} MiB in 10 s");
        // After a pause the next one begins slowly again.
        throttle.take(30_000, MIB);
        assert_eq!(throttle.rate(), 2 * MIB as u64);
    }

    #[test]
    fn a_fill_that_slows_commits_goes_slower_and_comes_back() {
        let mut throttle = Throttle::new(64 * MIB as u64);
        throttle.committed(3_000, Duration::from_millis(4));
        // Before it, commits took 4 ms: 4.8 are no trouble, 6 are.
        fill(&mut throttle, 3_001, 4_000, Duration::from_micros(4_800));
        assert_eq!(throttle.rate(), 64 * MIB as u64);
        fill(&mut throttle, 7_001, 10_000, Duration::from_millis(6));
        assert_eq!(throttle.rate(), 4 * MIB as u64);
        fill(&mut throttle, 17_001, 16_000, Duration::from_millis(4));
        assert_eq!(throttle.rate(), 64 * MIB as u64);
        // When nobody commits, nobody suffers.
        fill(&mut throttle, 33_001, 10_000, Duration::from_millis(90));
        assert_eq!(throttle.rate(), 4 * MIB as u64);
        let mut now = 44_000;
        while now < 54_000 {
            now += throttle.take(now, MIB).as_millis() as u64 + 1;
        }
        assert_eq!(throttle.rate(), 64 * MIB as u64);
    }

    #[test]
    fn quick_commits_are_never_slow() {
        let mut throttle = Throttle::new(0);
        throttle.committed(3_000, Duration::from_micros(100));
        fill(&mut throttle, 3_001, 5_000, Duration::from_micros(240));
        assert!(throttle.rate() > 256 * MIB as u64);
    }
}
