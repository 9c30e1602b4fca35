//! Arguments of `volt-operator`, and its life: wait to lead, lead, give the Lease back.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use volt_operator::resources::Defaults;
use volt_operator::{controller, crd, http, leader, metrics};

/// Keeps VoltClusters alive on Kubernetes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator
    Run(Run),
    /// Prints the CustomResourceDefinition
    Crd,
}

#[derive(Args)]
struct Run {
    /// The image of volt-node, for clusters that name none
    #[arg(long, env = "VOLT_NODE_IMAGE")]
    node_image: String,
    /// When that image is pulled: Always, IfNotPresent or Never [default: as Kubernetes decides]
    #[arg(long, env = "VOLT_NODE_IMAGE_PULL_POLICY")]
    node_image_pull_policy: Option<String>,
    /// The only namespace to look after [default: all]
    #[arg(long, env = "VOLT_WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// The namespace of the operator's own Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// This operator's name among others
    #[arg(long, env = "POD_NAME")]
    name: String,
    /// The Lease that makes one of several operators the leader
    #[arg(long, env = "VOLT_LEASE_NAME", default_value = "volt-operator")]
    lease_name: String,
    /// The address of /livez, /readyz and /metrics
    #[arg(long, env = "VOLT_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    http_listen: String,
    /// What to log: a level, or levels by module
    #[arg(long, env = "VOLT_LOG", default_value = "info")]
    log: String,
    /// How a log line looks
    #[arg(long, env = "VOLT_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Crd => {
            print!("{}", crd::manifest()?);
            Ok(())
        }
        Command::Run(arguments) => run(arguments).await,
    }
}

fn log(arguments: &Run) -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&arguments.log)?)
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

async fn run(arguments: Run) -> anyhow::Result<()> {
    log(&arguments)?;
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("another cryptography provider is installed already");
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let client = Client::try_default().await.context("no access to a Kubernetes")?;
    let metrics = Arc::new(metrics::Metrics::default());
    let listener = TcpListener::bind(&arguments.http_listen)
        .await
        .with_context(|| arguments.http_listen.clone())?;
    let site = tokio::spawn(http::serve(listener, Arc::clone(&metrics)));
    let mut candidate = leader::Candidate::new(
        client.clone(),
        &arguments.namespace,
        &arguments.lease_name,
        &arguments.name,
    );
    tokio::select! {
        () = candidate.lead() => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    tracing::info!(name = arguments.name, "this operator leads");
    metrics.leads(true);
    let defaults = Defaults {
        image: arguments.node_image.clone(),
        image_pull_policy: arguments
            .node_image_pull_policy
            .clone()
            .filter(|policy| !policy.is_empty()),
    };
    let namespace = arguments
        .watch_namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty());
    let work = controller::run(client, namespace, &arguments.name, metrics, defaults);
    tokio::select! {
        () = work => bail!("the controller ended"),
        // Whoever took over works already: this process must not finish anything that it began.
        () = candidate.keep() => bail!("the Lease is lost"),
        site = site => bail!("the HTTP server ended: {site:?}"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    candidate.resign().await;
    Ok(())
}
