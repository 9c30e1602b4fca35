//! This node's values of sequences. The metadata group hands it blocks of them; taking one asks nobody and waits for
//! nothing, also under a partition's mutex. The next block is asked for before the last one is used up.

mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use volt_engine::SequenceId;

use super::Coordinator;
use super::participant::Participant;
use super::request::{Failure, Reply, Request};
use crate::error::SqlError;
use crate::metadata::command::{Applied, Command, Refusal};
use crate::metadata::map::ClusterMap;
use crate::metadata::{Metadata, ProposeError};
use pool::Pool;
pub(crate) use pool::Taken;

/// Whoever finds no value waits for so many blocks, while others take their values; then it gives up.
const MAX_BLOCKS_WAITED_FOR: u32 = 100;

/// A node that is asked whether it knows a cluster map waits for it so long before it says no.
const KNOW_WAIT: Duration = Duration::from_secs(1);

/// What came of asking for a block; None: it is under way.
type Asked = watch::Receiver<Option<Result<(), SqlError>>>;

/// See the module.
pub(crate) struct Sequences {
    metadata: Arc<Metadata>,
    held: Mutex<BTreeMap<SequenceId, Held>>,
}

/// What there is of one sequence.
#[derive(Default)]
struct Held {
    pool: Pool,
    /// When the newest block came.
    came: Option<Instant>,
    asked: Option<Asked>,
    /// No block came the last time: none is asked for before somebody needs it.
    refused: bool,
}

impl Sequences {
    pub(crate) fn new(metadata: Arc<Metadata>) -> Arc<Self> {
        let held = Mutex::default();
        Arc::new(Self { metadata, held })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SequenceId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next value, if one is at hand.
    pub(crate) fn try_take(self: &Arc<Self>, id: SequenceId) -> Option<Taken> {
        let map = self.metadata.map();
        let sequence = map.sequences.get(&id)?;
        let mut held = self.lock();
        let one = held.entry(id).or_default();
        let taken = one.pool.take(sequence.generation)?;
        if one.asked.is_none() && !one.refused && one.pool.is_low() {
            self.ask(one, id, sequence.cache, 0);
        }
        Some(taken)
    }

    /// Values that nobody has used, or heard of.
    pub(crate) fn give_back(&self, id: SequenceId, taken: Taken) {
        if let Some(one) = self.lock().get_mut(&id) {
            one.pool.give_back(taken);
        }
    }

    /// The next value; it waits for a block, of `wanted` values or more, if none is at hand.
    pub(crate) async fn take(self: &Arc<Self>, id: SequenceId, wanted: u32) -> Result<i64, SqlError> {
        for _ in 0..MAX_BLOCKS_WAITED_FOR {
            if let Some(taken) = self.try_take(id) {
                return Ok(taken.value);
            }
            self.fetch(id, wanted).await?;
        }
        Err(SqlError::unavailable(
            "values of a sequence are used up faster than they come",
        ))
    }

    /// Waits for a block of at least so many values.
    pub(crate) async fn fetch(self: &Arc<Self>, id: SequenceId, wanted: u32) -> Result<(), SqlError> {
        let cache = match self.metadata.map().sequences.get(&id) {
            Some(sequence) => sequence.cache,
            None => return Err(dropped()),
        };
        let mut asked = {
            let mut held = self.lock();
            let one = held.entry(id).or_default();
            match &one.asked {
                Some(asked) => asked.clone(),
                None => self.ask(one, id, cache, wanted),
            }
        };
        match asked.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(SqlError::unavailable("asking for values of a sequence came to nothing")),
        }
    }

