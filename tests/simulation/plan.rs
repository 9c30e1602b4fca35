//! What goes wrong in a run, and when: a function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use volt_node::world::simulated::DiskFault;
use volt_node::world::{CrashPoint, PlantedBug};

use crate::determinism::mix;
use crate::planted::planted;

/// Nodes of most clusters.
const FEWEST_NODES: u32 = 3;
/// One seed in so many has more than four nodes.
const LARGE_EVERY: u64 = 48;
/// One seed in so many goes on for longer, with more faults.
const LONG_EVERY: u64 = 10;
/// One seed in so many has those who change tables, who cost as much as all others.
const CHANGING_EVERY: u64 = 5;
/// Two seeds in so many have faults that overlap, one of them with a point for its last.
const OVERLAPPING_EVERY: u64 = 8;
/// One seed in so many has an archive.
const ARCHIVED_EVERY: u64 = 7;
/// One seed in so many has faults of all kinds, one upon the other.
const WILD_EVERY: u64 = 40;
/// Faults of such a run.
const WILD_FAULTS: usize = 6;
/// Clusters of so many nodes are in zones,
const NODES_IN_ZONES: u32 = 5;
/// of which there are so many.
pub const ZONES: u32 = 3;

/// Nodes with which this seed's cluster is made: 3 or 4, now and then up to 9. Planted bugs are found in the smallest.
pub fn nodes(seed: u64) -> u32 {
    match seed % LARGE_EVERY {
        _ if planted().is_some() => FEWEST_NODES,
        6 => 5,
        15 => 6,
        23 => 7,
        32 => 8,
        41 => 9,
        n if n % 3 == 1 => 4,
        _ => FEWEST_NODES,
    }
}

/// Whether tables and columns are changed in this run. Planted bugs have nothing to do with that, and are found in less time without.
pub fn changes_tables(seed: u64) -> bool {
    planted().is_none() && seed.is_multiple_of(CHANGING_EVERY)
}

/// Whether this seed's cluster is archived, and another one made of that at the end.
pub fn archives(seed: u64) -> bool {
    match planted() {
        Some(bug) => bug == PlantedBug::CutNotHeld,
        None => seed % ARCHIVED_EVERY == 3,
    }
}

fn is_long(seed: u64) -> bool {
    seed.is_multiple_of(LONG_EVERY)
}

fn is_wild(seed: u64) -> bool {
    seed % WILD_EVERY == 17
}

fn is_overlapping(seed: u64) -> bool {
    is_wild(seed) || matches!(seed % OVERLAPPING_EVERY, 3 | 6)
}

/// Whether this seed's nodes are in zones.
pub fn has_zones(seed: u64) -> bool {
    nodes(seed) >= NODES_IN_ZONES
}

/// The zone of a node; empty where there are none.
pub fn zone(seed: u64, node: u32) -> String {
    match has_zones(seed) {
        true => format!("zone-{}", node % ZONES),
        false => String::new(),
    }
}

