//! Bad input: each a clear error with PostgreSQL's SQLSTATE, and nothing lost.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use volt_tests::operator;
use volt_tests::processes::Nodes;

use crate::{PARTITIONS, WHOLE, alone, block_on, connect};

/// Statement, SQLSTATE.
const BAD: &[(&str, &str)] = &[
    ("SELEC 1", "42601"),
    ("SELECT * FROM", "42601"),
    ("SELECT * FROM nowhere", "42P01"),
    ("INSERT INTO nowhere VALUES (1)", "42P01"),
    ("DROP TABLE nowhere", "42P01"),
    ("SELECT nothing FROM example", "42703"),
    ("INSERT INTO example (id, nothing) VALUES (9, 1)", "42703"),
    ("UPDATE example SET nothing = 1", "42703"),
    ("CREATE TABLE example (id INT PRIMARY KEY)", "42P07"),
    ("INSERT INTO example VALUES (1, 'again')", "23505"),
    ("INSERT INTO example VALUES (8, 'new'), (1, 'again')", "23505"),
    ("INSERT INTO example VALUES (NULL, 'x')", "23502"),
    ("INSERT INTO strict VALUES (1, NULL)", "23502"),
    ("INSERT INTO example VALUES ('abc', 'x')", "22P02"),
    ("SELECT * FROM example WHERE id = 'abc'", "22P02"),
    ("INSERT INTO example VALUES (2147483648, 'x')", "22003"),
    ("INSERT INTO strict VALUES (1, 'longer than five')", "22001"),
    ("SELECT 1 / 0", "22012"),
    ("UPDATE example SET name = CAST(id / 0 AS TEXT) WHERE id = 1", "22012"),
    ("SELECT no_such_function(1)", "42883"),
    ("INSERT INTO example VALUES (9, 'x', 'y')", "42601"),
    ("UPDATE example SET id = 3 WHERE id = 1", "0A000"),
    ("CREATE TABLE keyless (a INT)", "42P16"),
];

#[test]
fn every_bad_statement_has_its_sqlstate_and_changes_nothing() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(3, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        let client = connect(cluster.nodes[1].sql_port).await?;
        client
            .batch_execute("CREATE TABLE example (id INT PRIMARY KEY, name VARCHAR(255)) WITH REPLICATION = 2")
            .await?;
        client
            .batch_execute("CREATE TABLE strict (id INT PRIMARY KEY, name VARCHAR(5) NOT NULL)")
            .await?;
        client
            .batch_execute("INSERT INTO example VALUES (1, 'one'), (2, 'two')")
            .await?;
        let mut wrong = Vec::new();
        for (statement, expected) in BAD {
            let answer = timeout(Duration::from_secs(10), client.simple_query(statement)).await?;
            let found = match answer {
                Ok(_) => "no error".to_owned(),
                Err(error) => match error.as_db_error() {
                    Some(said) if said.message().is_empty() => "an empty message".to_owned(),
                    Some(said) => said.code().code().to_owned(),
                    None => format!("a broken session: {error}"),
                },
            };
            if found != *expected {
                wrong.push(format!("{statement}: {found}, expected {expected}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let rows = client.query("SELECT id, name FROM example ORDER BY id", &[]).await?;
        let rows: Vec<(i32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        ensure!(rows == [(1, "one".to_owned()), (2, "two".to_owned())], "{rows:?}");
        ensure!(client.query("SELECT * FROM strict", &[]).await?.is_empty());
        Ok(())
    });
}

/// One statement may change at most 8 MiB in one partition: more is refused, and the partition serves on.
#[test]
fn a_statement_too_large_for_a_record_is_refused_and_nothing_stops() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(3, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        // One partition for all rows.
        let clients = [
            connect(cluster.nodes[0].sql_port).await?,
            connect(cluster.nodes[1].sql_port).await?,
            connect(cluster.nodes[2].sql_port).await?,
        ];
        clients[0]
            .batch_execute(
                "CREATE TABLE wide (tenant INT, id INT, text TEXT, PRIMARY KEY (tenant, id)) \
                 PARTITION BY (tenant) WITH REPLICATION = 2",
            )
            .await?;
        let text = "x".repeat(1 << 20);
        for id in 0..9 {
            let insert = "INSERT INTO wide VALUES (1, $1, $2)";
            clients[0].execute(insert, &[&id, &text]).await?;
        }
        let large = "x".repeat(9 << 20);
        for client in &clients {
            for refused in [
                client
                    .execute("UPDATE wide SET text = text || 'y' WHERE tenant = 1", &[])
                    .await,
                client.execute("UPDATE wide SET text = text || 'y'", &[]).await,
                client.execute("INSERT INTO wide VALUES (1, 99, $1)", &[&large]).await,
                client
                    .execute("INSERT INTO wide VALUES (1, 99, $1)", &[&"x".repeat(20 << 20)])
                    .await,
            ] {
                let error = refused
                    .err()
                    .and_then(|error| error.code().map(|code| code.code().to_owned()));
                ensure!(error.as_deref() == Some("54000"), "{error:?}");
            }
            let written = client.execute("UPDATE wide SET text = 'small' WHERE tenant = 1", &[]);
            ensure!(timeout(Duration::from_secs(10), written).await?? == 9);
            let restored = client
                .execute("UPDATE wide SET text = $1 WHERE tenant = 1 AND id < 7", &[&text])
                .await?;
            ensure!(restored == 7, "what fits into 8 MiB is written");
            let more = client
                .execute("UPDATE wide SET text = $1 WHERE tenant = 1 AND id >= 7", &[&text])
                .await?;
            ensure!(more == 2);
        }
        let rows = clients[1]
            .query_one("SELECT count(*), sum(length(text)) FROM wide", &[])
            .await?;
        ensure!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)) == (9, 9 << 20));
        Ok(())
    });
}

