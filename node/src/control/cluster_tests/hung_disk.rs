//! A node whose disk hangs sends heartbeats and answers every probe. It must say so itself, and be taken for dead until
//! the disk is back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::config::IntervalDetection;
use crate::metadata::failure::{FailureEnd, Medium};
use crate::world::{AppendFile, Disk};

/// The data directory, until it hangs: then no write returns before it is well again.
struct Hanging {
    disk: Arc<dyn Disk>,
    hangs: watch::Receiver<bool>,
}

struct HangingFile {
    file: Box<dyn AppendFile>,
    hangs: watch::Receiver<bool>,
}

async fn pass(hangs: &watch::Receiver<bool>) {
    let _ = hangs.clone().wait_for(|hangs| !hangs).await;
}

#[async_trait]
impl Disk for Hanging {
    async fn create_directory(&self, path: &Path) -> io::Result<()> {
        pass(&self.hangs).await;
        self.disk.create_directory(path).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(directory).await
    }

    async fn read(&self, path: &Path) -> io::Result<Bytes> {
        self.disk.read(path).await
    }

    async fn read_range(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        self.disk.read_range(path, offset, length).await
    }

    async fn write_atomic(&self, path: &Path, content: Bytes) -> io::Result<()> {
        pass(&self.hangs).await;
        self.disk.write_atomic(path, content).await
    }

    async fn open_append(&self, path: &Path, length: Option<u64>) -> io::Result<Box<dyn AppendFile>> {
        pass(&self.hangs).await;
        let (file, hangs) = (self.disk.open_append(path, length).await?, self.hangs.clone());
        Ok(Box::new(HangingFile { file, hangs }))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        pass(&self.hangs).await;
        self.disk.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        pass(&self.hangs).await;
        self.disk.remove(path).await
    }
}

#[async_trait]
impl AppendFile for HangingFile {
    async fn append(&mut self, buffers: &[Bytes]) -> io::Result<()> {
        pass(&self.hangs).await;
        self.file.append(buffers).await
    }

    async fn sync(&mut self) -> io::Result<()> {
        pass(&self.hangs).await;
        self.file.sync().await
    }
}

/// Node `node` finds failures by probes, and the switch that hangs its disk.
fn start(place: &Place, node: NodeId) -> (Node, watch::Sender<bool>) {
    let (switch, hangs) = watch::channel(false);
    let mut config = place.config(node);
    config.detection.interval = Some(IntervalDetection {
        every: Duration::from_millis(100),
        misses: 4,
        ..IntervalDetection::default()
    });
    let mut world = open_world(&config.data);
    world.disk = Arc::new(Hanging {
        disk: Arc::clone(&world.disk),
        hangs,
    });
    (Place::start_in(config, world), switch)
}

#[test]
fn a_node_whose_disk_hangs_gives_up_its_primaries_until_it_is_well() {
    let place = Place::new(3);
    let started: Vec<(Node, watch::Sender<bool>)> = (1..=3).map(|node| start(&place, node)).collect();
    let nodes: Vec<&Node> = started.iter().map(|(node, _)| node).collect();
    nodes[0].initialise();
    eventually("all join", &nodes, |node| node.map().nodes.len() == 3);
    nodes[0].propose(table());
    eventually("whole", &nodes, |node| is_whole(&node.map(), 3));
    eventually("all vote", &nodes, |node| node.metadata.voters().len() == 3);
    let leader = nodes[0].metadata.leader().unwrap();
    // One that follows, then the one that leads the metadata group and decides about the others.
    for (nth, victim) in [leader % 3 + 1, leader].into_iter().enumerate() {
        let (hung, switch) = &started[victim as usize - 1];
        let others: Vec<&Node> = nodes
            .iter()
            .copied()
            .filter(|node| node.metadata.node_id() != victim)
            .collect();
        switch.send_replace(true);
        let took = eventually("its primaries are others'", &others, |node| {
            let map = node.map();
            !map.is_alive(victim) && map.roles(victim).primaries == 0 && is_led_by_the_living(&map)
        });
        println!("a hung disk: other primaries after {} ms", took.as_millis());
        assert!(!hung.metadata.lease().is_valid(), "it serves on");
        let map = others[0].map();
        let failure = map.failures.iter().find(|failure| failure.node_id == victim).unwrap();
        assert_eq!(
            (failure.finding.strategy, failure.finding.medium),
            (Strategy::Interval, Medium::FileSystem)
        );
        assert!(failure.finding.evidence.contains("has not returned for"), "{failure:?}");
        switch.send_replace(false);
        eventually("whole again", &nodes, |node| {
            let map = node.map();
            let ended = map
                .failures
                .iter()
                .filter(|failure| failure.end == Some(FailureEnd::Revived))
                .count();
            is_whole(&map, 3) && ended == nth + 1
        });
    }
}