/// One thing that goes wrong, and is put right after `lasts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, from the start of the workload.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// To which node.
    pub node: u32,
    /// What.
    pub kind: FaultKind,
    /// It begins at its time, whatever else is wrong with other nodes; else when all is put right.
    pub overlaps: bool,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The process is killed; its machine refuses connections; the kernel keeps what was written.
    Kill,
    /// The machine loses power: silence, and what was not flushed is lost or torn.
    PowerCut,
    /// All machines lose power at once.
    PowerCutOfAll,
    /// All machines of the node's zone do.
    ZoneLost,
    /// The process stands still, and then goes on: its clocks have jumped, and what it was about to do it does.
    StandsStill,
    /// The node and the others don't hear each other; what was sent arrives when that is over.
    CutOff {
        /// Clients don't reach it either.
        from_clients_too: bool,
    },
    /// The node and the next one don't hear each other; the others hear both.
    Apart,
    /// The node hears nothing of the next one, or of all; they hear it.
    Deaf {
        /// To all of them.
        to_all: bool,
    },
    /// The node and the others don't hear each other, then they do, and so on.
    Flapping {
        /// From one change to the next.
        period: Duration,
    },
    /// Every message takes up to so long.
    SlowNetwork {
        /// The longest that one takes.
        longest: Duration,
    },
    /// Every connection of the node breaks; what was under way in them is lost.
    Broken,
    /// The same again and again: answers are lost, and requests come again that were carried out.
    Breaking {
        /// From one break to the next.
        period: Duration,
    },
    /// The node's disk takes its time.
    SlowDisk {
        /// The longest that a flush takes.
        longest_flush: Duration,
    },
    /// The node's disk takes nothing more, all of it or the folder of checkpoints. A node that ends of it starts again after that.
    DiskFails {
        /// In which way.
        how: DiskFault,
    },
    /// The process is killed, and a bit of its disk changes. A node that does not start of it loses its volume.
    Rot,
    /// The node's calendar is set wrong, for good.
    CalendarJump {
        /// By how much.
        by_seconds: i64,
    },
    /// A new node, with nothing on its disk, joins, and stays.
    Joins,
    /// The node is drained and removed, as the operator does it; before that a new one joins.
    Replaced,
    /// The first process that comes to this point, after others have passed it `passes` times, ends there, or goes on alone.
    At {
        /// Where.
        point: CrashPoint,
        /// How often it is passed first.
        passes: u64,
        /// What happens to it.
        how: AtPoint,
        /// Only to this fault's node.
        only_here: bool,
    },
}

/// What happens to a process that comes to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPoint {
    /// It is killed.
    Killed,
    /// Its machine loses power.
    WithoutPower,
    /// It goes on, and neither hears the other nodes nor is heard by them; clients reach it.
    CutOff,
}

/// A point that no process comes to for so long is given up.
const POINT_LIMIT: Duration = Duration::from_secs(2);

/// What the seeds together must have come to beside the crash points: every kind of fault, and what comes of some.
pub const EVENTS: &[&str] = &[
    "Kill",
    "PowerCut",
    "PowerCutOfAll",
    "ZoneLost",
    "StandsStill",
    "CutOff",
    "Apart",
    "Deaf",
    "Flapping",
    "SlowNetwork",
    "Broken",
    "Breaking",
    "SlowDisk",
    "DiskFails",
    "Rot",
    "CalendarJump",
    "Joins",
    "Replaced",
    "At",
    ENDED_BY_DISK,
    ROT_FOUND,
    LEFT,
    OVERLAPPED,
    UPON_IT,
    RESTORED,
    TROUBLED,
];
/// Two things were wrong at a time, with different nodes.
pub const OVERLAPPED: &str = "Overlapped";
/// More than half of the nodes were wrong at a time.
pub const UPON_IT: &str = "MoreThanHalf";
/// A node could not go on without its disk.
pub const ENDED_BY_DISK: &str = "EndedByDisk";
/// A start found what had changed.
pub const ROT_FOUND: &str = "RotFound";
/// A cluster was made of an archive, and compared.
pub const RESTORED: &str = "Restored";
/// Something was wrong with an archive.
pub const TROUBLED: &str = "ArchiveTroubled";
/// A node was drained and removed.
pub const LEFT: &str = "Left";

impl FaultKind {
    /// Its name, as `EVENTS` has it.
    pub fn name(self) -> String {
        let said = format!("{self:?}");
        said.split(' ').next().unwrap_or_default().to_owned()
    }
}

impl Fault {
    /// For how long it goes on; one that waits for a point, as long as it may wait.
    pub fn limit(&self) -> Duration {
        match self.kind {
            FaultKind::At { .. } => POINT_LIMIT,
            _ => self.lasts,
        }
    }

    /// The other one of two that are apart.
    pub fn next_node(&self, nodes: u32) -> u32 {
        self.node % nodes + 1
    }
}

