//! What the driver, the hosts and the clients of one run share. All of them run on one thread, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use volt_node::node::Node;
use volt_node::world::CrashPoint;
use volt_tests::history::{History, Ledger, Operation};
use volt_tests::serializable::Checked;
use volt_tests::serializable::clients::Recorder;
use volt_tests::trace::Trace;

use crate::accounts::Moves;
use crate::archive::Archive;
use crate::counters::Count;
use crate::plan::AtPoint;
use crate::tables::Made;
use crate::voter::Votes;

/// How far the run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The cluster is being made.
    #[default]
    Setup,
    /// Clients work, and faults happen.
    Work,
    /// The last fault is over; clients stop, and the cluster becomes whole.
    Heal,
    /// What is there has been read.
    Done,
}

/// A point at which something is to happen to a process.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    /// Which.
    pub point: CrashPoint,
    /// How often it is still passed.
    pub passes: u64,
    /// What.
    pub how: AtPoint,
    /// To which node's process; None: to the first that comes there.
    pub node: Option<u32>,
}

impl Armed {
    /// Whether a process of this node is meant, at this point.
    pub fn is_for(&self, node: u32, point: CrashPoint) -> bool {
        self.point == point && self.node.is_none_or(|meant| meant == node)
    }
}

/// Why a process may end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its disk takes nothing: it starts again when that is over.
    Disk,
    /// Its disk has lost something: it starts again with an empty one.
    Rot,
}

/// The state of a run.
#[derive(Default)]
pub struct Run {
    /// How far it is.
    pub phase: Phase,
    /// Operations on registers.
    pub history: History,
    /// Rows only ever inserted.
    pub ledger: Ledger,
    /// The same, where no transaction over several partitions comes.
    pub lone: Ledger,
    /// Pairs of rows inserted by one statement: both are there, or neither.
    pub pairs: Vec<(u64, u64)>,
    /// What procedures moved between accounts.
    pub moves: Moves,
    /// The calls of the voters.
    pub votes: Votes,
    /// How often each counter is to be counted up by requests that were answered.
    pub counted: BTreeMap<u64, u64>,
    /// The number that each of them was told.
    pub numbers: BTreeMap<u64, i64>,
    /// Requests to count that were not answered when work ended: key, counters.
    pub unanswered: Vec<Count>,
    /// The number of the column that parcels have.
    pub column: u64,
    /// Tables made while things went wrong.
    pub made: Vec<Made>,
    /// What the checked history of transactions consisted of.
    pub checked: Checked,
    /// The nodes that belong to the cluster.
    pub members: BTreeSet<u32>,
    /// What went wrong so far, and what came of it, by the names in `plan::EVENTS`.
    pub happened: BTreeSet<String>,
    /// Nodes whose process could not go on, and why that may be; they are still to be found dead.
    pub ended: BTreeMap<u32, Ended>,
    /// The node whose disk has a bit that changed, and the file in which it is.
    pub rotten: Option<(u32, PathBuf)>,
    /// The node whose disk takes nothing, or took nothing a moment ago: the process that met that may end of it.
    pub failing: Option<u32>,
    /// The node that is to be drained and removed; before that a new one is to be whole.
    pub leaving: Option<u32>,
    /// The living nodes.
    pub nodes: BTreeMap<u32, Weak<Node>>,
    /// Where the next process that comes there ends, or is cut off.
    pub armed: Option<Armed>,
    /// The node whose process has come to that point, and is still to be found dead, or to be cut off.
    pub met: Option<u32>,
    /// How wrong each node's calendar is, in microseconds.
    pub calendars: BTreeMap<u32, Arc<AtomicI64>>,
    /// Which nodes' processes stand still.
    pub still: BTreeMap<u32, Arc<AtomicBool>>,
    /// What clients had been told at each step of the work, where the cluster is archived.
    pub moments: Vec<Moment>,
    /// Where transactions are written down, once they are.
    pub recorder: Option<Recorder>,
    /// Processes started, by node.
    pub starts: BTreeMap<u32, u64>,
    moment: u64,
    unique: u64,
}

