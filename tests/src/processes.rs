//! Real nodes: child processes of the real binary on loopback. Only children of this process are ever signalled.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The binary under test: `VOLT_NODE_BIN`, or built now, into the folder that this test was built into.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| find_binary().unwrap_or_else(|error| panic!("volt-node: {error:#}")))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("VOLT_NODE_BIN") {
        return Ok(given.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // What cargo tells this process of its package would look like a change to build scripts that ask for the same of theirs.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_package) {
            build.env_remove(name);
        }
    }
    // As `cargo test --workspace` builds, so that nothing is compiled again with other features.
    let status = build
        .args(["build", "--quiet", "--workspace", "--bins", "--tests"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "cargo build -p volt-node: {status}");
    // target/debug/deps/cluster-... -> target/debug/volt-node
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test has no folder")?;
    let binary = folder.join("volt-node");
    ensure!(binary.is_file(), "{} was not built", binary.display());
    Ok(binary)
}

/// Whether cargo sets this variable for a package's own processes.
fn is_of_a_package(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == "OUT_DIR" || name == "CARGO_PRIMARY_PACKAGE"
}

/// Ports that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port of loopback"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("an address").port())
        .collect()
}

/// `volt-node dev` takes a run of ports: the one that it is given and the next ones.
pub fn free_run_of_ports(count: u16) -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..50)
        .filter_map(|_| free_ports(1).first().copied())
        .find(|first| (1..count).all(|next| first.checked_add(next).is_some_and(is_free)))
        .with_context(|| format!("no {count} free ports in a row"))
}

