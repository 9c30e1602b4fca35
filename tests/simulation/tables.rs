//! Tables that are made, filled and dropped while things go wrong: what a catalog that changes may not do to rows.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;
use tokio_postgres::Client;

use volt_node::world::PlantedBug;

use crate::determinism::mix;
use crate::planted::planted;
use crate::shared::{Phase, Shared};
use crate::sql::{Failure, answer, connect};

/// Rows tried in each table.
const ROWS: u64 = 8;

/// A table that was acknowledged.
#[derive(Debug)]
pub struct Made {
    name: String,
    /// Its newest rows may go with a primary.
    may_lose: bool,
    /// Rows that were acknowledged.
    rows: BTreeSet<u64>,
    fate: Fate,
}

/// What is known of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
    /// It was to be dropped, and nobody knows whether it was.
    Unknown,
}

/// Makes tables until the workload is over. Of two kinds, so that replication groups come and go, too.
pub async fn client(shared: Shared, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0x7ab1e));
    while shared.run().phase == Phase::Work {
        if let Some(client) = connect(shared.a_member(&mut random)).await {
            let _ = one_table(&shared, &client, &mut random).await;
        }
        sleep(Duration::from_millis(random.random_range(200..=900))).await;
    }
}

async fn one_table(shared: &Shared, client: &Client, random: &mut StdRng) -> Result<(), Failure> {
    let name = format!("made_{}", shared.unique());
    let replication = random.random_range(1..=2);
    let mode = ["sync", "semi_sync", "async"][random.random_range(0..3)];
    let create = format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY) WITH REPLICATION = {replication} MODE {mode}");
    answer(client.batch_execute(&create)).await?;
    shared.note(&format!(
        "table {name} is made, REPLICATION = {replication} MODE {mode}"
    ));
    let mut made = Made {
        name,
        may_lose: mode == "async",
        rows: BTreeSet::new(),
        fate: Fate::Kept,
    };
    let filled = fill(client, &mut made).await;
    if filled.is_ok() && random.random_range(0..3) != 0 {
        let dropped = answer(client.batch_execute(&format!("DROP TABLE {}", made.name))).await;
        made.fate = match dropped {
            Ok(()) => Fate::Dropped,
            Err(Failure::Refused(_)) => Fate::Kept,
            Err(Failure::Unknown) => Fate::Unknown,
        };
    }
    shared.note(&format!("table {made:?}"));
    shared.run().made.push(made);
    filled
}

async fn fill(client: &Client, made: &mut Made) -> Result<(), Failure> {
    for id in 1..=ROWS {
        answer(client.batch_execute(&format!("INSERT INTO {} VALUES ({id})", made.name))).await?;
        made.rows.insert(id);
    }
    Ok(())
}

/// How this run's tables with this number are replicated: half of the runs wait for all copies, half for a majority. Planted bugs are
/// of the first, but for one.
pub fn copies(seed: u64, table: u32) -> &'static str {
    match mix(seed) >> table & 1 {
        _ if planted() == Some(PlantedBug::TooFewAsked) => "WITH REPLICATION = 2 MODE semi_sync",
        _ if planted().is_some() => "WITH REPLICATION = 2",
        0 => "WITH REPLICATION = 2",
        _ => "WITH REPLICATION = 2 MODE semi_sync",
    }
}

/// Every table that was kept holds what was acknowledged, as this node tells it; none that was dropped is there.
pub async fn check(client: &Client, shared: &Shared) -> Result<(), String> {
    let known: Vec<(String, BTreeSet<u64>, Fate)> = {
        let run = shared.run();
        let made = run.made.iter();
        let to_find = |made: &Made| match made.may_lose {
            true => BTreeSet::new(),
            false => made.rows.clone(),
        };
        made.map(|made| (made.name.clone(), to_find(made), made.fate)).collect()
    };
    for (name, rows, fate) in known {
        let found = client.query(&format!("SELECT id FROM {name}"), &[]).await;
        match (fate, found) {
            (Fate::Kept, Ok(found)) => {
                let found: BTreeSet<u64> = found.iter().map(|row| row.get::<_, i64>(0) as u64).collect();
                if !rows.is_subset(&found) {
                    return Err(format!(
                        "invariant 1: {name} holds {found:?}, acknowledged were {rows:?}"
                    ));
                }
            }
            (Fate::Kept, Err(error)) => return Err(format!("{name} is not read: {error:?}")),
            (Fate::Dropped, Ok(_)) => return Err(format!("{name} was dropped and is there")),
            (Fate::Dropped, Err(error)) if error.code().map(|code| code.code()) != Some("42P01") => {
                return Err(format!("{name}, dropped: {error:?}"));
            }
            (Fate::Dropped | Fate::Unknown, _) => {}
        }
    }
    Ok(())
}