/// What clients had been told when a step was over.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Simulated time.
    pub at: Duration,
    /// The newest moment of operations,
    pub number: u64,
    /// and of transactions.
    pub transactions: u64,
    /// Rows of the ledger that were acknowledged.
    pub acknowledged: usize,
    /// Moves that were.
    pub moves: i64,
}

impl Run {
    /// What clients were told by now, for a cluster that is archived.
    pub fn note_moment(&mut self, at: Duration) {
        let moment = Moment {
            at,
            number: self.moment,
            transactions: self.recorder.as_ref().map_or(0, Recorder::now),
            acknowledged: self.ledger.acknowledged(),
            moves: self.moves.acknowledged,
        };
        self.moments.push(moment);
    }

    /// The last one that is not after this time.
    pub fn moment_before(&self, at: Duration) -> Option<Moment> {
        let after = self.moments.partition_point(|moment| moment.at <= at);
        self.moments.get(after.checked_sub(1)?).copied()
    }

    /// Two rows of one statement, of which one is there.
    pub fn torn(&self, found: &[u64]) -> Option<(u64, u64)> {
        let is_torn = |(first, second): &&(u64, u64)| found.contains(first) != found.contains(second);
        self.pairs.iter().find(is_torn).copied()
    }
}

/// A run's state, shared.
#[derive(Clone, Default)]
pub struct Shared {
    run: Arc<Mutex<Run>>,
    /// What happened.
    pub trace: Trace,
    /// The archive, if there is one: of this cluster,
    pub archive: Option<Arc<Archive>>,
    /// or of the one that this one is restored from.
    pub is_restored: bool,
    /// The newest pair of rows whose statement was acknowledged.
    pub pairs_acknowledged: watch::Sender<(u64, u64)>,
}

impl Shared {
    /// Of a cluster with this archive, or none.
    pub fn with(archive: Option<Arc<Archive>>) -> Self {
        Self {
            archive,
            ..Self::default()
        }
    }

    /// Of a cluster that is restored from this archive, with the same trace.
    pub fn restored_from(archive: &Arc<Archive>, trace: &Trace) -> Self {
        Self {
            trace: trace.clone(),
            is_restored: true,
            ..Self::with(Some(Arc::clone(archive)))
        }
    }

    /// The state. Never held over an await.
    pub fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where transactions are written down.
    pub fn recorder(&self) -> Recorder {
        let mut run = self.run();
        let shared = self.clone();
        run.recorder
            .get_or_insert_with(|| Recorder::new(move |transaction| shared.note(transaction)))
            .clone()
    }

    /// The nodes that belong to the cluster now.
    pub fn members(&self) -> Vec<u32> {
        self.run().members.iter().copied().collect()
    }

    /// One of them.
    pub fn a_member(&self, random: &mut impl Rng) -> u32 {
        let members = self.members();
        members[random.random_range(0..members.len())]
    }

    /// A line of the trace, from inside a host.
    pub fn note(&self, what: &str) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        self.trace.line(now.as_micros() as u64, what);
    }

    /// The next moment: they order what clients send and hear.
    pub fn moment(&self) -> u64 {
        let mut run = self.run();
        run.moment += 1;
        run.moment
    }

    /// A number that no other has.
    pub fn unique(&self) -> u64 {
        let mut run = self.run();
        run.unique += 1;
        run.unique
    }

    /// Notes a request to count, answered now for the first time.
    pub fn counted(&self, count: &Count, number: i64) {
        self.note(&format!("{count:?} is answered, its number is {number}"));
        let mut run = self.run();
        run.numbers.insert(count.key, number);
        for counter in &count.counters {
            *run.counted.entry(*counter).or_default() += 1;
        }
    }

    /// Notes an operation, answered now.
    pub fn answered(&self, register: u64, mut operation: Operation) {
        operation.answered = self.moment();
        self.note(&format!(
            "client {} register {register} {:?} -> {:?}",
            operation.client, operation.action, operation.answer
        ));
        self.run().history.push(register, operation);
    }
}
