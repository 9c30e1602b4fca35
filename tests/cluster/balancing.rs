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

/// Rows of the table, in all partitions.
const ROWS: i64 = 60;
/// Until backups have heard of what was written.
const FRESH: Duration = Duration::from_secs(10);

async fn with_rows(more: &[&str]) -> anyhow::Result<(Cluster, Client)> {
    let cluster = Cluster::start_with(more).await?;
    let client = connect(cluster.sql(1)).await?;
    for id in 0..ROWS {
        client.execute("INSERT INTO load VALUES ($1, 0)", &[&id]).await?;
    }
    Ok((cluster, client))
}

/// How many of the rows a session finds, one by one.
async fn found(client: &Client) -> anyhow::Result<i64> {
    let select = client.prepare("SELECT writer FROM load WHERE id = $1").await?;
    let mut found = 0;
    for id in 0..ROWS {
        found += i64::from(client.query_opt(&select, &[&id]).await?.is_some());
    }
    Ok(found)
}

async fn shown(client: &Client, setting: &str) -> anyhow::Result<String> {
    Ok(client.query_one(&format!("SHOW {setting}"), &[]).await?.get(0))
}

/// What a node's metrics say of reads of backups: at each node, and of primaries instead.
async fn backup_reads(cluster: &Cluster, node: usize) -> anyhow::Result<(Vec<f64>, f64)> {
    let text = http::get(cluster.nodes.nodes[node - 1].http_port, "/metrics")
        .await?
        .body;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    let at = |node: u32| number(&format!("volt_backup_reads_total{{node=\"{node}\"}}"));
    Ok(((1..=3).map(at).collect(), number("volt_backup_read_fallbacks_total")))
}

#[test]
fn backups_are_read_by_every_strategy_and_no_answer_is_older_than_asked() {
    let _alone = alone();
    block_on(async {
        let (cluster, primary) = with_rows(&[]).await?;
        let config = format!(
            "host=127.0.0.1 port={} user=volt dbname=volt options='-c volt.read_from=backup'",
            cluster.sql(1)
        );
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        ensure!(shown(&client, "volt.read_from").await? == "backup");
        let end = Instant::now() + FRESH;
        while found(&client).await? < ROWS {
            ensure!(Instant::now() < end, "the backups have not all rows");
        }
        for strategy in ["round_robin", "random", "weighted"] {
            client
                .batch_execute(&format!("SET volt.balance = '{strategy}'"))
                .await?;
            let (before, _) = backup_reads(&cluster, 1).await?;
            for _ in 0..3 {
                ensure!(found(&client).await? == ROWS);
            }
            let count: i64 = client.query_one("SELECT count(*) FROM load", &[]).await?.get(0);
            ensure!(count == ROWS, "{count} rows by a query of all partitions");
            let (after, _) = backup_reads(&cluster, 1).await?;
            let reads: Vec<f64> = after
                .iter()
                .zip(&before)
                .map(|(after, before)| after - before)
                .collect();
            println!("{strategy}: {reads:?} reads at nodes 1, 2 and 3");
            ensure!(reads.iter().all(|&reads| reads > 0.0), "{strategy}: {reads:?}");
            let staleness = shown(&client, "volt.last_staleness").await?;
            let staleness: u64 = staleness.trim_end_matches("ms").parse()?;
            ensure!((1..=1_000).contains(&staleness), "{staleness} ms");
        }
        // No backup is so new: the primaries are read, and each answer is the newest.
        client.batch_execute("SET volt.max_staleness = 1").await?;
        let (_, before) = backup_reads(&cluster, 1).await?;
        for writer in 1..20_i32 {
            let id = i64::from(writer);
            client
                .execute("UPDATE load SET writer = $1 WHERE id = $2", &[&writer, &id])
                .await?;
            let row = client
                .query_one("SELECT writer FROM load WHERE id = $1", &[&id])
                .await?;
            let staleness = shown(&client, "volt.last_staleness").await?;
            ensure!(
                row.get::<_, i32>(0) == writer || staleness != "0ms",
                "an old row of a primary"
            );
        }
        let (_, after) = backup_reads(&cluster, 1).await?;
        ensure!(after > before, "some were read of primaries");
        let lags = primary
            .query("SELECT role, lag_ms FROM system.replicas WHERE node_id = 1", &[])
            .await?;
        ensure!(!lags.is_empty());
        for row in lags {
            let (role, lag): (String, Option<i64>) = (row.get(0), row.get(1));
            let lag = lag.context("a replica without an age")?;
            ensure!((lag == 0) == (role == "primary"), "{role}: {lag} ms");
        }
        Ok(())
    });
}

