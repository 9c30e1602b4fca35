//! What a running node shows to those who watch it: `/metrics`, `/livez`, `/readyz`, and its log as JSON.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use volt_tests::processes::Nodes;
use volt_tests::{http, operator};

use crate::{PARTITIONS, WHOLE, alone, block_on, connect};

/// Until a node that has lost the others says that it is not ready: its lease must end.
const UNREADY: Duration = Duration::from_secs(10);

/// Of OpenMetrics text: the value of the metric with this name and labels.
fn metric(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.with_context(|| format!("{name} is not in\n{text}"))?;
    Ok(value.parse()?)
}

/// Asks until the answer has this status; returns the body.
async fn until(port: u16, path: &str, status: u16, limit: Duration) -> Result<String> {
    let end = Instant::now() + limit;
    loop {
        let answer = http::get(port, path).await;
        if let Ok(answer) = &answer
            && answer.status == status
        {
            return Ok(answer.body.clone());
        }
        ensure!(Instant::now() < end, "{path} gives {answer:?}, not {status}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn metrics(port: u16) -> Result<String> {
    let answer = http::get(port, "/metrics").await?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(
        answer.head.contains("content-type: application/openmetrics-text"),
        "{}",
        answer.head
    );
    ensure!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    Ok(answer.body)
}

#[test]
fn a_node_shows_its_metrics_and_whether_it_is_ready() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Nodes::start(3, |_| "127.0.0.1".to_owned())?;
        let http_port = cluster.nodes[0].http_port;
        // It lives, and belongs to no cluster yet.
        until(http_port, "/livez", 200, WHOLE).await?;
        let why = until(http_port, "/readyz", 503, WHOLE).await?;
        ensure!(why.contains("belongs to no cluster"), "{why}");
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        for node in &cluster.nodes {
            ensure!(until(node.http_port, "/readyz", 200, WHOLE).await? == "ok\n");
        }
        let client = connect(cluster.nodes[0].sql_port).await?;
        client
            .batch_execute("CREATE TABLE t (id INT PRIMARY KEY) WITH REPLICATION = 2")
            .await?;
        operator::whole(&ports, WHOLE).await?;
        let before = metrics(http_port).await?;
        for id in 0..10 {
            client.execute("INSERT INTO t VALUES ($1)", &[&id]).await?;
        }
        ensure!(client.execute("INSERT INTO t VALUES (1)", &[]).await.is_err());
        let after = metrics(http_port).await?;
        let grown = |name: &str| Ok::<f64, anyhow::Error>(metric(&after, name)? - metric(&before, name)?);
        ensure!(
            grown("volt_transactions_total{outcome=\"committed\"}")? == 10.0,
            "{after}"
        );
        ensure!(grown("volt_transactions_total{outcome=\"failed\"}")? == 1.0, "{after}");
        ensure!(grown("volt_transaction_seconds_count")? == 11.0, "{after}");
        ensure!(metric(&after, "volt_connections")? == 1.0);
        ensure!(metric(&after, "volt_nodes_alive")? == 3.0);
        ensure!(metric(&after, "volt_lease_valid")? == 1.0);
        ensure!(metric(&after, "volt_in_sync_replicas{partition=\"1\"}")? == 3.0);
        ensure!(after.contains("\nvolt_replication_lag_records{partition="), "{after}");
        // The two others gone: it lives, and says that it is not ready, and why.
        cluster.node(2).kill()?;
        cluster.node(3).kill()?;
        let why = until(http_port, "/readyz", 503, UNREADY).await?;
        ensure!(why.contains("no lease"), "{why}");
        ensure!(http::get(http_port, "/livez").await?.status == 200);
        ensure!(http::get(http_port, "/nothing").await?.status == 404);
        Ok(())
    });
}

#[test]
fn a_log_as_json_is_one_object_a_line() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Nodes::start(1, |_| "127.0.0.1".to_owned())?;
        let node = cluster.node(1);
        until(node.http_port, "/livez", 200, WHOLE).await?;
        node.kill()?;
        let text = node.log()?;
        ensure!(
            text.contains(" INFO "),
            "the log is text unless asked otherwise: {text}"
        );
        node.add_arguments(&["--log-format", "json"]);
        node.start()?;
        until(node.http_port, "/livez", 200, WHOLE).await?;
        node.kill()?;
        let log = node.log()?;
        let lines: Vec<&str> = log[text.len()..].lines().collect();
        ensure!(!lines.is_empty(), "nothing was logged");
        for line in lines {
            let object: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            for field in ["timestamp", "level", "target", "fields"] {
                ensure!(object.get(field).is_some(), "no {field} in {line}");
            }
        }
        Ok(())
    });
}