/// A node started by the test itself.
pub struct NodeProcess {
    /// Its number.
    pub node: u32,
    /// The port of its peer protocol.
    pub peer_port: u16,
    /// SQL's port.
    pub sql_port: u16,
    /// The port of its metrics and probes.
    pub http_port: u16,
    /// The address under which others reach its peer port.
    pub advertise: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl NodeProcess {
    /// Starts it; what it prints goes to a file beside its data.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs already", self.node);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(binary())
            .arg("start")
            .args(&self.arguments)
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary().display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The folder of its files.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self
            .child
            .take()
            .with_context(|| format!("node {} does not run", self.node))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP: freezes it.
    pub fn freeze(&self) -> Result<()> {
        signal(self.pid().context("not running")?, libc::SIGSTOP)
    }

    /// SIGCONT: lets it go on.
    pub fn thaw(&self) -> Result<()> {
        signal(self.pid().context("not running")?, libc::SIGCONT)
    }

    /// Loses all its files, as when its volume is gone. It must not run.
    pub fn lose_data(&self) -> Result<()> {
        ensure!(self.child.is_none(), "node {} runs", self.node);
        Ok(std::fs::remove_dir_all(&self.data)?)
    }

    /// Gives it more arguments, from its next start on.
    pub fn add_arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|&word| word.to_owned()));
    }

    /// Gives the argument of this name, which it has, another value, from its next start on.
    pub fn set_argument(&mut self, name: &str, value: &str) {
        let value_of = self.arguments.windows(2).position(|pair| pair[0] == name);
        let place = value_of.expect("it was given this argument") + 1;
        self.arguments[place] = value.to_owned();
    }

    /// All that it printed, over all its starts.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// The end of what it printed, for a failing test.
    pub fn log_tail(&self) -> String {
        let text = self.log().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!(
            "--- node {}\n{}\n",
            self.node,
            lines[lines.len().saturating_sub(40)..].join("\n")
        )
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// Sends a signal to a child of this process.
#[allow(unsafe_code)] // std sends no other signal than SIGKILL
pub fn signal(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: kill(2) takes two numbers; the process is a child of ours that was not waited for, so its id is not another's.
    let result = unsafe { libc::kill(pid as i32, signal) };
    ensure!(
        result == 0,
        "signal {signal} to {pid}: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Nodes started one by one, by the test.
pub struct Nodes {
    /// The nodes, by number less 1.
    pub nodes: Vec<NodeProcess>,
    /// Their data; removed at the end.
    pub folder: tempfile::TempDir,
}

impl Nodes {
    /// Starts so many nodes. `advertise` says under which host the peer port of a node is reached (127.0.0.1 unless a proxy
    /// stands before it). The cluster is not yet initialised.
    pub fn start(count: u32, advertise: impl Fn(u32) -> String) -> Result<Self> {
        Self::start_with(count, advertise, &[])
    }

    /// The same, each with more arguments of `volt-node start`.
    pub fn start_with(count: u32, advertise: impl Fn(u32) -> String, more: &[&str]) -> Result<Self> {
        Self::start_in(&[], count, advertise, more)
    }

    /// The same, with more variables in their environment.
    pub fn start_in(
        environment: &[(String, String)],
        count: u32,
        advertise: impl Fn(u32) -> String,
        more: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ports = free_ports(3 * count as usize);
        let port = |node: u32, which: usize| ports[3 * (node as usize - 1) + which];
        let join: Vec<String> = (1..=count)
            .map(|node| format!("{}:{}", advertise(node), port(node, 0)))
            .collect();
        let mut nodes = Vec::new();
        for node in 1..=count {
            let data = folder.path().join(format!("node-{node}"));
            let arguments = [
                ("--node-id", node.to_string()),
                ("--listen", "127.0.0.1".to_owned()),
                ("--advertise", advertise(node)),
                ("--peer-port", port(node, 0).to_string()),
                ("--sql-port", port(node, 1).to_string()),
                ("--http-port", port(node, 2).to_string()),
                ("--data", data.display().to_string()),
                ("--join", join.join(",")),
            ];
            let mut process = NodeProcess {
                node,
                peer_port: port(node, 0),
                sql_port: port(node, 1),
                http_port: port(node, 2),
                advertise: advertise(node),
                arguments: arguments
                    .into_iter()
                    .flat_map(|(name, value)| [name.to_owned(), value])
                    .chain(more.iter().map(|&argument| argument.to_owned()))
                    .collect(),
                environment: environment.to_vec(),
                data,
                log: folder.path().join(format!("node-{node}.log")),
                child: None,
            };
            process.start()?;
            nodes.push(process);
        }
        Ok(Self { nodes, folder })
    }

    /// The node of this number.
    pub fn node(&mut self, node: u32) -> &mut NodeProcess {
        &mut self.nodes[node as usize - 1]
    }
}

/// Whether there is a process with this id that runs or could (one that has ended, and that nobody waited for, is none).
pub fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `4711 (volt-node) S ...`; the name may hold anything.
    let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// `volt-node dev`: the laptop's cluster, with its supervisor.
pub struct Dev {
    child: Child,
    lines: Receiver<String>,
    /// What it printed, line by line.
    pub seen: Vec<String>,
    /// Node, pid, SQL port: of the newest line of each node.
    pub nodes: Vec<(u32, u32, u16)>,
}

impl Dev {
    /// Starts it with these arguments after `dev`, and waits for `ready`.
    pub fn start(arguments: &[&str], limit: Duration) -> Result<Self> {
        let mut child = Command::new(binary())
            .arg("dev")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut dev = Self {
            child,
            lines,
            seen: Vec::new(),
            nodes: Vec::new(),
        };
        dev.wait_for(limit, |line| line == "ready")?;
        Ok(dev)
    }

    /// Returns the next line that this holds for.
    pub fn wait_for(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!(
                    "volt-node dev did not print what was waited for; it printed:\n{}",
                    self.seen.join("\n")
                );
            };
            self.note(&line);
            self.seen.push(line.clone());
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// `node=1 pid=4711 sql=127.0.0.1:5433`
    fn note(&mut self, line: &str) {
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let (Some(node), Some(pid), Some(sql)) = (field("node"), field("pid"), field("sql")) else {
            return;
        };
        let port = sql.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if let (Ok(node), Ok(pid), Some(port)) = (node.parse(), pid.parse(), port) {
            self.nodes.retain(|(known, ..)| *known != node);
            self.nodes.push((node, pid, port));
        }
    }

    /// Takes in what was printed since.
    pub fn catch_up(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
            self.seen.push(line);
        }
    }

    /// SQL's port of this node.
    pub fn sql_port(&self, node: u32) -> u16 {
        self.nodes
            .iter()
            .find(|(known, ..)| *known == node)
            .map_or(0, |(.., port)| *port)
    }

    /// kill -9 of a node: a grandchild, which its supervisor, our child, has named and has not been told to wait for.
    pub fn kill_node(&mut self, node: u32) -> Result<()> {
        self.catch_up();
        let (_, pid, _) = *self
            .nodes
            .iter()
            .find(|(known, ..)| *known == node)
            .context("no such node")?;
        signal(pid, libc::SIGKILL)
    }

    /// kill -9 of the supervisor.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ctrl-C, and how it ended.
    pub fn interrupt(mut self) -> Result<std::process::ExitStatus> {
        signal(self.child.id(), libc::SIGINT)?;
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("volt-node dev did not stop on Ctrl-C")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Politely first, so that it takes its children with it.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = signal(self.child.id(), libc::SIGTERM);
            for _ in 0..100 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