/// A fault that may come upon another one, of another node: it takes no copy away, and is that node's alone.
fn upon_another(random: &mut StdRng) -> (FaultKind, u64) {
    loop {
        let (kind, lasts) = ordinary(random);
        match kind {
            FaultKind::PowerCutOfAll | FaultKind::SlowNetwork { .. } | FaultKind::DiskFails { .. } => {}
            kind => return (kind, lasts),
        }
    }
}

/// A fault that any moment may have, and how many milliseconds it lasts.
fn ordinary(random: &mut StdRng) -> (FaultKind, u64) {
    match random.random_range(0..28) {
        0..3 => (FaultKind::Kill, random.random_range(100..2000)),
        3..5 => (FaultKind::PowerCut, random.random_range(500..2500)),
        5 => (FaultKind::PowerCutOfAll, random.random_range(300..1000)),
        6..10 => {
            let from_clients_too = random.random_range(0..4) == 0;
            (FaultKind::CutOff { from_clients_too }, random.random_range(500..3500))
        }
        10..12 => (FaultKind::Apart, random.random_range(500..4000)),
        12..15 => {
            let to_all = random.random_bool(0.5);
            (FaultKind::Deaf { to_all }, random.random_range(500..4000))
        }
        15..17 => {
            let period = Duration::from_millis(random.random_range(50..800));
            (FaultKind::Flapping { period }, random.random_range(1000..3000))
        }
        17 => {
            let longest = Duration::from_millis(random.random_range(20..300));
            (FaultKind::SlowNetwork { longest }, random.random_range(300..1500))
        }
        18..20 => (FaultKind::Broken, 50),
        20 => {
            let longest_flush = Duration::from_millis(random.random_range(50..1500));
            (FaultKind::SlowDisk { longest_flush }, random.random_range(500..3000))
        }
        21..23 => {
            let ways = [DiskFault::Full, DiskFault::FullIn("checkpoint"), DiskFault::Broken];
            let how = ways[random.random_range(0..ways.len())];
            (FaultKind::DiskFails { how }, random.random_range(300..2000))
        }
        23 => {
            let by_seconds = random.random_range(-3600..3600);
            (FaultKind::CalendarJump { by_seconds }, 100)
        }
        24..27 => (FaultKind::StandsStill, random.random_range(150..4000)),
        _ => {
            let period = Duration::from_millis(random.random_range(20..300));
            (FaultKind::Breaking { period }, random.random_range(500..2500))
        }
    }
}

/// What happens at most once in a run, to a cluster that is whole: nodes that come and go, and what takes a copy away. Two at a time
/// might take the only ones.
fn once(random: &mut StdRng) -> (FaultKind, u64) {
    match random.random_range(0..4) {
        0 => (FaultKind::Joins, random.random_range(100..1000)),
        1 => (FaultKind::Replaced, random.random_range(100..1500)),
        _ => (FaultKind::Rot, random.random_range(100..1000)),
    }
}

/// The last fault of half of the runs: the process that comes to the seed's point.
fn at_a_point(seed: u64, random: &mut StdRng) -> (FaultKind, u64) {
    // Neighbours have different points, and so have those who are chosen by other remainders.
    let point = CrashPoint::ALL[(seed / 2 % CrashPoint::ALL.len() as u64) as usize];
    let passes = random.random_range(0..4);
    let how = match random.random_range(0..3) {
        0 => AtPoint::Killed,
        1 => AtPoint::WithoutPower,
        _ => AtPoint::CutOff,
    };
    let mut lasts = random.random_range(300..2000);
    if how == AtPoint::CutOff {
        // Long enough for others to take over.
        lasts += 1500;
    }
    let only_here = false;
    (
        FaultKind::At {
            point,
            passes,
            how,
            only_here,
        },
        lasts,
    )
}