#[test]
fn a_position_points_at_what_is_wrong() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(1, |_| "127.0.0.1".to_owned())?;
        operator::initialise(cluster.nodes[0].peer_port, PARTITIONS, WHOLE).await?;
        operator::whole(&[cluster.nodes[0].peer_port], WHOLE).await?;
        let client = connect(cluster.nodes[0].sql_port).await?;
        let error = client.simple_query("SELECT * FROM nowhere").await.err();
        let position = error
            .as_ref()
            .and_then(|error| error.as_db_error())
            .and_then(|said| said.position().cloned());
        ensure!(
            position == Some(tokio_postgres::error::ErrorPosition::Original(15)),
            "{error:?}"
        );
        Ok(())
    });
}

/// More backups than nodes: allowed, with a notice, and a state that says so until there are enough nodes.
#[test]
fn missing_copies_are_told_and_shown() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(2, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        let (client, mut notices) = connect_with_notices(cluster.nodes[0].sql_port).await?;
        client
            .batch_execute("CREATE TABLE enough (id INT PRIMARY KEY) WITH REPLICATION = 1")
            .await?;
        client
            .batch_execute("CREATE TABLE wide (id INT PRIMARY KEY) WITH REPLICATION = 5")
            .await?;
        let notice = notices.recv().await.context("no notice")?;
        ensure!(
            notice.severity() == "NOTICE" && notice.code().code() == "00000",
            "{notice:?}"
        );
        let expected = "table \"wide\" is degraded: REPLICATION = 5 needs 6 nodes, 2 are alive";
        ensure!(notice.message().starts_with(expected), "{notice:?}");
        ensure!(notices.try_recv().is_err(), "a notice too many");
        client.batch_execute("INSERT INTO wide VALUES (1)").await?;
        ensure!(client.query("SELECT * FROM wide", &[]).await?.len() == 1);
        operator::whole(&ports, WHOLE).await?;
        let tables = client
            .query(
                "SELECT name, copies, copies_wanted, degraded FROM system.tables ORDER BY name",
                &[],
            )
            .await?;
        let tables: Vec<(String, i32, i32, bool)> = tables
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
            .collect();
        let expected = [("enough".to_owned(), 2, 2, false), ("wide".to_owned(), 2, 6, true)];
        ensure!(tables == expected, "{tables:?}");
        let partitions = "SELECT replication, degraded, copies, copies_wanted, count(*) FROM system.partitions \
                          GROUP BY 1, 2, 3, 4 ORDER BY 1";
        let partitions = client.query(partitions, &[]).await?;
        let partitions: Vec<(i32, bool, i32, i32, i64)> = partitions
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
            .collect();
        ensure!(
            partitions == [(1, false, 2, 2, 12), (5, true, 2, 6, 12)],
            "{partitions:?}"
        );
        Ok(())
    });
}

