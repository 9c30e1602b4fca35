//! Columns that come and go while things go wrong. Each has its number for its default and for all of its values, so that a
//! value that is read from another column's place shows, and NULL from a place that its column has left: a node may plan with
//! a catalog that others have changed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use crate::determinism::mix;
use crate::shared::{Phase, Shared};
use crate::sql::{Failure, answer, connect};

/// Rows, from 1.
const ROWS: u64 = 6;
/// What each row keeps is its number so many times.
const TIMES: u64 = 7;
/// After this time a client takes an answer for lost: it has little patience.
const PATIENCE: Duration = Duration::from_millis(500);
const UNDEFINED_COLUMN: &str = "42703";

/// The table with its first column.
pub async fn make(client: &Client, copies: &str) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "CREATE TABLE parcels (id BIGINT PRIMARY KEY, kept BIGINT NOT NULL, extra_0 BIGINT NOT NULL DEFAULT 0) {copies}"
        ))
        .await?;
    let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, {})", id * TIMES)).collect();
    let insert = format!("INSERT INTO parcels (id, kept) VALUES {}", rows.join(", "));
    client.batch_execute(&insert).await
}

/// None: nobody can say what came of it, or its session is of no more use. Some(false): the column is not there.
async fn run(client: &Client, statement: &str) -> Option<bool> {
    let done = timeout(PATIENCE, client.batch_execute(statement)).await.ok()?;
    let Err(error) = done else { return Some(true) };
    match error.code().map(|code| code.code().to_owned()).as_deref() {
        Some(UNDEFINED_COLUMN) => Some(false),
        // What no fault explains, NULL in what is NOT NULL among it, ends the run there.
        _ => match answer(async { Err::<(), _>(error) }).await {
            // A block is left open.
            Err(Failure::Refused(_)) if !statement.starts_with("BEGIN") => Some(true),
            _ => None,
        },
    }
}

/// Puts another column in the place of the last one, until the workload is over.
pub async fn changer(shared: Shared, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0xc01));
    while shared.run().phase == Phase::Work {
        sleep(Duration::from_millis(random.random_range(500..=1500))).await;
        let Some(client) = connect(shared.a_member(&mut random)).await else {
            continue;
        };
        let column = shared.run().column;
        let next = column + 1;
        let statement = format!(
            "ALTER TABLE parcels DROP COLUMN extra_{column}, ADD COLUMN extra_{next} BIGINT NOT NULL DEFAULT {next}"
        );
        let changed = timeout(Duration::from_secs(3), client.batch_execute(&statement)).await;
        let is_changed = match changed {
            Ok(Ok(())) => true,
            // By an attempt whose answer was lost.
            Ok(Err(error)) => error.code().is_some_and(|code| code.code() == UNDEFINED_COLUMN),
            Err(_) => false,
        };
        if is_changed {
            shared.note(&format!("parcels have extra_{next}"));
            shared.run().column = next;
        }
    }
}

/// Writes at one node, whatever that knows of the columns.
pub async fn writer(shared: Shared, node: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0xc02 ^ u64::from(node) << 32));
    let mut column = 0;
    let mut session: Option<Client> = None;
    while shared.run().phase == Phase::Work {
        sleep(Duration::from_millis(random.random_range(50..=200))).await;
        let Some(client) = session.take() else {
            session = connect(node).await;
            continue;
        };
        let id = random.random_range(1..=ROWS);
        let statement = match random.random_range(0..3) {
            0 => format!("UPDATE parcels SET extra_{column} = {column} WHERE id = {id}"),
            // A new row has NULL in the places that columns have left; a changed one keeps what it had there.
            1 => format!(
                "BEGIN; DELETE FROM parcels WHERE id = {id}; INSERT INTO parcels (id, kept) VALUES ({id}, {}); COMMIT",
                id * TIMES
            ),
            // NULL from the column's place would be NULL in what is kept.
            _ => format!("UPDATE parcels SET kept = kept + (extra_{column} - {column}) WHERE id = {id}"),
        };
        match run(&client, &statement).await {
            Some(true) => session = Some(client),
            Some(false) => {
                column = shared.run().column;
                session = Some(client);
            }
            None => {}
        }
    }
}

/// Every row has what it kept, and its column's value.
pub async fn check(client: &Client, node: u32) -> Result<(), String> {
    let rows = client.query("SELECT * FROM parcels ORDER BY id", &[]).await;
    let rows = rows.map_err(|error| format!("parcels are not read from node {node}: {error:?}"))?;
    for row in &rows {
        let names: Vec<&str> = row.columns().iter().map(|column| column.name()).collect();
        let number = names
            .get(2)
            .and_then(|name| name.strip_prefix("extra_")?.parse::<i64>().ok());
        let (id, kept, extra) = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, Option<i64>>(2));
        if kept != id * TIMES as i64 || extra.is_none() || extra != number || names.len() != 3 {
            return Err(format!(
                "parcel {id} read from node {node}: {names:?} are {kept}, {extra:?}"
            ));
        }
    }
    match rows.len() as u64 == ROWS {
        true => Ok(()),
        false => Err(format!("{} parcels read from node {node}", rows.len())),
    }
}
