//! TPC-C's consistency conditions 1 to 4 (clause 3.3.2), over all rows.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use volt_engine::partition::{Partition, Projection};
use volt_engine::plan::StatementContext;
use volt_engine::row::RowRef;
use volt_engine::transaction::Writes;
use volt_engine::value::ValueRef;

use super::catalog::Catalog;
use super::load::{DISTRICTS, WAREHOUSES};

/// Bytes of a chunk of a scan.
const CHUNK_BYTES: usize = 1 << 20;

/// A warehouse and a district.
type Place = (i32, i32);

#[derive(Default)]
struct Seen {
    warehouse_sums: BTreeMap<i32, Decimal>,
    district_sums: BTreeMap<i32, Decimal>,
    next_orders: BTreeMap<Place, i32>,
    last_orders: BTreeMap<Place, i32>,
    /// First, last and number of the orders to be delivered.
    new_orders: BTreeMap<Place, (i32, i32, i32)>,
    lines_of_orders: BTreeMap<Place, i32>,
    lines: BTreeMap<Place, i32>,
}

/// # Panics
/// When a condition does not hold.
pub fn check(partition: &Partition, catalog: &Catalog) {
    let seen = look(partition, catalog);
    assert_eq!(seen.next_orders.len() as u32, WAREHOUSES * DISTRICTS, "districts");
    assert_eq!(seen.warehouse_sums, seen.district_sums, "condition 1");
    for (place, next) in &seen.next_orders {
        assert_eq!(seen.last_orders.get(place), Some(&(next - 1)), "condition 2: {place:?}");
        if let Some((first, last, count)) = seen.new_orders.get(place) {
            assert_eq!(*last, next - 1, "condition 2: {place:?}");
            assert_eq!(last - first + 1, *count, "condition 3: {place:?}");
        }
    }
    assert_eq!(seen.lines_of_orders, seen.lines, "condition 4");
}

fn look(partition: &Partition, catalog: &Catalog) -> Seen {
    let mut seen = Seen::default();
    each(partition, catalog, "warehouse", &["w_id", "w_ytd"], |row| {
        seen.warehouse_sums.insert(int(row, 0), decimal(row, 1));
    });
    each(
        partition,
        catalog,
        "district",
        &["d_w_id", "d_id", "d_ytd", "d_next_o_id"],
        |row| {
            *seen.district_sums.entry(int(row, 0)).or_default() += decimal(row, 2);
            seen.next_orders.insert(place(row), int(row, 3));
        },
    );
    each(
        partition,
        catalog,
        "orders",
        &["o_w_id", "o_d_id", "o_id", "o_ol_cnt"],
        |row| {
            let last = seen.last_orders.entry(place(row)).or_default();
            *last = int(row, 2).max(*last);
            *seen.lines_of_orders.entry(place(row)).or_default() += int(row, 3);
        },
    );
    each(
        partition,
        catalog,
        "new_order",
        &["no_w_id", "no_d_id", "no_o_id"],
        |row| {
            let order = int(row, 2);
            let (first, last, count) = seen.new_orders.entry(place(row)).or_insert((order, order, 0));
            (*first, *last) = (order.min(*first), order.max(*last));
            *count += 1;
        },
    );
    each(partition, catalog, "order_line", &["ol_w_id", "ol_d_id"], |row| {
        *seen.lines.entry(place(row)).or_default() += 1;
    });
    seen
}

/// These columns of every row.
fn each(partition: &Partition, catalog: &Catalog, table: &str, columns: &[&str], mut take: impl FnMut(RowRef<'_>)) {
    let table = catalog.table(table);
    let place = |name: &&str| table.columns.iter().position(|column| column.name == *name);
    let project: Vec<usize> = columns.iter().filter_map(place).collect();
    assert_eq!(project.len(), columns.len(), "columns of {}", table.name);
    let context = StatementContext { now_micros: 0 };
    let (snapshot, writes) = (partition.applied(), Writes::default());
    let mut after: Option<Vec<u8>> = None;
    loop {
        let chunk = partition.scan_at(
            table.id,
            snapshot,
            &writes,
            after.as_deref(),
            CHUNK_BYTES,
            None,
            &[],
            &context,
            Some(Projection {
                columns: &project,
                missing: &[],
                version_base: 0,
            }),
        );
        let chunk = chunk.expect("rows");
        chunk.rows.iter().for_each(|row| take(RowRef::new(row)));
        match chunk.next {
            Some(next) => after = Some(next),
            None => return,
        }
    }
}

fn place(row: RowRef<'_>) -> Place {
    (int(row, 0), int(row, 1))
}

fn int(row: RowRef<'_>, place: usize) -> i32 {
    match row.get(place) {
        ValueRef::Int(number) => number,
        other => panic!("{other:?} is no INT"),
    }
}

fn decimal(row: RowRef<'_>, place: usize) -> Decimal {
    match row.get(place) {
        ValueRef::Numeric(number) => number,
        other => panic!("{other:?} is no NUMERIC"),
    }
}
