//! The catalog that statements make, for benches in process: tables, and procedures as the planner compiles them.
//!
//! A whole node takes the statements, so that nothing is compiled in another way than for a user.

use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::NoTls;
use volt_engine::catalog::IndexState;
use volt_proto::v1::InitialiseRequest;

use crate::config::{DATABASE, Durability, NodeConfig};
use crate::dev::control::Control;
use crate::metadata::map::ClusterMap;
use crate::node::Node;
use crate::world::World;

/// How long the node may take to serve, and to build an index of nothing.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOPBACK: &str = "127.0.0.1";

/// Runs these scripts, one after the other, on a node of its own whose groups have one partition, and says what the
/// catalog is then. Indexes are ready before the next script runs.
pub async fn catalog_of(scripts: &[&str]) -> anyhow::Result<Arc<ClusterMap>> {
    let folder = tempfile::tempdir()?;
    let world = World::production(folder.path())?;
    let mut config = NodeConfig::new(1, folder.path());
    config.durability = Durability::Memory;
    for port in [&mut config.peer_port, &mut config.sql_port, &mut config.http_port] {
        *port = free_port(&world).await?;
    }
    let (peer_address, sql_port) = (config.peer_address(), config.sql_port);
    let node = Node::start(config, world).await?;
    let request = InitialiseRequest {
        cluster_uuid: String::new(),
        partitions: 1,
    };
    Control::to(&peer_address)?.initialise(request).await?;
    let client = connect(sql_port).await?;
    for script in scripts {
        client.batch_execute(script).await?;
        indexes_are_ready(&node).await?;
    }
    let map = node.map();
    node.stop().await;
    Ok(map)
}

async fn free_port(world: &World) -> anyhow::Result<u16> {
    let address = world.network.listen(&format!("{LOOPBACK}:0")).await?.local_address();
    let (_, port) = address.rsplit_once(':').context("an address without a port")?;
    Ok(port.parse()?)
}

async fn connect(port: u16) -> anyhow::Result<tokio_postgres::Client> {
    let address = format!("host={LOOPBACK} port={port} user={DATABASE} dbname={DATABASE}");
    let begun = Instant::now();
    loop {
        match tokio_postgres::connect(&address, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if begun.elapsed() > LIMIT => return Err(error.into()),
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

async fn indexes_are_ready(node: &Node) -> anyhow::Result<()> {
    let begun = Instant::now();
    let are_ready = |map: &ClusterMap| {
        let mut indexes = map.tables.values().flat_map(|table| &table.indexes);
        indexes.all(|index| index.state == IndexState::Ready)
    };
    while !are_ready(&node.map()) {
        ensure!(begun.elapsed() < LIMIT, "an index is not built");
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
