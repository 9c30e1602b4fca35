use proptest::prelude::*;

use super::*;
use crate::catalog::Column;
use crate::effects::LogPayload;
use crate::key::encode_key;
use crate::plan::{Access, Action, BinaryOp, Expr, KeyBound, KeyRange};
use crate::row::encode_row;
use crate::value::DataType;

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLE: TableId = 1;

fn program(action: Action) -> Program {
    let column = |name: &str| Column {
        name: name.to_owned(),
        data_type: DataType::BigInt,
        nullable: false,
        default: None,
        is_dropped: false,
        missing: Value::Null,
    };
    let program = Program {
        table: TABLE,
        table_name: "stock".to_owned(),
        columns: vec![column("shop"), column("item"), column("left")],
        primary_key: vec![0, 1],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action,
    };
    program.validate().unwrap();
    program
}

fn number(number: i64) -> Expr {
    Expr::Literal(Value::BigInt(number))
}

fn at(shop: i64, item: i64) -> Access {
    Access::Point(vec![number(shop), number(item)])
}

fn of(shop: i64) -> Access {
    Access::Prefix(vec![number(shop)])
}

/// Items of a shop from one up to another, without that.
fn between(shop: i64, from: i64, to: i64, backward: bool) -> Access {
    let bound = |item, inclusive| {
        let value = number(item);
        Some(KeyBound { value, inclusive })
    };
    Access::Range(KeyRange {
        prefix: vec![number(shop)],
        from: bound(from, true),
        to: bound(to, false),
        backward,
    })
}

/// The first of these rows, as they are found.
fn first(access: Access, count: u64) -> Program {
    let mut program = select(access);
    if let Action::Select { limit, .. } = &mut program.action {
        *limit = Some(count);
    }
    program
}

fn select(access: Access) -> Program {
    program(Action::Select {
        access,
        filter: None,
        stages: Vec::new(),
        project: (0..3).map(Expr::Column).collect(),
        limit: None,
        offset: 0,
    })
}

fn insert(shop: i64, item: i64) -> Program {
    program(Action::Insert {
        rows: vec![vec![number(shop), number(item), number(10)]],
    })
}

/// One more in column `column`, where there are more than `over` left.
fn add(access: Access, column: usize, over: Option<i64>) -> Program {
    let binary = |op, left, right| Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    };
    program(Action::Update {
        access,
        filter: over.map(|over| binary(BinaryOp::Greater, Expr::Column(2), number(over))),
        set: vec![(column, binary(BinaryOp::Add, Expr::Column(column), number(1)))],
    })
}

fn delete(access: Access) -> Program {
    program(Action::Delete { access, filter: None })
}

type Rows = Vec<Vec<Value>>;

/// Runs a program and applies what it did, at once.
fn run(partition: &mut Partition, program: &Program) -> (Rows, Result<u64, StatementError>) {
    let mut rows = Vec::new();
    let result = partition.run(program, &[], &CONTEXT, &mut |row| {
        rows.push(row.iter().map(|value| value.to_value()).collect());
    });
    let result = result.map_err(|failed| failed.error).map(|outcome| {
        let lsn = partition.applied() + 1;
        if let Some(effects) = outcome.effects {
            partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
        }
        outcome.affected
    });
    (rows, result)
}

/// A transaction on one partition.
struct Transaction {
    snapshot: Lsn,
    writes: Writes,
    reads: Reads,
}

impl Transaction {
    fn begin(partition: &mut Partition) -> Self {
        let snapshot = partition.committed;
        assert!(partition.pin(snapshot));
        Self {
            snapshot,
            writes: Writes::default(),
            reads: Reads::default(),
        }
    }

    fn run(&mut self, partition: &Partition, program: &Program) -> (Rows, Result<u64, StatementError>) {
        let mut rows = Vec::new();
        let attempt = partition.attempt(self.snapshot, &self.writes, program, &[], &CONTEXT, &mut |row| {
            rows.push(row.iter().map(|value| value.to_value()).collect());
        });
        self.reads.add(attempt.reads);
        let result = attempt.result.map(|(affected, effects)| {
            if let Some(effects) = effects {
                self.writes.add(&effects).unwrap();
            }
            affected
        });
        (rows, result)
    }

    fn stands(&self, partition: &Partition) -> bool {
        partition.stands(&self.reads, self.snapshot)
    }
}

/// Shops 1 and 2 with items 1 to 3, committed.
fn stocked() -> Partition {
    let mut partition = Partition::new();
    for shop in 1..=2 {
        for item in 1..=3 {
            run(&mut partition, &insert(shop, item)).1.unwrap();
        }
    }
    partition.commit_to(partition.applied());
    partition
}

