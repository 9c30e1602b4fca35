//! Changes of inputs, each a function of its seed.

use rand::Rng;
use rand::rngs::StdRng;

/// Changes of one input, at most.
const CHANGES: usize = 6;
/// Inputs grow no longer.
const MAX_BYTES: usize = 16 << 10;
/// A piece that is repeated.
const MAX_PIECE: usize = 64;
const REPEATED: usize = 40;

/// One of these, changed.
pub fn mutated(inputs: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..=CHANGES) {
        let other = &inputs[random.random_range(0..inputs.len())];
        change(&mut input, other, random);
        input.truncate(MAX_BYTES);
    }
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(1..=MAX_PIECE)).min(input.len());
    match random.random_range(0..9) {
        0 => input.insert(at, random.random()),
        1 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        2 if at < input.len() => {
            // Lengths and counts: their borders.
            input[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)];
        }
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        6 => {
            let piece = input[at..end].repeat(random.random_range(1..=REPEATED));
            input.splice(at..at, piece);
        }
        7 => {
            // The end of another one.
            input.truncate(at);
            input.extend_from_slice(&other[random.random_range(0..=other.len())..]);
        }
        _ => {
            let number: [u8; 4] = [0, 1, 0xffff, 0x7fff_ffff, u32::MAX][random.random_range(0..5)].to_le_bytes();
            input.splice(at..(at + number.len()).min(input.len()), number);
        }
    }
}
