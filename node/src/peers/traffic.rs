//! What this node's calls to each other node came to: a breaker for each line, and figures for who looks.
//!
//! Heartbeats and probes ask whether a node is alive, and the group's Raft, replication streams and fills have pauses of their own; none of
//! them is counted or refused here.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};
use volt_engine::NodeId;

use super::breaker::{Breaker, BreakerState, Transitions};
use crate::world::Random;

/// The share of the newest answer in the moving average of latency: one of so many.
const AVERAGE_OVER: f64 = 8.0;

/// Which of a node's two channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// Proposals.
    Control,
    /// Transactions, reads, comparisons.
    Data,
}

impl Line {
    /// As system tables and metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Data => "data",
        }
    }
}

/// One line's figures, since this process or that one started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LineFigures {
    /// Its breaker.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// How the breaker changed.
    pub transitions: Transitions,
    /// Calls that are out.
    pub in_flight: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that reached nobody.
    pub not_sent: u64,
    /// Calls without an answer: nobody knows what became of them.
    pub lost: u64,
    /// Calls that the breaker refused.
    pub refused: u64,
    /// Moving average of how long answers took; None: there were none.
    pub latency: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    figures: LineFigures,
    average: Option<f64>,
}

type Shared = Arc<Mutex<State>>;

/// All lines.
pub(crate) struct Traffic {
    random: Arc<dyn Random>,
    retries: AtomicU64,
    lines: Mutex<BTreeMap<(NodeId, Line), Shared>>,
}

/// The breaker is open: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it failed again and again, and is left alone for a moment")]
pub(crate) struct Refused;

impl Traffic {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self {
            random,
            retries: AtomicU64::new(0),
            lines: Mutex::default(),
        }
    }

    fn line(&self, node: NodeId, line: Line) -> Shared {
        Arc::clone(self.lines().entry((node, line)).or_default())
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Line), Shared>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins, unless the breaker refuses it.
    pub(crate) fn begin(&self, node: NodeId, line: Line) -> Result<Underway<'_>, Refused> {
        let shared = self.line(node, line);
        let began = Instant::now();
        let is_trial = {
            let mut state = lock(&shared);
            if !state.breaker.admits(began) {
                state.figures.refused += 1;
                return Err(Refused);
            }
            state.figures.in_flight += 1;
            state.breaker.state() == BreakerState::HalfOpen
        };
        Ok(Underway {
            random: &*self.random,
            shared,
            began,
            is_trial,
        })
    }

    /// Something is tried again, here or at another node.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// How often something was tried again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Whether a call to this node would be refused now.
    pub(crate) fn would_refuse(&self, node: NodeId, line: Line) -> bool {
        !lock(&self.line(node, line)).breaker.would_admit(Instant::now())
    }

    /// Another process stands under this node's number: nothing is known of it.
    pub(crate) fn renewed(&self, node: NodeId) {
        for line in [Line::Control, Line::Data] {
            lock(&self.line(node, line)).breaker.answered();
        }
    }

    /// Forgets nodes that are no more.
    pub(crate) fn retain(&self, is_known: impl Fn(NodeId) -> bool) {
        self.lines().retain(|(node, _), _| is_known(*node));
    }

    /// What there is to say of each line.
    pub(crate) fn figures(&self) -> Vec<(NodeId, Line, LineFigures)> {
        let lines: Vec<_> = self
            .lines()
            .iter()
            .map(|(key, shared)| (*key, Arc::clone(shared)))
            .collect();
        let figures = |((node, line), shared): ((NodeId, Line), Shared)| {
            let state = lock(&shared);
            let figures = LineFigures {
                state: state.breaker.state(),
                failures: state.breaker.failures(),
                transitions: state.breaker.transitions,
                latency: state.average.map(Duration::from_secs_f64),
                ..state.figures
            };
            (node, line, figures)
        };
        lines.into_iter().map(figures).collect()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The moving average with one more.
fn averaged(average: Option<f64>, newest: f64) -> f64 {
    average.map_or(newest, |average| average + (newest - average) / AVERAGE_OVER)
}

/// A call that is out. Dropped without a word, it was given up by whoever waited for it.
pub(crate) struct Underway<'a> {
    random: &'a dyn Random,
    shared: Shared,
    began: Instant,
    is_trial: bool,
}

impl Underway<'_> {
    /// It was answered, whatever the answer says.
    pub(crate) fn answered(self) {
        let mut state = lock(&self.shared);
        state.breaker.answered();
        state.figures.answered += 1;
        state.average = Some(averaged(state.average, self.began.elapsed().as_secs_f64()));
    }

    /// It reached nobody.
    pub(crate) fn not_sent(self) {
        let mut state = lock(&self.shared);
        state.figures.not_sent += 1;
        self.failed(&mut state);
    }

    /// Nobody knows what became of it.
    pub(crate) fn lost(self) {
        let mut state = lock(&self.shared);
        state.figures.lost += 1;
        self.failed(&mut state);
    }

    fn failed(&self, state: &mut State) {
        state.breaker.failed(self.began, Instant::now(), self.random.next_u64());
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.figures.in_flight = state.figures.in_flight.saturating_sub(1);
        if self.is_trial {
            state.breaker.given_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::{FAILURES_TO_OPEN, LONGEST_REST};
    use super::*;
    use crate::world::simulated::SimulatedRandom;

    fn traffic() -> Traffic {
        Traffic::new(Arc::new(SimulatedRandom::new(1)))
    }

    fn figures(traffic: &Traffic, node: NodeId) -> LineFigures {
        let all = traffic.figures();
        all.into_iter()
            .find(|(at, line, _)| (*at, *line) == (node, Line::Data))
            .map(|(.., figures)| figures)
            .unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_of_calls_is_counted_and_a_node_that_fails_is_left_alone() {
        let traffic = traffic();
        let begin = |node| traffic.begin(node, Line::Data);
        begin(2).expect("closed").answered();
        for _ in 0..FAILURES_TO_OPEN {
            tokio::time::advance(Duration::from_millis(1)).await;
            begin(3).expect("closed").not_sent();
        }
        assert!(begin(3).is_err() && traffic.would_refuse(3, Line::Data) && !traffic.would_refuse(3, Line::Control));
        assert!(begin(2).is_ok(), "another node's breaker");
        assert_eq!((figures(&traffic, 3).not_sent, figures(&traffic, 3).refused), (3, 1));
        tokio::time::advance(LONGEST_REST).await;
        let trial = begin(3).expect("half-open");
        assert!(begin(3).is_err(), "one trial at a time");
        drop(trial);
        begin(3).expect("a trial that was given up").answered();
        assert_eq!(figures(&traffic, 3).state, BreakerState::Closed);
        assert_eq!((figures(&traffic, 3).in_flight, figures(&traffic, 3).answered), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_process_begins_with_a_closed_breaker() {
        let traffic = traffic();
        for _ in 0..FAILURES_TO_OPEN {
            tokio::time::advance(Duration::from_millis(1)).await;
            traffic.begin(3, Line::Data).expect("closed").lost();
        }
        assert!(traffic.would_refuse(3, Line::Data));
        traffic.renewed(3);
        assert!(!traffic.would_refuse(3, Line::Data));
    }
}
