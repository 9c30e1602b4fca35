//! The model's own session, word by word, against `volt-node dev`.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use volt_tests::processes::{Dev, free_run_of_ports};

use crate::{READY, alone};

/// What psql prints for these statements: rows unaligned, without headings, and the commands' tags.
fn psql(port: u16, statements: &[&str]) -> Result<String> {
    let mut command = Command::new("psql");
    command.args([
        "-X",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        "127.0.0.1",
        "-U",
        "volt",
        "-p",
        &port.to_string(),
    ]);
    for statement in statements {
        command.args(["-c", statement]);
    }
    let output = command
        .arg("volt")
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .context("psql")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "psql {statements:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Asks until the answer is the one wanted.
fn psql_until(port: u16, statement: &str, wanted: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let found = psql(port, &[statement]);
        if found.as_deref().is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{statement} gives {found:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Bare `cargo test` goes on without psql and says so; `make test` sets VOLT_REQUIRE_CLIENTS.
fn has_psql() -> bool {
    let found = Command::new("psql").arg("--version").output().is_ok();
    assert!(
        found || std::env::var_os("VOLT_REQUIRE_CLIENTS").is_none(),
        "psql is not installed"
    );
    if !found {
        println!("SKIPPED: psql is not installed");
    }
    found
}

fn session() -> Result<()> {
    let (sql, peer, http) = (
        free_run_of_ports(3)?.to_string(),
        free_run_of_ports(3)?.to_string(),
        free_run_of_ports(3)?.to_string(),
    );
    let ports = ["--sql-port", &sql, "--peer-port", &peer, "--http-port", &http];
    let mut dev = Dev::start(&[&["--nodes", "3", "--ephemeral"], &ports[..]].concat(), READY)?;
    ensure!(dev.nodes.len() == 3, "{:?}", dev.seen);
    let (one, three) = (dev.sql_port(1), dev.sql_port(3));
    psql(
        one,
        &["CREATE TABLE example (id INT PRIMARY KEY, name VARCHAR(255)) WITH REPLICATION = 2;"],
    )?;
    psql(
        one,
        &[
            "INSERT INTO example (id, name) VALUES (1, 'Alice');",
            "INSERT INTO example (id, name) VALUES (2, 'Bob');",
            "INSERT INTO example (id, name) VALUES (3, 'Charlie');",
        ],
    )?;
    let rows = "1|Alice\n2|Bob\n3|Charlie";
    for node in 1..=3 {
        ensure!(
            psql(dev.sql_port(node), &["SELECT * FROM example ORDER BY id;"])? == rows,
            "read through node {node}"
        );
    }
    let unordered = psql(one, &["SELECT * FROM example;"])?;
    ensure!(unordered.lines().count() == 3, "{unordered}");
    dev.kill_node(2)?;
    let alive = "SELECT node_id, is_alive FROM system.nodes ORDER BY node_id;";
    for port in [one, three] {
        psql_until(port, alive, "1|t\n2|f\n3|t", Duration::from_secs(10))?;
        ensure!(psql(port, &["SELECT * FROM example ORDER BY id;"])? == rows);
    }
    psql(three, &["INSERT INTO example (id, name) VALUES (4, 'Dora');"])?;
    let did = psql(one, &["RECOVER NODE 2;"])?;
    println!("RECOVER NODE 2: {did}");
    psql_until(one, alive, "1|t\n2|t\n3|t", Duration::from_secs(10))?;
    // It is in sync: killing another node, at once, loses nothing.
    dev.catch_up();
    dev.kill_node(1)?;
    let rows = format!("{rows}\n4|Dora");
    for node in [2, 3] {
        psql_until(
            dev.sql_port(node),
            "SELECT * FROM example ORDER BY id;",
            &rows,
            Duration::from_secs(10),
        )?;
    }
    psql_until(three, alive, "1|f\n2|t\n3|t", Duration::from_secs(10))?;
    psql(three, &["RECOVER NODE 1;"])?;
    psql(
        one,
        &[
            "UPDATE example SET name = 'Robert' WHERE name = 'Bob';",
            "DELETE FROM example WHERE id = 1;",
            "INSERT INTO example VALUES (5, 'Eve'), (6, NULL);",
        ],
    )?;
    let counted = psql(one, &["SELECT count(*), min(id), max(id), sum(id) FROM example;"])?;
    ensure!(counted == "5|2|6|20", "{counted}");
    psql(one, &["DROP TABLE example;"])?;
    let status = dev.interrupt()?;
    ensure!(status.success(), "Ctrl-C: {status}");
    Ok(())
}

#[test]
fn the_session_of_the_model_word_by_word() {
    let _alone = alone();
    if has_psql() {
        session().unwrap_or_else(|error| panic!("{error:#}"));
    }
}
