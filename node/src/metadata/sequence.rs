//! Sequences, as the metadata group keeps them: it hands out blocks of values, and each value once.
//!
//! A node that has a block gives its values to statements without asking anybody. What it does not use, because it died or
//! the sequence was restarted, nobody uses: there are gaps, and the values of different nodes are in no order.

use serde::{Deserialize, Serialize};
use volt_engine::{SequenceId, TableId};

/// Most sequences of a cluster.
pub const MAX_SEQUENCES: usize = 100_000;

/// The type of a sequence's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SequenceType {
    /// SMALLINT.
    SmallInt,
    /// INTEGER.
    Integer,
    /// BIGINT.
    BigInt,
}

impl SequenceType {
    /// Its least and greatest value.
    pub fn bounds(self) -> (i64, i64) {
        match self {
            Self::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Self::Integer => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Self::BigInt => (i64::MIN, i64::MAX),
        }
    }

    /// As PostgreSQL calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
        }
    }
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its number; 0 before it is made.
    pub id: SequenceId,
    /// Its name; tables, indexes and sequences have no name in common.
    pub name: String,
    /// The type of its values.
    pub data_type: SequenceType,
    /// From a value to the next one; not 0.
    pub increment: i64,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
    /// The first value.
    pub start: i64,
    /// Values that a node takes at a time, at least.
    pub cache: u32,
    /// The table that it goes with, and the place of the column that it was made for.
    pub owner: Option<(TableId, usize)>,
    /// The next value that nobody has; None: there is none.
    pub next: Option<i64>,
    /// Grows when the sequence is restarted: blocks of before don't count any more.
    pub generation: u64,
}

/// Values that were handed out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The first one.
    pub first: i64,
    /// From one to the next.
    pub increment: i64,
    /// How many.
    pub count: u32,
    /// The sequence's generation.
    pub generation: u64,
}

impl Block {
    /// Takes its first value.
    pub fn take(&mut self) -> Option<i64> {
        let left = self.count.checked_sub(1)?;
        let value = self.first;
        self.count = left;
        // Behind the last one there may be no number.
        self.first = value.checked_add(self.increment).unwrap_or(value);
        Some(value)
    }
}

impl Sequence {
    /// Hands out at most so many values, and at least one; None: there are none left.
    pub fn hand_out(&mut self, count: u32) -> Option<Block> {
        let first = self.next?;
        let end = if self.increment > 0 { self.max } else { self.min };
        let (increment, room) = (i128::from(self.increment), i128::from(end) - i128::from(first));
        let left = room / increment + 1;
        let count = i128::from(count.max(1)).min(left);
        let next = i128::from(first) + increment * count;
        self.next = (count < left).then_some(next as i64);
        Some(Block {
            first,
            increment: self.increment,
            count: count as u32,
            generation: self.generation,
        })
    }

    /// Goes on with this value, which is within its bounds; or behind it, if it is taken.
    pub fn restart(&mut self, value: i64, is_taken: bool) {
        let next = match is_taken {
            true => value.checked_add(self.increment),
            false => Some(value),
        };
        self.next = next.filter(|next| (self.min..=self.max).contains(next));
        self.generation += 1;
    }

    /// Whether such a sequence can be.
    pub fn is_sound(&self) -> bool {
        let (least, greatest) = self.data_type.bounds();
        self.increment != 0
            && self.cache > 0
            && least <= self.min
            && self.min < self.max
            && self.max <= greatest
            && (self.min..=self.max).contains(&self.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(increment: i64, min: i64, max: i64, start: i64) -> Sequence {
        Sequence {
            id: 1,
            name: "s".to_owned(),
            data_type: SequenceType::BigInt,
            increment,
            min,
            max,
            start,
            cache: 1,
            owner: None,
            next: Some(start),
            generation: 0,
        }
    }

    fn values(mut block: Block) -> Vec<i64> {
        std::iter::from_fn(|| block.take()).collect()
    }

    proptest! {
        #[test]
        fn blocks_hold_every_value_once_and_none_beyond_the_bounds(
            increment in prop_oneof![1..5_i64, -5..0_i64],
            (min, max) in (-30..0_i64, 1..30_i64),
            start in -30..30_i64,
            counts in prop::collection::vec(0..9_u32, 100),
        ) {
            let start = start.clamp(min, max);
            let mut sequence = sequence(increment, min, max, start);
            let mut taken = Vec::new();
            for count in counts {
                let Some(block) = sequence.hand_out(count) else { break };
                prop_assert!((1..=count.max(1)).contains(&block.count));
                taken.extend(values(block));
            }
            let expected: Vec<i64> = (0..)
                .map(|place| start + increment * place)
                .take_while(|value| (min..=max).contains(value))
                .collect();
            prop_assert_eq!(taken, expected);
            prop_assert_eq!(sequence.hand_out(1), None);
        }
    }

    #[test]
    fn the_ends_of_a_bigint_are_reached_and_not_passed() {
        let mut up = sequence(i64::MAX, i64::MIN, i64::MAX, i64::MIN);
        let block = up.hand_out(u32::MAX).unwrap();
        assert_eq!(values(block), [i64::MIN, -1, i64::MAX - 1]);
        assert_eq!(up.hand_out(1), None);
        let mut down = sequence(-1, i64::MIN, -1, i64::MIN + 1);
        assert_eq!(values(down.hand_out(9).unwrap()), [i64::MIN + 1, i64::MIN]);
        assert_eq!(down.hand_out(1), None);
        down.restart(-1, false);
        assert_eq!(values(down.hand_out(2).unwrap()), [-1, -2]);
        down.restart(i64::MIN + 1, true);
        let last = down.hand_out(2).unwrap();
        assert_eq!((last.first, last.count, last.generation), (i64::MIN, 1, 2));
        down.restart(i64::MIN, true);
        assert_eq!(down.hand_out(1), None, "its last value is taken");
    }
}
