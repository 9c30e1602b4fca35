use super::*;
use crate::catalog::Column;
use crate::effects::{EffectsBuilder, LogPayload};
use crate::key::encode_key;
use crate::plan::{Access, Action, Expr, StatementContext};
use crate::row::encode_row;
use crate::transaction::Writes;
use crate::value::{DataType, Value, ValueRef};

const CONTEXT: StatementContext = StatementContext { now_micros: 0 };
const TABLE: TableId = 1;

/// The second column of the row with the key 1, planned when so many of three columns were dropped.
fn read(dropped: usize) -> Program {
    let column = |place: usize| Column {
        name: format!("c{place}"),
        data_type: DataType::BigInt,
        nullable: place > 0,
        default: None,
        is_dropped: place > 0 && place <= dropped,
        missing: Value::Null,
    };
    Program {
        table: TABLE,
        table_name: "t".to_owned(),
        columns: (0..3).map(column).collect(),
        primary_key: vec![0],
        checks: Vec::new(),
        returning: None,
        repeats: false,
        on_conflict: None,
        missing: Vec::new(),
        action: Action::Select {
            access: Access::Point(vec![Expr::Literal(Value::BigInt(1))]),
            filter: None,
            stages: Vec::new(),
            project: vec![Expr::Column(1)],
            limit: None,
            offset: 0,
        },
    }
}

fn put(partition: &mut Partition, second: Option<i64>) {
    let mut effects = EffectsBuilder::default();
    let second = second.map_or(ValueRef::Null, ValueRef::BigInt);
    let row = encode_row(&[ValueRef::BigInt(1), second, ValueRef::Null]);
    effects.put(TABLE, &encode_key([ValueRef::BigInt(1)]), &row);
    let lsn = partition.applied() + 1;
    let record = LogPayload::Write(effects.finish());
    partition.apply_record(lsn, &record).expect("records are in order");
}

fn at(partition: &Partition, dropped: usize, snapshot: Lsn) -> Result<u64, StatementError> {
    let attempt = partition.attempt(snapshot, &Writes::default(), &read(dropped), &[], &CONTEXT, &mut |_| {});
    attempt.result.map(|(rows, _)| rows)
}

#[test]
fn what_was_planned_before_a_drop_is_refused_behind_it() {
    let mut partition = Partition::new();
    put(&mut partition, Some(7));
    assert_eq!(partition.accept(&read(0)), Ok(()), "nobody has heard of a drop");
    assert_eq!(partition.accept(&read(1)), Ok(()), "the first to tell of it");
    assert_eq!(partition.accept(&read(0)), Err(StatementError::ColumnDropped));
    assert_eq!(partition.accept(&read(2)), Ok(()));
    assert_eq!(partition.accept(&read(1)), Err(StatementError::ColumnDropped));
    assert_eq!(partition.accept(&read(2)), Ok(()));
    partition.retain_tables(|table| table != TABLE);
    assert_eq!(partition.accept(&read(0)), Ok(()), "another table");
}

#[test]
fn a_snapshot_from_before_it_is_read_as_it_was_planned() {
    let mut partition = Partition::new();
    put(&mut partition, Some(7));
    assert!(partition.pin(1));
    partition.hear_of_dropped(TABLE, 1, partition.applied());
    put(&mut partition, None);
    assert!(partition.pin(2));
    assert_eq!(at(&partition, 0, 1), Ok(1));
    assert_eq!(at(&partition, 0, 2), Err(StatementError::ColumnDropped));
    assert_eq!(at(&partition, 1, 2), Ok(1));
    assert_eq!(partition.check_dropped(TABLE, 0, 1), Ok(()));
    assert_eq!(partition.check_dropped(TABLE, 0, 2), Err(StatementError::ColumnDropped));
    partition.hear_of_dropped(TABLE, 1, 0);
    assert_eq!(at(&partition, 0, 1), Ok(1), "it has heard of it already");
}

#[test]
fn a_replica_that_follows_does_not_know_since_when() {
    let mut partition = Partition::new();
    put(&mut partition, None);
    partition.hear_of_dropped(TABLE, 1, 0);
    assert!(partition.pin(1));
    assert_eq!(at(&partition, 0, 1), Err(StatementError::ColumnDropped));
}

#[test]
fn what_comes_in_the_place_of_undone_records_may_have_been_written_behind_it() {
    let mut partition = Partition::new();
    put(&mut partition, Some(7));
    put(&mut partition, Some(8));
    partition.hear_of_dropped(TABLE, 1, partition.applied());
    partition.undo_after(1);
    put(&mut partition, None);
    assert_eq!(partition.check_dropped(TABLE, 0, 2), Err(StatementError::ColumnDropped));
    assert_eq!(partition.check_dropped(TABLE, 0, 1), Ok(()));
}
