//! What the benches share: the node's allocator, and a table of rows with a BIGINT key and a text of 100 bytes.

#![allow(dead_code)] // no bench needs all of it

use volt_engine::catalog::Column;
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::plan::{Action, Program, StatementContext};
use volt_engine::row::encode_row;
use volt_engine::value::{DataType, ValueRef};
use volt_engine::{Lsn, TableId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub const TABLE: TableId = 1;
pub const CONTEXT: StatementContext = StatementContext { now_micros: 0 };

/// A generator of numbers that look random and are the same in every run (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// 100 bytes.
pub fn text() -> String {
    "x".repeat(100)
}

/// A record that puts one row.
pub fn put(key: i64, text: &str) -> LogPayload {
    let mut effects = EffectsBuilder::default();
    let row = encode_row(&[ValueRef::BigInt(key), ValueRef::Text(text)]);
    effects.put(TABLE, &encode_key([ValueRef::BigInt(key)]), &row);
    LogPayload::Write(effects.finish())
}

/// Applies such a record for each key, one LSN each, and commits 64 at a time, as a primary does that waits for backups.
pub fn load(partition: &mut Partition, keys: impl Iterator<Item = i64>) {
    let text = text();
    for key in keys {
        let lsn: Lsn = partition.applied() + 1;
        partition
            .apply_record(lsn, &put(key, &text))
            .expect("records are in order");
        if lsn.is_multiple_of(64) {
            partition.commit_to(lsn);
        }
    }
    partition.commit_to(partition.applied());
}

/// A key as names are: 19 bytes, of which the first nine or more are the same in all.
pub fn name(number: u64) -> String {
    format!("customer-{number:010}")
}

/// The same number of rows with `name`s for keys.
pub fn loaded_names(rows: u32) -> Partition {
    let mut keys: Vec<u32> = (0..rows).collect();
    Numbers(1).shuffle(&mut keys);
    let mut partition = Partition::new();
    let text = text();
    for number in keys {
        let name = name(u64::from(number));
        let key = ValueRef::Text(&name);
        let mut effects = EffectsBuilder::default();
        effects.put(TABLE, &encode_key([key]), &encode_row(&[key, ValueRef::Text(&text)]));
        let lsn = partition.applied() + 1;
        let payload = LogPayload::Write(effects.finish());
        partition.apply_record(lsn, &payload).expect("records are in order");
        partition.commit_to(lsn);
    }
    partition
}

/// A partition with the keys 0 to `rows` - 1, which came in no order.
pub fn loaded(rows: u32) -> Partition {
    let mut keys: Vec<u32> = (0..rows).collect();
    Numbers(1).shuffle(&mut keys);
    let mut partition = Partition::new();
    load(&mut partition, keys.into_iter().map(i64::from));
    partition
}

/// On CREATE TABLE kv (k BIGINT PRIMARY KEY, v TEXT)
pub fn program(action: Action) -> Program {
    program_on(DataType::BigInt, action)
}

/// On the same with another type of key.
pub fn program_on(key: DataType, action: Action) -> Program {
    let column = |name: &str, data_type, nullable| Column {
        name: name.to_owned(),
        data_type,
        nullable,
        default: None,
        is_dropped: false,
        missing: volt_engine::value::Value::Null,
    };
    Program {
        table: TABLE,
        table_name: "kv".to_owned(),
        columns: vec![column("k", key, false), column("v", DataType::Text, true)],
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action,
    }
}
