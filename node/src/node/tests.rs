//! A node that can't keep its part of the metadata group ends, also while it comes up: nobody would ever let it in.

use std::path::Path;

use super::*;
use crate::metadata::identity::Founding;
use crate::world::simulated::{DiskFault, SimulatedDisk, SimulatedRandom};

/// How long it may take to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A node with this in its metadata folder, in which nothing more fits, is initialised; how it ends.
async fn ends_with(log: Option<&[u8]>) -> String {
    let disk = SimulatedDisk::new(SimulatedRandom::new(1), false);
    if let Some(bytes) = log {
        disk.put(Path::new("metadata/log"), bytes.to_vec());
    }
    disk.set_fault(DiskFault::FullIn("metadata"));
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::production(folder.path()).unwrap();
    world.disk = Arc::new(disk.mount());
    let mut config = NodeConfig::new(1, folder.path());
    (config.peer_port, config.sql_port, config.http_port) = (0, 0, 0);
    let node = Node::start(config, world).await.unwrap();
    // It looks for somebody who lets it in.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let initialised = node.metadata.initialise("", Founding::default()).await;
    initialised.expect_err("nothing fits");
    let ended = tokio::time::timeout(LIMIT, node.run_until_stopped()).await;
    let error = ended.expect("it ends").expect_err("it can't go on");
    error.to_string()
}

#[tokio::test]
async fn a_node_whose_metadata_log_cannot_begin_ends() {
    let ended = ends_with(None).await;
    assert!(ended.contains("the metadata group's member has stopped"), "{ended}");
}

#[tokio::test]
async fn a_node_whose_first_entry_cannot_be_written_ends() {
    let ended = ends_with(Some(b"VOLTMLG1")).await;
    assert!(ended.contains("the metadata group's member has stopped"), "{ended}");
}