fn key(shop: i64, item: i64) -> Vec<u8> {
    encode_key([ValueRef::BigInt(shop), ValueRef::BigInt(item)])
}

#[test]
fn a_transaction_sees_its_snapshot_and_its_own_writes() {
    let mut partition = stocked();
    let mut transaction = Transaction::begin(&mut partition);
    run(&mut partition, &delete(at(1, 1))).1.unwrap();
    run(&mut partition, &insert(1, 4)).1.unwrap();
    partition.commit_to(partition.applied());
    let items = |rows: Rows| rows.into_iter().map(|row| row[1].clone()).collect::<Vec<_>>();
    let three = [1, 2, 3].map(Value::BigInt).to_vec();
    assert_eq!(items(transaction.run(&partition, &select(of(1))).0), three);
    assert_eq!(transaction.run(&partition, &delete(at(1, 2))).1, Ok(1));
    assert_eq!(transaction.run(&partition, &insert(1, 0)).1, Ok(1));
    let own = [0, 1, 3].map(Value::BigInt).to_vec();
    assert_eq!(items(transaction.run(&partition, &select(of(1))).0), own);
    assert!(transaction.run(&partition, &insert(1, 0)).1.is_err());
    let effects = transaction.writes.to_effects();
    assert_eq!(effects.iter().count(), 2);
    assert_eq!(Writes::of(&effects).unwrap().to_effects(), effects);
    assert_eq!(transaction.writes.of_table(TABLE, Some(&key(1, 0))).iter().count(), 1);
}

