//! Votes by telephone, as in the benchmark of that name: a procedure that takes so many votes of one phone and no more. No phone is above
//! its limit, who was told that he is has used it up, and what is counted are the votes that were acknowledged, with those of which nobody
//! could say. A materialized view counts them by contestant.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use tokio_postgres::{Client, Row};

use crate::shared::Shared;
use crate::sql::{Failure, LAST_ANSWER_TIMEOUT, answer, answer_within};

/// Phones, from 1: few, so that they come to their limits.
const PHONES: u64 = 10;
/// Contestants, from 1.
const CONTESTANTS: u64 = 3;
/// Votes that a phone has.
const LIMIT: usize = 2;
/// What a call is told whose phone has none left.
const OVER_LIMIT: &str = "P0001";

const VOTE: &str = "CREATE PROCEDURE vote(caller BIGINT, ballot_number BIGINT, choice BIGINT) PARTITION ON TABLE votes COLUMN phone AS $$
DECLARE
  so_far BIGINT;
BEGIN
  SELECT count(*) INTO so_far FROM votes WHERE phone = caller;
  IF so_far >= 2 THEN
    RAISE EXCEPTION 'phone % has voted % times', caller, so_far;
  END IF;
  INSERT INTO votes VALUES (caller, ballot_number, choice);
END $$";

const RESULTS: &str =
    "CREATE MATERIALIZED VIEW results AS SELECT contestant, count(*) AS votes FROM votes GROUP BY contestant";

/// What became of the calls, by the ballot's number.
#[derive(Debug, Default)]
pub struct Votes {
    acknowledged: BTreeSet<i64>,
    unknown: BTreeSet<i64>,
    /// Phones that were told that they have no vote left.
    used_up: BTreeSet<i64>,
}

/// Makes the table, the view and the procedure.
pub async fn make(client: &Client, copies: &str) -> Result<(), tokio_postgres::Error> {
    let table = format!(
        "CREATE TABLE votes (phone BIGINT, ballot BIGINT, contestant BIGINT, PRIMARY KEY (phone, ballot)) {copies}"
    );
    client.batch_execute(&table).await?;
    client.batch_execute(RESULTS).await?;
    client.batch_execute(VOTE).await
}

/// One call, or a look at whether any phone is above its limit.
pub async fn call(client: &Client, shared: &Shared, random: &mut impl Rng) -> Result<(), Failure> {
    if random.random_range(0..6) == 0 {
        return look(client).await;
    }
    let (phone, choice) = (random.random_range(1..=PHONES), random.random_range(1..=CONTESTANTS));
    let ballot = shared.unique();
    let called = answer(client.simple_query(&format!("CALL vote({phone}, {ballot}, {choice})"))).await;
    shared.note(&format!(
        "ballot {ballot} of phone {phone} -> {:?}",
        called.as_ref().err()
    ));
    let (phone, ballot) = (phone as i64, ballot as i64);
    let votes = &mut shared.run().votes;
    match &called {
        Ok(_) => _ = votes.acknowledged.insert(ballot),
        Err(Failure::Unknown) => _ = votes.unknown.insert(ballot),
        Err(Failure::Refused(state)) if state == OVER_LIMIT => {
            votes.used_up.insert(phone);
            return Ok(());
        }
        Err(Failure::Refused(_)) => {}
    }
    called.map(drop)
}

async fn look(client: &Client) -> Result<(), Failure> {
    let rows = answer(client.query("SELECT phone, count(*) FROM votes GROUP BY phone", &[])).await?;
    let above: Vec<(i64, i64)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .filter(|(_, votes)| *votes > LIMIT as i64)
        .collect();
    assert!(above.is_empty(), "invariant 3: phones above their limit: {above:?}");
    Ok(())
}

/// At the end, read from a node.
pub async fn check(client: &Client, node: u32, shared: &Shared) -> Result<(), String> {
    let unread = |failure: Failure| format!("node {node} does not read the votes: {failure:?}");
    let found = client.query("SELECT phone, ballot, contestant FROM votes", &[]);
    let found = answer_within(LAST_ANSWER_TIMEOUT, found).await;
    let found: Vec<(i64, i64, i64)> = found.map_err(unread)?.iter().map(three).collect();
    let results = client.query("SELECT contestant, votes FROM results", &[]);
    let results = answer_within(LAST_ANSWER_TIMEOUT, results).await;
    let results = results.map_err(unread)?;
    let results: BTreeMap<i64, i64> = results.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (mut of_phones, mut of_contestants) = (BTreeMap::<i64, usize>::new(), BTreeMap::<i64, i64>::new());
    for (phone, _, contestant) in &found {
        *of_phones.entry(*phone).or_default() += 1;
        *of_contestants.entry(*contestant).or_default() += 1;
    }
    if results != of_contestants {
        return Err(format!(
            "invariant 3, read from node {node}: the results are {results:?}, the votes {of_contestants:?}"
        ));
    }
    let told = &shared.run().votes;
    let ballots: BTreeSet<i64> = found.iter().map(|(_, ballot, _)| *ballot).collect();
    let lost: Vec<_> = told.acknowledged.difference(&ballots).collect();
    let made_up: Vec<_> = ballots
        .iter()
        .filter(|ballot| !told.acknowledged.contains(ballot) && !told.unknown.contains(ballot))
        .collect();
    let wrong = |phone: &&i64| of_phones.get(phone) != Some(&LIMIT);
    let too_soon: Vec<_> = told.used_up.iter().filter(wrong).collect();
    let above: Vec<_> = of_phones.iter().filter(|(_, votes)| **votes > LIMIT).collect();
    if !(lost.is_empty() && made_up.is_empty() && too_soon.is_empty() && above.is_empty()) {
        return Err(format!(
            "invariants 1 and 3, read from node {node}: ballots lost {lost:?}, never acknowledged {made_up:?}; phones above their limit \
             {above:?}, refused with votes left {too_soon:?}"
        ));
    }
    Ok(())
}

fn three(row: &Row) -> (i64, i64, i64) {
    (row.get(0), row.get(1), row.get(2))
}
