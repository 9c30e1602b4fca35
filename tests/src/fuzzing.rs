//! The fuzz targets by name: those of `fuzz/fuzz_targets`, for the test that replays their corpora.

use bytes::Bytes;
use volt_engine::effects::{Effects, LogPayload};
use volt_engine::partition::Partition;
use volt_engine::row::RowRef;
use volt_node::fuzzing;

/// One of them.
pub struct Target {
    /// Also of its corpus.
    pub name: &'static str,
    /// What it does with an input. True: it was read, and not refused.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "log",
        run: fuzzing::segment,
    },
    Target {
        name: "checkpoint",
        run: fuzzing::checkpoint,
    },
    Target {
        name: "engine",
        run: engine,
    },
    Target {
        name: "startup",
        run: fuzzing::startup,
    },
    Target {
        name: "messages",
        run: fuzzing::messages,
    },
    Target {
        name: "parameters",
        run: fuzzing::parameters,
    },
    Target {
        name: "sql",
        run: fuzzing::sql,
    },
    Target {
        name: "procedure",
        run: fuzzing::procedure,
    },
];

/// A record, effects, a row, a chunk of a fill.
pub fn engine(bytes: &[u8]) -> bool {
    let shared = Bytes::copy_from_slice(bytes);
    let record = LogPayload::decode(&shared);
    let is_record = record.is_ok();
    if let Ok(payload) = record {
        // What was read is what is written.
        assert_eq!(payload.encode(), shared, "two encodings of one record");
        let mut partition = Partition::new();
        if partition.apply_record(1, &payload).is_ok() {
            partition.commit_to(1);
            let _ = partition.dump_chunk(1, None, 1 << 10);
        }
    }
    let effects = Effects(shared);
    if effects.check().is_ok() {
        for effect in effects.iter().flatten() {
            row(effect.row.unwrap_or_default());
        }
    }
    let is_row = row(bytes);
    let is_chunk = Partition::new().load_chunk(bytes).is_ok();
    is_record || is_row || is_chunk
}

fn row(bytes: &[u8]) -> bool {
    let Ok(row) = RowRef::parse(bytes) else { return false };
    let values = row.to_values();
    assert_eq!(values.len(), row.len());
    for (column, value) in values.iter().enumerate() {
        // Not of what was read: NaN is not NaN.
        let _ = (row.get(column), value.as_ref());
    }
    true
}

/// Gives an input to the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let _ = (target.expect("a target of this name").run)(bytes);
}
