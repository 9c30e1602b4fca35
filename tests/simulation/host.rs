//! A node's host: the process that runs on it, from a start to the crash that ends it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use volt_node::config::NodeConfig;
use volt_node::node::Node;
use volt_node::world::simulated::{
    DiskFault, Faults, SimulatedClock, SimulatedDisk, SimulatedNetwork, SimulatedRandom,
};
use volt_node::world::{CrashPoint, Fate, Planted, World};

use crate::archive;
use crate::control::PEER_PORT;
use crate::determinism::mix;
use crate::plan::{self, AtPoint, ENDED_BY_DISK, ROT_FOUND};
use crate::planted::planted;
use crate::shared::{Ended, Shared};
use crate::sql::SQL_PORT;

/// What a node says whose log is shorter than its checkpoint says.
const CUT_TOO_FAR: &str = "the log ends before the place that its checkpoint names";

/// So little that a node that was away for a moment is mostly filled.
const TAIL_MARGIN_BYTES: usize = 2 << 10;
/// So little that a fill is several chunks.
const FILL_CHUNK_BYTES: usize = 256;
/// So little that checkpoints are taken, and segments removed, all the time.
const CHECKPOINT_BYTES: u64 = 2 << 10;
/// What the network calls it.
pub fn name(node: u32) -> String {
    format!("node-{node}")
}

/// A node's process: starts, and runs until the host is crashed.
pub async fn process(
    node: u32,
    seed: u64,
    disk: Arc<SimulatedDisk>,
    faults: Arc<Faults>,
    shared: Shared,
) -> turmoil::Result {
    // Calendars are wrong by some seconds, each by its own.
    let skew_micros = match shared.archive.is_some() {
        // The moments of cuts are by the leader's.
        true => 0,
        false => (mix(seed ^ u64::from(node)) % 4_000_000) as i64 - 2_000_000,
    };
    let (start, calendar, is_still) = {
        let mut run = shared.run();
        let calendar = run.calendars.entry(node);
        let calendar = Arc::clone(calendar.or_insert_with(|| Arc::new(AtomicI64::new(skew_micros))));
        let starts = run.starts.entry(node).or_default();
        *starts += 1;
        let starts = *starts;
        if disk.fault() == DiskFault::None {
            run.failing = run.failing.filter(|failing| *failing != node);
        }
        (starts, calendar, Arc::clone(run.still.entry(node).or_default()))
    };
    let age = turmoil::sim_elapsed().unwrap_or_default();
    let mut world = World::simulated(
        SimulatedClock::with_calendar(age, calendar).standing_still_with(is_still),
        Arc::new(SimulatedNetwork::new(&name(node), faults)),
        Arc::clone(&disk),
        SimulatedRandom::new(mix(seed ^ (u64::from(node) << 40) ^ (start << 48))),
    );
    if let Some(archive) = &shared.archive {
        world.disk = archive.seen_by(node, &disk);
    }
    world.planted = planted().map(Planted::with).unwrap_or_default();
    world.fate = Some(Arc::new(Ends {
        node,
        disk,
        shared: shared.clone(),
    }));
    let mut config = NodeConfig::new(node, "");
    config.advertise = name(node);
    config.listen = "0.0.0.0".to_owned();
    config.peer_port = PEER_PORT;
    config.sql_port = SQL_PORT;
    config.tail_margin_bytes = TAIL_MARGIN_BYTES;
    config.fill_chunk_bytes = FILL_CHUNK_BYTES;
    config.checkpoint_bytes = CHECKPOINT_BYTES;
    config.archive = (shared.archive.is_some() && !shared.is_restored).then(archive::config);
    config.zone = plan::zone(seed, node);
    config.join = (1..=plan::nodes(seed))
        .map(|other| format!("{}:{PEER_PORT}", name(other)))
        .collect();
    shared.note(&format!("node {node} starts"));
    let started = Node::start(config, world).await;
    let ended = match started {
        Ok(running) => {
            shared.run().nodes.insert(node, Arc::downgrade(&running));
            format!("{:?}", running.run_until_stopped().await)
        }
        Err(error) => format!("{error:#}"),
    };
    if shared.run().met == Some(node) {
        // A dead process says nothing.
        std::future::pending::<()>().await;
    }
    let ended = format!("node {node} can't go on: {ended}");
    if !is_explained(node, &ended, &shared) {
        return Err(ended.into());
    }
    shared.note(&ended);
    std::future::pending().await
}

/// Whether what was done to its disk explains that a node ended by itself, with these words; that is noted then. What has changed must be
/// found by name.
fn is_explained(node: u32, ended: &str, shared: &Shared) -> bool {
    let mut run = shared.run();
    let rotten = run.rotten.as_ref();
    // What is written last, and is other than it was, is cut as torn, and what a checkpoint names may have been there.
    let names_it = rotten.is_some_and(|(rotten, file)| {
        let is_cut = file.starts_with("log") && ended.contains(CUT_TOO_FAR);
        *rotten == node && (is_cut || ended.contains(&*file.to_string_lossy()))
    });
    let (why, event) = match names_it {
        true => (Ended::Rot, ROT_FOUND),
        false if run.failing == Some(node) => (Ended::Disk, ENDED_BY_DISK),
        false => return false,
    };
    run.ended.insert(node, why);
    run.happened.insert(event.to_owned());
    true
}

/// Ends a process at the point that is armed: from then on its disk takes nothing from it. One that is cut off there goes on.
struct Ends {
    node: u32,
    disk: Arc<SimulatedDisk>,
    shared: Shared,
}

impl Fate for Ends {
    fn ends_at(&self, point: CrashPoint) -> bool {
        let mut run = self.shared.run();
        let Some(armed) = run.armed.as_mut().filter(|armed| armed.is_for(self.node, point)) else {
            return false;
        };
        if armed.passes > 0 {
            armed.passes -= 1;
            return false;
        }
        let how = armed.how;
        match how {
            AtPoint::WithoutPower => self.disk.crash(),
            AtPoint::Killed => self.disk.kill(),
            AtPoint::CutOff => {}
        }
        run.armed = None;
        run.met = Some(self.node);
        how != AtPoint::CutOff
    }
}
