//! The catalog of the engine's TPC-C bench, `node/engine/benches/tpcc/catalog.postcard`: what a whole node makes of its scripts.
//! `UPDATE_GOLDENFILES=1 cargo test -p volt-node tpcc` writes it anew.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::time::{Duration, Instant, sleep};
use tokio_postgres::NoTls;
use volt_engine::catalog::IndexState;
use volt_proto::v1::InitialiseRequest;

use crate::WORKER_STACK_BYTES;
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
async fn catalog_of(scripts: &[&str]) -> anyhow::Result<Arc<ClusterMap>> {
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
        ..Default::default()
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

#[test]
fn the_catalog_of_the_bench_is_what_a_node_makes_of_its_scripts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/benches/tpcc");
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let scripts = [read("schema.sql")?, read("procedures.sql")?];
    let map = runtime.block_on(catalog_of(&[&scripts[0], &scripts[1]]))?;
    let tables: Vec<_> = map.tables.values().collect();
    let procedures: Vec<_> = map.procedures.values().collect();
    let made = postcard::to_stdvec(&(tables, procedures))?;
    let file = folder.join("catalog.postcard");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(&file, &made)?;
    }
    ensure!(std::fs::read(&file)? == made, "{} is out of date", file.display());
    Ok(())
}
