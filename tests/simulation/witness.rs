//! Clients that stay with one node and look at once, there, for what was just acknowledged elsewhere: the rows of a statement
//! on several partitions. One of these may know no decision yet, and must not answer before it does.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::determinism::mix;
use crate::shared::{Phase, Shared};
use crate::sql::{answer, connect};

/// So long nothing may be acknowledged before it is looked whether work goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Looks by way of this node, until the workload is over.
pub async fn client(shared: Shared, node: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0x3177_e550 ^ u64::from(node)));
    let mut acknowledged = shared.pairs_acknowledged.subscribe();
    let mut session = None;
    while shared.run().phase == Phase::Work {
        let Some(open) = session.take() else {
            session = connect(node).await;
            if session.is_none() {
                sleep(LOOK_AGAIN).await;
            }
            acknowledged.mark_unchanged();
            continue;
        };
        let is_news = timeout(LOOK_AGAIN, acknowledged.changed()).await;
        let (first, second) = *acknowledged.borrow_and_update();
        let id = if random.random_bool(0.5) { first } else { second };
        let is_of_use = is_news.is_err() || look_for(&shared, node, &open, id).await;
        session = is_of_use.then_some(open);
    }
}

/// The row must be there; true if the session is still of use.
async fn look_for(shared: &Shared, node: u32, client: &Client, id: u64) -> bool {
    let query = format!("SELECT id FROM ledger WHERE id = {id}");
    let Ok(messages) = answer(client.simple_query(&query)).await else {
        return false;
    };
    let is_there = messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(_)));
    shared.note(&format!("at node {node} acknowledged {id} is seen -> {is_there}"));
    assert!(
        is_there,
        "invariant 3: node {node} does not see {id}, which was acknowledged"
    );
    true
}
