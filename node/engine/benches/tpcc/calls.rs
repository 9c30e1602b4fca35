//! What terminals ask for: TPC-C's five transactions (clause 2) with their arguments.

use rust_decimal::Decimal;
use volt_engine::value::Value;

use super::load::WAREHOUSES;
use super::random::Random;

/// An item's number that no item has.
const NO_ITEM: u32 = 100_001;

/// The five, as the procedures are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    NewOrder,
    Payment,
    OrderStatus,
    Delivery,
    StockLevel,
}

impl Transaction {
    pub const ALL: [Self; 5] = [
        Self::NewOrder,
        Self::Payment,
        Self::OrderStatus,
        Self::Delivery,
        Self::StockLevel,
    ];

    pub fn procedure(self) -> &'static str {
        match self {
            Self::NewOrder => "place_order",
            Self::Payment => "pay",
            Self::OrderStatus => "order_status",
            Self::Delivery => "deliver",
            Self::StockLevel => "stock_level",
        }
    }

    /// One of the mix.
    pub fn any(random: &mut Random) -> Self {
        match random.number(1, 100) {
            ..=45 => Self::NewOrder,
            46..=88 => Self::Payment,
            89..=92 => Self::OrderStatus,
            93..=96 => Self::Delivery,
            _ => Self::StockLevel,
        }
    }
}

/// A call on its way to the partition.
pub struct Call {
    pub transaction: Transaction,
    pub arguments: Vec<Value>,
    /// A NewOrder that names an item which is not there.
    pub fails: bool,
}

impl Call {
    pub fn new(transaction: Transaction, random: &mut Random) -> Self {
        let (warehouse, district) = (random.number(1, WAREHOUSES), random.number(1, 10));
        let mut arguments = vec![int(warehouse)];
        let mut fails = false;
        match transaction {
            Transaction::NewOrder => {
                fails = random.percent(1);
                let lines = lines(warehouse, fails, random);
                arguments.extend([int(district), int(random.customer()), Value::Text(lines)]);
            }
            Transaction::Payment => {
                let (mut home, mut near) = (warehouse, district);
                if random.percent(15) {
                    (home, near) = (other(warehouse, random), random.number(1, 10));
                }
                let amount = Value::Numeric(Decimal::new(i64::from(random.number(100, 500_000)), 2));
                arguments.extend([int(district), int(home), int(near)]);
                arguments.extend(customer(random));
                arguments.push(amount);
            }
            Transaction::OrderStatus => {
                arguments.push(int(district));
                arguments.extend(customer(random));
            }
            Transaction::Delivery => arguments.push(int(random.number(1, 10))),
            Transaction::StockLevel => arguments.extend([int(district), int(random.number(10, 20))]),
        }
        Self {
            transaction,
            arguments,
            fails,
        }
    }
}

fn int(number: u32) -> Value {
    Value::Int(number as i32)
}

/// Another warehouse, if there is one.
fn other(warehouse: u32, random: &mut Random) -> u32 {
    if WAREHOUSES == 1 {
        return warehouse;
    }
    let other = random.number(1, WAREHOUSES - 1);
    other + u32::from(other >= warehouse)
}

/// A customer's number, or a last name.
fn customer(random: &mut Random) -> [Value; 2] {
    match random.percent(60) {
        true => [Value::Null, Value::Text(random.name())],
        false => [int(random.customer()), Value::Null],
    }
}

/// 5 to 15 of "item,warehouse,quantity"; one in a hundred comes from another warehouse.
fn lines(warehouse: u32, fails: bool, random: &mut Random) -> String {
    let count = random.number(5, 15);
    let line = |number| {
        let item = if fails && number == count {
            NO_ITEM
        } else {
            random.item()
        };
        let supplier = match random.percent(1) {
            true => other(warehouse, random),
            false => warehouse,
        };
        format!("{item},{supplier},{}", random.number(1, 10))
    };
    (1..=count).map(line).collect::<Vec<_>>().join(";")
}
