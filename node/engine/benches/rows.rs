//! Encodings: rows of a BIGINT, a text of 100 bytes, an INT, a NUMERIC and a TIMESTAMP; keys of one and two columns.

mod common;

use std::hint::black_box;

use common::text;
use divan::Bencher;
use divan::counter::ItemsCount;
use volt_engine::key::encode_key;
use volt_engine::row::{RowRef, encode_row, encode_row_into};
use volt_engine::value::ValueRef;

/// Rows or keys a sample.
const BATCH: i64 = 10_000;

fn main() {
    divan::main();
}

fn values(number: i64, text: &str) -> [ValueRef<'_>; 5] {
    [
        ValueRef::BigInt(number),
        ValueRef::Text(text),
        ValueRef::Int(7),
        ValueRef::Numeric("12.50".parse().expect("a decimal")),
        ValueRef::Timestamp(1_700_000_000_000_000),
    ]
}

fn count(bencher: Bencher<'_, '_>, mut one: impl FnMut(i64)) {
    let bencher = bencher.counter(ItemsCount::new(BATCH as usize));
    bencher.bench_local(|| (0..BATCH).for_each(&mut one));
}

#[divan::bench]
fn row_encode(bencher: Bencher) {
    let text = text();
    let mut values = values(0, &text);
    let mut out = Vec::new();
    count(bencher, |number| {
        values[0] = ValueRef::BigInt(number);
        out.clear();
        encode_row_into(&mut out, black_box(&values).iter().copied());
        black_box(&out);
    });
}

/// All columns, of checked bytes.
#[divan::bench]
fn row_decode(bencher: Bencher) {
    let row = encode_row(&values(123_456, &text()));
    count(bencher, |_| {
        RowRef::new(black_box(&row)).values().for_each(|value| {
            black_box(value);
        });
    });
}

/// Bytes from outside, all checked.
#[divan::bench]
fn row_check(bencher: Bencher) {
    let row = encode_row(&values(123_456, &text()));
    count(bencher, |_| {
        black_box(RowRef::parse(black_box(&row)).is_ok());
    });
}

#[divan::bench]
fn key_bigint(bencher: Bencher) {
    count(bencher, |number| {
        black_box(encode_key([ValueRef::BigInt(black_box(number))]));
    });
}

#[divan::bench]
fn key_text_and_bigint(bencher: Bencher) {
    count(bencher, |number| {
        black_box(encode_key([
            ValueRef::Text("a customer"),
            ValueRef::BigInt(black_box(number)),
        ]));
    });
}
