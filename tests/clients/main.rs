//! Clients that people use, unchanged, against three real nodes: psql, pgbench, psycopg, JDBC.
//!
//! A client that is not installed is reported as skipped, unless VOLT_REQUIRE_CLIENTS is set, as `make test` does.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use volt_tests::operator;
use volt_tests::processes::Nodes;
use volt_tests::tools::{self, Tool, cache, finish};

const WHOLE: Duration = Duration::from_secs(60);

/// A whole cluster of three nodes, for one client at a time.
struct Cluster {
    nodes: Nodes,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let nodes = Nodes::start(3, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = nodes.nodes.iter().map(|node| node.peer_port).collect();
        runtime.block_on(async {
            operator::initialise(ports[0], 12, WHOLE).await?;
            operator::whole(&ports, WHOLE).await
        })?;
        Ok(Self {
            nodes,
            _runtime: runtime,
        })
    }

    fn port(&self, node: usize) -> String {
        self.nodes.nodes[node - 1].sql_port.to_string()
    }

    /// A port where nobody listens, and those of all nodes.
    fn ports(&self) -> String {
        let ports = self.nodes.nodes.iter().map(|node| node.sql_port.to_string());
        std::iter::once("1".to_owned())
            .chain(ports)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// A PostgreSQL program told to talk to this node.
    fn command(&self, program: &str, node: usize) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-U", "volt", "-p", &self.port(node)])
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    fn psql(&self, node: usize, script: &str) -> Result<String> {
        finish(
            self.command("psql", node)
                .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "volt", "-c", script]),
        )
    }
}

/// Runs one client's session.
type Client = fn(&Cluster) -> Result<Tool>;

#[test]
fn the_clients() {
    let cluster = Cluster::start().unwrap_or_else(|error| panic!("{error:#}"));
    let clients: [(&str, Client); 4] = [
        ("psql", psql),
        ("pgbench", pgbench),
        ("psycopg", psycopg),
        ("JDBC", jdbc),
    ];
    let mut failed = Vec::new();
    for (name, client) in clients {
        match client(&cluster) {
            Ok(Tool::Worked) => println!("{name}: ok"),
            Ok(Tool::Missing(why)) if std::env::var_os("VOLT_REQUIRE_CLIENTS").is_none() => {
                println!("{name}: SKIPPED, {why}")
            }
            Ok(Tool::Missing(why)) => failed.push(format!("{name} is missing: {why}")),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn psql(cluster: &Cluster) -> Result<Tool> {
    if let Some(missing) = tools::needs("psql", &["--version"]) {
        return Ok(missing);
    }
    cluster.psql(
        1,
        "CREATE TABLE kinds (i INT, l BIGINT, d DOUBLE PRECISION, n NUMERIC(10, 2), b BOOLEAN, v VARCHAR(20), t TEXT, \
         s TIMESTAMP, x BYTEA, PRIMARY KEY (i, l))",
    )?;
    cluster.psql(
        2,
        "INSERT INTO kinds VALUES (1, 10000000000, 1.5, 12.30, true, 'häß', 'a ''quoted'' text', \
         TIMESTAMP '2026-01-02 03:04:05.678', '\\x00ff')",
    )?;
    let row = cluster.psql(3, "SELECT * FROM kinds")?;
    let expected = "1|10000000000|1.5|12.30|t|häß|a 'quoted' text|2026-01-02 03:04:05.678|\\x00ff";
    ensure!(row == expected, "{row}\n{expected}");
    let grouped = cluster.psql(1, "SELECT b, count(*), avg(d), max(n) FROM kinds GROUP BY b")?;
    ensure!(grouped == "t|1|1.5|12.30", "{grouped}");
    let joined = cluster.psql(
        2,
        "SELECT a.i FROM kinds a JOIN kinds b ON a.i = b.i AND a.l = b.l ORDER BY 1 LIMIT 1",
    )?;
    ensure!(joined == "1", "{joined}");
    cluster.psql(1, "DROP TABLE kinds")?;
    // Nobody listens at the first host.
    let hosts = format!(
        "host=127.0.0.1,127.0.0.1 port=1,{} user=volt dbname=volt target_session_attrs=any options='-c volt.read_from=backup'",
        cluster.port(2)
    );
    let shown = finish(Command::new("psql").args(["-X", "-A", "-t", "-c", "SHOW volt.read_from", &hosts]))?;
    ensure!(shown == "backup", "{shown}");
    Ok(Tool::Worked)
}

fn pgbench(cluster: &Cluster) -> Result<Tool> {
    if let Some(missing) = tools::needs("pgbench", &["--version"]) {
        return Ok(missing);
    }
    cluster.psql(
        1,
        "CREATE TABLE bench (id INT PRIMARY KEY, value INT) WITH REPLICATION = 2",
    )?;
    let rows: Vec<String> = (1..=1000).map(|id| format!("({id}, 0)")).collect();
    cluster.psql(1, &format!("INSERT INTO bench VALUES {}", rows.join(", ")))?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("mixed.sql");
    std::fs::write(
        &script,
        "\\set id random(1, 1000)\nSELECT value FROM bench WHERE id = :id;\nUPDATE bench SET value = value + 1 WHERE id = :id;\n",
    )?;
    let mut updates = 0;
    for (mode, node) in [("simple", 1), ("extended", 2), ("prepared", 3)] {
        let mut command = cluster.command("pgbench", node);
        command
            .args(["-n", "-M", mode, "-c", "8", "-j", "2", "-t", "200", "-f"])
            .arg(&script)
            .arg("volt");
        let said = finish(&mut command)?;
        let done = said.contains("number of transactions actually processed: 1600/1600");
        ensure!(done, "pgbench -M {mode}: {said}");
        let rate = said.lines().find(|line| line.starts_with("tps")).unwrap_or_default();
        println!("pgbench -M {mode}, 8 clients, a read and an update: {rate}");
        updates += 1600;
    }
    let sum = cluster.psql(2, "SELECT sum(value) FROM bench")?;
    ensure!(
        sum == updates.to_string(),
        "{updates} updates were acknowledged, the sum is {sum}"
    );
    Ok(Tool::Worked)
}

fn psycopg(cluster: &Cluster) -> Result<Tool> {
    if let Some(missing) = tools::needs("python3", &["-m", "venv", "--help"]) {
        return Ok(missing);
    }
    let Some(python) = tools::python_with_psycopg(&cache()?) else {
        return Ok(Tool::Missing("psycopg can't be installed".to_owned()));
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/psycopg_session.py");
    let said = finish(
        Command::new(python)
            .arg(script)
            .arg(cluster.port(2))
            .arg(cluster.ports()),
    )?;
    ensure!(said.ends_with("ok"), "{said}");
    Ok(Tool::Worked)
}

fn jdbc(cluster: &Cluster) -> Result<Tool> {
    if let Some(missing) = tools::needs("java", &["-version"]) {
        return Ok(missing);
    }
    let Some(driver) = tools::jdbc_driver(&cache()?) else {
        return Ok(Tool::Missing("the JDBC driver can't be fetched (mvn)".to_owned()));
    };
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/jdbc/Session.java");
    let said = finish(
        Command::new("java")
            .arg("-cp")
            .arg(driver)
            .arg(source)
            .arg(cluster.port(3))
            .arg(cluster.ports()),
    )?;
    ensure!(said.ends_with("ok"), "{said}");
    Ok(Tool::Worked)
}
