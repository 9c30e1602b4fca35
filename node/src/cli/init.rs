//! `volt-node init`: makes a new cluster of one node, which others can join.

use clap::Args;
use volt_engine::value::timestamp_to_text;
use volt_proto::v1::InitialiseRequest;

use crate::config::RestoreArguments;
use crate::dev::control::Control;

/// Arguments of `volt-node init`.
#[derive(Args, Clone, Debug)]
pub struct Init {
    /// The peer address of the node that becomes the first one
    #[arg(long, env = "VOLT_ADDRESS", default_value = "127.0.0.1:7000")]
    address: String,
    /// The cluster's UUID; without it the node draws one
    #[arg(long)]
    uuid: Option<String>,
    /// Partitions of each replication group, for the cluster's life [default: 12]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=1024))]
    partitions: u32,
    #[command(flatten)]
    restore: RestoreArguments,
}

/// Initialises and prints the cluster's UUID.
pub async fn run(arguments: Init) -> anyhow::Result<()> {
    let control = Control::to(&arguments.address)?;
    let request = InitialiseRequest {
        cluster_uuid: arguments.uuid.unwrap_or_default(),
        partitions: arguments.partitions,
        ..arguments.restore.in_request()
    };
    let made = control.initialise(request).await?;
    println!("cluster={}", made.cluster_uuid);
    if made.restored_micros != 0 {
        println!("restored={} UTC", timestamp_to_text(made.restored_micros));
    }
    Ok(())
}
