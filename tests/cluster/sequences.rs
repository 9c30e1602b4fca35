//! Values of an IDENTITY column while a node dies and comes back: no two are alike, and no acknowledged row is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Clients of each node.
const CLIENTS: usize = 3;
/// Rows of an INSERT.
const ROWS: usize = 3;
/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Inserts until it is told to stop, connecting anew whenever it must: the ids that it was told.
async fn insert(port: u16, stop: Arc<AtomicBool>) -> Result<Vec<i64>> {
    let mut told = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = connect(port).await else {
            sleep(PAUSE).await;
            continue;
        };
        let insert = "INSERT INTO numbered (port) VALUES ($1), ($1), ($1) RETURNING id";
        while !stop.load(Ordering::Relaxed) {
            match timeout(ANSWER_LIMIT, client.query(insert, &[&i32::from(port)])).await? {
                Ok(rows) => {
                    ensure!(rows.len() == ROWS, "{} rows of {ROWS}", rows.len());
                    told.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
                }
                Err(error) => {
                    let state = error.code().map(|code| code.code().to_owned());
                    ensure!(state.as_deref() != Some("23505"), "an id came twice: {error:?}");
                    break;
                }
            }
        }
    }
    Ok(told)
}

#[test]
fn no_id_comes_twice_while_a_node_dies_and_comes_back() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        let create =
            "CREATE TABLE numbered (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, port INT) WITH REPLICATION = 2";
        client.batch_execute(create).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for &port in &cluster.sql_ports {
            for _ in 0..CLIENTS {
                workers.spawn(insert(port, Arc::clone(&stop)));
            }
        }
        sleep(Duration::from_secs(2)).await;
        cluster.nodes.node(2).kill()?;
        sleep(Duration::from_secs(2)).await;
        cluster.nodes.node(2).start()?;
        sleep(Duration::from_secs(3)).await;
        stop.store(true, Ordering::Relaxed);
        let (mut told, mut count) = (BTreeSet::new(), 0);
        for ids in workers.join_all().await {
            let ids = ids?;
            count += ids.len();
            told.extend(ids);
        }
        ensure!(told.len() == count, "{count} rows were told, with {} ids", told.len());
        cluster.whole().await?;
        let client = connect(cluster.sql(2)).await?;
        let rows = client.query("SELECT id FROM numbered", &[]).await?;
        let there: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(there.len() == rows.len(), "an id is there twice");
        let lost = told.difference(&there).count();
        ensure!(lost == 0, "{lost} acknowledged rows are lost");
        let greatest = there.last().copied().context("rows")?;
        println!(
            "{count} rows were told, {} are there, the greatest id is {greatest}",
            there.len()
        );
        ensure!(count > 100, "only {count} rows");
        Ok(())
    });
}
