//! TPC-C's random numbers and texts (clauses 2.1.6 and 4.3), the same in every run.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SYLLABLES: [&str; 10] = [
    "BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING",
];
/// Constants of NURand; between the names that are loaded and those that are asked for the specification wants a
/// difference like this.
const C_LOADED_NAME: u32 = 157;
const C_NAME: u32 = 223;
const C_CUSTOMER: u32 = 259;
const C_ITEM: u32 = 7911;

/// See the module.
pub struct Random(StdRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Any number of the range, its ends included.
    pub fn number(&mut self, from: u32, to: u32) -> u32 {
        self.0.random_range(from..=to)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, times: u32) -> bool {
        self.number(1, 100) <= times
    }

    /// NURand(A, x, y).
    fn skewed(&mut self, a: u32, c: u32, from: u32, to: u32) -> u32 {
        ((self.number(0, a) | self.number(from, to)) + c) % (to - from + 1) + from
    }

    pub fn customer(&mut self) -> u32 {
        self.skewed(1023, C_CUSTOMER, 1, 3_000)
    }

    pub fn item(&mut self) -> u32 {
        self.skewed(8191, C_ITEM, 1, 100_000)
    }

    /// The last name of somebody who is asked for.
    pub fn name(&mut self) -> String {
        name(self.skewed(255, C_NAME, 0, 999))
    }

    /// The last name of a customer who is loaded.
    pub fn loaded_name(&mut self, customer: u32) -> String {
        match customer {
            1..=1_000 => name(customer - 1),
            _ => name(self.skewed(255, C_LOADED_NAME, 0, 999)),
        }
    }

    /// A text of letters, as long as one of these numbers.
    pub fn letters(&mut self, from: u32, to: u32) -> String {
        let length = self.number(from, to);
        (0..length)
            .map(|_| char::from(b'a' + self.number(0, 25) as u8))
            .collect()
    }

    pub fn digits(&mut self, length: u32) -> String {
        (0..length)
            .map(|_| char::from(b'0' + self.number(0, 9) as u8))
            .collect()
    }

    pub fn zip(&mut self) -> String {
        self.digits(4) + "11111"
    }

    /// I_DATA and S_DATA: a tenth has ORIGINAL somewhere.
    pub fn data(&mut self) -> String {
        let mut data = self.letters(26, 50);
        if self.percent(10) {
            let at = self.number(0, data.len() as u32 - 8) as usize;
            data.replace_range(at..at + 8, "ORIGINAL");
        }
        data
    }

    /// The numbers from 1 to `last` in no order.
    pub fn permutation(&mut self, last: u32) -> Vec<u32> {
        let mut numbers: Vec<u32> = (1..=last).collect();
        for place in (1..numbers.len()).rev() {
            numbers.swap(place, self.number(0, place as u32) as usize);
        }
        numbers
    }
}

fn name(number: u32) -> String {
    let syllable = |place: u32| SYLLABLES[(number / place % 10) as usize];
    [syllable(100), syllable(10), syllable(1)].concat()
}
