//! Statements whose tree is deep: run, or refused with 54001; never the end of the node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::operator;
use volt_tests::processes::Nodes;

use crate::{PARTITIONS, WHOLE, alone, block_on, connect};

const ANSWER: Duration = Duration::from_secs(60);
/// As `query::complexity` has them.
const MAX_DEPTH: usize = 400;
const MAX_NESTED_CALLS: usize = 12;
const MAX_NESTED_QUERIES: usize = 10;
const MAX_RELATIONS: usize = 100;

fn repeat(what: &str, between: &str, times: usize) -> String {
    vec![what; times].join(between)
}

/// `x = 1 OR x = 2 OR ...`, so often.
fn any_of(column: &str, times: usize) -> String {
    let terms = (1..=times).map(|number| format!("{column} = {number}"));
    terms.collect::<Vec<_>>().join(" OR ")
}

/// `before before ... inside behind behind ...`
fn nested(before: &str, inside: &str, behind: &str, times: usize) -> String {
    format!("{}{inside}{}", before.repeat(times), behind.repeat(times))
}

/// The first value of the first row, or the SQLSTATE. A machine that is busy with other things may keep a node from its
/// heartbeats: what it refuses for that (57P03) is asked for again.
async fn answer(client: &Client, sql: &str) -> Result<String> {
    let end = Instant::now() + ANSWER;
    loop {
        match timeout(ANSWER, ask(client, sql)).await? {
            Ok(answer) if answer == "57P03" && Instant::now() < end => sleep(Duration::from_millis(100)).await,
            answer => return answer.with_context(|| sql[..sql.len().min(60)].to_owned()),
        }
    }
}

async fn ask(client: &Client, sql: &str) -> Result<String> {
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(error) => return Ok(error.code().context(error.to_string())?.code().to_owned()),
    };
    let first = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        SimpleQueryMessage::CommandComplete(count) => Some(format!("({count})")),
        _ => None,
    });
    first.context("no answer")
}

/// Beyond a bound, most of them far.
fn too_deep() -> Vec<String> {
    let many = 20_000;
    let any = any_of("id", many);
    vec![
        format!("SELECT count(*) FROM t WHERE {any}"),
        format!("UPDATE t SET n = 1 WHERE {any}"),
        format!("DELETE FROM t WHERE {any}"),
        format!("DELETE FROM t WHERE {}", any.replace(" OR ", " AND ")),
        format!("SELECT {}", repeat("1", " + ", many)),
        format!("SELECT {}", repeat("'a'", " || ", many)),
        format!("INSERT INTO t VALUES (1, {})", repeat("1", " - ", many)),
        format!("UPDATE t SET n = {} WHERE id = 1", repeat("n", " + ", many)),
        format!("SELECT 1{}", "::INT".repeat(many)),
        format!("SELECT 1 {}", repeat("IS NULL", " ", many)),
        format!("SELECT {} true", repeat("NOT", " ", many)),
        format!("SELECT {} 1", repeat("-", " ", many)),
        format!("SELECT {}", nested("(", "1", ")", many)),
        format!("SELECT {}", nested("abs(", "1", ")", many)),
        format!("SELECT {}", nested("abs(", "1", ")", MAX_NESTED_CALLS + 1)),
        format!("SELECT {}", nested("(SELECT ", "1", ")", many)),
        format!("SELECT {}", nested("(SELECT ", "1", ")", MAX_NESTED_QUERIES + 1)),
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", many)),
        format!("CREATE TABLE u (id INT{} PRIMARY KEY)", "[]".repeat(many)),
        repeat("SELECT 1", " UNION ALL ", many),
        repeat("VALUES (1, 1)", " EXCEPT ", many),
        format!("SELECT count(*) FROM {}", repeat("t", ", ", many)),
        format!("SELECT count(*) FROM {}", repeat("t", " CROSS JOIN ", many)),
        // Each doubles the one before.
        format!("WITH {} SELECT count(*) FROM c20", doubled(20)),
    ]
}

fn doubled(times: usize) -> String {
    let next = (1..=times).map(|number| format!("c{number} AS (SELECT a.n FROM c{0} a, c{0} b)", number - 1));
    let all: Vec<String> = std::iter::once("c0 AS (SELECT n FROM t)".to_owned())
        .chain(next)
        .collect();
    all.join(", ")
}

