//! TPC-C's rows as they are before the first transaction (clause 4.3.3), put into a partition as records.

use rust_decimal::Decimal;
use volt_engine::catalog::Table;
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::value::Value;

use super::catalog::Catalog;
use super::random::Random;

/// Warehouses in the one partition: those that are remote to each other lie in it too.
pub const WAREHOUSES: u32 = 4;
pub const ITEMS: u32 = 100_000;
pub const DISTRICTS: u32 = 10;
pub const CUSTOMERS: u32 = 3_000;
/// Orders of a district, the last 900 of which are to be delivered.
pub const ORDERS: u32 = 3_000;
const DELIVERED: u32 = 2_100;
/// Rows a record.
const BATCH: usize = 1_000;

/// Puts rows, a record for so many.
struct Loader<'a> {
    partition: &'a mut Partition,
    catalog: &'a Catalog,
    random: Random,
    effects: EffectsBuilder,
    rows: usize,
}

/// A partition with all rows and indexes.
pub fn loaded(catalog: &Catalog) -> Partition {
    let mut partition = Partition::new();
    for table in &catalog.tables {
        partition.set_indexes(table.id, &table.indexes);
        assert!(partition.build_indexes(1), "there are no rows");
    }
    let mut loader = Loader {
        partition: &mut partition,
        catalog,
        random: Random::new(1),
        effects: EffectsBuilder::default(),
        rows: 0,
    };
    loader.items();
    for warehouse in 1..=WAREHOUSES {
        loader.warehouse(warehouse);
    }
    loader.flush();
    partition
}

fn int(number: u32) -> Value {
    Value::Int(number as i32)
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

/// A NUMERIC with so many digits behind the point.
fn decimal(number: u32, scale: u32) -> Value {
    Value::Numeric(Decimal::new(i64::from(number), scale))
}

impl Loader<'_> {
    fn table(&self, name: &str) -> &Table {
        self.catalog.table(name)
    }

    fn put(&mut self, table: &str, row: &[Value]) {
        let table = self.table(table);
        assert_eq!(row.len(), table.columns.len(), "{}", table.name);
        let id = table.id;
        let key = encode_key(table.primary_key.iter().map(|&place| row[place].as_ref()));
        let row = encode_row(&row.iter().map(Value::as_ref).collect::<Vec<_>>());
        self.effects.put(id, &key, &row);
        self.rows += 1;
        if self.rows == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.rows = 0;
        let Some(effects) = std::mem::take(&mut self.effects).finish_if_any() else {
            return;
        };
        let lsn = self.partition.applied() + 1;
        self.partition
            .apply_record(lsn, &LogPayload::Write(effects))
            .expect("records are in order");
        self.partition.commit_to(lsn);
    }

    fn items(&mut self) {
        for item in 1..=ITEMS {
            let random = &mut self.random;
            let row = [
                int(item),
                int(random.number(1, 10_000)),
                text(random.letters(14, 24)),
                decimal(random.number(100, 10_000), 2),
                text(random.data()),
            ];
            self.put("item", &row);
        }
    }

    /// Two streets, city, state and zip.
    fn address(&mut self) -> [Value; 5] {
        let random = &mut self.random;
        [
            text(random.letters(10, 20)),
            text(random.letters(10, 20)),
            text(random.letters(10, 20)),
            text(random.letters(2, 2).to_uppercase()),
            text(random.zip()),
        ]
    }

    fn warehouse(&mut self, warehouse: u32) {
        let mut row = vec![int(warehouse), text(self.random.letters(6, 10))];
        row.extend(self.address());
        row.extend([decimal(self.random.number(0, 2_000), 4), decimal(30_000_000, 2)]);
        self.put("warehouse", &row);
        for item in 1..=ITEMS {
            let random = &mut self.random;
            let mut row = vec![int(warehouse), int(item), int(random.number(10, 100))];
            row.extend((1..=DISTRICTS).map(|_| text(random.letters(24, 24))));
            row.extend([int(0), int(0), int(0), text(random.data())]);
            self.put("stock", &row);
        }
        for district in 1..=DISTRICTS {
            self.district(warehouse, district);
        }
    }

    fn district(&mut self, warehouse: u32, district: u32) {
        let mut row = vec![int(warehouse), int(district), text(self.random.letters(6, 10))];
        row.extend(self.address());
        row.extend([
            decimal(self.random.number(0, 2_000), 4),
            decimal(3_000_000, 2),
            int(ORDERS + 1),
        ]);
        self.put("district", &row);
        for customer in 1..=CUSTOMERS {
            self.customer(warehouse, district, customer);
        }
        let customers = self.random.permutation(CUSTOMERS);
        for (order, customer) in (1..=ORDERS).zip(customers) {
            self.order(warehouse, district, order, customer);
        }
    }

    fn customer(&mut self, warehouse: u32, district: u32, customer: u32) {
        let mut row = vec![int(warehouse), int(district), int(customer)];
        row.extend([text(self.random.letters(8, 16)), text("OE")]);
        row.push(text(self.random.loaded_name(customer)));
        row.extend(self.address());
        let random = &mut self.random;
        let credit = if random.percent(10) { "BC" } else { "GC" };
        row.extend([text(random.digits(16)), Value::Timestamp(0), text(credit)]);
        row.extend([decimal(5_000_000, 2), decimal(random.number(0, 5_000), 4)]);
        row.push(Value::Numeric(Decimal::new(-1_000, 2)));
        row.extend([decimal(1_000, 2), int(1), int(0), text(random.letters(300, 500))]);
        self.put("customer", &row);
        // The procedure's numbers begin with 1.
        let number = ((warehouse * DISTRICTS + district) * CUSTOMERS + customer) as i64;
        let history = [
            int(warehouse),
            Value::BigInt(-number),
            int(district),
            int(warehouse),
            int(district),
            int(customer),
            Value::Timestamp(0),
            decimal(1_000, 2),
            text(self.random.letters(12, 24)),
        ];
        self.put("history", &history);
    }

    fn order(&mut self, warehouse: u32, district: u32, order: u32, customer: u32) {
        let random = &mut self.random;
        let lines = random.number(5, 15);
        let is_delivered = order <= DELIVERED;
        let carrier = match is_delivered {
            true => int(random.number(1, 10)),
            false => Value::Null,
        };
        let place = [int(warehouse), int(district), int(order)];
        let mut row = place.to_vec();
        row.extend([int(customer), Value::Timestamp(0), carrier, int(lines), int(1)]);
        self.put("orders", &row);
        for line in 1..=lines {
            let random = &mut self.random;
            let (delivered, amount) = match is_delivered {
                true => (Value::Timestamp(0), 0),
                false => (Value::Null, random.number(1, 999_999)),
            };
            let mut row = place.to_vec();
            row.extend([int(line), int(random.number(1, ITEMS)), int(warehouse), delivered]);
            row.extend([int(5), decimal(amount, 2), text(random.letters(24, 24))]);
            self.put("order_line", &row);
        }
        if !is_delivered {
            self.put("new_order", &place);
        }
    }
}
