//! Procedures in WebAssembly, made of tests/wasm, on three nodes: called in their partition, as transactions, in blocks, by
//! clients that come in between each other, while others run away and trap.

mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};
use sample::Sample;

const BRANCHES: i32 = 6;
const ACCOUNTS: i32 = 4;
const EACH: i64 = 1_000;
const CLIENTS: i32 = 4;
/// Runaways and traps, each of them.
const AT_LEAST: i64 = 3;

/// Makes the tables and all procedures, each through another node.
async fn prepare(cluster: &Cluster, sample: &Sample) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for node in 1..=3 {
        clients.push(connect(cluster.sql(node)).await?);
    }
    clients[0]
        .batch_execute(
            "CREATE TABLE accounts (branch INT, id INT, balance BIGINT NOT NULL, PRIMARY KEY (branch, id)) WITH REPLICATION = 2",
        )
        .await?;
    let rows: Vec<String> = (0..BRANCHES * ACCOUNTS)
        .map(|row| format!("({}, {}, {EACH})", row / ACCOUNTS, row % ACCOUNTS))
        .collect();
    clients[0]
        .batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")))
        .await?;
    cluster.whole().await?;
    let transfer = "(source_branch INT, source INT, target_branch INT, target INT, amount BIGINT, OUT balance BIGINT)";
    let home = "PARTITION ON TABLE accounts COLUMN branch";
    let procedures = [
        ("transfer", "transfer", transfer, home),
        ("transfer_anywhere", "transfer", transfer, ""),
        (
            "richest",
            "richest",
            "(branch INT, many INT) RETURNS TABLE (id INT, balance BIGINT)",
            home,
        ),
        ("endless", "endless", "(branch INT, id INT)", home),
        ("endless_anywhere", "endless", "(branch INT, id INT)", ""),
        ("trap", "trap", "(branch INT, id INT, how TEXT)", home),
        (
            "echo",
            "echo",
            "(INOUT a BOOLEAN, INOUT b INT, INOUT c BIGINT, INOUT d DOUBLE PRECISION, INOUT e NUMERIC(10, 2), INOUT f TEXT, \
             INOUT g TIMESTAMP, INOUT h BYTEA, INOUT i VARCHAR(3))",
            "",
        ),
    ];
    for ((name, module, head, home), client) in procedures.iter().zip(clients.iter().cycle()) {
        let literal = sample.literal(module)?;
        let create = format!("CREATE PROCEDURE {name}{head} {home} LANGUAGE wasm AS {literal}");
        client
            .batch_execute(&create)
            .await
            .with_context(|| (*name).to_owned())?;
    }
    Ok(clients)
}

/// The rows of a statement, their values joined; or its SQLSTATE and message.
async fn said(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| match error.as_db_error() {
            Some(error) => format!("{} {}", error.code().code(), error.message()),
            None => error.to_string(),
        })?;
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
            Some(values.join("|"))
        }
        _ => None,
    };
    Ok(messages.iter().filter_map(row).collect())
}

async fn total(client: &Client) -> Result<i64> {
    let sum = "SELECT CAST(sum(balance) AS BIGINT) FROM accounts";
    Ok(client.query_one(sum, &[]).await?.get(0))
}

