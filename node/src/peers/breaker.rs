//! A circuit breaker: whether a node that failed is worth a call now. Pure: moments and random numbers come in as arguments.
//!
//! ```text
//!   closed ── FAILURES_TO_OPEN in a row ──> open ── its rest is over ──> half-open ── an answer ──> closed
//!                                            ^                              └── a failure ──> open, for longer
//! ```
//!
//! What must hold: an open breaker rests for no longer than `LONGEST_REST`; in half-open, one call at a time goes out; any answer
//! closes it. Calls that were under way together fail together, and that is one failure.

use tokio::time::{Duration, Instant};

/// Failures in a row after which calls are refused.
pub(crate) const FAILURES_TO_OPEN: u32 = 3;
/// The first rest of an open breaker; each trial that fails doubles it.
pub(crate) const FIRST_REST: Duration = Duration::from_millis(100);
/// The longest rest. Short, for only one node leads a partition: nobody else can be asked instead.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(1);

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Calls go out.
    #[default]
    Closed,
    /// One call goes out, to see.
    HalfOpen,
    /// Calls are refused.
    Open,
}

impl BreakerState {
    /// As system tables and metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: BreakerState,
    /// In a row.
    failures: u32,
    /// Calls that began before this failed with the one that failed then.
    last_failure: Option<Instant>,
    /// Open: the end of the rest.
    until: Option<Instant>,
    rest: Duration,
    /// Half-open: a call is out.
    on_trial: bool,
    /// How often it came to be open, half-open, and closed again.
    pub(crate) transitions: Transitions,
}

/// How often a breaker changed, by the state that it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    /// To open.
    pub opened: u64,
    /// To half-open.
    pub half_opened: u64,
    /// To closed.
    pub closed: u64,
}

impl Breaker {
    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether a call may go out now; if so, what became of it is to be told.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        if self.state == BreakerState::Open && self.until.is_none_or(|until| now >= until) {
            self.state = BreakerState::HalfOpen;
            self.transitions.half_opened += 1;
            self.on_trial = false;
        }
        match self.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => !std::mem::replace(&mut self.on_trial, true),
            BreakerState::Open => false,
        }
    }

    /// Whether a call would go out now, without one.
    pub(crate) fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => !self.on_trial,
            BreakerState::Open => self.until.is_none_or(|until| now >= until),
        }
    }

    /// The node answered, whatever it said.
    pub(crate) fn answered(&mut self) {
        if self.state != BreakerState::Closed {
            self.transitions.closed += 1;
        }
        *self = Self {
            transitions: self.transitions,
            ..Self::default()
        };
    }

    /// A call that began at `began` reached nobody, or had no answer. `draw` is random.
    pub(crate) fn failed(&mut self, began: Instant, now: Instant, draw: u64) {
        if self.last_failure.is_some_and(|last| began < last) {
            return;
        }
        self.last_failure = Some(now);
        self.failures = self.failures.saturating_add(1);
        match self.state {
            BreakerState::Closed if self.failures >= FAILURES_TO_OPEN => self.open(FIRST_REST, now, draw),
            BreakerState::HalfOpen => self.open((self.rest * 2).min(LONGEST_REST), now, draw),
            BreakerState::Closed | BreakerState::Open => {}
        }
    }

    /// Nobody waits for the call on trial any more: it says nothing, and another may be made.
    pub(crate) fn given_up(&mut self) {
        self.on_trial = false;
    }

    /// Rests for half of `rest` and a random part of the other half, so that nodes don't come back all at once.
    fn open(&mut self, rest: Duration, now: Instant, draw: u64) {
        self.state = BreakerState::Open;
        self.transitions.opened += 1;
        self.rest = rest;
        self.on_trial = false;
        self.until = Some(now + super::retry::half_and_random_half(rest, draw));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script {
        breaker: Breaker,
        now: Instant,
    }

    impl Script {
        fn new() -> Self {
            Self {
                breaker: Breaker::default(),
                now: Instant::now(),
            }
        }

        fn after(&mut self, pause: Duration) -> &mut Self {
            self.now += pause;
            self
        }

        /// A call of a millisecond that fails, if it may go out.
        fn fails(&mut self) -> bool {
            let began = self.now;
            let admitted = self.breaker.admits(began);
            self.now += Duration::from_millis(1);
            if admitted {
                self.breaker.failed(began, self.now, u64::MAX);
            }
            admitted
        }

        fn open(&mut self) {
            for _ in 0..FAILURES_TO_OPEN {
                assert!(self.fails());
            }
            assert_eq!(self.breaker.state(), BreakerState::Open);
        }
    }

    #[tokio::test]
    async fn opens_after_failures_in_a_row_and_refuses() {
        let mut script = Script::new();
        for _ in 1..FAILURES_TO_OPEN {
            assert!(script.fails());
        }
        script.breaker.answered();
        for _ in 1..FAILURES_TO_OPEN {
            assert!(script.fails());
            assert_eq!(script.breaker.state(), BreakerState::Closed);
        }
        assert!(script.fails());
        assert!(!script.fails(), "open");
        assert!(script.after(FIRST_REST / 4).breaker.state() == BreakerState::Open && !script.fails());
    }

    #[tokio::test]
    async fn one_call_is_the_trial_and_its_answer_closes() {
        let mut script = Script::new();
        script.open();
        script.after(FIRST_REST);
        assert!(script.breaker.would_admit(script.now));
        assert!(script.breaker.admits(script.now));
        assert!(!script.breaker.admits(script.now) && !script.breaker.would_admit(script.now));
        script.breaker.answered();
        assert!(script.breaker.admits(script.now) && script.breaker.admits(script.now));
        let transitions = Transitions {
            opened: 1,
            half_opened: 1,
            closed: 1,
        };
        assert_eq!(script.breaker.transitions, transitions);
    }

    #[tokio::test]
    async fn a_trial_that_fails_rests_for_longer_and_never_for_too_long() {
        let mut script = Script::new();
        script.open();
        let mut rest = FIRST_REST;
        for _ in 0..10 {
            script.after(rest);
            assert!(script.fails(), "{rest:?}");
            rest = (rest * 2).min(LONGEST_REST);
            assert!(!script.after(rest / 2 - Duration::from_millis(2)).fails(), "{rest:?}");
        }
        assert!(script.after(LONGEST_REST).fails());
    }

    #[tokio::test]
    async fn a_trial_that_nobody_waits_for_makes_room() {
        let mut script = Script::new();
        script.open();
        script.after(FIRST_REST);
        assert!(script.breaker.admits(script.now));
        script.breaker.given_up();
        assert!(script.breaker.admits(script.now));
    }

    #[tokio::test]
    async fn calls_that_fail_together_are_one_failure() {
        let mut script = Script::new();
        let began = script.now;
        script.after(Duration::from_millis(5));
        for _ in 0..100 {
            script.breaker.failed(began, script.now, 0);
        }
        assert_eq!(
            (script.breaker.failures(), script.breaker.state()),
            (1, BreakerState::Closed)
        );
    }
}
