//! The interval strategy: something is asked for, or looked for, at fixed intervals, and a number of misses in a row is a
//! failure. Of a node's answers, of its mark in what the nodes share (a file, a row), and of this node's own disk. Pure.

use std::time::Duration;

use crate::config::IntervalDetection;

/// Probes of one thing.
#[derive(Clone, Debug)]
pub struct Probes {
    answered: Duration,
    misses: u32,
}

impl Probes {
    /// None sent yet.
    pub fn new(now: Duration) -> Self {
        Self {
            answered: now,
            misses: 0,
        }
    }

    /// One was answered.
    pub fn answered(&mut self, now: Duration) {
        (self.answered, self.misses) = (self.answered.max(now), 0);
    }

    /// One was not answered in its time.
    pub fn missed(&mut self) {
        self.misses = self.misses.saturating_add(1);
    }

    /// The observer could not ask: what it missed before says less than it did.
    pub fn could_not_ask(&mut self) {
        self.misses = 0;
    }

    /// The observer stood still for so long: what it missed meanwhile was its own fault.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        self.misses = 0;
        self.answered = (self.answered + pause).min(now);
    }

    /// How long ago one was answered.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.answered)
    }

    /// How many were missed in a row, if those are a failure.
    pub fn failed(&self, settings: &IntervalDetection) -> Option<u32> {
        (self.misses >= settings.misses).then_some(self.misses)
    }
}

/// What a process leaves for the others to find: who it is, and a number that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The process.
    pub boot_id: u64,
    /// Grows each time that it is renewed.
    pub sequence: u64,
}

/// A node's mark, as one observer sees it. It counts from when it was first seen: a node that was not told of what is
/// shared has none.
#[derive(Clone, Debug)]
pub struct MarkWatch {
    sequence: u64,
    probes: Probes,
}

impl MarkWatch {
    /// Seen for the first time.
    pub fn new(sequence: u64, now: Duration) -> Self {
        Self {
            sequence,
            probes: Probes::new(now),
        }
    }

    /// Looked at again; None: it is not there, or is another process's.
    pub fn looked(&mut self, sequence: Option<u64>, now: Duration) {
        match sequence {
            Some(sequence) if sequence != self.sequence => {
                self.sequence = sequence;
                self.probes.answered(now);
            }
            _ => self.probes.missed(),
        }
    }

    /// See `Probes`.
    pub fn could_not_look(&mut self) {
        self.probes.could_not_ask();
    }

    /// See `Probes`.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        self.probes.forgive(pause, now);
    }

    /// Looks in a row that found it as it was, and for how long, if those are a failure.
    pub fn failed(&self, settings: &IntervalDetection, now: Duration) -> Option<(u32, Duration)> {
        Some((self.probes.failed(settings)?, self.probes.silence(now)))
    }
}

/// What a node says of its own disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskTrouble {
    /// What it saw.
    pub evidence: String,
    /// How long ago the disk worked.
    pub silence: Duration,
}

/// This node's data directory, into which it writes now and then. One write is under way at most: a disk that hangs
/// keeps one thread, not one more each time.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    begun: Option<Duration>,
    probes: Probes,
    error: String,
}

impl Default for DiskWatch {
    fn default() -> Self {
        Self {
            begun: None,
            probes: Probes::new(Duration::ZERO),
            error: String::new(),
        }
    }
}

impl DiskWatch {
    /// True when no write is under way: the next one begins now, and is the caller's to make.
    pub fn begin(&mut self, now: Duration) -> bool {
        let is_free = self.begun.is_none();
        self.begun.get_or_insert(now);
        is_free
    }

    /// The write has come back, with an error perhaps.
    pub fn ended(&mut self, result: Result<(), String>, now: Duration) {
        self.begun = None;
        match result {
            Ok(()) => self.probes.answered(now),
            Err(error) => {
                self.probes.missed();
                self.error = error;
            }
        }
    }

    /// This process stood still.
    pub fn forgive(&mut self, pause: Duration, now: Duration) {
        self.begun = self.begun.map(|begun| (begun + pause).min(now));
        self.probes.forgive(pause, now);
    }

    /// What is wrong with the disk, if that is a failure: a write that hangs, or a number of them that failed in a row.
    pub fn trouble(&self, settings: &IntervalDetection, now: Duration) -> Option<DiskTrouble> {
        let limit = settings.every * settings.misses;
        let hangs = self.begun.map(|begun| now.saturating_sub(begun));
        if let Some(hangs) = hangs.filter(|hangs| *hangs >= limit) {
            let (hangs, limit) = (hangs.as_millis(), limit.as_millis());
            return Some(DiskTrouble {
                evidence: format!(
                    "a write into its data directory has not returned for {hangs} ms, of {limit} ms allowed"
                ),
                silence: self.probes.silence(now),
            });
        }
        let failed = self.probes.failed(settings)?;
        Some(DiskTrouble {
            evidence: format!(
                "{failed} writes into its data directory failed in a row: {}",
                self.error
            ),
            silence: self.probes.silence(now),
        })
    }
}
