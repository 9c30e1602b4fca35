//! Random rows and statements.

use proptest::prelude::*;
use volt_engine::value::Value;

use super::Rows;

pub(super) fn rows() -> impl Strategy<Value = Rows> {
    let number = prop_oneof![1 => Just(Value::Null), 5 => (-2i32..4).prop_map(Value::Int)];
    let numeric = prop_oneof![
        1 => Just(Value::Null),
        5 => (-300i64..300).prop_map(|cents| Value::Numeric(rust_decimal::Decimal::new(cents, 2))),
    ];
    let text = prop_oneof![1 => Just(Value::Null), 5 => "[abA]{0,2}".prop_map(Value::Text)];
    // Their sums are exact, in any order.
    let double = prop_oneof![1 => Just(Value::Null), 5 => (-8i32..8).prop_map(|n| Value::Double(f64::from(n) / 4.0))];
    let flag = prop_oneof![1 => Just(Value::Null), 3 => any::<bool>().prop_map(Value::Boolean)];
    let key = ("[gh]", 1i32..3, -1i64..7);
    prop::collection::btree_map(key, (number, numeric, text, double, flag), 0..24).prop_map(|rows| {
        let row = |((g, p, k), (n, d, x, f, b))| vec![Value::Text(g), Value::Int(p), Value::BigInt(k), n, d, x, f, b];
        rows.into_iter().map(row).collect()
    })
}

fn one_of(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(choices).prop_map(str::to_owned)
}

fn some_of(choices: &'static [&'static str], count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(one_of(choices), count)
}

const CONDITIONS: &[&str] = &[
    "g = 'g'",
    "g = 'g'",
    "g = 'g'",
    "k >= 2",
    "k < 5",
    "3 < k",
    "k BETWEEN 1 AND 4",
    "k = 3",
    "n > 0",
    "n IS NULL",
    "x LIKE 'a%'",
    "d < 1.5",
    "d > -0.125",
    "f > 0.5",
    "b",
    "NOT b",
    "n IN (1, 2)",
    "(x = 'a' OR n < 2)",
    "g > 'g'",
    "g <= 'g'",
];
const COLUMNS: &[&str] = &[
    "k",
    "n",
    "x",
    "d",
    "f",
    "b",
    "n + 1",
    "k * 2",
    "d + 0.5",
    "d * d",
    "upper(x)",
    "coalesce(n, 0)",
    "CASE WHEN n > 0 THEN 'more' ELSE x END",
    "n IS NULL",
    "x || g",
];
const ORDERS: &[&str] = &[
    "g",
    "k",
    "k DESC",
    "g DESC",
    "n",
    "n DESC",
    "x NULLS FIRST",
    "x DESC NULLS LAST",
    "d",
    "f DESC",
    "b",
    "n + k",
];
const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(n)",
    "count(DISTINCT n)",
    "sum(n)",
    "sum(k)",
    "sum(d)",
    "sum(f)",
    "sum(n + 1)",
    "min(x)",
    "max(x)",
    "min(d)",
    "max(k)",
    "max(f)",
    "avg(n)",
    "avg(d)",
    "avg(f)",
    "sum(DISTINCT n)",
    "count(*) FILTER (WHERE n > 0)",
];
const GROUPS: &[&str] = &["n", "x", "b", "g", "n % 2", "d", "k"];
const HAVINGS: &[&str] = &["count(*) > 1", "sum(n) > 0", "min(x) IS NOT NULL", "max(k) > 2"];

/// A statement, and whether the order of its rows is whole.
pub(super) fn statement() -> impl Strategy<Value = (String, bool)> {
    let wher = some_of(CONDITIONS, 0..4).prop_map(|mut conditions| {
        conditions.insert(conditions.len() / 2, "p = 1".to_owned());
        conditions.join(" AND ")
    });
    let wher = wher.boxed();
    let page = (prop::option::of(1u64..6), prop::option::of(0u64..4)).prop_map(|(limit, offset)| {
        let limit = limit.map_or(String::new(), |limit| format!(" LIMIT {limit}"));
        let offset = offset.map_or(String::new(), |offset| format!(" OFFSET {offset}"));
        limit + &offset
    });
    let page = page.boxed();
    let plain = (
        some_of(COLUMNS, 1..4),
        some_of(ORDERS, 0..3),
        any::<bool>(),
        page.clone(),
        wher.clone(),
    );
    let plain = plain.prop_map(|(columns, mut orders, total, page, wher)| {
        let columns = named(&columns);
        if total {
            orders.push("k DESC, g".to_owned());
        }
        let order = order_by(&orders);
        let page = if total { page } else { String::new() };
        (format!("SELECT {columns} FROM t WHERE {wher}{order}{page}"), total)
    });
    let grouped = (
        some_of(GROUPS, 0..3),
        some_of(AGGREGATES, 1..4),
        prop::option::of(one_of(HAVINGS)),
        page,
        wher.clone(),
    );
    let grouped = grouped.prop_map(|(groups, aggregates, having, page, wher)| {
        let columns: Vec<String> = groups.iter().chain(&aggregates).cloned().collect();
        let columns = named(&columns);
        let having = having.map_or(String::new(), |having| format!(" HAVING {having}"));
        if groups.is_empty() {
            return (format!("SELECT {columns} FROM t WHERE {wher}{having}"), true);
        }
        let (by, order) = (groups.join(", "), order_by(&groups));
        (
            format!("SELECT {columns} FROM t WHERE {wher} GROUP BY {by}{having}{order}{page}"),
            true,
        )
    });
    let distinct = (some_of(COLUMNS, 1..3), wher.clone()).prop_map(|(columns, wher)| {
        (
            format!("SELECT DISTINCT {} FROM t WHERE {wher}", named(&columns)),
            false,
        )
    });
    // Always with a LIMIT: DataFusion 55 forgets the ORDER BY of an inner query that has only an OFFSET.
    let nested = (one_of(AGGREGATES), 1u64..6, 0u64..4, wher).prop_map(|(aggregate, limit, offset, wher)| {
        let inner = format!("SELECT * FROM t WHERE {wher} ORDER BY n, k, g LIMIT {limit} OFFSET {offset}");
        (format!("SELECT {aggregate} FROM ({inner}) AS t"), true)
    });
    prop_oneof![4 => plain, 4 => grouped, 1 => distinct, 1 => nested]
}

/// Each under a name of its own.
fn named(columns: &[String]) -> String {
    let named = columns.iter().enumerate();
    let named = named.map(|(place, column)| format!("{column} AS c{place}"));
    named.collect::<Vec<_>>().join(", ")
}

fn order_by(orders: &[String]) -> String {
    if orders.is_empty() {
        return String::new();
    }
    format!(" ORDER BY {}", orders.join(", "))
}
