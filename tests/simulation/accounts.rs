//! Accounts between which procedures, or blocks, move money: whole at every moment, and no move that was acknowledged is lost. A
//! materialized view of them has at every moment what its query gives.

use tokio_postgres::Client;

use crate::shared::Shared;
use crate::sql::{Failure, answer};

/// Accounts, from 1.
pub const ACCOUNTS: u64 = 5;
const EACH: i64 = 100;

/// Reads both, then writes what it makes of them: a move of another that came in between would be lost.
const MOVE: &str = "CREATE PROCEDURE move(source BIGINT, target BIGINT) AS $$
DECLARE
  has BIGINT; gets BIGINT; so_far BIGINT;
BEGIN
  SELECT balance, moves INTO STRICT has, so_far FROM accounts WHERE id = source;
  SELECT balance INTO STRICT gets FROM accounts WHERE id = target;
  UPDATE accounts SET balance = has - 1, moves = so_far + 1 WHERE id = source;
  UPDATE accounts SET balance = gets + 1 WHERE id = target;
END $$";

const HOLDINGS: &str = "CREATE MATERIALIZED VIEW holdings AS \
    SELECT sum(balance) AS balance, sum(moves) AS moves, min(balance) AS least, max(moves) AS most FROM accounts";

/// The view's row, and what its query gives.
const SUMS: &str = "SELECT h.balance, h.moves, h.least, h.most, a.balance, a.moves, a.least, a.most FROM holdings AS h, \
    (SELECT CAST(sum(balance) AS BIGINT) AS balance, CAST(sum(moves) AS BIGINT) AS moves, min(balance) AS least, \
    max(moves) AS most FROM accounts) AS a";

/// The same inside one partition: what the account gives it gets back, and the move is counted.
const TURN: &str = "CREATE PROCEDURE turn(which BIGINT) PARTITION ON TABLE accounts COLUMN id AS $$
DECLARE
  has BIGINT;
BEGIN
  UPDATE accounts SET balance = balance - 1 WHERE id = which;
  SELECT balance INTO STRICT has FROM accounts WHERE id = which;
  UPDATE accounts SET balance = has + 1, moves = moves + 1 WHERE id = which;
END $$";

/// What the clients' moves came to.
#[derive(Debug, Default)]
pub struct Moves {
    /// Answered as done.
    pub acknowledged: i64,
    unknown: i64,
}

/// Makes them; with procedures, if money is not moved by blocks.
pub async fn make(client: &Client, copies: &str, in_blocks: bool) -> Result<(), tokio_postgres::Error> {
    let table = format!("CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT, moves BIGINT) {copies}");
    client.batch_execute(&table).await?;
    for account in 1..=ACCOUNTS {
        let insert = format!("INSERT INTO accounts VALUES ({account}, {EACH}, 0)");
        client.batch_execute(&insert).await?;
    }
    client.batch_execute(HOLDINGS).await?;
    if in_blocks {
        return Ok(());
    }
    client.batch_execute(MOVE).await?;
    client.batch_execute(TURN).await
}

/// Moves one from an account to another, or turns it over in the same: by a call, or by a block.
pub async fn move_one(
    client: &Client,
    shared: &Shared,
    (source, target): (u64, u64),
    in_block: bool,
) -> Result<(), Failure> {
    let moved = match (in_block, source == target) {
        (true, _) => by_block(client, source, target).await,
        (false, true) => answer(client.batch_execute(&format!("CALL turn({source})"))).await,
        (false, false) => answer(client.batch_execute(&format!("CALL move({source}, {target})"))).await,
    };
    {
        let moves = &mut shared.run().moves;
        match &moved {
            Ok(()) => moves.acknowledged += 1,
            Err(Failure::Unknown) => moves.unknown += 1,
            Err(Failure::Refused(_)) => {}
        }
    }
    if in_block && matches!(moved, Err(Failure::Refused(_))) {
        // Where it was refused before its COMMIT, the session is still in it.
        answer(client.batch_execute("ROLLBACK")).await?;
    }
    moved
}

async fn by_block(client: &Client, source: u64, target: u64) -> Result<(), Failure> {
    let has = format!("SELECT balance, moves FROM accounts WHERE id = {source}");
    answer(client.batch_execute("BEGIN")).await?;
    let row = answer(client.query_one(&has, &[])).await?;
    let (balance, moves): (i64, i64) = (row.get(0), row.get(1));
    let block = format!(
        "UPDATE accounts SET balance = {}, moves = {} WHERE id = {source};
         UPDATE accounts SET balance = balance + 1 WHERE id = {target}; COMMIT",
        balance - 1,
        moves + 1
    );
    answer(client.batch_execute(&block)).await
}

/// The balances' sum at one moment, which no move changes, and the moves so far.
async fn sums(client: &Client) -> Result<(i64, i64), Failure> {
    let row = answer(client.query_one(SUMS, &[])).await?;
    let columns = |from: usize| (from..from + 4).map(|column| row.get(column)).collect::<Vec<i64>>();
    let (view, query) = (columns(0), columns(4));
    assert_eq!(view, query, "invariant 3: the view is not what its query gives");
    Ok((row.get(0), row.get(1)))
}

/// Looks at all of them while they are moved.
pub async fn look(client: &Client) -> Result<(), Failure> {
    let (balance, _) = sums(client).await?;
    assert_eq!(
        balance,
        EACH * ACCOUNTS as i64,
        "invariants 3 and 5: half of a move was seen"
    );
    Ok(())
}

/// At the end, read from a node.
pub async fn check(client: &Client, node: u32, shared: &Shared) -> Result<(), String> {
    let acknowledged = shared.run().moves.acknowledged;
    check_since(client, node, shared, acknowledged).await
}

/// As of a moment when so many moves were acknowledged, or a later one.
pub async fn check_since(client: &Client, node: u32, shared: &Shared, acknowledged: i64) -> Result<(), String> {
    let found = sums(client).await;
    let (balance, moves) = found.map_err(|failure| format!("node {node} does not read the accounts: {failure:?}"))?;
    let told = &shared.run().moves;
    if balance != EACH * ACCOUNTS as i64 {
        return Err(format!(
            "invariant 5, read from node {node}: the balances are {balance}"
        ));
    }
    if moves < acknowledged || moves > told.acknowledged + told.unknown {
        return Err(format!(
            "invariants 1 and 3, read from node {node}: {moves} moves are there, {acknowledged} at least were told, in all {told:?}"
        ));
    }
    Ok(())
}
