//! When a write is acknowledged: what each replication mode waits for, and what it doesn't; and modes that change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::load::{Load, run_for};
use crate::{alone, block_on, connect};

/// Rows of each try: some lie in partitions of every node.
const ROWS: i64 = 48;
/// Longest wait until a table has become what it was told to.
const BECOMES_WITHIN: Duration = Duration::from_secs(30);
/// A node that says nothing is not missed before this.
const NOT_MISSED_YET: Duration = Duration::from_millis(900);

/// One session a row: what waits holds nobody else up.
async fn sessions(port: u16) -> anyhow::Result<Vec<Arc<Client>>> {
    let mut sessions = Vec::new();
    for _ in 0..ROWS {
        sessions.push(Arc::new(connect(port).await?));
    }
    Ok(sessions)
}

/// Inserts rows at once; those that were acknowledged before anybody is missed.
async fn acknowledged(sessions: &[Arc<Client>], table: &str, first: i64) -> BTreeSet<i64> {
    let tries: Vec<_> = (first..)
        .zip(sessions)
        .map(|(id, session)| {
            let (session, insert) = (Arc::clone(session), format!("INSERT INTO {table} VALUES ({id})"));
            tokio::spawn(async move {
                let answer = timeout(NOT_MISSED_YET, session.batch_execute(&insert)).await;
                matches!(answer, Ok(Ok(()))).then_some(id)
            })
        })
        .collect();
    let mut done = BTreeSet::new();
    for one in tries {
        done.extend(one.await.ok().flatten());
    }
    done
}

#[test]
fn who_waits_for_whom() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        for mode in ["sync", "semi_sync", "async"] {
            let create = format!("CREATE TABLE of_{mode} (id BIGINT PRIMARY KEY) WITH REPLICATION = 2 MODE {mode}");
            client.batch_execute(&create).await?;
        }
        cluster.whole().await?;
        let mut kept = [("of_sync", BTreeSet::new()), ("of_semi_sync", BTreeSet::new())];
        // One backup of three is silent.
        let open = [
            sessions(cluster.sql(1)).await?,
            sessions(cluster.sql(1)).await?,
            sessions(cluster.sql(1)).await?,
        ];
        cluster.nodes.node(3).freeze()?;
        let (sync, semi, quick) = tokio::join!(
            acknowledged(&open[0], "of_sync", 0),
            acknowledged(&open[1], "of_semi_sync", 0),
            acknowledged(&open[2], "of_async", 0),
        );
        cluster.nodes.node(3).thaw()?;
        println!(
            "node 3 silent: sync {}, semi_sync {}, async {}",
            sync.len(),
            semi.len(),
            quick.len()
        );
        ensure!(sync.is_empty(), "all copies were to have {sync:?}");
        ensure!(
            semi.len() as i64 > ROWS / 3,
            "a majority is enough, and {semi:?} were acknowledged"
        );
        ensure!(
            quick.len() as i64 > ROWS / 3,
            "the primary is enough, and {quick:?} were acknowledged"
        );
        kept[1].1.extend(semi);
        drop(open);
        cluster.whole().await?;
        // Two are.
        let open = [sessions(cluster.sql(1)).await?, sessions(cluster.sql(1)).await?];
        cluster.nodes.node(2).freeze()?;
        cluster.nodes.node(3).freeze()?;
        let (semi, quick) = tokio::join!(
            acknowledged(&open[0], "of_semi_sync", 1_000),
            acknowledged(&open[1], "of_async", 1_000),
        );
        cluster.nodes.node(2).thaw()?;
        cluster.nodes.node(3).thaw()?;
        println!("nodes 2 and 3 silent: semi_sync {}, async {}", semi.len(), quick.len());
        ensure!(semi.is_empty(), "a majority was to have {semi:?}");
        ensure!(
            quick.len() as i64 > ROWS / 6,
            "the primary is enough, and {quick:?} were acknowledged"
        );
        drop(open);
        cluster.whole().await?;
        // A node dies, with what it alone had, if it had anything alone.
        let open = sessions(cluster.sql(2)).await?;
        for (table, rows) in &mut kept {
            rows.extend(acknowledged(&open, table, 2_000).await);
            ensure!(!rows.is_empty(), "nothing was written to {table}");
        }
        cluster.nodes.node(1).kill()?;
        for node in [2, 3] {
            let client = connect(cluster.sql(node)).await?;
            for (table, rows) in &kept {
                let found = client.query(&format!("SELECT id FROM {table}"), &[]).await?;
                let found: BTreeSet<i64> = found.iter().map(|row| row.get(0)).collect();
                ensure!(
                    rows.is_subset(&found),
                    "node {node}, {table}: {:?} are gone",
                    rows.difference(&found)
                );
            }
        }
        cluster.nodes.node(1).start()?;
        cluster.whole().await
    });
}

/// What every node says of the table of the load: backups, mode, copies of the partition that has the fewest.
async fn has_become(cluster: &Cluster, wanted: (i32, &str, i32)) -> anyhow::Result<()> {
    let client = connect(cluster.sql(2)).await?;
    let now = "SELECT t.replication, t.mode, t.copies, count(DISTINCT p.mode)
               FROM system.tables t, system.partitions p WHERE t.name = 'load' GROUP BY 1, 2, 3";
    let limit = Instant::now() + BECOMES_WITHIN;
    loop {
        let row = client.query_one(now, &[]).await?;
        let (replication, mode, copies, modes): (i32, String, i32, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        if (replication, mode.as_str(), copies, modes) == (wanted.0, wanted.1, wanted.2, 1) {
            return Ok(());
        }
        ensure!(Instant::now() < limit, "{wanted:?} was wanted, and it is {row:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn copies_and_modes_change_under_load() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let load = Load::start(&cluster.sql_ports);
        let client = connect(cluster.sql(1)).await?;
        let some = Duration::from_millis(700);
        for (set, becomes) in [
            ("mode = 'semi_sync'", (2, "semi_sync", 3)),
            ("mode = 'async'", (2, "async", 3)),
            ("mode = 'sync', replication = 1", (1, "sync", 2)),
            ("replication = 2", (2, "sync", 3)),
            ("mode = 'semi_sync'", (2, "semi_sync", 3)),
        ] {
            run_for(&load, some).await?;
            client.batch_execute(&format!("ALTER TABLE load SET ({set})")).await?;
            has_become(&cluster, becomes).await?;
        }
        // What a majority has acknowledged survives; and a partition that lost its primary takes the mode from the next one.
        run_for(&load, some).await?;
        cluster.nodes.node(3).kill()?;
        client.batch_execute("ALTER TABLE load SET (mode = 'sync')").await?;
        has_become(&cluster, (2, "sync", 2)).await?;
        run_for(&load, some).await?;
        cluster.nodes.node(3).start()?;
        cluster.whole().await?;
        has_become(&cluster, (2, "sync", 3)).await?;
        let told = load.stop().await;
        cluster.nodes.node(1).kill()?;
        told.assert_all_there(cluster.sql(2)).await
    });
}
