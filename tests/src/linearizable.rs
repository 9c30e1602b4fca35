//! Is the history of a register linearisable? The search of Wing and Gong (1993) with Lowe's (2017) memory of what was
//! already tried, as in Knossos and Porcupine: take any operation that could have been next, apply it, go on; when stuck,
//! go back; never enter the same pair of (operations done, state) twice.
//!
//! An operation of unknown outcome may happen at any time after it was sent, or never.

use std::collections::HashSet;

use crate::history::{Action, Answer, Operation};

/// The search gives up after this many steps; a run whose histories need more is too dense, not wrong.
pub const MAX_STEPS: usize = 2_000_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all.
    Linearizable,
    /// There is none. The operations that the longest explanation could not go on with.
    Violation {
        /// How many operations the longest explanation covers.
        explained: usize,
        /// Those that could have been next, and none of them fits.
        stuck_at: Vec<Operation>,
        /// The register's value at that point.
        state: Option<u64>,
    },
    /// The search was given up.
    Undecided,
}

/// Checks the history of one register, absent at first.
pub fn check(history: &[Operation]) -> Verdict {
    let mut operations = relevant(history);
    operations.sort_by_key(|operation| operation.sent);
    Search::new(operations).run()
}

/// Leaves out what can't matter: refusals, reads without an answer, and lost writes whose value nobody can have met.
fn relevant(history: &[Operation]) -> Vec<Operation> {
    let is_negative = |operation: &Operation| operation.answer == Answer::Nothing;
    let may_drop_lost_writes = !history.iter().any(is_negative);
    let observed: HashSet<u64> = history
        .iter()
        .filter(|operation| operation.answer != Answer::Refused)
        .filter_map(|operation| match (operation.action, operation.answer) {
            (_, Answer::Found(value)) => value,
            (Action::Exchange { from, .. }, _) => Some(from),
            _ => None,
        })
        .collect();
    let matters = |operation: &&Operation| match (operation.action, operation.answer) {
        (_, Answer::Refused) | (Action::Read, Answer::Unknown) => false,
        // An INSERT makes later UPDATEs find the row, so it stays.
        (Action::Write(to) | Action::Exchange { to, .. }, Answer::Unknown) => {
            !may_drop_lost_writes || observed.contains(&to)
        }
        _ => true,
    };
    history.iter().filter(matters).copied().collect()
}

/// The register after the operation, or None if it can't have been answered so in this state.
fn apply(state: Option<u64>, operation: &Operation) -> Option<Option<u64>> {
    match (operation.action, operation.answer, state) {
        (Action::Read, Answer::Found(found), _) => (found == state).then_some(state),
        (Action::Insert(value), Answer::Done, None) => Some(Some(value)),
        (Action::Insert(_), Answer::Nothing, Some(_)) => Some(state),
        (Action::Insert(value), Answer::Unknown, _) => Some(state.or(Some(value))),
        (Action::Write(value), Answer::Done | Answer::Unknown, Some(_)) => Some(Some(value)),
        (Action::Write(_), Answer::Nothing | Answer::Unknown, None) => Some(None),
        (Action::Exchange { from, to }, Answer::Done, Some(held)) => (held == from).then_some(Some(to)),
        (Action::Exchange { from, .. }, Answer::Nothing, held) => (held != Some(from)).then_some(state),
        (Action::Exchange { from, to }, Answer::Unknown, held) => {
            Some(if held == Some(from) { Some(to) } else { held })
        }
        _ => None,
    }
}

struct Search {
    operations: Vec<Operation>,
    done: Vec<u64>,
    state: Option<u64>,
    /// Operations that were answered (not unknown) and are not yet done.
    missing: usize,
    tried: HashSet<(Vec<u64>, Option<u64>)>,
    /// (operation, state before it).
    path: Vec<(usize, Option<u64>)>,
    best: Option<(usize, Vec<usize>, Option<u64>)>,
}

impl Search {
    fn new(operations: Vec<Operation>) -> Self {
        let missing = operations
            .iter()
            .filter(|operation| operation.answer != Answer::Unknown)
            .count();
        let done = vec![0; operations.len().div_ceil(64)];
        Self {
            operations,
            done,
            state: None,
            missing,
            tried: HashSet::new(),
            path: Vec::new(),
            best: None,
        }
    }

