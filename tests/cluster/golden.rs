//! Scripts of SQL and what comes of them: `sql/NAME.sql`, held against `sql/NAME.out`. Every statement goes to the next
//! node in turn, so that each script shows that any node answers for the whole cluster; but for those of one session. `VOLT_BLESS=1` writes the
//! answers anew; read the difference before you commit it. `VOLT_SCRIPTS=one,two` plays only these.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use volt_tests::operator;
use volt_tests::processes::Nodes;

use crate::{PARTITIONS, WHOLE, alone, block_on, connect};

const STATEMENT_LIMIT: Duration = Duration::from_secs(20);

/// A script that begins so is one session with one node.
const ONE_SESSION: &str = "-- One session";

/// Statements end with `;` at the end of a line, but for one inside `$$`; lines that begin with `--` are remarks.
fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut text = String::new();
    for line in script.lines().filter(|line| !line.starts_with("--")) {
        text.push_str(line);
        text.push('\n');
        let quoted = text.matches("$$").count() % 2 == 1;
        if line.trim_end().ends_with(';') && !quoted {
            found.push(std::mem::take(&mut text).trim().to_owned());
        }
    }
    found
}

fn row(row: &SimpleQueryRow) -> String {
    let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
    values.join("|")
}

/// What psql would show, in short.
async fn answer(client: &Client, statement: &str) -> Result<String> {
    let mut said = String::new();
    match timeout(STATEMENT_LIMIT, client.simple_query(statement))
        .await
        .with_context(|| statement.to_owned())?
    {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::RowDescription(columns) => {
                        let names: Vec<&str> = columns.iter().map(|column| column.name()).collect();
                        writeln!(said, "[{}]", names.join("|"))?;
                    }
                    SimpleQueryMessage::Row(found) => writeln!(said, "{}", row(&found))?,
                    SimpleQueryMessage::CommandComplete(count) => writeln!(said, "({count})")?,
                    _ => {}
                }
            }
        }
        Err(error) => {
            let error = error.as_db_error().with_context(|| format!("{statement}: {error}"))?;
            let at = match error.position() {
                Some(ErrorPosition::Original(at)) => format!(" at {at}"),
                _ => String::new(),
            };
            writeln!(said, "ERROR {}{at}: {}", error.code().code(), error.message())?;
        }
    }
    Ok(said)
}

async fn play(file: &Path, clients: &[Client]) -> Result<()> {
    let script = std::fs::read_to_string(file)?;
    let clients = if script.starts_with(ONE_SESSION) {
        &clients[..1]
    } else {
        clients
    };
    let mut found = String::new();
    for (statement, client) in statements(&script).iter().zip(clients.iter().cycle()) {
        write!(found, "{statement}\n{}\n", answer(client, statement).await?)?;
    }
    let kept = file.with_extension("out");
    if std::env::var_os("VOLT_BLESS").is_some() {
        std::fs::write(&kept, &found)?;
    }
    let expected = std::fs::read_to_string(&kept).unwrap_or_default();
    let differs = found
        .lines()
        .zip(expected.lines().chain(std::iter::repeat("")))
        .find(|(a, b)| a != b);
    ensure!(
        found == expected,
        "{}: {:?} instead of {:?}",
        kept.display(),
        differs.map(|(found, _)| found),
        differs.map(|(_, expected)| expected)
    );
    Ok(())
}

/// `VOLT_SCRIPTS=one,two` plays only these.
fn is_wanted(file: &Path) -> bool {
    let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let wanted = std::env::var("VOLT_SCRIPTS").unwrap_or_default();
    wanted.is_empty() || wanted.split(',').any(|one| one == name)
}

#[test]
fn scripts_of_sql_give_what_they_gave() {
    let _alone = alone();
    block_on(async {
        let cluster = Nodes::start(3, |_| "127.0.0.1".to_owned())?;
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.peer_port).collect();
        operator::initialise(ports[0], PARTITIONS, WHOLE).await?;
        operator::whole(&ports, WHOLE).await?;
        let mut clients = Vec::new();
        for node in &cluster.nodes {
            clients.push(connect(node.sql_port).await?);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/sql");
        let mut scripts: Vec<PathBuf> = std::fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .filter(|path| is_wanted(path))
            .collect();
        scripts.sort();
        ensure!(!scripts.is_empty(), "no scripts in {}", folder.display());
        let mut failed = Vec::new();
        for script in &scripts {
            if let Err(error) = play(script, &clients).await {
                failed.push(format!("{error:#}"));
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    });
}
