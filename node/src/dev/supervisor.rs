//! `volt-node dev`: watches the nodes, and restarts those whose recovery somebody asks for.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, MissedTickBehavior, interval};

use super::cluster::{DevCluster, DevNode};
use super::{DevArguments, NODES_TO_SURVIVE_A_LOSS};

/// Time between two looks at the cluster.
const WATCH: Duration = Duration::from_millis(200);
/// A process younger than this is starting, and not called stuck.
const STARTING: Duration = Duration::from_secs(3);

/// Runs the cluster until Ctrl-C, SIGTERM or the terminal's end. To be awaited on the main thread.
pub async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    if arguments.nodes < NODES_TO_SURVIVE_A_LOSS {
        let least = NODES_TO_SURVIVE_A_LOSS;
        eprintln!("note: with fewer than {least} nodes the cluster does not survive the loss of one");
    }
    let mut cluster = tokio::select! {
        cluster = DevCluster::start(&arguments) => cluster?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        _ = hangup.recv() => return Ok(()),
    };
    say(format_args!("ready"));
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
            _ = ticks.tick() => watch(&mut cluster).await,
        }
    }
    cluster.stop().await;
    Ok(())
}

/// One line for whoever reads our output, who may be gone.
pub(super) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

async fn watch(cluster: &mut DevCluster) {
    for node in &mut cluster.nodes {
        if let Some((pid, status)) = node.reap() {
            let how = match status.signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("code {}", status.code().unwrap_or(-1)),
            };
            eprintln!("node={} pid={pid} ended: {how}", node.settings.node_id);
        }
    }
    let Some(status) = cluster.status().await else {
        return;
    };
    for node in &mut cluster.nodes {
        let node_id = node.settings.node_id;
        if !status.recovering.contains(&node_id) {
            continue;
        }
        let alive = status
            .nodes
            .iter()
            .any(|known| known.node_id == node_id && known.is_alive);
        if let Err(error) = recover(node, alive).await {
            eprintln!("cannot restart node {node_id}: {error:#}");
        }
    }
}

/// Restarts a node that is dead, or that lives but neither counts as alive nor answers (it is frozen, for instance).
async fn recover(node: &mut DevNode, alive: bool) -> anyhow::Result<()> {
    if let Some(process) = &node.process {
        let settled = process.started.elapsed() > STARTING;
        if alive || !settled || node.control.status().await.is_some() {
            return Ok(());
        }
        node.kill().await?;
    }
    node.start()
}
