//! A node's values of one sequence: pure, so that what it promises can be tested.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metadata::sequence::Block;

/// Values that a node takes at a time, unless the sequence's CACHE is greater or it uses them fast.
pub(super) const BLOCK_VALUES: u32 = 128;
/// Values that a node takes at a time, at most.
pub(super) const MAX_BLOCK_VALUES: u32 = 65_536;
/// A block that is used up sooner is followed by one that is twice as large.
const FAST: Duration = Duration::from_secs(1);
/// A block that lasts longer is followed by one that is half as large.
const SLOW: Duration = Duration::from_secs(30);

/// A value that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) value: i64,
    increment: i64,
    generation: u64,
}

/// Blocks that are not used up.
#[derive(Debug)]
pub(super) struct Pool {
    blocks: VecDeque<Block>,
    /// How many values the last block had, or the next one is to have.
    size: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            size: BLOCK_VALUES,
        }
    }
}

impl Pool {
    /// The next value of this generation or a later one; what is older is forgotten.
    pub(super) fn take(&mut self, generation: u64) -> Option<Taken> {
        loop {
            let block = self.blocks.front_mut()?;
            let (increment, of) = (block.increment, block.generation);
            match block.take().filter(|_| of >= generation) {
                Some(value) => {
                    return Some(Taken {
                        value,
                        increment,
                        generation: of,
                    });
                }
                None => drop(self.blocks.pop_front()),
            }
        }
    }

    /// A value that nobody has used, or heard of.
    pub(super) fn give_back(&mut self, taken: Taken) {
        let Taken {
            value,
            increment,
            generation,
        } = taken;
        if let Some(block) = self.blocks.front_mut()
            && block.generation == generation
            && block.count > 0
            && value.checked_add(increment) == Some(block.first)
        {
            block.first = value;
            block.count += 1;
            return;
        }
        self.blocks.push_front(Block {
            first: value,
            increment,
            count: 1,
            generation,
        });
    }

    pub(super) fn add(&mut self, block: Block) {
        self.blocks.push_back(block);
    }

    /// Half of a block is used up: time for the next one.
    pub(super) fn is_low(&self) -> bool {
        let left: u64 = self.blocks.iter().map(|block| u64::from(block.count)).sum();
        left < u64::from(self.size / 2)
    }

    /// How many values to ask for, the last block having lasted so long.
    pub(super) fn next_size(&mut self, lasted: Option<Duration>, cache: u32, wanted: u32) -> u32 {
        self.size = match lasted {
            Some(lasted) if lasted < FAST => self.size.saturating_mul(2),
            Some(lasted) if lasted > SLOW => self.size / 2,
            _ => self.size,
        };
        self.size = self.size.clamp(BLOCK_VALUES, MAX_BLOCK_VALUES);
        self.size.max(cache).max(wanted.min(MAX_BLOCK_VALUES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: i64, count: u32, generation: u64) -> Block {
        Block {
            first,
            increment: 2,
            count,
            generation,
        }
    }

    fn all(pool: &mut Pool, generation: u64) -> Vec<i64> {
        std::iter::from_fn(|| pool.take(generation).map(|taken| taken.value)).collect()
    }

    #[test]
    fn values_come_once_and_those_from_before_a_restart_not_at_all() {
        let mut pool = Pool::default();
        pool.add(block(1, 2, 0));
        pool.add(block(11, 2, 0));
        assert_eq!(all(&mut pool, 0), [1, 3, 11, 13]);
        pool.add(block(21, 3, 0));
        pool.add(block(5, 2, 1));
        assert_eq!(pool.take(0).map(|taken| taken.value), Some(21));
        assert_eq!(all(&mut pool, 1), [5, 7]);
        pool.add(block(9, 1, 2));
        assert_eq!(all(&mut pool, 1), [9], "the block has come before the news");
    }

    #[test]
    fn what_is_given_back_is_next_but_not_beyond_a_restart() {
        let mut pool = Pool::default();
        pool.add(block(1, 3, 0));
        let (one, three) = (pool.take(0).unwrap(), pool.take(0).unwrap());
        pool.give_back(one);
        pool.give_back(three);
        assert_eq!(all(&mut pool, 0), [3, 1, 5]);
        pool.give_back(three);
        pool.add(block(7, 1, 1));
        assert_eq!(all(&mut pool, 1), [7]);
    }

    #[test]
    fn blocks_grow_when_they_are_used_up_fast_and_within_bounds() {
        let mut pool = Pool::default();
        let (fast, slow) = (Some(Duration::from_millis(10)), Some(Duration::from_secs(60)));
        assert_eq!(pool.next_size(None, 1, 1), BLOCK_VALUES);
        assert_eq!(pool.next_size(fast, 1, 1), 2 * BLOCK_VALUES);
        assert_eq!(pool.next_size(slow, 1, 1), BLOCK_VALUES);
        assert_eq!(pool.next_size(slow, 1, 1), BLOCK_VALUES);
        assert_eq!(pool.next_size(None, 1_000, 1), 1_000, "CACHE");
        assert_eq!(pool.next_size(None, 1, 5_000), 5_000, "a statement of many rows");
        for _ in 0..40 {
            pool.next_size(fast, 1, u32::MAX);
        }
        assert_eq!(pool.next_size(fast, 1, u32::MAX), MAX_BLOCK_VALUES);
        assert!(pool.is_low());
        pool.add(block(1, MAX_BLOCK_VALUES / 2, 0));
        assert!(!pool.is_low());
        pool.take(0);
        assert!(pool.is_low());
    }
}
