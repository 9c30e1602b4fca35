//! How long to wait before something is tried again, and whether it is. Pure: what is left and random numbers come in as
//! arguments.
//!
//! Whether a try may be repeated is the caller's to know: what never left, what only reads, and what has an idempotency key.

use tokio::time::Duration;

/// The longest pause before the second try; each further one doubles it.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause. Short, for a failover is over in some tens of milliseconds.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The pause before the next try when `tries` have failed, `left` of the time is left and `draw` is random; None: no more tries.
pub(crate) fn pause_after(tries: u32, left: Duration, draw: u64) -> Option<Duration> {
    if left.is_zero() {
        return None;
    }
    let doublings = tries.saturating_sub(1).min(16);
    let longest = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
    Some(half_and_random_half(longest, draw).min(left))
}

/// Half of a time and a random part of the other half: never at once, and never all at the same moment.
pub(crate) fn half_and_random_half(longest: Duration, draw: u64) -> Duration {
    let half = longest / 2;
    let most = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_micros(draw % most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_grow_to_a_bound_and_are_never_nothing() {
        let mut least = Vec::new();
        for tries in 1..=40 {
            let pauses =
                [0, 1, 4_999, u64::MAX / 2, u64::MAX].map(|draw| pause_after(tries, MUCH, draw).unwrap_or_default());
            assert!(
                pauses
                    .iter()
                    .all(|&pause| pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE)
            );
            least.push(pauses[0]);
        }
        assert!(least.is_sorted());
        assert_eq!(least.last(), Some(&(LONGEST_PAUSE / 2)));
    }

    #[test]
    fn pauses_differ() {
        assert_ne!(pause_after(5, MUCH, 1), pause_after(5, MUCH, 30_000));
    }

    #[test]
    fn there_is_an_end() {
        assert_eq!(pause_after(1, Duration::ZERO, 7), None);
        let little = Duration::from_millis(3);
        assert_eq!(pause_after(9, little, 7), Some(little));
    }
}
