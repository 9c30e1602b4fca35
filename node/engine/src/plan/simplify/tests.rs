//! What is simplified gives what it gave, of every row and all parameters; and the casts that cost most are gone.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::plan::StatementContext;
use crate::plan::cast::assign;
use crate::plan::eval::{Datum, Scope};
use crate::row::{RowRef, encode_row};
use crate::value::ValueRef;

const TYPES: [DataType; 7] = [
    DataType::Int,
    DataType::BigInt,
    DataType::Numeric { precision: 6, scale: 2 },
    DataType::Double,
    DataType::Varchar(5),
    DataType::Text,
    DataType::Int,
];

/// What casts are made to, besides.
const TARGETS: [DataType; 5] = [
    DataType::Numeric {
        precision: 10,
        scale: 0,
    },
    DataType::Numeric {
        precision: 12,
        scale: 2,
    },
    DataType::Numeric {
        precision: 20,
        scale: 0,
    },
    DataType::Varchar(9),
    DataType::Varchar(2),
];

const OPERATORS: [BinaryOp; 13] = [
    BinaryOp::Equal,
    BinaryOp::NotEqual,
    BinaryOp::Less,
    BinaryOp::LessOrEqual,
    BinaryOp::Greater,
    BinaryOp::GreaterOrEqual,
    BinaryOp::IsDistinctFrom,
    BinaryOp::IsNotDistinctFrom,
    BinaryOp::Add,
    BinaryOp::Subtract,
    BinaryOp::Multiply,
    BinaryOp::Divide,
    BinaryOp::Modulo,
];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        prop_oneof![any::<i32>(), -3..3_i32].prop_map(Value::Int),
        prop_oneof![any::<i64>(), -3..3_i64].prop_map(Value::BigInt),
        (-99_999..99_999_i64, 0..3_u32).prop_map(|(digits, scale)| Value::Numeric(Decimal::new(digits, scale))),
        (-4..4_i32).prop_map(|eighths| Value::Double(f64::from(eighths) / 8.0)),
        "[0-3 a]{0,4}".prop_map(Value::Text),
    ]
}

/// Values that a row of these columns, or variables of these types, may have.
fn held() -> impl Strategy<Value = Vec<Value>> {
    let one = |data_type: DataType| {
        value()
            .prop_map(move |value| assign(Datum::Ref(value.as_ref()), data_type).map_or(Value::Null, Datum::into_value))
    };
    Vec::from(TYPES.map(one))
}

fn target() -> impl Strategy<Value = DataType> {
    prop_oneof![
        prop::sample::select(TYPES.to_vec()),
        prop::sample::select(TARGETS.to_vec())
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let column = || (0..TYPES.len()).prop_map(Expr::Column);
    let widened = (column(), target()).prop_map(|(column, to)| cast(column, to));
    let leaf = prop_oneof![
        2 => column(),
        2 => widened,
        2 => (0..TYPES.len()).prop_map(Expr::Parameter),
        1 => value().prop_map(Expr::Literal),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            4 => (boxed(), target()).prop_map(|(operand, to)| Expr::Cast { operand, to }),
            5 => (prop::sample::select(OPERATORS.to_vec()), boxed(), boxed())
                .prop_map(|(op, left, right)| Expr::Binary { op, left, right }),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(left, value, otherwise)| Expr::Case {
                arms: vec![(
                    Expr::Unary { op: crate::plan::UnaryOp::IsNull, operand: Box::new(left) },
                    value
                )],
                otherwise: Some(Box::new(otherwise)),
            }),
            1 => (inner.clone(), inner.clone()).prop_map(|(text, count)| Expr::Call {
                function: Function::Left,
                arguments: vec![text, count],
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn it_gives_what_it_gave(expr in expr(), row in held(), parameters in held()) {
        let mut simple = expr.clone();
        simple.simplify(Types { columns: &TYPES, parameters: &TYPES });
        let row: Vec<ValueRef<'_>> = row.iter().map(Value::as_ref).collect();
        let row = encode_row(&row);
        let context = StatementContext { now_micros: 0 };
        let scope = Scope { row: Some(RowRef::new(&row)), lsn: 1, parameters: &parameters, context: &context };
        let same = |one: &Value, other: &Value| match (one, other) {
            // Also of how many places a NUMERIC has.
            (Value::Numeric(one), Value::Numeric(other)) => one == other && one.scale() == other.scale(),
            (Value::Double(one), Value::Double(other)) => one.to_bits() == other.to_bits(),
            (one, other) => one == other,
        };
        match (expr.eval(&scope), simple.eval(&scope)) {
            (Ok(one), Ok(other)) => prop_assert!(same(&one, &other), "{one:?} {other:?} {simple:?}"),
            (one, other) => prop_assert_eq!(one, other, "{:?}", simple),
        }
    }
}

fn cast(operand: Expr, to: DataType) -> Expr {
    Expr::Cast {
        operand: Box::new(operand),
        to,
    }
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn simplified(mut expr: Expr) -> Expr {
    expr.simplify(Types {
        columns: &TYPES,
        parameters: &TYPES,
    });
    expr
}

#[test]
fn a_calculation_with_a_wider_constant_has_no_cast() {
    let one = || Expr::Literal(Value::BigInt(1));
    let widened = cast(cast(Expr::Parameter(0), DataType::Int), DataType::BigInt);
    let expected = binary(BinaryOp::Add, Expr::Parameter(0), one());
    assert_eq!(simplified(binary(BinaryOp::Add, widened, one())), expected);

    let compared = binary(BinaryOp::Less, cast(Expr::Column(0), DataType::BigInt), one());
    assert_eq!(simplified(compared), binary(BinaryOp::Less, Expr::Column(0), one()));
}

#[test]
fn a_sum_of_two_widened_numbers_stays_wide() {
    let wide = |column| cast(Expr::Column(column), DataType::BigInt);
    let sum = simplified(binary(BinaryOp::Add, wide(0), wide(6)));
    assert_eq!(sum, binary(BinaryOp::Add, Expr::Column(0), wide(6)));
}

#[test]
fn a_constant_is_of_its_variables_type() {
    let assign = |value| Op::Assign { slot: 0, value };
    let mut code = Code {
        slots: vec![DataType::Int],
        ops: vec![
            assign(Expr::Literal(Value::BigInt(7))),
            assign(Expr::Literal(Value::BigInt(1 << 40))),
        ],
        ..Code::default()
    };
    code.simplify();
    let expected = [
        assign(Expr::Literal(Value::Int(7))),
        assign(Expr::Literal(Value::BigInt(1 << 40))),
    ];
    assert_eq!(code.ops, expected);
}
