//! The programs that a user of the product has at hand. Every call has a deadline.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Everything is installed here, as in the README's commands.
pub const NAMESPACE: &str = "default";
/// How psql and the writers reach the database: inside the cluster nobody asks for a password yet.
pub const USER: &str = "volt";
/// The Service of `demo`.
pub const SERVICE: &str = "demo-sql";
/// The database that every VoltCluster has.
pub const DATABASE: &str = "volt";

const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Runs a program to its end; its output, or an error that carries what it said.
pub async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let call = format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().with_context(|| call.clone())?;
    if let Some(input) = input {
        let mut stdin = child.stdin.take().context("a piped stdin")?;
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await?;
    }
    let output = tokio::time::timeout(CALL_LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("{call}: no end within {} s", CALL_LIMIT.as_secs()))??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{call}: {}: {}{said}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(said)
}

/// kubectl, in our namespace.
pub async fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", &[&["--namespace", NAMESPACE], arguments].concat(), None).await
}

/// `kubectl apply -f -` of one manifest.
pub async fn apply(manifest: &str) -> Result<String> {
    run(
        "kubectl",
        &["--namespace", NAMESPACE, "apply", "-f", "-"],
        Some(manifest),
    )
    .await
}

/// The same, by which nothing changes: what the API server would say.
pub async fn apply_dry(manifest: &str) -> Result<String> {
    let arguments = ["--namespace", NAMESPACE, "apply", "--dry-run=server", "-f", "-"];
    run("kubectl", &arguments, Some(manifest)).await
}

/// `kubectl get ... -o json`.
pub async fn get(arguments: &[&str]) -> Result<serde_json::Value> {
    let text = kubectl(&[&["get", "-o", "json"], arguments].concat()).await?;
    serde_json::from_str(&text).with_context(|| format!("kubectl get {}", arguments.join(" ")))
}

/// One statement by psql through the cluster's Service; rows as lines, columns separated by `|`.
pub async fn psql(statement: &str) -> Result<String> {
    psql_at(SERVICE, statement).await
}

/// The same at one host: the Service, or one pod.
///
/// A Service goes on sending connections to a dead pod until every machine has heard of its death. Nothing was asked on
/// a connection that was not made, so that much is tried again, as any client would.
pub async fn psql_at(host: &str, statement: &str) -> Result<String> {
    let settings = [
        "-h",
        host,
        "-p",
        "5432",
        "-U",
        USER,
        "-d",
        "dbname=volt connect_timeout=2",
        "-Xw",
        "-Atq",
        "-v",
        "ON_ERROR_STOP=1",
    ];
    let mut attempts_left = 10;
    loop {
        attempts_left -= 1;
        match run("psql", &[&settings[..], &["-c", statement]].concat(), None).await {
            Ok(rows) => return Ok(rows.trim_end().to_string()),
            Err(error) if attempts_left == 0 || !error.to_string().contains("connection to server at") => {
                return Err(error);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Asks until the answer is yes. An error means "not yet", and is told if it stays the last word.
pub async fn wait_until(limit_s: u64, what: &str, mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let end = tokio::time::Instant::now() + Duration::from_secs(limit_s);
    loop {
        let answer = ask().await;
        if let Ok(true) = answer {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            return Err(match answer {
                Err(error) => error.context(format!("{what}: not within {limit_s} s")),
                Ok(_) => anyhow::anyhow!("{what}: not within {limit_s} s"),
            });
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
