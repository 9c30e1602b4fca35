//! The clients themselves: found, or fetched once into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The psycopg that is installed when none is cached.
const PSYCOPG: &str = "psycopg[binary]==3.2.9";
/// The JDBC driver that is fetched when none is cached.
const JDBC_VERSION: &str = "42.7.7";

/// What came of a client.
pub enum Tool {
    /// It did all that was asked of it.
    Worked,
    /// It is not here, and why.
    Missing(String),
}

/// Runs a program to its end; its standard output, or all it said.
pub fn finish(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// Why a program can't be used; None if it can.
pub fn needs(program: &str, arguments: &[&str]) -> Option<Tool> {
    finish(Command::new(program).args(arguments))
        .err()
        .map(|_| Tool::Missing(format!("{program} is not installed")))
}

/// Where fetched clients are kept.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(given) => PathBuf::from(given),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let folder = base.join("voltcluster").join("clients");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A Python that has psycopg, in an environment of its own.
pub fn python_with_psycopg(cache: &Path) -> Option<PathBuf> {
    let environment = cache.join("psycopg");
    let python = environment.join("bin").join("python3");
    let works = || finish(Command::new(&python).args(["-c", "import psycopg"])).is_ok();
    if !works() {
        finish(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )
        .ok()?;
        finish(Command::new(&python).args(["-m", "pip", "install", "--quiet", PSYCOPG])).ok()?;
    }
    works().then_some(python)
}

/// The JDBC driver's archive.
pub fn jdbc_driver(cache: &Path) -> Option<PathBuf> {
    let file = cache.join(format!("postgresql-{JDBC_VERSION}.jar"));
    if !file.is_file() {
        let artifact = format!("-Dartifact=org.postgresql:postgresql:{JDBC_VERSION}");
        let folder = format!("-DoutputDirectory={}", cache.display());
        let copy = [
            "-q",
            "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
            &artifact,
            &folder,
        ];
        finish(Command::new("mvn").args(copy)).ok()?;
    }
    file.is_file().then_some(file)
}
