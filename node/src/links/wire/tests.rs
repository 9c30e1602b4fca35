use volt_engine::key::encode_key;
use volt_engine::value::DataType;

use super::super::postgres::tests::table;
use super::*;

const A: (&str, DataType) = ("a", DataType::Int);
const B: (&str, DataType) = ("b", DataType::Text);
const C: (&str, DataType) = (
    "c",
    DataType::Numeric {
        precision: 10,
        scale: 2,
    },
);

fn change(key: Vec<u8>, row: Option<Vec<u8>>) -> Change {
    let version = |micros| RowVersion { micros, origin: 3 };
    Change {
        table: 1,
        key,
        row,
        version: version(9),
        replaced: version(8),
        rank: vec![1, 2],
    }
}

fn key_of(a: i32) -> Vec<u8> {
    encode_key([ValueRef::Text("key"), ValueRef::Int(a)])
}

#[test]
fn what_is_told_comes_as_it_was() {
    let there = table("t", &[A, B, C]);
    let row = encode_row(&[ValueRef::Int(5), ValueRef::Text("key")]);
    let told = Told {
        cluster_uuid: "one".to_owned(),
        link: "link".to_owned(),
        tables: vec![told_table(&there)],
        changes: vec![told_change(0, &there, &[], &change(key_of(5), Some(row)))],
    };
    assert_eq!(Told::decode(&told.encode()), Ok(told.clone()));
    for bytes in [&[][..], &[9, 9], &told.encode()[..30]] {
        assert_eq!(Told::decode(bytes).unwrap_err().sqlstate, "22023");
    }
}

#[test]
fn rows_are_read_by_the_names_of_their_columns() {
    let mut there = table("t", &[A, B, ("gone", DataType::Int), C]);
    there.drop_column(2);
    let mut here = table("t", &[("d", DataType::Int), B, A, C]);
    here.primary_key = vec![1, 2];
    here.partition_column = Some(2);
    here.columns[0].default = Some(ColumnDefault::Value(Value::Int(77)));
    let reader = Reader::new(&here, &told_table(&there)).expect("they fit");
    let row = encode_row(&[
        ValueRef::Int(5),
        ValueRef::Text("key"),
        ValueRef::Int(1),
        ValueRef::Numeric("1.5".parse().unwrap()),
    ]);
    let told = told_change(0, &there, &[], &change(key_of(5), Some(row)));
    let (index, read) = reader.read(told, 12).expect("it fits");
    assert_eq!(index, partition_index(ValueRef::Int(5), 12));
    let expected = [
        ValueRef::Int(77),
        ValueRef::Text("key"),
        ValueRef::Int(5),
        ValueRef::Numeric("1.50".parse().unwrap()),
    ];
    assert_eq!(
        read,
        Change {
            row: Some(encode_row(&expected)),
            ..change(key_of(5), None)
        }
    );
    // Of what was removed there is the key alone.
    let gone = told_change(0, &there, &[], &change(key_of(5), None));
    assert_eq!(reader.read(gone, 12), Ok((index, change(key_of(5), None))));
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let there = table("t", &[A, B, C]);
    let refused = |here: &Table| Reader::new(here, &told_table(&there)).err().map(|error| error.message);
    let says = |text: &str| Some(text.to_owned());
    assert_eq!(refused(&there), None);
    let mut here = table("t", &[A, B, C]);
    here.primary_key = vec![0, 1];
    assert_eq!(refused(&here), says("table \"t\" has another primary key than there"));
    assert_eq!(refused(&table("t", &[A, B])), says("table \"t\" has no column \"c\""));
    let mut here = table("t", &[A, B, C]);
    here.partition_column = None;
    assert!(refused(&here).is_some_and(|why| why.contains("replicated")));
    let mut here = table("t", &[A, B, C]);
    here.columns[2].nullable = false;
    let reader = Reader::new(&here, &told_table(&there)).expect("the names fit");
    let row = encode_row(&[ValueRef::Int(5), ValueRef::Text("key"), ValueRef::Null]);
    let told = told_change(0, &there, &[], &change(key_of(5), Some(row)));
    assert_eq!(reader.read(told, 12).unwrap_err().sqlstate, "23502");
}
