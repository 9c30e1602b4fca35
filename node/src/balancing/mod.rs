//! Who does a piece of work: strategies that choose one of several nodes. Pure: turns and random numbers come in as arguments.
//!
//! What must hold of each strategy (`contract.rs`): a piece goes to one node, every candidate has its share, and who is no longer a
//! candidate leaves its share to the others.

#[cfg(test)]
mod contract;
pub mod queue;
pub mod spool;

use clap::ValueEnum;
use volt_engine::NodeId;

/// No latency counts for less, so that what is measured of an idle machine does not decide all.
const LEAST_LATENCY_MICROS: u64 = 50;
/// A candidate has at least one in so many of the best one's share: else nobody would notice that it is fast again.
const LEAST_SHARE: u64 = 20;

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// By lot.
    Random,
    /// By lot, by capacity and observed latency.
    Weighted,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::Random, Self::Weighted];

    /// As SQL says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Weighted => "weighted",
        }
    }

    /// The strategy of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }
}

/// A node that could do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub node: NodeId,
    /// Its weight in the cluster map; 100 is normal.
    pub capacity: u32,
    /// How long its answers take, in microseconds; None: nobody has asked it yet.
    pub latency_micros: Option<u64>,
}

/// The place of the one that is chosen; None: there are none. `turn` counts pieces of work, `draw` is random.
pub fn choose(strategy: Strategy, candidates: &[Candidate], turn: u64, draw: u64) -> Option<usize> {
    let count = candidates.len() as u64;
    if count == 0 {
        return None;
    }
    match strategy {
        Strategy::RoundRobin => usize::try_from(turn % count).ok(),
        Strategy::Random => usize::try_from(draw % count).ok(),
        Strategy::Weighted => by_weight(&weights(candidates), draw),
    }
}

fn by_weight(weights: &[u64], draw: u64) -> Option<usize> {
    let mut at = draw % weights.iter().sum::<u64>().max(1);
    for (place, &weight) in weights.iter().enumerate() {
        if at < weight {
            return Some(place);
        }
        at -= weight;
    }
    None
}

/// Capacity by latency. Who has not been asked yet is taken for as fast as the fastest.
fn weights(candidates: &[Candidate]) -> Vec<u64> {
    let known = candidates.iter().filter_map(|candidate| candidate.latency_micros);
    let fastest = known.min().unwrap_or(LEAST_LATENCY_MICROS);
    let weight = |candidate: &Candidate| {
        let latency = candidate.latency_micros.unwrap_or(fastest).max(LEAST_LATENCY_MICROS);
        u64::from(candidate.capacity.max(1)) * 1_000_000 / latency
    };
    let weights: Vec<u64> = candidates.iter().map(weight).collect();
    let least = weights.iter().max().map_or(1, |best| (best / LEAST_SHARE).max(1));
    weights.into_iter().map(|weight| weight.max(least)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: NodeId, capacity: u32, latency_micros: Option<u64>) -> Candidate {
        Candidate {
            node,
            capacity,
            latency_micros,
        }
    }

    #[test]
    fn weights_follow_capacity_and_latency() {
        let of = |candidates: &[Candidate]| weights(candidates);
        let one = candidate(1, 100, Some(200));
        assert_eq!(of(&[one, candidate(2, 200, Some(200))]), [500_000, 1_000_000]);
        assert_eq!(of(&[one, candidate(2, 100, Some(400))]), [500_000, 250_000]);
        // Not asked yet; and slower than anybody should be.
        assert_eq!(of(&[one, candidate(2, 100, None)]), [500_000, 500_000]);
        assert_eq!(of(&[one, candidate(2, 100, Some(1_000_000))]), [500_000, 25_000]);
        // Answers of no time at all.
        assert_eq!(
            of(&[candidate(1, 100, Some(0)), candidate(2, 0, None)]),
            [2_000_000, 100_000]
        );
    }

    #[test]
    fn names_lead_back() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::named(strategy.name()), Some(strategy));
        }
        assert_eq!(Strategy::named("fastest"), None);
    }

    #[test]
    fn nobody_is_chosen_of_nobody() {
        for strategy in Strategy::ALL {
            assert_eq!(choose(strategy, &[], 3, 3), None);
        }
    }
}
