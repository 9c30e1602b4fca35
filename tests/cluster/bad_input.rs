//! Bad input: each a clear error with PostgreSQL's SQLSTATE, and nothing lost.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::timeout;
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
        // More backups than nodes: allowed, with a notice, and the rows are usable.
        client
            .batch_execute("CREATE TABLE wide (id INT PRIMARY KEY) WITH REPLICATION = 5")
            .await?;
        client.batch_execute("INSERT INTO wide VALUES (1)").await?;
        ensure!(client.query("SELECT * FROM wide", &[]).await?.len() == 1);
        Ok(())
    });
}
