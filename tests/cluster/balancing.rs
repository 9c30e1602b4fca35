//! Where calls and reads go: nodes that fail are left alone, and asked again.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;
use volt_tests::http;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Until a breaker is open, or closed again.
const SOON: Duration = Duration::from_secs(20);

/// One number of `system.peers`.
async fn of_peer(client: &Client, what: &str, peer: i32) -> anyhow::Result<String> {
    let query = format!("SELECT CAST({what} AS TEXT) FROM system.peers WHERE peer_id = {peer} AND line = 'data'");
    let row = client.query_opt(&query, &[]).await?;
    Ok(row.map_or_else(String::new, |row| row.get(0)))
}

async fn until_breaker(client: &Client, peer: i32, state: &str) -> anyhow::Result<()> {
    let end = Instant::now() + SOON;
    loop {
        let now = of_peer(client, "breaker", peer).await?;
        if now == state {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the breaker is {now:?}, not {state}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_node_that_is_gone_is_left_alone_until_it_is_back() {
    let _alone = alone();
    block_on(async {
        // Nobody takes its place, so that it is asked for all the while.
        let mut cluster = Cluster::start_with(&["--failover", "manual"]).await?;
        let client = connect(cluster.sql(1)).await?;
        for id in 0..60_i64 {
            client.execute("INSERT INTO load VALUES ($1, 0)", &[&id]).await?;
        }
        ensure!(of_peer(&client, "breaker", 3).await? == "closed");
        let answered: i64 = of_peer(&client, "answered", 3).await?.parse()?;
        ensure!(answered > 0, "rows of node 3 were written");
        cluster.nodes.node(3).kill()?;
        let asking: Vec<_> = (0..60_i64)
            .map(|id| {
                let port = cluster.sql(1);
                tokio::spawn(async move {
                    let client = connect(port).await?;
                    let row = client
                        .query_one("SELECT writer FROM load WHERE id = $1", &[&id])
                        .await?;
                    Ok::<i32, anyhow::Error>(row.get(0))
                })
            })
            .collect();
        until_breaker(&client, 3, "open").await?;
        sleep(Duration::from_secs(1)).await;
        let (refused, not_sent) = (
            of_peer(&client, "refused", 3).await?,
            of_peer(&client, "not_sent", 3).await?,
        );
        println!("while node 3 was gone: {refused} calls refused, {not_sent} reached nobody");
        ensure!(
            refused.parse::<i64>()? > not_sent.parse::<i64>()?,
            "most calls were not even tried"
        );
        let text = http::get(cluster.nodes.nodes[0].http_port, "/metrics").await?.body;
        let opened = text.lines().find_map(|line| {
            line.strip_prefix(r#"volt_peer_breaker_transitions_total{peer="3",line="data",to="open"} "#)
        });
        ensure!(opened.context("no such metric")?.parse::<f64>()? >= 1.0, "{text}");
        ensure!(text.contains("volt_peer_retries_total"), "{text}");
        asking.iter().for_each(|one| one.abort());
        cluster.nodes.node(3).start()?;
        until_breaker(&client, 3, "closed").await?;
        ensure!(of_peer(&client, "in_flight", 3).await? == "0");
        Ok(())
    });
}
