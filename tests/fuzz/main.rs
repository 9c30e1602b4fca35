//! What the fuzz targets (`fuzz/`) have in their corpora, and changes of it, through the same functions: none panics, and
//! none takes memory out of proportion to its input. `SEED=n` begins the changes elsewhere, `MUTATIONS=n` makes more of
//! them; `VOLT_BLESS=1` writes the seeds anew, from real encodings.

mod memory;
mod mutate;
mod seeds;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use volt_tests::fuzzing::{TARGETS, Target};

/// Of each target.
const DEFAULT_MUTATIONS: u64 = 2_000;
/// What any input may take, and what it may take more for each of its bytes.
const BASE_BYTES: usize = 2 << 20;
const BYTES_A_BYTE: usize = 256;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target)
}

/// The corpus of a target, in the order of its files' names.
fn inputs(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = corpus(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = files.map(|file| file.expect("a file").path());
    files
        .map(|file| (file.clone(), std::fs::read(&file).expect("a readable file")))
        .collect()
}

/// Runs one input; an input that fails is kept, and named. Returns whether it was read, and
/// the memory that it took.
fn run(target: &Target, input: &[u8], what: &str) -> (bool, usize) {
    let (ran, took) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let limit = BASE_BYTES + BYTES_A_BYTE * input.len();
    if let Ok(is_read) = ran
        && took <= limit
    {
        return (is_read, took);
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
    std::fs::write(&file, input).expect("a file of the input");
    let problem = match ran {
        Err(_) => "it panics".to_owned(),
        Ok(_) => format!("it takes {took} bytes, more than {limit}"),
    };
    panic!("{} upon {what}: {problem}\n  input: {}", target.name, file.display());
}

fn replay(target: &Target) {
    let inputs = inputs(target.name);
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    let (mut most, mut seeds_read, mut changed_read) = (0, 0, 0);
    for (file, input) in &inputs {
        let (is_read, took) = run(target, input, &file.display().to_string());
        most = most.max(took);
        seeds_read += u64::from(is_read);
    }
    // Seeds are whole, but for those that once were found: one of which nothing is read reaches nothing.
    assert!(
        seeds_read * 2 >= inputs.len() as u64,
        "{}: {seeds_read} seeds are read",
        target.name
    );
    let seed = number("SEED").unwrap_or(1);
    let mutations = number("MUTATIONS").unwrap_or(DEFAULT_MUTATIONS);
    let inputs: Vec<Vec<u8>> = inputs.into_values().collect();
    for number in seed..seed + mutations {
        let input = mutate::mutated(&inputs, &mut StdRng::seed_from_u64(number));
        let (is_read, took) = run(target, &input, &format!("SEED={number} MUTATIONS=1"));
        most = most.max(took);
        changed_read += u64::from(is_read);
    }
    println!(
        "{}: {seeds_read} of {} seeds and {changed_read} of {mutations} mutations are read, at most {most} bytes are taken",
        target.name,
        inputs.len()
    );
}

/// On a thread with the stack of those that run statements, which carries the deepest statement that is let in.
fn on_a_deep_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(volt_node::WORKER_STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).expect("a thread");
        if let Err(panic) = running.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn every_target_stands_its_corpus_and_what_becomes_of_it() {
    if std::env::var_os("VOLT_BLESS").is_some() {
        seeds::write();
    }
    let only = std::env::var("TARGET").ok();
    for target in TARGETS
        .iter()
        .filter(|target| only.as_ref().is_none_or(|only| target.name == only))
    {
        on_a_deep_stack(|| replay(target));
    }
}

#[test]
fn memory_is_counted() {
    let (_, took) = memory::peak(|| vec![0_u8; 1 << 20].len());
    assert!((1 << 20..2 << 20).contains(&took), "{took}");
}
