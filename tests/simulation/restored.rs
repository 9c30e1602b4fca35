//! A cluster that is made of the archive of a run's, and must be what the first one was at a moment: it has what was acknowledged before, all of
//! a transaction or nothing of it, and nothing that nobody wrote. So its state is read like one more client's, at a moment that began with
//! the cut, into the history of the first one.

use std::time::Duration;

use tokio::time::sleep;
use volt_node::world::simulated::EPOCH_MICROS;
use volt_tests::history::{Action, Answer, Operation};

use crate::accounts;
use crate::control;
use crate::determinism::mix;
use crate::movers;
use crate::plan::RESTORED;
use crate::run::{self, BECOMES_WHOLE_WITHIN, Cluster};
use crate::serializable;
use crate::shared::{Moment, Shared};
use crate::sql::Session;

/// Who read what was restored, among the clients of the registers.
const READER: u32 = 200;
/// An answer that came less than this before a cut may have come after it: within a step nobody knows.
const STEP: Duration = Duration::from_millis(2);
/// Longest wait for a session when all is restored.
const SESSION_WITHIN: Duration = Duration::from_secs(10);

/// Restores what the first cluster was, and compares; in a simulation of its own, for the first one is gone.
pub fn check(seed: u64, first: &Shared) -> Result<(), String> {
    let Some(archive) = &first.archive else { return Ok(()) };
    let again = Shared::restored_from(archive, &first.trace);
    let until = until(seed, first);
    let (first, seen) = (first.clone(), again.clone());
    let client = async move { read(seed, &first, &seen, until).await.map_err(Into::into) };
    let cluster = Cluster::of(seed, mix(seed ^ 0x4e57), again, client);
    cluster.run().map(drop)
}

/// Whether it is restored to the newest moment, in which must be all that clients did; else to one while they worked.
pub fn is_of_the_newest(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

/// In microseconds since 1970; 0: the newest.
fn until(seed: u64, first: &Shared) -> i64 {
    let run = first.run();
    // Of the cuts of its beginning, few are of the work.
    let places = run.moments.len() as u64;
    let chosen = places / 4 + mix(seed ^ 0x0417) % (places - places / 4).max(1);
    match run.moments.get(chosen as usize) {
        Some(moment) if !is_of_the_newest(seed) => EPOCH_MICROS + moment.at.as_micros() as i64,
        _ => 0,
    }
}

/// All that the second cluster's client does.
async fn read(seed: u64, first: &Shared, again: &Shared, until: i64) -> Result<(), String> {
    let began = tokio::time::Instant::now();
    let restored = loop {
        match control::restore(until).await {
            Ok(micros) => break micros,
            // The first cluster was in trouble from its beginning to this moment.
            Err(why) if until != 0 && why.contains("no moment") => {
                again.note(&format!("nothing is restored: {why}"));
                return Ok(());
            }
            Err(why) if began.elapsed() > BECOMES_WHOLE_WITHIN => return Err(format!("nothing is restored: {why}")),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    let at = Duration::from_micros(u64::try_from(restored - EPOCH_MICROS).unwrap_or_default());
    again.note(&format!("the cluster is restored as of {at:?}"));
    let members = again.members();
    control::whole(&members, BECOMES_WHOLE_WITHIN)
        .await
        .map_err(|what| format!("the restored cluster is not whole: {what}"))?;
    if movers::moves_tables(seed) {
        movers::are_over(&members).await?;
    }
    let last = first.run().moments.last().map(|moment| moment.at).unwrap_or_default();
    if until == 0 && at < last {
        return Err(format!(
            "the newest moment of the archive is {at:?}, and clients worked until {last:?}"
        ));
    }
    let Some(moment) = first.run().moment_before(at.saturating_sub(STEP)) else {
        // Of what was before the work nothing is compared.
        return Ok(());
    };
    let node = members[seed as usize % members.len()];
    let session = session(node).await?;
    compare(&session, node, first, &moment).await?;
    serializable::read_since(first, node, moment.transactions, seed).await?;
    run::registers_are_linearizable(first)?;
    serializable::is_sound(first)?;
    first.run().happened.insert(RESTORED.to_owned());
    Ok(())
}

/// While it is restored it serves nobody.
async fn session(node: u32) -> Result<Session, String> {
    let end = tokio::time::Instant::now() + SESSION_WITHIN;
    loop {
        if let Some(session) = Session::open(node).await {
            return Ok(session);
        }
        if tokio::time::Instant::now() > end {
            return Err(format!("node {node} of the restored cluster takes no session"));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// What the restored cluster has of ledger, pairs, accounts and registers.
async fn compare(session: &Session, node: u32, first: &Shared, moment: &Moment) -> Result<(), String> {
    let unread = |failure| format!("node {node} of the restored cluster does not read: {failure:?}");
    let found = session.ledger().await.map_err(unread)?;
    let registers = session.read_all().await.map_err(unread)?;
    accounts::check_since(session.client(), node, first, moment.moves)
        .await
        .map_err(|fault| format!("restored: {fault}"))?;
    for register in 1..=crate::workload::REGISTERS {
        let value = registers
            .iter()
            .find(|(id, _)| *id == register)
            .map(|(_, value)| *value);
        let read = Operation {
            client: READER,
            sent: moment.number,
            answered: moment.number,
            action: Action::Read,
            answer: Answer::Found(value),
        };
        first.answered(register, read);
    }
    let run = first.run();
    run.ledger
        .check_as_of(moment.acknowledged, &found)
        .map_err(|fault| format!("invariant 1, restored: {fault:?}"))?;
    run.torn(&found).map_or(Ok(()), |pair| {
        Err(format!("invariant 5, restored: half of {pair:?} is there"))
    })
}
