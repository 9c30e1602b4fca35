//! Where corpora begin: real encodings, a few of each kind.

use volt_engine::effects::{EffectsBuilder, LogPayload, TransactionId};
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;
use volt_node::fuzzing;

use super::corpus;

/// Writes them all.
pub fn write() {
    put("log", &[("every_kind", fuzzing::example_segment())]);
    put("checkpoint", &[("a_replica", fuzzing::example_checkpoint())]);
    put("engine", &engine());
    put("startup", &startup());
    put("messages", &messages());
    let values: [&[u8]; 9] = [
        b"t",
        b"-12345",
        b"3.14e5",
        b"\\x00ff",
        b"2026-02-28 23:59:59.5+01",
        b"infinity",
        b"\x00\x00\x00\x00\x00\x00\x30\x39",
        b"\x00\x02\x00\x00\x00\x00\x00\x02\x00\x01\x13\x88",
        b"\x7f\xf8\x00\x00\x00\x00\x00\x00",
    ];
    put("parameters", &numbered(values.iter().map(|value| value.to_vec())));
    put("sql", &numbered(SQL.iter().map(|sql| sql.as_bytes().to_vec())));
    put(
        "procedure",
        &numbered(BODIES.iter().map(|body| body.as_bytes().to_vec())),
    );
}

fn numbered(inputs: impl Iterator<Item = Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    inputs
        .enumerate()
        .map(|(number, input)| (format!("{number:02}"), input))
        .collect()
}

fn put(target: &str, inputs: &[(impl AsRef<str>, Vec<u8>)]) {
    let folder = corpus(target);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, input) in inputs {
        std::fs::write(folder.join(name.as_ref()), input).expect("a file");
    }
}

fn engine() -> Vec<(String, Vec<u8>)> {
    let row = encode_row(&[
        ValueRef::BigInt(-7),
        ValueRef::Null,
        ValueRef::Text("ünï"),
        ValueRef::Boolean(true),
        ValueRef::Double(0.5),
    ]);
    let key = encode_key([ValueRef::BigInt(-7), ValueRef::Text("a\0b")]);
    let mut effects = EffectsBuilder::default();
    effects.put(1, &key, &row);
    effects.remove(2, &key);
    let effects = effects.finish();
    let transaction = TransactionId {
        began_micros: 1,
        node: 2,
        boot: 3,
        sequence: 4,
    };
    let prepared = LogPayload::Prepared {
        transaction,
        home: 1,
        effects: effects.clone(),
    };
    let mut partition = Partition::new();
    let write = LogPayload::Write(effects);
    for (lsn, payload) in [(1, &write), (2, &prepared)] {
        partition.apply_record(lsn, payload).expect("a good record");
    }
    partition.commit_to(2);
    let (chunk, _) = partition.dump_chunk(2, None, 1 << 10);
    let payloads = [write, prepared, LogPayload::Commit(transaction), LogPayload::EpochStart];
    let inputs = payloads.iter().map(|payload| payload.encode().to_vec());
    numbered(inputs.chain([row, key, chunk.to_vec()]))
}

/// A message without a kind.
fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes(), &code.to_be_bytes(), body].concat()
}

fn typed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

fn startup() -> Vec<(String, Vec<u8>)> {
    let session = untyped(196_608, b"user\0volt\0database\0volt\0client_encoding\0UTF8\0\0");
    let cancel = untyped(80_877_102, b"\0\0\0\x01\0\0\0\x02");
    let encrypted = [untyped(80_877_103, b""), session.clone()].concat();
    numbered([session, cancel, encrypted].into_iter())
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let extended = [
        typed(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x14"),
        typed(b'B', b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07\0\x01\0\x01"),
        typed(b'D', b"P\0"),
        typed(b'E', b"\0\0\0\0\x05"),
        typed(b'S', b""),
    ];
    numbered([typed(b'Q', b"SELECT 1\0"), extended.concat()].into_iter())
}

const SQL: [&str; 10] = [
    "SELECT a, sum(b) FROM t JOIN u USING (k) WHERE a IN (1, 2) AND b LIKE 'x%' GROUP BY a HAVING count(*) > 1 ORDER BY 2 DESC LIMIT 3",
    "CREATE TABLE t (k BIGINT, v NUMERIC(10, 2) DEFAULT 0, w VARCHAR(9) NOT NULL, PRIMARY KEY (k)) PARTITION BY (k) WITH REPLICATION = 2 MODE sync",
    "/* volt.idempotency_key = 'k-1' */ INSERT INTO t VALUES (1, -2.50, 'it''s'), ($1, $2, E'\\n')",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT a; ROLLBACK TO a; COMMIT AND CHAIN",
    "WITH RECURSIVE c AS (SELECT 1 UNION ALL SELECT 2) SELECT * FROM c, (VALUES (1)) AS v(x) -- end",
    "UPDATE t SET v = CASE WHEN v > 1 THEN v / 2 ELSE -v END WHERE k BETWEEN 1 AND 9; DELETE FROM t",
    "RECOVER NODE 2 WITH (strategy = one_shot); DRAIN NODE 3; SET volt.idempotency_key = 'a'; SHOW ALL",
    "CREATE PROCEDURE p(a BIGINT, OUT b VARCHAR) PARTITION ON TABLE t COLUMN k AS $$ BEGIN SELECT v INTO STRICT b FROM t WHERE k = a; END $$",
    "SELECT ((((1 + 2) * 3)::text || $$x$$))::bytea, \"quoted\"\"name\", U&'\\0041', $1::timestamp",
    "DROP PROCEDURE IF EXISTS p(BIGINT); ALTER PROCEDURE p RENAME TO q; CALL p(1, NULL)",
];

const BODIES: [&str; 5] = [
    "DECLARE has BIGINT; n INT := 3; BEGIN SELECT v INTO STRICT has FROM t WHERE k = 1; IF has > n THEN UPDATE t SET v = has - 1 WHERE k = 1; ELSIF has = 0 THEN NULL; ELSE RAISE EXCEPTION 'no % of %', has, n USING ERRCODE = 'P0001'; END IF; END",
    "BEGIN FOR i IN 1..10 LOOP CONTINUE WHEN i % 2 = 0; EXIT WHEN i > 7; INSERT INTO t VALUES (i, 'a;b'); END LOOP; END",
    "DECLARE r RECORD; BEGIN FOR r IN SELECT k, v FROM t WHERE k < 9 ORDER BY k LOOP PERFORM 1; RETURN NEXT; END LOOP; END;",
    "<<outer>> DECLARE x TEXT DEFAULT 'q'; BEGIN WHILE x <> '' LOOP BEGIN x := substring(x, 2); END; END LOOP outer; RETURN; END",
    "BEGIN GET DIAGNOSTICS n = ROW_COUNT; RAISE NOTICE 'done'; RETURN QUERY SELECT 1; CASE WHEN a THEN b := 1; ELSE b := 2; END CASE; END",
];