/// As much as is let in, and what comes of it.
fn deep_enough() -> Vec<(String, String)> {
    let any = any_of("id", MAX_DEPTH - 2);
    let joined: Vec<String> = (1..MAX_RELATIONS)
        .map(|number| format!("LEFT JOIN t t{number} ON t.id = t{number}.id"))
        .collect();
    let many = repeat("0", " + ", MAX_DEPTH - 4);
    let ones = repeat("1", " + ", MAX_DEPTH);
    [
        (format!("SELECT count(*) FROM t WHERE {any}"), "2"),
        (
            format!("SELECT n FROM t WHERE id = 1 AND ({})", any_of("n", MAX_DEPTH - 4)),
            "10",
        ),
        (format!("UPDATE t SET n = n WHERE {any}"), "(2)"),
        (
            format!("UPDATE t SET n = n WHERE NOT ({})", any_of("id", MAX_DEPTH - 4)),
            "(0)",
        ),
        (format!("DELETE FROM t WHERE {}", any.replace(" OR ", " AND ")), "(0)"),
        (format!("SELECT {ones}"), "400"),
        (format!("SELECT sum(n + {many}) FROM t"), "30"),
        (format!("SELECT length({})", repeat("'a'", " || ", 300)), "300"),
        (format!("SELECT 1{}", "::INT".repeat(MAX_DEPTH)), "1"),
        (
            format!(
                "SELECT n{} FROM t WHERE id = 1",
                "::BIGINT::INT".repeat(MAX_DEPTH / 2 - 1)
            ),
            "10",
        ),
        (
            format!("SELECT n {} FROM t WHERE id = 1", repeat("IS NULL", " ", MAX_DEPTH - 1)),
            "f",
        ),
        (format!("SELECT {}", nested("(", "1", ")", 40)), "1"),
        (
            format!(
                "SELECT {} FROM t WHERE id = 1",
                nested("abs(", "n", ")", MAX_NESTED_CALLS)
            ),
            "10",
        ),
        (
            format!("SELECT {}", nested("(SELECT ", "1", ")", MAX_NESTED_QUERIES)),
            "1",
        ),
        (
            format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", 40)),
            "1",
        ),
        (
            format!(
                "SELECT count(*) FROM ({}) a",
                repeat("SELECT 1", " UNION ALL ", MAX_RELATIONS)
            ),
            "100",
        ),
        (
            format!(
                "SELECT count(*) FROM ({}) a",
                repeat("SELECT n FROM t", " EXCEPT ", MAX_RELATIONS)
            ),
            "0",
        ),
        (format!("SELECT count(*) FROM t {}", joined.join(" ")), "2"),
        (format!("WITH {} SELECT count(*) FROM c3", doubled(3)), "256"),
        // Too deep for a partition, so that DataFusion runs it; a write is refused, whoever leads the partition.
        (
            format!("SELECT n + {} FROM t WHERE id = 1", repeat("1", " + ", 300)),
            "310",
        ),
        (
            format!("UPDATE t SET n = {} WHERE id = 1", repeat("n", " + ", 300)),
            "54001",
        ),
        (
            format!("UPDATE t SET n = {} WHERE id = 2", repeat("n", " + ", 300)),
            "54001",
        ),
        (
            format!("UPDATE t SET n = n + {} WHERE id = 1", repeat("0", " + ", 200)),
            "(1)",
        ),
        (
            format!(
                "SELECT id FROM t WHERE id IN ({}) ORDER BY id",
                repeat("1", ", ", 20_000)
            ),
            "1",
        ),
    ]
    .map(|(sql, expected)| (sql, expected.to_owned()))
    .into()
}

#[test]
fn deep_statements_run_or_are_refused_on_every_node() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(2, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        let mut clients = Vec::new();
        for node in &cluster.nodes {
            clients.push(connect(node.sql_port).await?);
        }
        clients[0]
            .batch_execute("CREATE TABLE t (id INT PRIMARY KEY, n INT) WITH REPLICATION = 1")
            .await?;
        clients[0]
            .batch_execute("INSERT INTO t VALUES (1, 10), (2, 20)")
            .await?;
        let mut wrong = Vec::new();
        let mut judge = |sql: &str, found: String, expected: &str| {
            if found != expected {
                wrong.push(format!("{}: {found}, not {expected}", &sql[..sql.len().min(60)]));
            }
        };
        for (place, sql) in too_deep().iter().enumerate() {
            judge(sql, answer(&clients[place % 2], sql).await?, "54001");
        }
        for (place, (sql, expected)) in deep_enough().iter().enumerate() {
            judge(sql, answer(&clients[place % 2], sql).await?, expected);
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        ensure!(answer(&clients[1], "SELECT sum(n) FROM t").await? == "30");
        Ok(())
    });
}
