//! Transactions of every kind over lists and sets, whose history is checked as a whole (`volt_tests::serializable`).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use volt_tests::serializable::clients::{Procedures, Recorder, Session};
use volt_tests::serializable::{self, Checked};

use crate::determinism::mix;
use crate::movers;
use crate::shared::{Phase, Shared};
use crate::sql::{self, LAST_ANSWER_TIMEOUT};

/// Clients at a time.
pub const CLIENTS: u32 = 3;
/// Their numbers begin here.
const FIRST: u32 = 20;
/// After this time an answer is taken for lost, while faults happen.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Between two transactions of a client.
const MAX_THINK_MILLIS: u64 = 65;
/// Before a statement of a block, where all tables move: one moves meanwhile.
const MAX_THINK_IN_BLOCKS: Duration = Duration::from_millis(200);
/// A run in which less happened checks nothing.
pub const MIN_HAPPENED: usize = 5;

/// Whether the clients of this run call procedures.
pub fn procedures(seed: u64) -> Procedures {
    match movers::moves_all(seed) {
        true => Procedures::Absent,
        false => Procedures::Called,
    }
}

async fn open(node: u32, number: u32, recorder: &Recorder, seed: u64, answer_limit: Duration) -> Option<Session> {
    let client = sql::connect(node).await?;
    let session = Session::open(client, recorder, number, answer_limit, procedures(seed)).await?;
    Some(match movers::moves_all(seed) {
        true => session.thinking(MAX_THINK_IN_BLOCKS),
        false => session,
    })
}

/// One client, until the workload is over.
pub async fn client(shared: Shared, recorder: Recorder, number: u32, seed: u64) {
    let number = FIRST + number;
    let mut random = StdRng::seed_from_u64(mix(seed ^ (u64::from(number) << 32)));
    let is_on = || shared.run().phase == Phase::Work;
    while is_on() {
        let node = shared.a_member(&mut random);
        let Some(session) = open(node, number, &recorder, seed, ANSWER_LIMIT).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Now and then a good session is left for another node.
        while is_on() && random.random_range(0..100) != 0 && session.transaction(&mut random).await {
            sleep(Duration::from_millis(random.random_range(1..=MAX_THINK_MILLIS))).await;
        }
    }
}

/// Everything as each node tells it at the end, then the whole history.
pub async fn check(recorder: &Recorder, members: Vec<u32>, seed: u64) -> Result<Checked, String> {
    for node in members {
        let session = open(node, FIRST, recorder, seed, LAST_ANSWER_TIMEOUT).await;
        let session = session.ok_or_else(|| format!("node {node} takes no session at the end"))?;
        if !session.read_everything().await {
            return Err(format!("node {node} does not read lists and sets at the end"));
        }
    }
    is_sound_of(recorder)
}

/// Everything as a node of another cluster tells it, that was restored as the first one was at this moment or later.
pub async fn read_since(first: &Shared, node: u32, moment: u64, seed: u64) -> Result<(), String> {
    let recorder = first.recorder();
    let session = open(node, FIRST, &recorder, seed, LAST_ANSWER_TIMEOUT).await;
    let session = session.ok_or_else(|| format!("node {node} of the restored cluster takes no session"))?;
    match session.read_everything_since(moment).await {
        true => Ok(()),
        false => Err(format!(
            "node {node} of the restored cluster does not read lists and sets"
        )),
    }
}

/// The whole history.
pub fn is_sound(shared: &Shared) -> Result<Checked, String> {
    is_sound_of(&shared.recorder())
}

fn is_sound_of(recorder: &Recorder) -> Result<Checked, String> {
    let history = recorder.history();
    serializable::check(&history)
        .map_err(|anomalies| format!("invariant 3: {}", serializable::explain(&history, &anomalies)))
}
