//! `volt-node start`: one node, until it is told to stop.

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::{self, LogArguments};
use crate::config::StartArguments;
use crate::dev::process::die_with;
use crate::node::Node;
use crate::world::World;

/// Arguments of `volt-node start`.
#[derive(Args, Clone, Debug)]
pub struct Start {
    #[command(flatten)]
    node: StartArguments,
    #[command(flatten)]
    log: LogArguments,
    /// The process to die with, for `volt-node dev`
    #[arg(long, hide = true)]
    supervisor: Option<u32>,
}

/// Runs a node until SIGTERM or SIGINT, or until it can't go on.
pub async fn run(arguments: Start) -> anyhow::Result<()> {
    logging::start(&arguments.log)?;
    if let Some(supervisor) = arguments.supervisor {
        die_with(supervisor)?;
    }
    let mut config = arguments.node.into_config()?;
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    config.started_at = i64::try_from(since_1970.as_secs())?;
    let world = World::production(&config.data)
        .with_context(|| format!("cannot use the data directory {}", config.data.display()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node_id = config.node_id;
    let node = Node::start(config, world).await?;
    tracing::info!(node_id, "started");
    tokio::select! {
        ended = node.run_until_stopped() => {
            ended?;
            bail!("the node has stopped by itself");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(node_id, "stopping");
    node.stop().await;
    Ok(())
}
