//! When a write is acknowledged: what each replication mode waits for, and what it doesn't.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Rows of each try: some lie in partitions of every node.
const ROWS: i64 = 48;
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
