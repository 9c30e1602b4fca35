//! Rows that expire while clients write and refresh them on every node, and one of these dies: none goes before its time, all go
//! soon after it, and a materialized view over them is right at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::http;

use crate::cluster::Cluster;
use crate::numbers::Numbers;
use crate::{alone, block_on, connect};

const NODES: u32 = 3;
const WRITERS: u32 = 6;
const TTL: Duration = Duration::from_secs(3);
/// How long after its time a row may stay, also when its primary has just died.
const LATE: Duration = Duration::from_secs(15);
const WRITE_FOR: Duration = Duration::from_secs(3);
/// Rows that never go: half of them have no time, half one that is far away.
const KEPT: usize = 20;

/// When each row's time was asked for at the earliest, of those that were acknowledged.
type Known = Arc<Mutex<BTreeMap<u64, Instant>>>;

/// Puts rows, and gives some of its earlier ones a new time, until told to stop or its node is gone.
async fn write(port: u16, writer: u32, known: Known, stop: Arc<AtomicBool>) -> Result<()> {
    let client = connect(port).await?;
    let mut numbers = Numbers(u64::from(writer));
    let first = u64::from(writer) * 1_000_000;
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        let refreshes = next > first && numbers.below(3) == 0;
        let id = if refreshes {
            // One of the newest: it is there still.
            next - 1 - numbers.below((next - first).min(20))
        } else {
            next
        };
        let statement = if refreshes {
            format!("UPDATE sessions SET seen = now() WHERE id = {id}")
        } else {
            next += 1;
            format!("INSERT INTO sessions VALUES ({id}, {}, now())", numbers.below(4))
        };
        let asked = Instant::now();
        match client.simple_query(&statement).await {
            Ok(answers) => {
                let changed = answers.iter().find_map(|answer| match answer {
                    SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                    _ => None,
                });
                let mut known = known.lock().expect("no panic under this lock");
                if changed == Some(1) {
                    known.insert(id, asked);
                } else if let Some(before) = known.get(&id) {
                    ensure!(
                        before.elapsed() >= TTL,
                        "row {id} went {:?} after it was written",
                        before.elapsed()
                    );
                }
            }
            Err(error) if client.is_closed() => return Err(error.into()),
            // What met the death of a node: its row may be there or not.
            Err(_) => {}
        }
    }
    Ok(())
}

