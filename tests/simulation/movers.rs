//! Tables that get other partitions while they are used and things go wrong: what everybody else checks must hold all the same.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};
use volt_node::world::PlantedBug;

use crate::determinism::mix;
use crate::planted::planted;
use crate::run::BECOMES_WHOLE_WITHIN;
use crate::shared::{Phase, Shared};
use crate::sql::{answer, connect};

/// What is moved where there are procedures: none of them uses these.
const TABLES: [&str; 4] = ["registers", "counters", "members", "parcels"];
/// What is moved where there are none.
const ALL_TABLES: [&str; 7] = [
    "registers",
    "counters",
    "members",
    "parcels",
    "accounts",
    "texts",
    "entries",
];
/// How long somebody waits for a move; it goes on.
const PATIENCE: Duration = Duration::from_secs(4);

/// Half of the runs move tables; of those with a planted bug, only the one of moves.
pub fn moves_tables(seed: u64) -> bool {
    match planted() {
        None => mix(seed ^ 0x307e) & 1 == 0,
        bug => matches!(bug, Some(PlantedBug::MovedTableServed | PlantedBug::MovedRowsShown)),
    }
}

/// Half of those move all tables that clients use in blocks, one after another; for that nobody makes procedures that use them.
pub fn moves_all(seed: u64) -> bool {
    match planted() {
        None => moves_tables(seed) && mix(seed ^ 0xa11) & 1 == 0,
        bug => bug == Some(PlantedBug::MovedRowsShown),
    }
}

/// How many do it at a time.
pub fn movers(seed: u64) -> u64 {
    match (moves_tables(seed), moves_all(seed)) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 3,
    }
}

/// Returns when each of these nodes knows of no move any more: all come to their ends with no hand on them.
pub async fn are_over(members: &[u32]) -> Result<(), String> {
    let limit = Instant::now() + BECOMES_WHOLE_WITHIN;
    for &node in members {
        while moves_known_to(node).await != Some(0) {
            if Instant::now() > limit {
                return Err(format!("invariant 6: node {node} knows of a move that does not end"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

async fn moves_known_to(node: u32) -> Option<i64> {
    let client = connect(node).await?;
    let count = answer(client.query_one("SELECT count(*) FROM system.moves", &[])).await;
    Some(count.ok()?.get(0))
}

/// Gives tables other copies until the workload is over.
pub async fn mover(shared: Shared, number: u64, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0x307e5 ^ (number << 32)));
    let (tables, longest_pause): (&[&str], u64) = match moves_all(seed) {
        true => (&ALL_TABLES, 500),
        false => (&TABLES, 1_500),
    };
    while shared.run().phase == Phase::Work {
        sleep(Duration::from_millis(random.random_range(200..=longest_pause))).await;
        let table = tables[random.random_range(0..tables.len())];
        let replication = random.random_range(1..=2);
        let mode = ["sync", "semi_sync"][random.random_range(0..2)];
        let Some(client) = connect(shared.a_member(&mut random)).await else {
            continue;
        };
        let alter = format!("ALTER TABLE {table} SET (replication = {replication}, mode = '{mode}')");
        let moved = timeout(PATIENCE, client.batch_execute(&alter)).await;
        let how = match moved {
            Ok(Ok(())) => "has",
            Ok(Err(_)) | Err(_) => "may have, or get,",
        };
        shared.note(&format!("{table} {how} REPLICATION = {replication} MODE {mode}"));
    }
}