/// The faults of a run, in order. As a rule they don't overlap, but the next may come before the cluster is whole.
pub fn plan(seed: u64) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0xfa17));
    let count = match random.random_range(0..10) {
        _ if is_wild(seed) => WILD_FAULTS,
        _ if is_long(seed) => 3,
        0..4 if !is_overlapping(seed) => 1,
        _ => 2,
    };
    let ends_at_a_point = seed.is_multiple_of(2);
    let mut at = Duration::from_millis(random.random_range(200..900));
    let mut faults: Vec<Fault> = Vec::new();
    for number in 1..=count {
        let overlaps = number > 1 && is_overlapping(seed);
        let (kind, lasts) = match number {
            _ if number == count && ends_at_a_point => at_a_point(seed, &mut random),
            _ if overlaps => upon_another(&mut random),
            1 if has_zones(seed) && random.random_bool(0.5) => (FaultKind::ZoneLost, random.random_range(2000..4000)),
            1 if random.random_range(0..5) == 0 => once(&mut random),
            _ => ordinary(&mut random),
        };
        let (kind, lasts) = match kind {
            // The moments of cuts are by a calendar, and are compared with what clients saw.
            FaultKind::CalendarJump { .. } if archives(seed) => (FaultKind::Broken, 50),
            _ => (kind, lasts),
        };
        let lasts = Duration::from_millis(lasts);
        let node = random.random_range(1..=nodes(seed));
        faults.push(Fault {
            at,
            lasts,
            node,
            kind,
            overlaps,
        });
        at += lasts;
        if kind == FaultKind::PowerCut && random.random_range(0..3) == 0 {
            faults.push(again(&mut random, *faults.last().expect("just pushed")));
            at += faults.last().map(|again| again.lasts).unwrap_or_default();
        }
        // Now and then so soon that who was away is still being filled.
        let pause = match random.random_bool(0.4) {
            true => random.random_range(20..400),
            false => random.random_range(500..1500),
        };
        at += Duration::from_millis(pause);
        if is_overlapping(seed) {
            // In the middle of the one before.
            at -= lasts.mul_f64(random.random_range(0.2..0.9)) + Duration::from_millis(pause);
        }
    }
    faults
}

/// The machine loses power once more, when its process has hardly begun with what the first time left: after a moment, or as soon as it has
/// flushed something behind that.
fn again(random: &mut StdRng, first: Fault) -> Fault {
    let (kind, pause) = match random.random_bool(0.5) {
        true => (first.kind, random.random_range(20..600)),
        false => {
            let at_once = FaultKind::At {
                point: CrashPoint::LogFlushed,
                passes: random.random_range(0..2),
                how: AtPoint::WithoutPower,
                only_here: true,
            };
            (at_once, 0)
        }
    };
    Fault {
        at: first.at + first.lasts + Duration::from_millis(pause),
        lasts: Duration::from_millis(random.random_range(100..1000)),
        kind,
        overlaps: false,
        ..first
    }
}

/// When the last fault is over.
pub fn end(faults: &[Fault]) -> Duration {
    faults
        .iter()
        .map(|fault| fault.at + fault.lasts)
        .max()
        .unwrap_or_default()
}

#[test]
fn the_seeds_meet_every_kind_of_fault() {
    let seeds = 1..=crate::DEFAULT_SEEDS;
    let kinds: Vec<FaultKind> = seeds.clone().flat_map(plan).map(|fault| fault.kind).collect();
    let how_many = |is_wanted: &dyn Fn(&FaultKind) -> bool| kinds.iter().filter(|kind| is_wanted(kind)).count();
    for name in EVENTS
        .iter()
        .filter(|name| ![ENDED_BY_DISK, ROT_FOUND, LEFT, OVERLAPPED, UPON_IT, RESTORED, TROUBLED].contains(name))
    {
        assert!(how_many(&|kind| kind.name() == *name) > 1, "{name}");
    }
    for wanted in CrashPoint::ALL {
        let is_there = how_many(&|kind| matches!(kind, FaultKind::At { point, .. } if *point == wanted)) > 1;
        assert!(is_there, "{wanted:?}");
    }
    for wanted in FEWEST_NODES..=9 {
        assert!(seeds.clone().any(|seed| nodes(seed) == wanted), "{wanted} nodes");
    }
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
