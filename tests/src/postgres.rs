//! A real PostgreSQL: one server on loopback, in a folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::processes::{free_ports, signal};

/// From its start to its first answer.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const SIGINT: i32 = 2;

/// The server; it ends with this.
pub struct Postgres {
    /// Where it listens, on 127.0.0.1. Its superuser is `volt`, without a password.
    pub port: u16,
    bin: PathBuf,
    data: tempfile::TempDir,
    process: Option<Child>,
}

/// The folder of its programs, which is installed when there is none.
fn programs() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends", "postgresql"]);
    let status = install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "apt-get install postgresql: {status}");
    installed().context("postgresql was installed, and its programs are not there")
}

fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("postgres").is_file()).max()
}

/// The user and group `postgres`, as which it runs when this is root: it refuses to be root.
fn unprivileged() -> Result<Option<(u32, u32)>> {
    let number = |option| -> Result<u32> {
        let output = Command::new("id").args([option, "postgres"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    };
    let own = Command::new("id").arg("-u").output()?;
    match String::from_utf8_lossy(&own.stdout).trim() {
        "0" => Ok(Some((number("-u")?, number("-g")?))),
        _ => Ok(None),
    }
}

fn command(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    if let Some((user, group)) = unprivileged()? {
        command.gid(group).uid(user);
    }
    command.current_dir("/").stdin(Stdio::null());
    Ok(command)
}

impl Postgres {
    /// A new, empty one, with a database `volt`.
    pub fn start() -> Result<Self> {
        let bin = programs()?;
        let data = tempfile::tempdir()?;
        if let Some((user, group)) = unprivileged()? {
            std::os::unix::fs::chown(data.path(), Some(user), Some(group))?;
        }
        let mut init = command(&bin.join("initdb"))?;
        init.args(["-U", "volt", "-A", "trust", "-N", "--locale=C.UTF-8", "-D"]);
        let output = init.arg(data.path().join("db")).output()?;
        ensure!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut postgres = Self {
            port: free_ports(1)[0],
            bin,
            data,
            process: None,
        };
        postgres.run()?;
        let mut create = command(&postgres.bin.join("createdb"))?;
        create.args(["-h", "127.0.0.1", "-U", "volt", "-p"]);
        let output = create.arg(postgres.port.to_string()).arg("volt").output()?;
        ensure!(
            output.status.success(),
            "createdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(postgres)
    }

    /// Starts its process, again after `stop`.
    pub fn run(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.data.path().join("log"))?;
        let mut server = command(&self.bin.join("postgres"))?;
        server.arg("-D").arg(self.data.path().join("db"));
        server
            .args(["-h", "127.0.0.1", "-k", "", "-F", "-p"])
            .arg(self.port.to_string());
        let process = server.stdout(log.try_clone()?).stderr(log).spawn()?;
        self.process = Some(process);
        let limit = Instant::now() + STARTS_WITHIN;
        let ready = self.bin.join("pg_isready");
        let port = self.port.to_string();
        while !Command::new(&ready)
            .args(["-q", "-h", "127.0.0.1", "-p", &port])
            .status()?
            .success()
        {
            let said = || std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < limit, "PostgreSQL does not start: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends its process, and every connection.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), SIGINT)?;
            process.wait()?;
        }
        Ok(())
    }

    /// Its address for a link.
    pub fn url(&self) -> String {
        format!("postgres://volt@127.0.0.1:{}/volt", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
