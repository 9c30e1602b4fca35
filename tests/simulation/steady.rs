//! Clients that stay with one node and don't wait: what a node acknowledges while the others don't hear it would be lost
//! with its reign. The other clients soon all wait for an answer from beyond a cut.
//!
//! Half of what they do is in a table whose partitions no transaction over several ever holds. A node that is cut off soon
//! has a hold in each of the others, which keeps it from answering whatever else is wrong with it. There they ask at once
//! what became of a write that was not answered: what is told then must stay so.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};
use volt_tests::history::{Action, Answer, Operation};

use crate::determinism::mix;
use crate::shared::{Phase, Shared};
use crate::sql::{Failure, LAST_ANSWER_TIMEOUT, answer, answer_within, connect};

/// No answer within this is none: the next request goes another way, if to the same node.
const PATIENCE: Duration = Duration::from_millis(60);
/// From one request to the next, at most.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// Rows of `lone` that are registers, from 1.
const REGISTERS: u64 = 4;
/// They have these numbers in the history, from 1 more on.
const HISTORY_FROM: u64 = 100;
/// Greater ids of `lone` are rows that are only inserted.
const ROWS_FROM: u64 = 1_000_000;

/// Makes the table that only single statements on single rows touch, with a replication group of its own.
pub async fn make(client: &Client, shared: &Shared) -> turmoil::Result {
    client
        .batch_execute("CREATE TABLE lone (id BIGINT PRIMARY KEY, value BIGINT) WITH REPLICATION = 1")
        .await?;
    for register in 1..=REGISTERS {
        let value = shared.unique();
        let sent = shared.moment();
        let insert = format!("INSERT INTO lone VALUES ({register}, {value})");
        client.batch_execute(&insert).await?;
        note(shared, 0, register, sent, Action::Insert(value), Answer::Done);
    }
    Ok(())
}

/// Uses one node until the workload is over.
pub async fn client(shared: Shared, node: u32, seed: u64) {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0x57ea_d700 ^ u64::from(node)));
    let (mut session, mut doubt) = (None, None);
    while shared.run().phase == Phase::Work {
        let pause = MAX_PAUSE.mul_f64(random.random_range(0.1..=1.0));
        sleep(pause).await;
        let Some(open) = session.take() else {
            session = timeout(PATIENCE, open(node)).await.ok().flatten();
            continue;
        };
        let register = random.random_range(1..=REGISTERS);
        let is_of_use = match (doubt.take(), random.random_range(0..8)) {
            (Some(Doubt::Row(id)), _) => look_for(&shared, node, &open, id).await,
            (Some(Doubt::Register(register)), _) => read(&shared, node, &open, register).await,
            (None, 0..4) => add(&shared, node, &open).await,
            (None, 4..6) => {
                let id = ROWS_FROM + shared.unique();
                let is_added = add_alone(&shared, node, &open, id).await;
                doubt = (!is_added).then_some(Doubt::Row(id));
                is_added
            }
            (None, 6) => {
                let is_written = write(&shared, node, &open, register).await;
                doubt = (!is_written).then_some(Doubt::Register(register));
                is_written
            }
            (None, _) => read(&shared, node, &open, register).await,
        };
        session = is_of_use.then_some(open);
    }
}

/// What was written and not answered.
enum Doubt {
    /// A row that is only inserted.
    Row(u64),
    /// A register.
    Register(u64),
}

type Session = (Client, Statement);

async fn open(node: u32) -> Option<Session> {
    let client = connect(node).await?;
    let insert = client.prepare("INSERT INTO ledger VALUES ($1)").await.ok()?;
    Some((client, insert))
}

/// One more row; true if the session is still of use.
async fn add(shared: &Shared, node: u32, (client, insert): &Session) -> bool {
    let id = shared.unique();
    shared.run().ledger.attempt(id);
    let value = id as i64;
    let added = timeout(PATIENCE, answer(client.execute(insert, &[&value]))).await;
    let is_added = is_done(added);
    shared.note(&format!("at node {node} {id} is added -> {is_added}"));
    if is_added {
        shared.run().ledger.acknowledge(id);
    }
    is_added
}

