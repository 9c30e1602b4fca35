//! What `volt-node dev` promises an engineer on a laptop.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use volt_tests::processes::{Dev, binary, free_run_of_ports, is_running};

use crate::{READY, WHOLE, alone, block_on, connect};

/// Until a process that was told to end, or whose supervisor ended, is gone.
const GONE: Duration = Duration::from_secs(10);

/// The first SQL, peer and HTTP ports of a cluster of three.
struct Ports([u16; 3]);

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self([
            free_run_of_ports(3)?,
            free_run_of_ports(3)?,
            free_run_of_ports(3)?,
        ]))
    }

    fn arguments(&self) -> Vec<String> {
        let names = ["--sql-port", "--peer-port", "--http-port"];
        let pairs = names.iter().zip(self.0);
        pairs
            .flat_map(|(name, port)| [(*name).to_owned(), port.to_string()])
            .collect()
    }
}

fn start(ports: &Ports, more: &[&str]) -> Result<Dev> {
    let arguments = ports.arguments();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    Dev::start(&arguments, READY)
}

fn pids(dev: &Dev) -> Vec<u32> {
    dev.nodes.iter().map(|(_, pid, _)| *pid).collect()
}

fn all_gone(pids: &[u32]) -> Result<()> {
    let end = Instant::now() + GONE;
    while let Some(pid) = pids.iter().find(|pid| is_running(**pid)) {
        ensure!(Instant::now() < end, "process {pid} is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named() {
    let _alone = alone();
    for (place, what) in ["sql", "peer", "http"].iter().enumerate() {
        let ports = Ports::free().expect("ports");
        // The second node's.
        let taken = ports.0[place] + 1;
        let _holder = TcpListener::bind(("127.0.0.1", taken)).expect("a free port");
        let output = Command::new(binary())
            .args(["dev", "--nodes", "3", "--ephemeral"])
            .args(ports.arguments())
            .stdin(Stdio::null())
            .output()
            .expect("volt-node dev");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        let expected = format!("port {taken}, for {what} of node 2, is taken; choose others with --{what}-port");
        assert!(said.contains(&expected), "{said}");
        assert!(output.stdout.is_empty(), "it started nodes before it looked");
    }
}

#[test]
fn a_second_run_has_the_rows_of_the_first_and_no_run_leaves_processes() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let data = folder.path().to_str().context("a path")?;
        let ports = Ports::free()?;
        let dev = start(&ports, &["--data", data])?;
        let first = pids(&dev);
        ensure!(
            first.len() == 3 && first.iter().all(|pid| is_running(*pid)),
            "{first:?}"
        );
        let client = connect(dev.sql_port(1)).await?;
        client
            .batch_execute("CREATE TABLE kept (id INT PRIMARY KEY) WITH REPLICATION = 1")
            .await?;
        client.batch_execute("INSERT INTO kept VALUES (1), (2), (3)").await?;
        let status = dev.interrupt()?;
        ensure!(status.success(), "Ctrl-C: {status}");
        ensure!(
            !first.iter().any(|pid| is_running(*pid)),
            "Ctrl-C left nodes: {first:?}"
        );

        let dev = start(&ports, &["--data", data])?;
        let client = connect(dev.sql_port(3)).await?;
        let rows = client.query("SELECT id FROM kept ORDER BY id", &[]).await?;
        let rows: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(rows == [1, 2, 3], "{rows:?}");
        // However the supervisor ends, its children end with it.
        let second = pids(&dev);
        dev.kill()?;
        all_gone(&second)
    });
}

#[test]
fn a_node_that_died_stays_dead_until_its_recovery_is_asked_for() {
    let _alone = alone();
    block_on(async {
        let ports = Ports::free()?;
        let mut dev = start(&ports, &["--ephemeral"])?;
        let client = connect(dev.sql_port(1)).await?;
        client
            .batch_execute("CREATE TABLE t (id INT PRIMARY KEY) WITH REPLICATION = 2")
            .await?;
        let (_, pid, port) = *dev.nodes.iter().find(|(node, ..)| *node == 2).context("node 2")?;
        dev.kill_node(2)?;
        let line = dev.wait_for(Duration::from_secs(1), |line| line.starts_with("node=2 "));
        ensure!(line.is_err(), "it was started again unasked: {line:?}");
        let mut said = Vec::new();
        for row in client.query("RECOVER NODE 2", &[]).await? {
            said.push(row.get::<_, String>("recovery"));
        }
        // Each step, in order: what was done, and how it ended.
        ensure!(said.len() == 2, "{said:?}");
        ensure!(said[0].starts_with("node 2 was started again after "), "{said:?}");
        let replicas = ": 12 replicas (";
        ensure!(
            said[1].starts_with("node 2 is in sync again after ") && said[1].contains(replicas),
            "{said:?}"
        );
        let line = dev.wait_for(WHOLE, |line| line.starts_with("node=2 "))?;
        let (_, again, same_port) = *dev.nodes.iter().find(|(node, ..)| *node == 2).context("node 2")?;
        ensure!(again != pid && is_running(again), "{line}");
        ensure!(same_port == port, "{line}");
        ensure!(line == format!("node=2 pid={again} sql=127.0.0.1:{port}"), "{line}");
        // Nothing is left to be done.
        let rows = client.query("RECOVER NODE 2", &[]).await?;
        let text: String = rows.first().context("a row")?.get(0);
        ensure!(text == "node 2 is alive and in sync: nothing to do", "{text}");
        Ok(())
    });
}