#[test]
fn what_others_change_is_found() {
    type Case = (&'static str, Program, Program, bool);
    let cases: Vec<Case> = vec![
        ("a key, changed", select(at(1, 1)), add(at(1, 1), 2, None), false),
        ("a key, removed", select(at(1, 1)), delete(at(1, 1)), false),
        ("no row, now one", select(at(1, 9)), insert(1, 9), false),
        ("an insert of the same", insert(1, 9), insert(1, 9), false),
        ("another key", select(at(1, 1)), add(at(1, 2), 2, None), true),
        ("a phantom", select(of(1)), insert(1, 9), false),
        ("a range, one less", select(of(1)), delete(at(1, 3)), false),
        ("a range, one changed", select(of(1)), add(at(1, 3), 2, None), false),
        ("another range", select(of(1)), insert(2, 9), true),
        ("all, one more", select(Access::Scan), insert(3, 1), false),
        ("within bounds", select(between(1, 2, 9, false)), insert(1, 8), false),
        ("at a bound", select(between(1, 2, 9, true)), delete(at(1, 2)), false),
        (
            "below the bounds",
            select(between(1, 2, 9, false)),
            delete(at(1, 1)),
            true,
        ),
        ("above the bounds", select(between(1, 2, 9, true)), insert(1, 9), true),
        ("the first, another", first(of(1), 1), insert(1, 0), false),
        ("the first, behind it", first(of(1), 1), delete(at(1, 2)), true),
        (
            "the last, itself",
            first(between(1, 0, 9, true), 1),
            delete(at(1, 3)),
            false,
        ),
        (
            "the last, behind it",
            first(between(1, 0, 9, true), 1),
            insert(1, 8),
            false,
        ),
        (
            "the last, before it",
            first(between(1, 0, 9, true), 1),
            delete(at(1, 2)),
            true,
        ),
        (
            "a filtered update",
            add(of(1), 2, Some(50)),
            add(at(1, 1), 2, None),
            false,
        ),
    ];
    for (name, mine, theirs, stands) in cases {
        let mut partition = stocked();
        let mut transaction = Transaction::begin(&mut partition);
        transaction.run(&partition, &mine).1.unwrap();
        assert!(transaction.stands(&partition), "{name}: nobody did anything");
        let before = partition.applied();
        run(&mut partition, &theirs).1.unwrap();
        assert_eq!(transaction.stands(&partition), stands, "{name}: not committed yet");
        partition.undo_after(before);
        assert!(transaction.stands(&partition), "{name}: undone");
        run(&mut partition, &theirs).1.unwrap();
        partition.commit_to(partition.applied());
        assert_eq!(transaction.stands(&partition), stands, "{name}: committed");
    }
}

#[test]
fn a_range_needs_its_snapshot_and_a_key_does_not() {
    let mut partition = stocked();
    let mut keys = Transaction::begin(&mut partition);
    keys.run(&partition, &select(at(1, 1))).1.unwrap();
    let mut range = Transaction::begin(&mut partition);
    range.run(&partition, &select(of(1))).1.unwrap();
    assert!(keys.stands(&partition) && range.stands(&partition));
    partition.unpin(keys.snapshot);
    partition.unpin(keys.snapshot);
    assert!(keys.stands(&partition));
    assert!(!range.stands(&partition));
}

#[test]
fn a_long_range_stands_only_if_nothing_was_written_to_its_table() {
    let mut partition = Partition::new();
    let mut effects = crate::effects::EffectsBuilder::default();
    for item in 0..=MAX_ENTRIES_VALIDATED as i64 {
        let row = encode_row(&[ValueRef::BigInt(1), ValueRef::BigInt(item), ValueRef::BigInt(0)]);
        effects.put(TABLE, &key(1, item), &row);
    }
    partition.apply_record(1, &LogPayload::Write(effects.finish())).unwrap();
    partition.commit_to(1);
    let mut transaction = Transaction::begin(&mut partition);
    transaction.run(&partition, &add(of(1), 2, Some(50))).1.unwrap();
    assert!(transaction.stands(&partition));
    run(&mut partition, &insert(2, 1)).1.unwrap();
    assert!(!transaction.stands(&partition));
}

#[test]
fn snapshot_isolation_asks_only_for_what_is_written() {
    let mut partition = stocked();
    let mut transaction = Transaction::begin(&mut partition);
    transaction.run(&partition, &select(at(2, 1))).1.unwrap();
    transaction.run(&partition, &add(of(1), 2, None)).1.unwrap();
    let written = transaction.reads.written(&transaction.writes);
    run(&mut partition, &delete(at(2, 1))).1.unwrap();
    run(&mut partition, &insert(1, 9)).1.unwrap();
    assert!(!transaction.stands(&partition));
    assert!(partition.stands(&written, transaction.snapshot));
    run(&mut partition, &add(at(1, 2), 2, None)).1.unwrap();
    assert!(!partition.stands(&written, transaction.snapshot));
}

fn any_program() -> impl Strategy<Value = Program> {
    let access = || {
        prop_oneof![
            4 => (1i64..4, 1i64..5).prop_map(|(shop, item)| at(shop, item)),
            2 => (1i64..4).prop_map(of),
            3 => (1i64..4, 0i64..6, 0i64..6, any::<bool>())
                .prop_map(|(shop, from, to, backward)| between(shop, from, to, backward)),
            1 => Just(Access::Scan),
        ]
    };
    prop_oneof![
        2 => access().prop_map(select),
        2 => (access(), 1u64..3).prop_map(|(access, count)| first(access, count)),
        2 => (1i64..4, 1i64..5).prop_map(|(shop, item)| insert(shop, item)),
        2 => (access(), prop::option::of(9i64..13)).prop_map(|(access, over)| add(access, 2, over)),
        1 => access().prop_map(|access| add(access, 1, None)),
        1 => access().prop_map(delete),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Mine(Program),
    Theirs(Program),
    Commit,
    /// Back to what is committed.
    Undo,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_program().prop_map(Step::Mine),
        2 => any_program().prop_map(Step::Theirs),
        1 => Just(Step::Commit),
        1 => Just(Step::Undo),
    ]
}

fn all_rows(partition: &mut Partition) -> Rows {
    run(partition, &select(Access::Scan)).0
}

proptest! {
    /// What backward validation promises: a transaction that stands gives the same answers, and does the same, as if all
    /// of it ran at its end.
    #[test]
    fn what_stands_is_serial(steps in prop::collection::vec(step(), 1..14)) {
        let (mut partition, mut twin) = (stocked(), stocked());
        let mut transaction = Transaction::begin(&mut partition);
        let mut answers = Vec::new();
        for step in steps {
            match step {
                Step::Mine(program) => {
                    let answer = transaction.run(&partition, &program);
                    answers.push((program, answer));
                }
                Step::Theirs(program) => {
                    prop_assert_eq!(run(&mut partition, &program), run(&mut twin, &program));
                }
                Step::Commit => {
                    partition.commit_to(partition.applied());
                    twin.commit_to(twin.applied());
                }
                Step::Undo => {
                    partition.undo_after(partition.committed);
                    twin.undo_after(twin.committed);
                }
            }
        }
        if transaction.stands(&partition) {
            for (program, answer) in answers {
                prop_assert_eq!(&run(&mut twin, &program), &answer, "{:?}", program.action);
            }
            let lsn = partition.applied() + 1;
            let effects = transaction.writes.to_effects();
            partition.apply_record(lsn, &LogPayload::Write(effects)).unwrap();
            prop_assert_eq!(all_rows(&mut partition), all_rows(&mut twin));
        }
    }
}
