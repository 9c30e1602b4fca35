use super::*;
use crate::catalog::{CheckConstraint, Index, IndexColumn, IndexShape, IndexState};
use crate::plan::{BinaryOp, Check, Function, UnaryOp};
use crate::value::DataType;

fn column(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        data_type: DataType::Int,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    }
}

fn is_null(operand: Expr) -> Expr {
    Expr::Unary {
        op: UnaryOp::IsNull,
        operand: Box::new(operand),
    }
}

fn table() -> Table {
    let index = |id, place, predicate| Index {
        name: format!("index {id}"),
        shape: IndexShape {
            missing: Vec::new(),
            id,
            columns: vec![IndexColumn {
                place,
                descending: false,
            }],
            predicate,
        },
        unique: false,
        constraint: false,
        view: None,
        state: IndexState::Ready,
        source: String::new(),
    };
    let check = |place| CheckConstraint {
        check: Check {
            name: format!("check {place}"),
            condition: is_null(Expr::Column(place)),
        },
        text: String::new(),
    };
    Table {
        id: 1,
        name: "t".to_owned(),
        columns: ["id", "a", "b"].map(column).to_vec(),
        primary_key: vec![0],
        partition_column: Some(0),
        group: 1,
        indexes: vec![
            index(1, 1, None),
            index(2, 2, None),
            index(3, 2, Some(is_null(Expr::Column(1)))),
        ],
        checks: vec![check(1), check(2)],
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    }
}

#[test]
fn what_looks_at_a_column_goes_with_it_and_places_stay() {
    let mut table = table();
    table.drop_column(1);
    let places: Vec<_> = table.present_columns().map(|(place, _)| place).collect();
    assert_eq!(places, [0, 2]);
    assert_eq!((table.place_of("a"), table.place_of("b")), (None, Some(2)));
    assert!(table.columns[1].nullable, "new rows have NULL there");
    let indexes: Vec<_> = table.indexes.iter().map(|index| index.shape.id).collect();
    assert_eq!(indexes, [2]);
    assert_eq!(table.checks.len(), 1);
    assert_eq!(table.checks[0].check.name, "check 2");
}

#[test]
fn a_program_writes_nothing_there_and_is_not_held_to_it() {
    let one = Expr::Literal(Value::Int(1));
    let mut program = Program {
        table: 1,
        table_name: "t".to_owned(),
        columns: table().columns,
        primary_key: vec![0],
        checks: table().checks.into_iter().map(|one| one.check).collect(),
        action: Action::Insert {
            rows: vec![vec![one.clone(); 3]],
        },
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
    };
    program.drop_column(1);
    program.validate().expect("still a program");
    assert!(program.columns[1].is_dropped && program.columns[1].nullable);
    assert_eq!(program.checks.len(), 1);
    let rows = vec![vec![one.clone(), Expr::Literal(Value::Null), one]];
    assert_eq!(program.action, Action::Insert { rows });
}

#[test]
fn a_column_is_found_wherever_an_expression_has_it() {
    let (wanted, other) = (Expr::Column(1), Expr::Column(0));
    let boxed = |expr: &Expr| Box::new(expr.clone());
    let around = |inner: &Expr, beside: &Expr| {
        [
            Expr::Binary {
                op: BinaryOp::Add,
                left: boxed(beside),
                right: boxed(inner),
            },
            is_null(inner.clone()),
            Expr::Cast {
                operand: boxed(inner),
                to: DataType::Text,
            },
            Expr::InList {
                operand: boxed(beside),
                list: vec![beside.clone(), inner.clone()],
                negated: false,
            },
            Expr::Like {
                operand: boxed(beside),
                pattern: boxed(inner),
                negated: false,
                case_insensitive: false,
            },
            Expr::Case {
                arms: vec![(beside.clone(), inner.clone())],
                otherwise: None,
            },
            Expr::Case {
                arms: vec![(beside.clone(), beside.clone())],
                otherwise: Some(boxed(inner)),
            },
            Expr::Call {
                function: Function::Abs,
                arguments: vec![inner.clone()],
            },
        ]
    };
    for (with, without) in around(&wanted, &other).iter().zip(&around(&other, &other)) {
        assert!(with.reads(1), "{with:?}");
        assert!(!without.reads(1), "{without:?}");
    }
}

#[test]
fn what_rows_have_in_columns_that_they_lack_goes_with_the_column() {
    let mut table = table();
    assert_eq!(table.missing(), []);
    table.columns[1].missing = Value::Int(5);
    assert_eq!(table.missing(), [Value::Null, Value::Int(5)]);
    table.columns[2].missing = Value::Int(6);
    table.drop_column(1);
    assert_eq!(table.missing(), [Value::Null, Value::Null, Value::Int(6)]);
    table.drop_column(2);
    assert_eq!(table.missing(), []);
}
