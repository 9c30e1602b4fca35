//! Measurements that anybody can run: `volt-node bench ...`.

pub mod bare_loop;
pub mod calls;
pub mod failover;
pub mod fill;
pub mod log;
pub mod replay;
#[cfg(test)]
mod tpcc_tests;

use clap::Args;
use tokio_postgres::{Client, NoTls};

use crate::config::{
    ArchiveArguments, BalancingArguments, DetectionArguments, Durability, RecoveryArguments, RestoreArguments,
};
use crate::dev::DevArguments;

/// The cluster that a measurement starts for itself.
#[derive(Args, Clone, Debug)]
pub struct OwnCluster {
    /// When a write is safe on a node
    #[arg(long, value_enum, default_value = "fsync")]
    durability: Durability,
    /// The first SQL port
    #[arg(long, default_value_t = 15433)]
    sql_port: u16,
    /// The first peer port
    #[arg(long, default_value_t = 17433)]
    peer_port: u16,
    /// The first HTTP port
    #[arg(long, default_value_t = 18433)]
    http_port: u16,
}

impl OwnCluster {
    /// So many nodes, whose data goes when it ends; everything else as by default.
    fn of(&self, nodes: u32) -> DevArguments {
        DevArguments {
            balancing: BalancingArguments::default(),
            nodes,
            data: "data".into(),
            ephemeral: true,
            sql_port: self.sql_port,
            peer_port: self.peer_port,
            http_port: self.http_port,
            durability: self.durability,
            memory_limit: None,
            detection: DetectionArguments::default(),
            recovery: RecoveryArguments::default(),
            archive: ArchiveArguments::default(),
            restore: RestoreArguments::default(),
            log: "warn".to_owned(),
        }
    }
}

async fn connect(port: u16) -> anyhow::Result<Client> {
    let target = format!("host=127.0.0.1 port={port} user=volt dbname=volt connect_timeout=2");
    let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