#[test]
fn the_sample_does_what_it_says() {
    let _alone = alone();
    block_on(async {
        let Some(sample) = Sample::build()? else {
            return Ok(());
        };
        let cluster = Cluster::start().await?;
        let clients = prepare(&cluster, &sample).await?;
        let rows =
            |rows: &[&str]| -> Result<Vec<String>, String> { Ok(rows.iter().map(|row| (*row).to_owned()).collect()) };
        let error = |text: &str| -> Result<Vec<String>, String> { Err(text.to_owned()) };
        // Every node answers, whether it leads the partition or not.
        for client in &clients {
            let moved = said(client, "CALL transfer(0, 0, 0, 1, 10, NULL)").await;
            ensure!(moved.is_ok(), "{moved:?}");
        }
        let client = &clients[1];
        for (sql, wanted) in [
            ("CALL richest(0, 2)", rows(&["1|1030", "3|1000"])),
            (
                "CALL transfer(0, 0, 0, 1, 5000, NULL)",
                error("P0001 account 0/0 has 970, not 5000"),
            ),
            // It has written before it finds out.
            (
                "CALL transfer(0, 0, 0, 99, 10, NULL)",
                error("P0002 there is no account 0/99"),
            ),
            ("CALL transfer_anywhere(0, 0, 5, 3, 70, NULL)", rows(&["900"])),
            ("BEGIN", rows(&[])),
            ("CALL transfer_anywhere(1, 0, 2, 0, 1, NULL)", rows(&["999"])),
            ("CALL transfer(1, 0, 3, 0, 1, NULL)", rows(&["998"])),
            (
                "SELECT balance FROM accounts WHERE branch = 2 AND id = 0",
                rows(&["1001"]),
            ),
            ("ROLLBACK", rows(&[])),
            (
                "SELECT balance FROM accounts WHERE branch = 1 AND id = 0",
                rows(&["1000"]),
            ),
            (
                "CALL echo(true, -1, 9007199254740993, 0.1, 1234.50, 'äö', '2026-11-28 01:02:03.25', '\\x00ff', 'abc')",
                rows(&["t|-1|9007199254740993|0.1|1234.50|äö|2026-11-28 01:02:03.25|\\x00ff|abc"]),
            ),
            (
                "CALL echo(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
                rows(&["NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL"]),
            ),
            (
                "CALL echo(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'abcd')",
                error("22001 value too long for type character varying(3)"),
            ),
            (
                "CALL trap(0, 0, 'unreachable')",
                error("38000 procedure trap trapped: wasm `unreachable` instruction executed"),
            ),
            (
                "CALL trap(0, 0, 'stack')",
                error("38000 procedure trap trapped: call stack exhausted"),
            ),
            (
                "CALL trap(0, 0, 'memory')",
                error("54000 procedure trap needs more than 16 MiB of memory"),
            ),
            (
                "CALL trap(0, 0, 'address')",
                error("38000 procedure trap trapped: out of bounds memory access"),
            ),
            (
                "CALL endless(0, 0)",
                error("54000 procedure endless used up its 500000000 units of fuel"),
            ),
            (
                "CALL endless_anywhere(0, 0)",
                error("54000 procedure endless_anywhere used up its 500000000 units of fuel"),
            ),
            (
                "SELECT balance FROM accounts WHERE branch = 0 AND id = 0",
                rows(&["900"]),
            ),
            (
                "SELECT name, language, arguments, partition_table, source FROM system.procedures WHERE name = 'endless'",
                rows(&["endless|wasm|branch integer, id integer|accounts|"]),
            ),
            (
                "DROP TABLE accounts",
                error("2BP01 cannot drop table accounts because procedure transfer depends on it"),
            ),
            ("ALTER PROCEDURE trap RENAME TO trapped", rows(&[])),
            (
                "CALL trapped(0, 0, 'unreachable')",
                error("38000 procedure trapped trapped: wasm `unreachable` instruction executed"),
            ),
        ] {
            let mut said = said(client, sql).await;
            if let Ok(rows) = &mut said {
                // A module's size is its compiler's affair.
                for row in rows {
                    row.truncate(row.find("CREATE PROCEDURE").unwrap_or(row.len()));
                }
            }
            ensure!(said == wanted, "{sql}: {said:?}, not {wanted:?}");
        }
        let panicked = said(client, "CALL trapped(0, 0, 'panic')").await.unwrap_err();
        ensure!(panicked.starts_with("38000 panicked at"), "{panicked}");
        ensure!(panicked.contains("something went wrong"), "{panicked}");
        // Another branch's row, as far as it lies elsewhere.
        let mut elsewhere = 0;
        for branch in 1..BRANCHES {
            match said(client, &format!("CALL transfer(0, 0, {branch}, 0, 0, NULL)")).await {
                Ok(_) => {}
                Err(text) if text.starts_with("0A000 procedure transfer runs in the partition of its own key") => {
                    elsewhere += 1
                }
                Err(text) => bail!("{text}"),
            }
        }
        ensure!(elsewhere > 0, "all branches lie in one partition");
        for client in &clients {
            ensure!(
                total(client).await? == i64::from(BRANCHES * ACCOUNTS) * EACH,
                "money was made or lost"
            );
        }
        let counts = "SELECT calls, aborts FROM system.procedures WHERE name = 'trapped'";
        let counts = clients[1].query_one(counts, &[]).await?;
        let (calls, aborts): (i64, i64) = (counts.get(0), counts.get(1));
        ensure!((calls, aborts) == (6, 6), "{calls} calls, {aborts} aborts");
        client.batch_execute("DROP PROCEDURE endless, endless_anywhere").await?;
        ensure!(said(client, "CALL endless(0, 0)").await == error("42883 procedure endless does not exist"));
        Ok(())
    });
}

