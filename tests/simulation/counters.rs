//! Counters that requests with idempotency keys count up: each request once, however often it was repeated. Each request also
//! gets a number from a sequence, the same one however often it asks.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::shared::Shared;
use crate::sql::{Failure, Session};

/// Counters, from 1.
pub const COUNTERS: u64 = 5;
/// A request that is not answered at the end is repeated so often.
const TRIES_AT_THE_END: u32 = 5;

/// A request to count up these counters, once, with a key.
#[derive(Clone, Debug)]
pub struct Count {
    /// Its key.
    pub key: u64,
    /// The counters, one or two.
    pub counters: Vec<u64>,
}

/// Makes them.
pub async fn make(client: &Client, copies: &str) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "CREATE TABLE counters (id BIGINT PRIMARY KEY, value BIGINT) {copies}"
        ))
        .await?;
    client
        .batch_execute(&format!(
            "CREATE TABLE numbers (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request BIGINT) {copies}"
        ))
        .await?;
    for counter in 1..=COUNTERS {
        let insert = format!("INSERT INTO counters VALUES ({counter}, 0)");
        client.batch_execute(&insert).await?;
    }
    Ok(())
}

/// Counts, once, and gets the request's number.
pub async fn ask(session: &Session, count: &Count) -> Result<i64, Failure> {
    session.count(count.key, &count.counters).await?;
    session.number(count.key).await
}

/// Requests that were never answered are asked for once more: whether they had happened or not, they now have.
pub async fn count_the_rest(shared: &Shared) -> turmoil::Result {
    let unanswered = std::mem::take(&mut shared.run().unanswered);
    let node = shared.members()[0];
    let session = Session::open(node).await;
    let session = session.ok_or_else(|| format!("node {node} takes no session at the end"))?;
    for count in unanswered {
        let mut number = ask(&session, &count).await;
        // A transaction that had not voted when its line broke holds its partitions for five seconds.
        for _ in 1..TRIES_AT_THE_END {
            if number.is_err() {
                number = ask(&session, &count).await;
            }
        }
        let number = number.map_err(|failure| format!("{count:?} is not answered at the end: {failure:?}"))?;
        shared.counted(&count, number);
    }
    Ok(())
}

/// Every counter, read from a node, has been counted up once for each request.
pub async fn check(session: &Session, node: u32, shared: &Shared) -> Result<(), String> {
    let found = session.counters().await;
    let found = found.map_err(|failure| format!("node {node} does not read the counters: {failure:?}"))?;
    let numbers = session.numbers().await;
    let numbers = numbers.map_err(|failure| format!("node {node} does not read the numbers: {failure:?}"))?;
    let run = shared.run();
    let given: BTreeMap<u64, i64> = numbers.iter().copied().collect();
    if given.len() != numbers.len() || given != run.numbers {
        return Err(format!(
            "invariant 7, read from node {node}: the numbers {numbers:?} were given, told were {:?}",
            run.numbers
        ));
    }
    for counter in 1..=COUNTERS {
        let (found, asked) = (found.get(&counter), run.counted.get(&counter).copied().unwrap_or(0));
        if found != Some(&asked) {
            return Err(format!(
                "invariant 7, read from node {node}: counter {counter} is {found:?}, asked for were {asked}"
            ));
        }
    }
    Ok(())
}