async fn rows(client: &Client, query: &str) -> Result<Vec<Vec<String>>> {
    let answers = client.simple_query(query).await?;
    let rows = answers.iter().filter_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned());
            Some(values.collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// All that is known and not yet old is there. Returns how many rows that was.
async fn check_kept(client: &Client, known: &Known) -> Result<usize> {
    let before = known.lock().expect("no panic under this lock").clone();
    let Ok(found) = rows(client, "SELECT id FROM sessions").await else {
        return Ok(0);
    };
    let answered = Instant::now();
    let found: BTreeSet<u64> = found.iter().filter_map(|row| row[0].parse().ok()).collect();
    let young = before.iter().filter(|(_, asked)| **asked + TTL > answered);
    let mut count = 0;
    for (id, asked) in young {
        ensure!(
            found.contains(id),
            "row {id} is gone {:?} after it was written",
            answered - *asked
        );
        count += 1;
    }
    Ok(count)
}

/// The view has what its query gives, of one moment; true: it could be read.
async fn check_view(client: &Client) -> Result<bool> {
    let query = "BEGIN ISOLATION LEVEL REPEATABLE READ; \
                 SELECT kind, n FROM by_kind ORDER BY kind; SELECT -1, 0; \
                 SELECT kind, count(*) FROM sessions GROUP BY kind ORDER BY kind; COMMIT";
    let Ok(found) = rows(client, query).await else {
        let _ = client.batch_execute("ROLLBACK").await;
        return Ok(false);
    };
    let middle = found.iter().position(|row| row[0] == "-1");
    let (view, query) = found.split_at(middle.unwrap_or(0));
    ensure!(view == &query[1..], "the view has {view:?}, the table {query:?}");
    Ok(true)
}

async fn check_until(client: &Client, known: &Known, end: Instant) -> Result<(usize, usize)> {
    let (mut kept, mut views) = (0, 0);
    while Instant::now() < end {
        kept += check_kept(client, known).await?;
        views += usize::from(check_view(client).await?);
        sleep(Duration::from_millis(20)).await;
    }
    Ok((kept, views))
}

async fn count(client: &Client, query: &str) -> Result<usize> {
    let found = rows(client, query).await?;
    Ok(found.first().and_then(|row| row[0].parse().ok()).unwrap_or(usize::MAX))
}

/// Returns when the query counts so many.
async fn until_counted(client: &Client, query: &str, wanted: usize, end: Instant) -> Result<()> {
    loop {
        let counted = count(client, query).await;
        if matches!(counted, Ok(counted) if counted == wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{query}: {counted:?}, not {wanted}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn rows_expire_in_time_and_never_before_though_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let seconds = TTL.as_secs();
        client
            .batch_execute(&format!(
                "CREATE TABLE sessions (id BIGINT PRIMARY KEY, kind INT, seen TIMESTAMP) WITH REPLICATION = 2 \
                 USING TTL {seconds} SECONDS ON COLUMN seen"
            ))
            .await?;
        client
            .batch_execute("CREATE MATERIALIZED VIEW by_kind AS SELECT kind, count(*) AS n FROM sessions GROUP BY kind")
            .await?;
        let kept = (0..KEPT).map(|id| match id % 2 {
            0 => format!("({id}, 1, NULL)"),
            _ => format!("({id}, 2, '2999-01-01')"),
        });
        let insert = format!("INSERT INTO sessions VALUES {}", kept.collect::<Vec<_>>().join(","));
        client.batch_execute(&insert).await?;
        let (known, stop) = (Known::default(), Arc::new(AtomicBool::new(false)));
        let mut writers = JoinSet::new();
        for writer in 1..=WRITERS {
            let port = cluster.sql(writer % NODES + 1);
            writers.spawn(write(port, writer, Arc::clone(&known), Arc::clone(&stop)));
        }
        let before = check_until(&client, &known, Instant::now() + WRITE_FOR).await?;
        cluster.nodes.node(2).kill()?;
        let after = check_until(&client, &known, Instant::now() + WRITE_FOR).await?;
        cluster.nodes.node(2).start()?;
        stop.store(true, Ordering::Relaxed);
        let mut failed = 0;
        while let Some(ended) = writers.join_next().await {
            match ended? {
                // Those of the node that died have ended.
                Err(error) if error.is::<tokio_postgres::Error>() => failed += 1,
                ended => ended?,
            }
        }
        ensure!(failed <= WRITERS / NODES, "{failed} writers failed");
        let written = known.lock().expect("no panic under this lock").len();
        ensure!(written > 100, "only {written} rows were written");
        ensure!(
            before.0 > 0 && before.1 > 0 && after.0 > 0 && after.1 > 0,
            "{before:?}, {after:?}"
        );
        let end = Instant::now() + TTL + LATE;
        until_counted(&client, "SELECT count(*) FROM sessions", KEPT, end).await?;
        cluster.whole().await?;
        for node in 1..=NODES {
            let client = connect(cluster.sql(node)).await?;
            until_counted(&client, "SELECT count(*) FROM sessions", KEPT, Instant::now() + LATE).await?;
            ensure!(check_view(&client).await?, "the view can't be read on node {node}");
        }
        let expired = count(
            &client,
            "SELECT expired_rows FROM system.ttl WHERE last_run IS NOT NULL",
        )
        .await?;
        ensure!(expired > 0 && expired < usize::MAX, "system.ttl says {expired}");
        let metrics = http::get(cluster.nodes.nodes[0].http_port, "/metrics").await?.body;
        let counted = format!("volt_ttl_expired_rows_total {expired}");
        ensure!(metrics.contains(&counted), "not {counted}: {metrics}");
        println!(
            "{written} rows; young ones and views seen: {before:?}, after a death {after:?}; node 1 removed {expired}"
        );
        Ok(())
    });
}

#[test]
fn old_rows_go_when_their_table_gets_a_ttl_and_stay_when_it_loses_it() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute("CREATE TABLE events (id INT PRIMARY KEY, at INT)")
            .await?;
        let old: Vec<String> = (0..3_000).map(|id| format!("({id}, {})", 946_684_800 + id)).collect();
        let insert = format!("INSERT INTO events VALUES {}", old.join(","));
        client.batch_execute(&insert).await?;
        client
            .batch_execute("INSERT INTO events VALUES (5000, NULL), (5001, 2000000000)")
            .await?;
        let other = connect(cluster.sql(2)).await?;
        other
            .batch_execute("ALTER TABLE events USING TTL 1 DAYS ON COLUMN at BATCH_SIZE 20 MAX_FREQUENCY 5")
            .await?;
        let asked = Instant::now();
        let all = "SELECT count(*) FROM events";
        until_counted(&client, all, 2, asked + LATE).await?;
        // 250 rows or so a partition, 100 of them a second.
        ensure!(
            asked.elapsed() > Duration::from_secs(1),
            "faster than it may be: {:?}",
            asked.elapsed()
        );
        other.batch_execute("ALTER TABLE events DROP TTL").await?;
        client.batch_execute("INSERT INTO events VALUES (1, 1)").await?;
        sleep(Duration::from_secs(3)).await;
        ensure!(count(&client, all).await? == 3, "a row went without a TTL");
        // What two transactions want: one of them is the TTL's.
        client
            .batch_execute("BEGIN; UPDATE events SET at = 2 WHERE id = 1")
            .await?;
        other
            .batch_execute("ALTER TABLE events USING TTL 1 DAYS ON COLUMN at")
            .await?;
        until_counted(&other, all, 2, Instant::now() + LATE).await?;
        let refused = client.batch_execute("COMMIT").await.expect_err("its row has expired");
        let code = refused.code().map(|code| code.code().to_owned());
        ensure!(code.as_deref() == Some("40001"), "{refused:?}");
        Ok(())
    });
}
