//! Replication links: to a PostgreSQL that stops and comes back while nodes are killed, and between two clusters that both take writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::operator;
use volt_tests::postgres::Postgres;
use volt_tests::processes::Nodes;

use crate::cluster::Cluster;
use crate::{PARTITIONS, WHOLE, alone, block_on, connect, connect_to_whole};

/// What was written is there by then, on the other side.
const LIMIT: Duration = Duration::from_secs(60);

const EVENTS: &str = "CREATE TABLE events (id BIGINT PRIMARY KEY, kind VARCHAR(40) NOT NULL, amount NUMERIC(12, 2), at TIMESTAMP, \
     ok BOOLEAN, ratio DOUBLE PRECISION, raw BYTEA)";
const ALL_EVENTS: &str = "SELECT id, kind, amount, at, ok, ratio, raw FROM events ORDER BY id";

/// Rows as texts.
async fn rows(client: &Client, query: &str) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for message in client.simple_query(query).await.with_context(|| query.to_owned())? {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
            rows.push(values.join("|"));
        }
    }
    Ok(rows)
}

/// Returns when a query gives the same rows in both places.
async fn same(here: &Client, there: &Client, query: &str) -> Result<Vec<String>> {
    let limit = Instant::now() + LIMIT;
    loop {
        let (a, b) = (rows(here, query).await?, rows(there, query).await?);
        if a == b {
            return Ok(a);
        }
        if Instant::now() > limit {
            let links = rows(here, "SELECT * FROM system.links").await?.join("\n");
            let only: Vec<&String> = a.iter().filter(|row| !b.contains(row)).take(5).collect();
            let others: Vec<&String> = b.iter().filter(|row| !a.contains(row)).take(5).collect();
            bail!(
                "{query}: {} rows here, {} there; only here {only:?}, only there {others:?}\n{links}",
                a.len(),
                b.len()
            );
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Returns when a query gives these rows.
async fn gives(client: &Client, query: &str, expected: &[&str]) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    loop {
        let found = rows(client, query).await?;
        if found == expected {
            return Ok(());
        }
        if Instant::now() > limit {
            // PostgreSQL has none.
            let links = rows(client, "SELECT * FROM system.links").await.unwrap_or_default();
            bail!("{query}: {found:?}, not {expected:?}\n{}", links.join("\n"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Somebody who writes, updates and removes events until told to stop, whatever dies.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(ports: Vec<u16>) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let task = tokio::spawn(async move {
            let (mut client, mut id) = (None, 1_000_i64);
            while !stopped.load(SeqCst) {
                let connected = match client.take() {
                    Some(connected) => connected,
                    None => match connect(ports[id as usize % ports.len()]).await {
                        Ok(connected) => connected,
                        Err(_) => {
                            sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    },
                };
                id += 1;
                if Self::write(&connected, id).await.is_ok() {
                    count.fetch_add(1, SeqCst);
                    client = Some(connected);
                } else {
                    sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Self { stop, written, task }
    }

    /// A row; one of a transaction over two partitions; and what becomes of an older one.
    async fn write(client: &Client, id: i64) -> Result<(), tokio_postgres::Error> {
        let (twin, older) = (-id, id - 7);
        let sql = format!(
            "INSERT INTO events VALUES ({id}, 'kind {}', {id}.25, '2026-01-01 00:00:00', {}, {id} / 8.0, '\\x00{:02x}');
             BEGIN; INSERT INTO events (id, kind) VALUES ({twin}, 'twin'); UPDATE events SET amount = 1 WHERE id = {id}; COMMIT;
             UPDATE events SET kind = 'older', ok = NULL WHERE id = {older};",
            id % 5,
            id % 2 == 0,
            id % 256,
        );
        client.batch_execute(&sql).await?;
        if id % 3 == 0 {
            let (a, b) = (older, -older);
            client
                .batch_execute(&format!("DELETE FROM events WHERE id IN ({a}, {b})"))
                .await?;
        }
        Ok(())
    }

    async fn end(self) -> Result<i64> {
        self.stop.store(true, SeqCst);
        self.task.await?;
        Ok(self.written.load(SeqCst))
    }
}

#[test]
fn postgresql_has_every_change_once_through_deaths_on_both_sides() {
    let _alone = alone();
    block_on(async {
        let mut postgres = Postgres::start()?;
        let mut cluster = Cluster::start().await?;
        let there = connect(postgres.port).await?;
        let here = connect(cluster.sql(1)).await?;
        here.batch_execute(&format!("{EVENTS} WITH REPLICATION = 2")).await?;
        // What was there before the link is copied.
        here.batch_execute(
            "INSERT INTO events (id, kind, at, raw) VALUES (1, 'before', '1999-12-31 23:59:59.000001', '\\xff'), \
             (2, 'it''s \"quoted\" \\ and ü', NULL, NULL)",
        )
        .await?;
        // Each change counts there, so that one that came twice is seen.
        there
            .batch_execute(&format!(
                "{EVENTS};
                 CREATE TABLE seen (n BIGSERIAL, id BIGINT, op TEXT, kind TEXT, amount NUMERIC, ok BOOLEAN);
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   IF TG_OP = 'DELETE' THEN INSERT INTO seen (id, op) VALUES (OLD.id, TG_OP); RETURN OLD; END IF;
                   INSERT INTO seen (id, op, kind, amount, ok) VALUES (NEW.id, TG_OP, NEW.kind, NEW.amount, NEW.ok); RETURN NEW; END $$;
                 CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION note()"
            ))
            .await?;
        let link = format!(
            "CREATE REPLICATION LINK reports TO '{}' FOR TABLE events",
            postgres.url()
        );
        here.batch_execute(&link).await?;
        same(&here, &there, ALL_EVENTS).await?;

        let writer = Writer::start(cluster.sql_ports.clone());
        sleep(Duration::from_secs(2)).await;
        // The other side goes away for a while, and a node dies meanwhile.
        drop(there);
        postgres.stop()?;
        sleep(Duration::from_secs(1)).await;
        cluster.nodes.node(2).kill()?;
        sleep(Duration::from_secs(2)).await;
        postgres.run()?;
        cluster.nodes.node(2).start()?;
        sleep(Duration::from_secs(1)).await;
        cluster.whole().await?;
        cluster.nodes.node(3).kill()?;
        sleep(Duration::from_secs(2)).await;
        cluster.nodes.node(3).start()?;
        let written = writer.end().await?;
        cluster.whole().await?;
        let here = connect_to_whole(cluster.sql(1)).await?;
        let there = connect(postgres.port).await?;
        let events = same(&here, &there, ALL_EVENTS).await?;
        ensure!(
            written > 20 && events.len() > 20,
            "{written} written, {} rows",
            events.len()
        );
        // A row that is told again has nothing new: the same row twice in a row.
        let twice = "SELECT id FROM (SELECT *, lag((op, kind, amount, ok)) OVER (PARTITION BY id ORDER BY n) AS before FROM seen) AS s \
             WHERE before = (op, kind, amount, ok) AND op <> 'INSERT'";
        ensure!(rows(&there, twice).await? == Vec::<String>::new(), "changes came twice");

        // It rests, and goes on; what it could not tell any more by records it tells by rows.
        here.batch_execute("ALTER REPLICATION LINK reports PAUSE").await?;
        gives(&here, "SELECT DISTINCT state FROM system.links", &["paused"]).await?;
        here.batch_execute("DELETE FROM events WHERE id = 1; INSERT INTO events (id, kind) VALUES (3, 'while paused')")
            .await?;
        sleep(Duration::from_millis(500)).await;
        gives(&there, "SELECT id, kind FROM events WHERE id IN (1, 3)", &["1|before"]).await?;
        here.batch_execute("ALTER REPLICATION LINK reports RESUME").await?;
        gives(
            &there,
            "SELECT id, kind FROM events WHERE id IN (1, 3)",
            &["3|while paused"],
        )
        .await?;

        // What can't be told there is said here, and told when it can.
        there.batch_execute("ALTER TABLE events DROP COLUMN ratio").await?;
        here.batch_execute("INSERT INTO events (id, kind, ratio) VALUES (4, 'no room', 0.5)")
            .await?;
        gives(
            &here,
            "SELECT DISTINCT state, left(message, 5) FROM system.links WHERE message IS NOT NULL",
            &["waiting|42703"],
        )
        .await?;
        there
            .batch_execute("ALTER TABLE events ADD COLUMN ratio DOUBLE PRECISION")
            .await?;
        gives(
            &there,
            "SELECT id, kind, ratio FROM events WHERE id = 4",
            &["4|no room|0.5"],
        )
        .await?;

        let refused = here.batch_execute("DROP TABLE events").await.unwrap_err();
        let refused = refused.as_db_error().context("no answer")?;
        ensure!(refused.code().code() == "2BP01", "{refused}");
        here.batch_execute("DROP REPLICATION LINK reports; DROP TABLE events")
            .await?;
        gives(&here, "SELECT * FROM system.links", &[]).await
    });
}

const STOCK: &str = "CREATE TABLE stock (id BIGINT PRIMARY KEY, count INT, rank INT, note TEXT)";

async fn one_node(partitions: u32) -> Result<(Nodes, Client)> {
    let nodes = Nodes::start(1, |_| "127.0.0.1".to_owned())?;
    operator::initialise(nodes.nodes[0].peer_port, partitions, WHOLE).await?;
    operator::whole(&[nodes.nodes[0].peer_port], WHOLE).await?;
    let client = connect(nodes.nodes[0].sql_port).await?;
    Ok((nodes, client))
}

fn url(nodes: &Nodes) -> String {
    format!("postgres://volt@127.0.0.1:{}/volt", nodes.nodes[0].sql_port)
}

#[test]
fn two_clusters_that_both_take_writes_come_to_the_same() {
    let _alone = alone();
    block_on(async {
        // Of different numbers of partitions, and with columns in another order.
        let (mut a_nodes, a) = one_node(PARTITIONS).await?;
        let (b_nodes, b) = one_node(5).await?;
        a.batch_execute(&format!("{STOCK} WITH REPLICATION = 0")).await?;
        b.batch_execute(
            "CREATE TABLE stock (note TEXT, id BIGINT PRIMARY KEY, rank INT, count INT) WITH REPLICATION = 0",
        )
        .await?;
        a.batch_execute("INSERT INTO stock VALUES (1, 10, 1, 'a'), (2, 20, 1, 'a'), (3, 30, 1, 'a')")
            .await?;
        a.batch_execute(&format!(
            "CREATE REPLICATION LINK to_b TO '{}' FOR TABLE stock",
            url(&b_nodes)
        ))
        .await?;
        let all = "SELECT id, count, rank, note FROM stock ORDER BY id";
        same(&a, &b, all).await?;
        b.batch_execute(&format!(
            "CREATE REPLICATION LINK to_a TO '{}' FOR TABLE stock",
            url(&a_nodes)
        ))
        .await?;
        b.batch_execute("INSERT INTO stock (id, count, note) VALUES (4, 40, 'b'); UPDATE stock SET count = 11 WHERE id = 1; DELETE FROM stock WHERE id = 2")
            .await?;
        gives(&a, "SELECT id, count FROM stock ORDER BY id", &["1|11", "3|30", "4|40"]).await?;
        gives(&a, "SELECT * FROM system.conflicts", &[]).await?;
        gives(&b, "SELECT * FROM system.conflicts", &[]).await?;

        // Both change a row while they don't hear of each other: the later stays, and both see what was lost.
        a.batch_execute("ALTER REPLICATION LINK to_b PAUSE").await?;
        b.batch_execute("ALTER REPLICATION LINK to_a PAUSE").await?;
        sleep(Duration::from_millis(300)).await;
        a.batch_execute(
            "UPDATE stock SET note = 'earlier' WHERE id = 3; UPDATE stock SET note = 'changed' WHERE id = 4",
        )
        .await?;
        sleep(Duration::from_millis(20)).await;
        b.batch_execute("UPDATE stock SET note = 'later' WHERE id = 3; DELETE FROM stock WHERE id = 4")
            .await?;
        a.batch_execute("ALTER REPLICATION LINK to_b RESUME").await?;
        b.batch_execute("ALTER REPLICATION LINK to_a RESUME").await?;
        gives(&a, "SELECT id, note FROM stock WHERE id >= 3", &["3|later"]).await?;
        gives(&b, "SELECT id, note FROM stock WHERE id >= 3", &["3|later"]).await?;
        let conflicts = "SELECT key, local_row IS NULL, remote_row IS NULL, kept FROM system.conflicts ORDER BY key";
        gives(
            &a,
            conflicts,
            &["{\"id\":\"3\"}|f|f|remote", "{\"id\":\"4\"}|f|t|remote"],
        )
        .await?;
        gives(&b, conflicts, &["{\"id\":\"3\"}|f|f|local", "{\"id\":\"4\"}|t|f|local"]).await?;

        // Both write much, in each other's way; one dies on the way.
        let stop = Arc::new(AtomicBool::new(false));
        let work = |port: u16, name: &'static str| {
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut step = 0;
                while !stop.load(SeqCst) {
                    step += 1;
                    let id = 100 + step * 7 % 40;
                    let sql = match step % 4 {
                        0 => format!("DELETE FROM stock WHERE id = {id}"),
                        1 => format!("UPDATE stock SET count = {step}, note = '{name} {step}' WHERE id = {id}"),
                        _ => format!(
                            "INSERT INTO stock (id, count, note) VALUES ({id}, {step}, '{name} {step}') \
                             ON CONFLICT (id) DO UPDATE SET count = excluded.count, note = excluded.note"
                        ),
                    };
                    let done = match connect(port).await {
                        Ok(client) => client.batch_execute(&sql).await.is_ok(),
                        Err(_) => false,
                    };
                    sleep(Duration::from_millis(if done { 3 } else { 50 })).await;
                }
                step
            })
        };
        let (of_a, of_b) = (
            work(a_nodes.nodes[0].sql_port, "a"),
            work(b_nodes.nodes[0].sql_port, "b"),
        );
        sleep(Duration::from_secs(3)).await;
        a_nodes.node(1).kill()?;
        sleep(Duration::from_millis(500)).await;
        a_nodes.node(1).start()?;
        sleep(Duration::from_secs(3)).await;
        stop.store(true, SeqCst);
        ensure!(of_a.await? > 100 && of_b.await? > 100, "they hardly wrote");
        operator::whole(&[a_nodes.nodes[0].peer_port], WHOLE).await?;
        let a = connect_to_whole(a_nodes.nodes[0].sql_port).await?;
        same(&a, &b, all).await?;
        // Still the same a moment later: nothing goes to and fro.
        let changes = "SELECT sum(changes)::BIGINT FROM system.links";
        let (before_a, before_b) = (rows(&a, changes).await?, rows(&b, changes).await?);
        sleep(Duration::from_secs(1)).await;
        ensure!(same(&a, &b, all).await?.len() > 5);
        ensure!(
            (rows(&a, changes).await?, rows(&b, changes).await?) == (before_a, before_b),
            "changes go round"
        );

        // A column decides, in the table of another link.
        for client in [&a, &b] {
            client
                .batch_execute("CREATE TABLE bids (id INT PRIMARY KEY, price INT, who TEXT) WITH REPLICATION = 0")
                .await?;
        }
        for (client, name, url) in [(&a, "bids_to_b", url(&b_nodes)), (&b, "bids_to_a", url(&a_nodes))] {
            let link =
                format!("CREATE REPLICATION LINK {name} TO '{url}' FOR TABLE bids WITH (conflict = 'column price')");
            client.batch_execute(&link).await?;
            client
                .batch_execute(&format!("ALTER REPLICATION LINK {name} PAUSE"))
                .await?;
        }
        sleep(Duration::from_millis(300)).await;
        a.batch_execute("INSERT INTO bids VALUES (1, 500, 'a')").await?;
        sleep(Duration::from_millis(20)).await;
        b.batch_execute("INSERT INTO bids VALUES (1, 400, 'b')").await?;
        a.batch_execute("ALTER REPLICATION LINK bids_to_b RESUME").await?;
        b.batch_execute("ALTER REPLICATION LINK bids_to_a RESUME").await?;
        gives(&b, "SELECT price, who FROM bids", &["500|a"]).await?;
        sleep(Duration::from_millis(300)).await;
        gives(&a, "SELECT price, who FROM bids", &["500|a"]).await?;
        gives(
            &a,
            "SELECT table_name, kept FROM system.conflicts WHERE table_name = 'bids'",
            &["bids|local"],
        )
        .await
    });
}