/// A session, and the notices that it gets.
async fn connect_with_notices(port: u16) -> Result<(Client, UnboundedReceiver<DbError>)> {
    let text = format!("host=127.0.0.1 port={port} user=volt dbname=volt connect_timeout=5");
    let (client, mut connection) = tokio_postgres::connect(&text, NoTls).await?;
    let (send, notices) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = send.send(notice);
            }
        }
    });
    Ok((client, notices))
}

#[test]
fn a_table_is_bounded() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(1, |_| "127.0.0.1".to_owned())?;
        operator::initialise(cluster.nodes[0].peer_port, PARTITIONS, WHOLE).await?;
        operator::whole(&[cluster.nodes[0].peer_port], WHOLE).await?;
        let client = connect(cluster.nodes[0].sql_port).await?;
        let columns = |count: usize| (1..count).map(|number| format!(", c{number} INT")).collect::<String>();
        let keys = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
            format!(
                "CREATE TABLE keys ({} INT, PRIMARY KEY ({}))",
                names.join(" INT, "),
                names.join(", ")
            )
        };
        let named = |bytes: usize| format!("CREATE TABLE {} (id INT PRIMARY KEY)", "n".repeat(bytes));
        let default = |bytes: usize| {
            let text = "x".repeat(bytes);
            format!("CREATE TABLE d{bytes} (id INT PRIMARY KEY, t TEXT DEFAULT '{text}')")
        };
        let with = |backups: &str| format!("CREATE TABLE r{backups} (id INT PRIMARY KEY) WITH REPLICATION = {backups}");
        let mut wrong = Vec::new();
        for (statement, expected) in [
            (
                format!("CREATE TABLE most (id INT PRIMARY KEY{})", columns(1_600)),
                None,
            ),
            (
                format!("CREATE TABLE more (id INT PRIMARY KEY{})", columns(1_601)),
                Some("54011"),
            ),
            (keys(32), None),
            (keys(33), Some("54011")),
            (
                "CREATE TABLE twice (a INT, PRIMARY KEY (a, a))".to_owned(),
                Some("42701"),
            ),
            (named(63), None),
            (named(64), Some("42622")),
            (
                format!("CREATE TABLE c (id INT PRIMARY KEY, {} INT)", "n".repeat(64)),
                Some("42622"),
            ),
            (default(1_024), None),
            (default(1_025), Some("54000")),
            (with("8"), None),
            (with("9"), Some("22023")),
            (with("99999999999999999999"), Some("22023")),
            (with("x"), Some("42601")),
        ] {
            let found = match client.simple_query(&statement).await {
                Ok(_) => None,
                Err(error) => Some(
                    error
                        .code()
                        .map_or_else(|| error.to_string(), |code| code.code().to_owned()),
                ),
            };
            if found.as_deref() != expected {
                let beginning = &statement[..statement.len().min(60)];
                wrong.push(format!("{beginning}: {found:?}, not {expected:?}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        client
            .batch_execute("INSERT INTO most (id, c1599) VALUES (1, 2)")
            .await?;
        let rows = client.query("SELECT c1599, c1598 FROM most WHERE id = 1", &[]).await?;
        ensure!(rows[0].get::<_, i32>(0) == 2 && rows[0].get::<_, Option<i32>>(1).is_none());
        Ok(())
    });
}