/// The same where nobody holds partitions.
async fn add_alone(shared: &Shared, node: u32, (client, _): &Session, id: u64) -> bool {
    shared.run().lone.attempt(id);
    let insert = format!("INSERT INTO lone VALUES ({id}, 0)");
    let added = timeout(PATIENCE, answer(client.simple_query(&insert))).await;
    let is_added = is_done(added);
    shared.note(&format!("at node {node} {id} is added alone -> {is_added}"));
    if is_added {
        shared.run().lone.acknowledge(id);
    }
    is_added
}

/// Whoever is told that a row is there may rely on it.
async fn look_for(shared: &Shared, node: u32, (client, _): &Session, id: u64) -> bool {
    let query = format!("SELECT id FROM lone WHERE id = {id}");
    let Ok(Ok(messages)) = timeout(PATIENCE, answer(client.simple_query(&query))).await else {
        return false;
    };
    let is_there = messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(_)));
    shared.note(&format!("at node {node} {id} is there -> {is_there}"));
    if is_there {
        shared.run().lone.acknowledge(id);
    }
    true
}

fn is_done<T>(answered: Result<Result<T, Failure>, tokio::time::error::Elapsed>) -> bool {
    if let Ok(Err(Failure::Refused(state))) = &answered {
        assert_ne!(state, "23505", "a statement was carried out twice");
    }
    matches!(answered, Ok(Ok(_)))
}

async fn write(shared: &Shared, node: u32, (client, _): &Session, register: u64) -> bool {
    let value = shared.unique();
    let sent = shared.moment();
    let update = format!("UPDATE lone SET value = {value} WHERE id = {register}");
    let written = timeout(PATIENCE, answer(client.simple_query(&update))).await;
    let answer = match &written {
        Ok(Ok(_)) => Answer::Done,
        Ok(Err(Failure::Refused(_))) => Answer::Refused,
        Ok(Err(Failure::Unknown)) | Err(_) => Answer::Unknown,
    };
    note(shared, node, register, sent, Action::Write(value), answer);
    answer == Answer::Done
}

async fn read(shared: &Shared, node: u32, (client, _): &Session, register: u64) -> bool {
    let sent = shared.moment();
    let query = format!("SELECT value FROM lone WHERE id = {register}");
    let Ok(Ok(messages)) = timeout(PATIENCE, answer(client.simple_query(&query))).await else {
        return false;
    };
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    note(shared, node, register, sent, Action::Read, Answer::Found(value));
    true
}

fn note(shared: &Shared, node: u32, register: u64, sent: u64, action: Action, answer: Answer) {
    let operation = Operation {
        client: 200 + node,
        sent,
        answered: sent,
        action,
        answer,
    };
    shared.answered(HISTORY_FROM + register, operation);
}

/// At the end, read from a node: what was acknowledged is there, and the registers are read for their history.
pub async fn check(client: &Client, node: u32, shared: &Shared) -> Result<(), String> {
    let sent = shared.moment();
    let rows = answer_within(LAST_ANSWER_TIMEOUT, client.query("SELECT id, value FROM lone", &[])).await;
    let rows = rows.map_err(|failure| format!("node {node} does not read what stands alone: {failure:?}"))?;
    let rows: Vec<(u64, u64)> = rows
        .iter()
        .map(|row| (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
        .collect();
    for register in 1..=REGISTERS {
        let found = rows.iter().find(|(id, _)| *id == register).map(|(_, value)| *value);
        note(shared, node, register, sent, Action::Read, Answer::Found(found));
    }
    let inserted: Vec<u64> = rows.iter().map(|(id, _)| *id).filter(|id| *id > ROWS_FROM).collect();
    let checked = shared.run().lone.check(&inserted);
    checked.map_err(|fault| format!("invariant 1, read from node {node}, alone: {fault:?}"))
}