#[test]
fn a_dead_primarys_rows_are_read_of_backups_while_they_are_young_enough() {
    let _alone = alone();
    block_on(async {
        let (mut cluster, _) = with_rows(&["--failover", "manual"]).await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute("SET volt.read_from = 'backup'").await?;
        let end = Instant::now() + FRESH;
        while found(&client).await? < ROWS {
            ensure!(Instant::now() < end, "the backups have not all rows");
        }
        cluster.nodes.node(3).kill()?;
        sleep(Duration::from_secs(2)).await;
        // They hear nothing of their primary any more.
        client.batch_execute("SET volt.max_staleness = '1h'").await?;
        ensure!(found(&client).await? == ROWS);
        let row = client.query_one("SELECT count(*) FROM load", &[]).await?;
        ensure!(row.get::<_, i64>(0) == ROWS);
        let staleness: u64 = shown(&client, "volt.last_staleness")
            .await?
            .trim_end_matches("ms")
            .parse()?;
        ensure!(staleness >= 1_000, "{staleness} ms");
        client.batch_execute("SET volt.max_staleness = '1s'").await?;
        let error = client
            .query_one("SELECT count(*) FROM load", &[])
            .await
            .err()
            .context("read without a primary")?;
        let code = error.code().map(|code| code.code().to_owned());
        ensure!(code.as_deref() == Some("57P03"), "{error:?}");
        Ok(())
    });
}

/// A session with one of several nodes, as `order` (`disable`, `random`) has it; which node it is.
async fn connect_to_one(ports: &[u16], order: &str) -> anyhow::Result<(Client, i32)> {
    let hosts = vec!["127.0.0.1"; ports.len()].join(",");
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(",");
    let config =
        format!("host={hosts} port={ports} user=volt dbname=volt connect_timeout=5 load_balance_hosts={order}");
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let node = client.query_one("SELECT node_id FROM system.memory", &[]).await?.get(0);
    Ok((client, node))
}

async fn code_of_refusal(port: u16) -> anyhow::Result<String> {
    let error = connect(port).await.err().context("a session began")?;
    let error = error.downcast::<tokio_postgres::Error>()?;
    Ok(error.code().map_or_else(String::new, |code| code.code().to_owned()))
}

#[test]
fn a_client_that_knows_several_nodes_finds_one_that_takes_it() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start_with(&["--max-connections", "40"]).await?;
        let ports = cluster.sql_ports.clone();
        let mut shares = [0; 3];
        for _ in 0..30 {
            let (_, node) = connect_to_one(&ports, "random").await?;
            shares[node as usize - 1] += 1;
        }
        println!("sessions at nodes 1, 2 and 3: {shares:?}");
        ensure!(shares.iter().all(|&share| share > 0), "{shares:?}");
        // Node 1 takes no more.
        let mut held = Vec::new();
        while let Ok(client) = connect(ports[0]).await {
            held.push(client);
            ensure!(held.len() <= 40);
        }
        ensure!(code_of_refusal(ports[0]).await? == "53300");
        ensure!(connect_to_one(&ports, "disable").await?.1 == 2);
        drop(held);
        // Node 1 is dead.
        cluster.nodes.node(1).kill()?;
        ensure!(connect_to_one(&ports, "disable").await?.1 == 2);
        // Node 2 has lost the cluster, and says so to whoever comes.
        cluster.nodes.node(3).kill()?;
        let end = Instant::now() + SOON;
        while connect(ports[1]).await.is_ok() {
            ensure!(Instant::now() < end, "it takes sessions that it can't serve");
            sleep(Duration::from_millis(100)).await;
        }
        ensure!(code_of_refusal(ports[1]).await? == "57P03");
        Ok(())
    });
}