/// Moves money until told to stop: how often.
async fn work(client: Client, who: i32, stop: Arc<AtomicBool>) -> Result<i64> {
    let names = ["transfer", "transfer_anywhere"];
    let mut calls = Vec::new();
    for name in names {
        calls.push(client.prepare(&format!("CALL {name}($1, $2, $3, $4, 1, NULL)")).await?);
    }
    let (mut number, mut done) = (who, 0);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        // Few accounts, so that they meet; within one branch, or from one to another.
        let (branch, id) = (number % 2, number % ACCOUNTS);
        let (call, target_branch) = match number % 3 {
            0 => (&calls[0], branch),
            _ => (&calls[1], (number + 1) % 2),
        };
        let target = (id + 1) % ACCOUNTS;
        match client.query(call, &[&branch, &id, &target_branch, &target]).await {
            Ok(rows) => {
                ensure!(rows.len() == 1, "{} rows", rows.len());
                done += 1;
            }
            Err(error) => match error.code().map(|code| code.code()) {
                // Tried ten times in vain, or nothing left.
                Some("40001" | "P0001") => {}
                _ => bail!("{error:?}"),
            },
        }
    }
    Ok(done)
}

/// Calls what goes wrong, until told to stop.
async fn misbehave(
    client: Client,
    stop: Arc<AtomicBool>,
    counts: Arc<BTreeMap<&'static str, AtomicI64>>,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for (call, sqlstate) in [
            ("CALL endless(0, 0)", "54000"),
            ("CALL endless_anywhere(1, 0)", "54000"),
            ("CALL trap(0, 0, 'unreachable')", "38000"),
        ] {
            let said = said(&client, call).await;
            ensure!(
                said.as_ref().is_err_and(|text| text.starts_with(sqlstate)),
                "{call}: {said:?}"
            );
            counts[sqlstate].fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[test]
fn runaways_and_traps_end_alone_while_others_go_on() {
    let _alone = alone();
    block_on(async {
        let Some(sample) = Sample::build()? else {
            return Ok(());
        };
        let cluster = Cluster::start().await?;
        let clients = prepare(&cluster, &sample).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(BTreeMap::from([
            ("54000", AtomicI64::new(0)),
            ("38000", AtomicI64::new(0)),
        ]));
        let mut workers = JoinSet::new();
        for who in 0..CLIENTS {
            let client = connect(cluster.sql(1 + who as u32 % 3)).await?;
            workers.spawn(work(client, who, Arc::clone(&stop)));
        }
        let bad = connect(cluster.sql(2)).await?;
        let bad = tokio::spawn(misbehave(bad, Arc::clone(&stop), Arc::clone(&counts)));
        let few = || counts.values().any(|count| count.load(Ordering::Relaxed) < AT_LEAST);
        let deadline = Instant::now() + Duration::from_secs(60);
        while few() && !bad.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.store(true, Ordering::Relaxed);
        bad.await??;
        ensure!(!few(), "{counts:?}");
        let mut done = 0;
        while let Some(worked) = workers.join_next().await {
            done += worked??;
        }
        println!("{done} transfers beside {counts:?} runaways and traps");
        ensure!(done > 50, "{done} transfers");
        for client in &clients {
            let total = total(client).await?;
            ensure!(total == i64::from(BRANCHES * ACCOUNTS) * EACH, "{total}");
        }
        // None of them has died of it.
        let alive = "SELECT count(*) FROM system.nodes WHERE is_alive";
        let alive: i64 = clients[0].query_one(alive, &[]).await?.get(0);
        ensure!(alive == 3, "{alive} nodes are alive");
        Ok(())
    });
}
