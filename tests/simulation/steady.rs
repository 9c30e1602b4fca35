//! Clients that stay with one node and don't wait: what a node acknowledges while the others don't hear it would be lost
//! with its reign. The other clients soon all wait for an answer from beyond a cut.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Statement};

use crate::determinism::mix;
use crate::shared::{Phase, Shared};
use crate::sql::{Failure, answer, connect};

/// No answer within this is none: the next request goes another way, if to the same node.
const PATIENCE: Duration = Duration::from_millis(60);
/// From one request to the next, at most.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Adds rows to the ledger by way of one node, until the workload is over.
pub async fn client(shared: Shared, node: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0x57ea_d700 ^ u64::from(node)));
    let mut session = None;
    while shared.run().phase == Phase::Work {
        let pause = MAX_PAUSE.mul_f64(random.random_range(0.1..=1.0));
        sleep(pause).await;
        session = match session {
            None => timeout(PATIENCE, open(node)).await.ok().flatten(),
            Some(open) => add(&shared, node, open).await,
        };
    }
}

type Session = (Client, Statement);

async fn open(node: u32) -> Option<Session> {
    let client = connect(node).await?;
    let insert = client.prepare("INSERT INTO ledger VALUES ($1)").await.ok()?;
    Some((client, insert))
}

/// One more row; the session, if it is still of use.
async fn add(shared: &Shared, node: u32, (client, insert): Session) -> Option<Session> {
    let id = shared.unique();
    shared.run().ledger.attempt(id);
    let value = id as i64;
    let added = timeout(PATIENCE, answer(client.execute(&insert, &[&value]))).await;
    let is_added = matches!(added, Ok(Ok(_)));
    shared.note(&format!("at node {node} {id} is added -> {is_added}"));
    if is_added {
        shared.run().ledger.acknowledge(id);
    }
    if let Ok(Err(Failure::Refused(state))) = &added {
        assert_ne!(state, "23505", "a statement was carried out twice");
    }
    is_added.then_some((client, insert))
}
