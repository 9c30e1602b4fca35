//! What goes wrong in a run, and when: a function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use volt_node::world::CrashPoint;

use crate::determinism::mix;

/// Nodes of the simulated cluster.
pub const NODES: u32 = 3;

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
    /// The node and the others don't hear each other; what was sent arrives when that is over.
    CutOff {
        /// Clients don't reach it either.
        from_clients_too: bool,
    },
    /// The node and the next one don't hear each other; the third hears both.
    Apart,
    /// The node's disk takes its time.
    SlowDisk {
        /// The longest that a flush takes.
        longest_flush: Duration,
    },
    /// The node's calendar is set wrong, for good.
    CalendarJump {
        /// By how much.
        by_seconds: i64,
    },
    /// The first process that comes to this point, after others have passed it `passes` times, ends there, or goes on alone.
    At {
        /// Where.
        point: CrashPoint,
        /// How often it is passed first.
        passes: u64,
        /// What happens to it.
        how: AtPoint,
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
const POINT_LIMIT: Duration = Duration::from_secs(4);

impl Fault {
    /// For how long it goes on; one that waits for a point, as long as it may wait.
    pub fn limit(&self) -> Duration {
        match self.kind {
            FaultKind::At { .. } => POINT_LIMIT,
            _ => self.lasts,
        }
    }

    /// The other one of two that are apart.
    pub fn next_node(&self) -> u32 {
        self.node % NODES + 1
    }
}

/// The faults of a run, in order, the last of which is a crash at a point; they don't overlap, but the next may come before the cluster is whole.
pub fn plan(seed: u64) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(mix(seed ^ 0xfa17));
    let mut at = Duration::from_millis(random.random_range(300..1500));
    let mut faults = Vec::new();
    for _ in 0..random.random_range(2..=3) {
        let (kind, lasts) = match random.random_range(0..14) {
            0..3 => (FaultKind::Kill, random.random_range(100..2500)),
            3..5 => (FaultKind::PowerCut, random.random_range(800..3500)),
            5 => (FaultKind::PowerCutOfAll, random.random_range(300..1500)),
            10..12 => (FaultKind::Apart, random.random_range(500..6000)),
            12 => {
                let longest_flush = Duration::from_millis(random.random_range(50..1500));
                (FaultKind::SlowDisk { longest_flush }, random.random_range(500..4000))
            }
            13.. => {
                let by_seconds = random.random_range(-3600..3600);
                (FaultKind::CalendarJump { by_seconds }, 100)
            }
            n => (
                FaultKind::CutOff {
                    from_clients_too: n == 6,
                },
                random.random_range(500..4000),
            ),
        };
        let lasts = Duration::from_millis(lasts);
        faults.push(Fault {
            at,
            lasts,
            node: random.random_range(1..=NODES),
            kind,
        });
        // Now and then so soon that who was away is still being filled.
        let pause = match random.random_bool(0.3) {
            true => random.random_range(20..400),
            false => random.random_range(1000..3000),
        };
        at += lasts + Duration::from_millis(pause);
    }
    if let Some(last) = faults.last_mut() {
        last.lasts = Duration::from_millis(random.random_range(300..2500));
        let point = CrashPoint::ALL[(seed % CrashPoint::ALL.len() as u64) as usize];
        let passes = random.random_range(0..4);
        let how = match random.random_range(0..3) {
            0 => AtPoint::Killed,
            1 => AtPoint::WithoutPower,
            _ => AtPoint::CutOff,
        };
        if how == AtPoint::CutOff {
            // Long enough for others to take over.
            last.lasts += Duration::from_millis(1500);
        }
        last.kind = FaultKind::At { point, passes, how };
    }
    faults
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
fn fifty_seeds_meet_every_kind_of_fault() {
    let kinds: Vec<FaultKind> = (1..=50).flat_map(plan).map(|fault| fault.kind).collect();
    for kind in [
        FaultKind::Kill,
        FaultKind::PowerCut,
        FaultKind::PowerCutOfAll,
        FaultKind::CutOff { from_clients_too: true },
        FaultKind::CutOff {
            from_clients_too: false,
        },
        FaultKind::Apart,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    for wanted in CrashPoint::ALL {
        let is_wanted = |kind: &&FaultKind| matches!(kind, FaultKind::At { point, .. } if *point == wanted);
        assert!(kinds.iter().filter(is_wanted).count() > 1, "{wanted:?}");
    }
    let has = |wanted: fn(&FaultKind) -> bool| kinds.iter().any(wanted);
    assert!(has(|kind| matches!(kind, FaultKind::SlowDisk { .. })));
    assert!(has(|kind| matches!(kind, FaultKind::CalendarJump { .. })));
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}
