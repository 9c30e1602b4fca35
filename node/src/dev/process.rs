//! One node's process, as its supervisor sees it.

use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::cluster::NodeSettings;

/// Makes this process die with its parent, and checks that the parent is the one that is meant.
pub(crate) fn die_with(supervisor: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the line above.
    let parent = getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    if u32::try_from(parent) != Ok(supervisor) {
        bail!("the supervisor {supervisor} is gone");
    }
    Ok(())
}

/// A running node. Dropping it kills it.
pub(crate) struct NodeProcess {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) started: Instant,
}

impl NodeProcess {
    /// Starts a node. To be called from the main thread: the kernel ends a child when the *thread* that made it ends.
    pub(crate) fn start(settings: &NodeSettings) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        std::fs::create_dir_all(&settings.folder)
            .with_context(|| format!("cannot make {}", settings.folder.display()))?;
        let path = settings.log_file();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(program);
        command.arg("start").args(settings.arguments());
        command.args(["--supervisor", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Its own process group: Ctrl-C is for the supervisor, which stops the nodes in its own way.
        command.process_group(0).kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start node {}", settings.node_id))?;
        let pid = child.id().context("the node has ended at once")?;
        Ok(Self {
            child,
            pid,
            started: Instant::now(),
        })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Returns when it has ended.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it like `kill -9`, and returns when it is gone.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