    /// In a task of its own: whoever waits may go away.
    fn ask(self: &Arc<Self>, one: &mut Held, id: SequenceId, cache: u32, wanted: u32) -> Asked {
        let lasted = one.came.map(|came| came.elapsed());
        let count = one.pool.next_size(lasted, cache, wanted);
        let (told, asked) = watch::channel(None);
        one.asked = Some(asked.clone());
        let sequences = Arc::clone(self);
        tokio::spawn(async move {
            let command = Command::TakeSequenceValues { sequence: id, count };
            let answer = sequences.metadata.propose(command).await;
            let result = sequences.came(id, answer);
            told.send_replace(Some(result));
        });
        asked
    }

    fn came(&self, id: SequenceId, answer: Result<Applied, ProposeError>) -> Result<(), SqlError> {
        let map = self.metadata.map();
        let mut held = self.lock();
        held.retain(|known, _| *known == id || map.sequences.contains_key(known));
        let one = held.entry(id).or_default();
        one.asked = None;
        one.refused = true;
        match answer {
            Ok(Applied::SequenceValues(block)) => {
                one.pool.add(block);
                one.came = Some(Instant::now());
                one.refused = false;
                Ok(())
            }
            Ok(other) => Err(SqlError::internal(format!("unexpected answer {other:?}"))),
            Err(ProposeError::Refused(Refusal::SequenceUsedUp(_))) => Err(used_up(&map, id)),
            Err(ProposeError::Refused(Refusal::NoSuchSequence(_))) => Err(dropped()),
            // Of a block that nobody knows of nothing is used.
            Err(error) => Err(SqlError::unavailable(error.to_string())),
        }
    }
}

impl Participant {
    /// Waits a little for the cluster map to be as new.
    pub(super) async fn serve_know(&self, version: u64) -> Reply {
        match self.comes_to_know(|map| map.version >= version).await {
            true => Reply::Done,
            false => Reply::Failed(Failure::Busy),
        }
    }

    /// Waits a little for the catalog to be as new, which nearly always it is.
    pub(super) async fn knows_catalog(&self, version: u64) -> bool {
        self.replicas.metadata.map().catalog_version >= version
            || self.comes_to_know(|map| map.catalog_version >= version).await
    }

    async fn comes_to_know(&self, is_known: impl FnMut(&Arc<ClusterMap>) -> bool) -> bool {
        let mut map = self.replicas.metadata.watch();
        matches!(timeout(KNOW_WAIT, map.wait_for(is_known)).await, Ok(Ok(_)))
    }
}

impl Coordinator {
    /// Returns when every living node knows this version of the cluster map, in which something has changed already.
    pub(crate) async fn wait_until_all_know(&self, version: u64) -> Result<(), SqlError> {
        self.all_know(version).await.map_err(SqlError::after_change)
    }

    async fn all_know(&self, version: u64) -> Result<(), SqlError> {
        let mut retry = self.begin()?;
        let mut known = BTreeSet::new();
        loop {
            let map = self.map();
            let alive = map.nodes.values().filter(|node| node.state.is_alive());
            let missing = alive.map(|node| node.node_id).filter(|node| !known.contains(node));
            let asked = missing.map(|node| async move { (node, self.ask(node, Request::Know { version }).await) });
            let answers = join_all(asked).await;
            let mut late = None;
            for (node, answer) in answers {
                match answer {
                    Ok(Reply::Done) => drop(known.insert(node)),
                    _ => late = Some(node),
                }
            }
            let Some(late) = late else { return Ok(()) };
            let why = || format!("it is done, but node {late} has not confirmed that it knows");
            self.pause(&mut retry, &[], why).await?;
        }
    }
}

fn dropped() -> SqlError {
    SqlError::new("42P01", "the sequence was dropped while this statement ran")
}

fn used_up(map: &ClusterMap, id: SequenceId) -> SqlError {
    let Some(sequence) = map.sequences.get(&id) else {
        return dropped();
    };
    let (end, limit) = match sequence.increment > 0 {
        true => ("maximum", sequence.max),
        false => ("minimum", sequence.min),
    };
    let name = &sequence.name;
    SqlError::new(
        "2200H",
        format!("nextval: reached {end} value of sequence \"{name}\" ({limit})"),
    )
}
