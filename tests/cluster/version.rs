//! `_version`: who changes a row only if it is still the one that he read loses no change of others, and a row keeps its
//! version whoever leads its partition.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const ROWS: i64 = 3;
const CLIENTS: i64 = 6;
/// Changes that each client makes.
const CHANGES: i64 = 40;

/// Adds one by compare-and-set; returns the tries that lost.
async fn add_one(client: &Client, id: i64) -> Result<u64> {
    for lost in 0.. {
        let row = client
            .query_one("SELECT value, _version FROM counted WHERE id = $1", &[&id])
            .await?;
        let (value, version): (i64, i64) = (row.get(0), row.get(1));
        let set = "UPDATE counted SET value = $2 WHERE id = $1 AND _version = $3";
        if client.execute(set, &[&id, &(value + 1), &version]).await? == 1 {
            return Ok(lost);
        }
    }
    unreachable!("it ends when it has won")
}

/// By the query executor: (value, version) of each row.
async fn versions(client: &Client) -> Result<BTreeMap<i64, (i64, i64)>> {
    let rows = client
        .query("SELECT *, _version FROM counted ORDER BY _version, id", &[])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
}

#[test]
fn compare_and_set_loses_no_change_and_versions_survive_a_failover() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let setup = connect(cluster.sql(1)).await?;
        setup
            .batch_execute("CREATE TABLE counted (id BIGINT PRIMARY KEY, value BIGINT NOT NULL) WITH REPLICATION = 2")
            .await?;
        for id in 0..ROWS {
            setup
                .batch_execute(&format!("INSERT INTO counted VALUES ({id}, 0)"))
                .await?;
        }
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let client = connect(cluster.sql_ports[number as usize % 3]).await?;
            tasks.spawn(async move {
                let mut lost = 0;
                for change in 0..CHANGES {
                    lost += add_one(&client, (number + change) % ROWS).await?;
                }
                Ok::<u64, anyhow::Error>(lost)
            });
        }
        let mut lost = 0;
        while let Some(client) = tasks.join_next().await {
            lost += client??;
        }
        let before = versions(&setup).await?;
        println!("{lost} tries lost; {before:?}");
        ensure!(lost > 0, "nobody was in anybody's way: this shows nothing");
        let sum: i64 = before.values().map(|(value, _)| value).sum();
        ensure!(
            sum == CLIENTS * CHANGES,
            "{sum} of {} changes are there",
            CLIENTS * CHANGES
        );

        let victim = cluster.leader().await?;
        cluster.nodes.node(victim).kill()?;
        let other = if victim == 1 { 2 } else { 1 };
        let client = connect(cluster.sql(other)).await?;
        ensure!(versions(&client).await? == before, "versions changed with the primary");
        for (id, (value, version)) in &before {
            let set = "UPDATE counted SET value = -value WHERE id = $1 AND _version = $2";
            ensure!(
                client.execute(set, &[id, version]).await? == 1,
                "row {id} has another version"
            );
            ensure!(
                client.execute(set, &[id, version]).await? == 0,
                "row {id} kept its version when it changed"
            );
            let row = client
                .query_one("SELECT value FROM counted WHERE id = $1", &[id])
                .await?;
            ensure!(row.get::<_, i64>(0) == -value, "row {id}");
        }
        Ok(())
    });
}
