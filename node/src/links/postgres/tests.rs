use volt_engine::catalog::Column;
use volt_engine::key::encode_key;
use volt_engine::row::encode_row;
use volt_engine::value::DataType;

use super::*;

/// `name` and data type; the first two are the key.
pub(in crate::links) fn table(name: &str, columns: &[(&str, DataType)]) -> Table {
    let column = |(name, data_type): &(&str, DataType)| Column {
        name: (*name).to_owned(),
        data_type: *data_type,
        nullable: true,
        default: None,
        missing: Value::Null,
        is_dropped: false,
    };
    Table {
        id: 1,
        name: name.to_owned(),
        columns: columns.iter().map(column).collect(),
        primary_key: vec![1, 0],
        partition_column: Some(0),
        group: 1,
        indexes: Vec::new(),
        checks: Vec::new(),
        ttl: None,
        view: None,
        tracking: None,
        version_base: 0,
    }
}

#[test]
fn statements_name_what_there_is_and_quote_it() {
    let columns = [
        ("a", DataType::Int),
        ("b\"c", DataType::Text),
        ("gone", DataType::Int),
        ("d", DataType::Int),
    ];
    let mut of = table("or\"ders", &columns);
    of.drop_column(2);
    assert_eq!(
        removal(&of),
        "DELETE FROM \"or\"\"ders\" AS there USING json_populate_recordset(NULL::\"or\"\"ders\", $1::text::json) AS gone \
         WHERE there.\"b\"\"c\" = gone.\"b\"\"c\" AND there.\"a\" = gone.\"a\""
    );
    assert_eq!(
        upsert(&of),
        "INSERT INTO \"or\"\"ders\" (\"a\", \"b\"\"c\", \"d\") OVERRIDING SYSTEM VALUE SELECT \"a\", \"b\"\"c\", \"d\" \
         FROM json_populate_recordset(NULL::\"or\"\"ders\", $1::text::json) \
         ON CONFLICT (\"b\"\"c\", \"a\") DO UPDATE SET \"d\" = excluded.\"d\""
    );
    let keys_only = table("t", &columns[..2]);
    assert!(upsert(&keys_only).ends_with("ON CONFLICT (\"b\"\"c\", \"a\") DO NOTHING"));
}

#[test]
fn rows_and_keys_are_json() {
    let of = table(
        "t",
        &[("a", DataType::Int), ("b", DataType::Text), ("c", DataType::Bytea)],
    );
    let row = encode_row(&[ValueRef::Int(1), ValueRef::Text("x\"\n"), ValueRef::Bytea(&[0, 255])]);
    assert_eq!(row_object(&of, &row, &[]), r#"{"a":"1","b":"x\"\n","c":"\\x00ff"}"#);
    // A row from before a column was added.
    let missing = [Value::Null, Value::Null, Value::Bytea(vec![7])];
    let row = encode_row(&[ValueRef::Int(1), ValueRef::Null]);
    assert_eq!(row_object(&of, &row, &missing), r#"{"a":"1","b":null,"c":"\\x07"}"#);
    let key = encode_key([ValueRef::Text("x"), ValueRef::Int(-5)]);
    assert_eq!(key_object(&of, &key).unwrap(), r#"{"b":"x","a":"-5"}"#);
}
