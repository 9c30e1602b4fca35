//! Programs that tests work with: clients, and servers of object stores. Found, or fetched once into the cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The psycopg that is installed when none is cached.
const PSYCOPG: &str = "psycopg[binary]==3.2.9";
/// The JDBC driver that is fetched when none is cached.
const JDBC_VERSION: &str = "42.7.7";

/// What speaks S3 when none is cached: moto, without what it needs for the other services.
const MOTO: [&str; 3] = ["moto[s3]==5.2.3", "flask==3.1.3", "flask-cors==6.0.2"];
/// What speaks as Azure's blob storage when none is cached.
const AZURITE: &str = "azurite@3.35.0";

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
    python_with(&cache.join("psycopg"), "psycopg", &[PSYCOPG])
}

/// A Python that has moto's server, in an environment of its own.
pub fn python_with_moto(cache: &Path) -> Option<PathBuf> {
    python_with(&cache.join("moto"), "moto.server, flask_cors", &MOTO)
}

fn python_with(environment: &Path, modules: &str, packages: &[&str]) -> Option<PathBuf> {
    let python = environment.join("bin").join("python3");
    let works = || finish(Command::new(&python).args(["-c", &format!("import {modules}")])).is_ok();
    if !works() {
        finish(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment)).ok()?;
        finish(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet"])
                .args(packages),
        )
        .ok()?;
    }
    works().then_some(python)
}

/// Azurite's blob service, a script for Node.js.
pub fn azurite(cache: &Path) -> Option<PathBuf> {
    let folder = cache.join("azurite");
    let program = folder.join("node_modules").join(".bin").join("azurite-blob");
    if !program.is_file() {
        let quiet = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        finish(Command::new("npm").args(quiet).arg(&folder).arg(AZURITE)).ok()?;
    }
    program.is_file().then_some(program)
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