    fn run(mut self) -> Verdict {
        let mut next = 0;
        for _ in 0..MAX_STEPS {
            if self.missing == 0 {
                return Verdict::Linearizable;
            }
            let candidates = self.candidates();
            self.remember(&candidates);
            match candidates
                .into_iter()
                .filter(|&at| at >= next)
                .find(|&at| self.enter(at))
            {
                Some(_) => next = 0,
                None => match self.back() {
                    Some(last) => next = last + 1,
                    None => return self.violation(),
                },
            }
        }
        Verdict::Undecided
    }

    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] & (1 << (at % 64)) != 0
    }

    /// Those that were sent before the earliest answer of all that are not done: any of them could be next.
    fn candidates(&self) -> Vec<usize> {
        let open = || (0..self.operations.len()).filter(|&at| !self.is_done(at));
        let earliest = open()
            .filter(|&at| self.operations[at].answer != Answer::Unknown)
            .map(|at| self.operations[at].answered)
            .min()
            .unwrap_or(u64::MAX);
        open().filter(|&at| self.operations[at].sent <= earliest).collect()
    }

    fn enter(&mut self, at: usize) -> bool {
        let Some(after) = apply(self.state, &self.operations[at]) else {
            return false;
        };
        self.done[at / 64] |= 1 << (at % 64);
        if !self.tried.insert((self.done.clone(), after)) {
            self.done[at / 64] &= !(1 << (at % 64));
            return false;
        }
        self.path.push((at, self.state));
        self.state = after;
        self.missing -= usize::from(self.operations[at].answer != Answer::Unknown);
        true
    }

    fn back(&mut self) -> Option<usize> {
        let (at, state) = self.path.pop()?;
        self.done[at / 64] &= !(1 << (at % 64));
        self.state = state;
        self.missing += usize::from(self.operations[at].answer != Answer::Unknown);
        Some(at)
    }

    fn remember(&mut self, candidates: &[usize]) {
        if self
            .best
            .as_ref()
            .is_none_or(|(explained, ..)| *explained < self.path.len())
        {
            self.best = Some((self.path.len(), candidates.to_vec(), self.state));
        }
    }

    fn violation(self) -> Verdict {
        let (explained, stuck_at, state) = self.best.unwrap_or_default();
        let stuck_at = stuck_at.into_iter().map(|at| self.operations[at]).collect();
        Verdict::Violation {
            explained,
            stuck_at,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(sent: u64, answered: u64, action: Action, answer: Answer) -> Operation {
        Operation {
            client: 0,
            sent,
            answered,
            action,
            answer,
        }
    }

    fn insert(sent: u64, answered: u64, value: u64) -> Operation {
        op(sent, answered, Action::Insert(value), Answer::Done)
    }

    fn write(sent: u64, answered: u64, value: u64) -> Operation {
        op(sent, answered, Action::Write(value), Answer::Done)
    }

    fn lost(sent: u64, value: u64) -> Operation {
        op(sent, sent + 1, Action::Write(value), Answer::Unknown)
    }

    fn read(sent: u64, answered: u64, value: u64) -> Operation {
        op(sent, answered, Action::Read, Answer::Found(Some(value)))
    }

    fn is_violation(history: &[Operation]) -> bool {
        matches!(check(history), Verdict::Violation { .. })
    }

    #[test]
    fn a_sequence_is_linearizable() {
        let history = [insert(1, 2, 10), read(3, 4, 10), write(5, 6, 11), read(7, 8, 11)];
        assert_eq!(check(&history), Verdict::Linearizable);
        assert_eq!(check(&[]), Verdict::Linearizable);
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        for seen in [10, 11] {
            let history = [insert(1, 2, 10), write(3, 8, 11), read(4, 5, seen)];
            assert_eq!(check(&history), Verdict::Linearizable);
        }
        // But not the new one first and the old one after.
        assert!(is_violation(&[
            insert(1, 2, 10),
            write(3, 8, 11),
            read(4, 5, 11),
            read(6, 7, 10)
        ]));
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(is_violation(&[insert(1, 2, 10), write(3, 4, 11), read(5, 6, 10)]));
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [insert(1, 2, 10), write(3, 4, 11), write(5, 6, 12), read(7, 8, 11)];
        match check(&history) {
            Verdict::Violation {
                explained,
                stuck_at,
                state,
            } => {
                assert_eq!(explained, 3);
                assert_eq!(stuck_at, [history[3]]);
                assert_eq!(state, Some(12));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lost_row_and_a_phantom_value_are_found() {
        assert!(is_violation(&[
            insert(1, 2, 10),
            op(3, 4, Action::Read, Answer::Found(None))
        ]));
        assert!(is_violation(&[insert(1, 2, 10), read(3, 4, 99)]));
        assert!(is_violation(&[insert(1, 2, 10), insert(3, 4, 11)]));
        assert!(is_violation(&[
            insert(1, 2, 10),
            op(3, 4, Action::Write(11), Answer::Nothing)
        ]));
    }

    #[test]
    fn a_refused_write_that_shows_up_is_found() {
        let refused = op(3, 4, Action::Write(11), Answer::Refused);
        assert!(is_violation(&[insert(1, 2, 10), refused, read(5, 6, 11)]));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_or_never() {
        let start = [insert(1, 2, 10), lost(3, 11)];
        for seen in [10, 11] {
            let history = [start[0], start[1], read(20, 21, seen)];
            assert_eq!(check(&history), Verdict::Linearizable);
        }
        let late = [start[0], start[1], read(5, 6, 10), read(20, 21, 11)];
        assert_eq!(check(&late), Verdict::Linearizable);
        // Happened, so it can't unhappen; and it can't happen before it was sent.
        assert!(is_violation(&[start[0], start[1], read(5, 6, 11), read(20, 21, 10)]));
        assert!(is_violation(&[insert(1, 2, 10), read(2, 3, 11), lost(5, 11)]));
    }

    #[test]
    fn two_primaries_are_found() {
        // Both took an exchange of the same value: one of them was deposed and acknowledged all the same.
        let exchange = |sent, to| op(sent, sent + 5, Action::Exchange { from: 10, to }, Answer::Done);
        assert!(is_violation(&[insert(1, 2, 10), exchange(3, 11), exchange(4, 12)]));
        let loser = op(4, 9, Action::Exchange { from: 10, to: 12 }, Answer::Nothing);
        assert_eq!(
            check(&[insert(1, 2, 10), exchange(3, 11), loser]),
            Verdict::Linearizable
        );
        // A failed exchange may be the only witness of a write without an answer.
        assert_eq!(check(&[insert(1, 2, 10), lost(3, 13), loser]), Verdict::Linearizable);
        assert!(is_violation(&[insert(1, 2, 10), loser]));
    }

    /// Histories made by a real register with an instant for each operation are never refused; and after one answer
    /// of a read is changed to a value that was already overwritten, always.
    #[test]
    fn random_histories() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        for seed in 0..60 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut history = vec![insert(1, 2, 1)];
            let (mut value, mut unique, mut busy) = (1, 1, [3_u64; 5]);
            let mut now = 10;
            for _ in 0..120 {
                now += random.random_range(1..4);
                let client = random.random_range(0..busy.len());
                now = now.max(busy[client]);
                let sent = random.random_range(busy[client]..=now);
                let answered = now + random.random_range(0..6);
                busy[client] = answered + 1;
                unique += 1;
                let (action, answer) = match random.random_range(0..4) {
                    0 => (
                        Action::Write(unique),
                        if random.random_bool(0.2) {
                            Answer::Unknown
                        } else {
                            Answer::Done
                        },
                    ),
                    1 => (
                        Action::Exchange {
                            from: value,
                            to: unique,
                        },
                        Answer::Done,
                    ),
                    _ => (Action::Read, Answer::Found(Some(value))),
                };
                if matches!(action, Action::Write(_) | Action::Exchange { .. }) {
                    value = unique;
                }
                history.push(Operation {
                    client: client as u32,
                    sent,
                    answered,
                    action,
                    answer,
                });
            }
            assert_eq!(check(&history), Verdict::Linearizable, "seed {seed}");
            history.push(read(1000, 1001, 1));
            assert!(is_violation(&history), "seed {seed}");
        }
    }
}
