//! What a node's death, freeze or isolation may not do: lose an acknowledged write, or let two nodes answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::{sleep, timeout};
use volt_tests::processes::{Nodes, binary, free_ports};
use volt_tests::proxy;

use crate::cluster::Cluster;
use crate::load::{Load, report, run_for};
use crate::{alone, block_on, connect};

/// Until a node that went silent is failed over.
const SILENCE_NOTICED: Duration = Duration::from_secs(3);

#[test]
fn kill_9_under_load_loses_nothing_and_writes_resume() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let leader = cluster.leader().await?;
        let follower = (1..=3).find(|node| *node != leader).context("three nodes")?;
        for (what, victim) in [
            ("kill -9 of a follower", follower),
            ("kill -9 of the metadata leader", leader),
        ] {
            let load = Load::start(&cluster.sql_ports);
            run_for(&load, Duration::from_secs(1)).await?;
            let moment = Instant::now();
            cluster.nodes.node(victim).kill()?;
            run_for(&load, Duration::from_secs(4)).await?;
            let told = load.stop().await;
            let pause = report(what, &told, moment)?;
            ensure!(pause < Duration::from_secs(5), "{what}: writes stopped for {pause:?}");
            for node in (1..=3).filter(|node| *node != victim) {
                told.assert_all_there(cluster.sql(node)).await?;
            }
            cluster.nodes.node(victim).start()?;
            cluster.whole().await?;
            told.assert_all_there(cluster.sql(victim)).await?;
            connect(cluster.sql(1)).await?.batch_execute("DELETE FROM load").await?;
        }
        Ok(())
    });
}

#[test]
fn a_frozen_node_is_failed_over_and_says_nothing_of_its_own_when_it_wakes() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let frozen = 3;
        let session = Arc::new(connect(cluster.sql(frozen)).await?);
        session.execute("INSERT INTO load VALUES (-1, 0)", &[]).await?;
        let load = Load::start(&cluster.sql_ports[..2]);
        run_for(&load, Duration::from_secs(1)).await?;
        let moment = Instant::now();
        cluster.nodes.node(frozen).freeze()?;
        // Sent to it while it sleeps; its kernel takes them. Keys of all partitions.
        let asleep: Vec<_> = (2..34_i64)
            .map(|n| tokio::spawn(insert(Arc::clone(&session), -n)))
            .collect();
        let read = tokio::spawn({
            let session = Arc::clone(&session);
            async move { session.query("SELECT count(*) FROM load WHERE id > 0", &[]).await }
        });
        run_for(&load, SILENCE_NOTICED + Duration::from_secs(2)).await?;
        let told = load.stop().await;
        let pause = report("SIGSTOP of a node", &told, moment)?;
        ensure!(pause < SILENCE_NOTICED, "a frozen node stopped writes for {pause:?}");
        cluster.nodes.node(frozen).thaw()?;
        // What it says now must be true: an insert that it acknowledges is there, a count that it gives is of now.
        let mut acknowledged = Vec::new();
        for insert in asleep {
            acknowledged.extend(insert.await?);
        }
        if let Ok(Ok(rows)) = read.await {
            let count: i64 = rows[0].get(0);
            ensure!(
                count >= told.acknowledged.len() as i64,
                "the woken node read {count} rows, a state of the past"
            );
        }
        cluster.whole().await?;
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
            let client = connect(cluster.sql(node)).await?;
            for id in &acknowledged {
                let rows = client.query("SELECT id FROM load WHERE id = $1", &[id]).await?;
                ensure!(
                    rows.len() == 1,
                    "row {id}, acknowledged by the woken node, is not at node {node}"
                );
            }
        }
        Ok(())
    });
}

/// The id, if the row was acknowledged.
async fn insert(session: Arc<tokio_postgres::Client>, id: i64) -> Option<i64> {
    let answer = timeout(
        Duration::from_secs(30),
        session.execute("INSERT INTO load VALUES ($1, 0)", &[&id]),
    )
    .await;
    matches!(answer, Ok(Ok(_))).then_some(id)
}

#[test]
fn all_nodes_killed_at_once_lose_nothing_acknowledged() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        for _ in 0..2 {
            let load = Load::start(&cluster.sql_ports);
            run_for(&load, Duration::from_secs(2)).await?;
            for node in 1..=3 {
                cluster.nodes.node(node).kill()?;
            }
            let told = load.stop().await;
            let moment = Instant::now();
            for node in 1..=3 {
                cluster.nodes.node(node).start()?;
            }
            cluster.whole().await?;
            println!("all killed: whole again after {} ms", moment.elapsed().as_millis());
            for node in 1..=3 {
                told.assert_all_there(cluster.sql(node)).await?;
            }
            connect(cluster.sql(1)).await?.batch_execute("DELETE FROM load").await?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_is_cut_off_refuses_and_the_others_go_on() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::of(Nodes::start(3, proxy::host)?);
        let proxies = cluster.proxies().await?;
        cluster.form().await?;
        // The one that leads the metadata group: it must step down by itself.
        let cut = cluster.leader().await?;
        let others: Vec<u16> = (1..=3)
            .filter(|node| *node != cut)
            .map(|node| cluster.sql(node))
            .collect();
        let load = Load::start(&others);
        run_for(&load, Duration::from_secs(1)).await?;
        let session = connect(cluster.sql(cut)).await?;
        proxies.cut_off(cut);
        sleep(SILENCE_NOTICED).await;
        for statement in [
            "SELECT count(*) FROM load",
            "SELECT id FROM load WHERE id = 1",
            "INSERT INTO load VALUES (-7, 0)",
        ] {
            let answer = timeout(Duration::from_secs(10), session.simple_query(statement)).await;
            let answer = answer.with_context(|| format!("the cut-off node is silent about {statement}"))?;
            let error = answer
                .err()
                .with_context(|| format!("the cut-off node answers {statement}"))?;
            let code = error.code().map(|code| code.code().to_owned());
            ensure!(code.as_deref() == Some("57P03"), "{statement}: {error:?}");
        }
        run_for(&load, Duration::from_secs(1)).await?;
        proxies.restore(cut);
        cluster.whole().await?;
        let told = load.stop().await;
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
            let rows = connect(cluster.sql(node))
                .await?
                .query("SELECT id FROM load WHERE id = -7", &[])
                .await?;
            ensure!(rows.is_empty(), "what the cut-off node refused has happened");
        }
        // Dropped before the proxies, whose streams they use.
        cluster.nodes.nodes.clear();
        Ok(())
    });
}

#[test]
fn a_taken_port_is_named() {
    let _alone = alone();
    block_on(async {
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port();
        let folder = tempfile::tempdir()?;
        let ports = free_ports(2);
        let run = tokio::process::Command::new(binary())
            .args(["start", "--node-id", "1", "--sql-port", &port.to_string()])
            .args([
                "--peer-port",
                &ports[0].to_string(),
                "--http-port",
                &ports[1].to_string(),
            ])
            .arg("--data")
            .arg(folder.path())
            .kill_on_drop(true)
            .output();
        let output = timeout(Duration::from_secs(20), run)
            .await
            .context("it runs on, on a port that is taken")??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success(), "it ended well, on a port that is taken");
        ensure!(said.contains(&port.to_string()), "the port {port} is not named: {said}");
        Ok(())
    });
}
