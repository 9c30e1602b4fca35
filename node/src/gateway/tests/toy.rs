//! A database that understands a few sentences, enough to reach every path of the gateway.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use volt_engine::value::{DataType, Value, ValueRef};

use crate::config::Authentication;
use crate::error::SqlError;
use crate::gateway::{Gateway, Limits};
use crate::statement::{
    CommitWait, Completion, Database, Options, Prepared, ReadSettings, ResultColumn, RowSink, SessionValues,
    Transaction, TransactionModes,
};
use crate::world::{Listener, Random, Stream};

/// `GET $1`, `PUT $1 $2`, `LOSE $1 $2`, `MANY n`, `STREAM n`, `ECHO type ...`, `SLEEP`, `FAIL`, `NOTICE`.
#[derive(Default)]
pub(super) struct Toy {
    rows: Mutex<BTreeMap<i64, String>>,
    lsn: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) sleeping: AtomicBool,
}

struct Sentence {
    words: Vec<String>,
    parameters: Vec<DataType>,
    columns: Vec<ResultColumn>,
}

impl Prepared for Sentence {
    fn parameters(&self) -> &[DataType] {
        &self.parameters
    }
    fn columns(&self) -> &[ResultColumn] {
        &self.columns
    }
    fn returns_rows(&self) -> bool {
        !self.columns.is_empty()
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn data_type(word: &str) -> Option<DataType> {
    Some(match word {
        "bool" => DataType::Boolean,
        "int" => DataType::Int,
        "bigint" => DataType::BigInt,
        "double" => DataType::Double,
        "numeric" => DataType::Numeric {
            precision: 28,
            scale: 10,
        },
        "varchar" => DataType::Varchar(20),
        "text" => DataType::Text,
        "timestamp" => DataType::Timestamp,
        "bytea" => DataType::Bytea,
        _ => return None,
    })
}

/// An LSN that is never committed.
const LOST: u64 = u64::MAX;

impl Toy {
    fn put(&self, parameters: &[Value], lost: bool) -> Completion {
        if let [Value::BigInt(key), Value::Text(text)] = parameters {
            self.rows.lock().unwrap().insert(*key, text.clone());
        }
        let lsn = if lost { LOST } else { self.lsn.fetch_add(1, SeqCst) + 1 };
        let wait = Some(CommitWait {
            partition: 1,
            epoch: 1,
            lsn,
            wrote: true,
        });
        Completion {
            tag: "INSERT 0",
            rows: Some(1),
            wait,
            ..Completion::default()
        }
    }

    fn get(&self, key: &Value, sink: &mut dyn RowSink) -> Completion {
        let rows = self.rows.lock().unwrap();
        let found = if let Value::BigInt(key) = key {
            rows.get(key)
        } else {
            None
        };
        if let Some(text) = found {
            sink.row(&[ValueRef::Text(text)]);
        }
        Completion {
            tag: "SELECT",
            rows: Some(found.map_or(0, |_| 1)),
            ..Completion::default()
        }
    }
}

#[async_trait]
impl Database for Toy {
    fn split(&self, sql: &str) -> Result<Vec<(String, u32)>, SqlError> {
        let mut offset = 0;
        let mut parts = Vec::new();
        for part in sql.split(';') {
            if !part.trim().is_empty() {
                parts.push((part.to_owned(), offset));
            }
            offset += part.chars().count() as u32 + 1;
        }
        Ok(parts)
    }

    async fn prepare(&self, sql: &str, _: &[Option<DataType>]) -> Result<Arc<dyn Prepared>, SqlError> {
        let words: Vec<String> = sql.split_whitespace().map(str::to_owned).collect();
        let column = |data_type| ResultColumn {
            name: "c".to_owned(),
            data_type,
        };
        let (parameters, columns) = match words[0].as_str() {
            "GET" => (vec![DataType::BigInt], vec![column(DataType::Varchar(20))]),
            "PUT" | "LOSE" => (vec![DataType::BigInt, DataType::Text], Vec::new()),
            "PUT0" | "LOSE0" | "SLEEP" | "NOTICE" => (Vec::new(), Vec::new()),
            "MANY" | "STREAM" => (Vec::new(), vec![column(DataType::BigInt), column(DataType::Text)]),
            "ECHO" => {
                let types: Vec<DataType> = words[1..].iter().filter_map(|word| data_type(word)).collect();
                (types.clone(), types.into_iter().map(column).collect())
            }
            "FAIL" => (Vec::new(), Vec::new()),
            _ => return Err(SqlError::new("42601", format!("syntax error at or near \"{}\"", words[0])).at(1)),
        };
        Ok(Arc::new(Sentence {
            words,
            parameters,
            columns,
        }))
    }

    fn try_execute(
        &self,
        prepared: &dyn Prepared,
        parameters: &[Value],
        _: &SessionValues,
        sink: &mut dyn RowSink,
    ) -> Option<Result<Completion, SqlError>> {
        let sentence = prepared.as_any().downcast_ref::<Sentence>()?;
        Some(match sentence.words[0].as_str() {
            "GET" => Ok(self.get(&parameters[0], sink)),
            "PUT" | "PUT0" => Ok(self.put(parameters, false)),
            "LOSE" | "LOSE0" => Ok(self.put(parameters, true)),
            "FAIL" => {
                sink.row(&[]);
                Err(SqlError::new("22012", "division by zero"))
            }
            _ => return None,
        })
    }

    async fn execute(
        &self,
        prepared: Arc<dyn Prepared>,
        parameters: Vec<Value>,
        _: Options,
        _: Arc<SessionValues>,
        sink: &mut dyn RowSink,
    ) -> Result<Completion, SqlError> {
        let sentence = prepared.as_any().downcast_ref::<Sentence>().unwrap();
        let mut completion = Completion {
            tag: "SELECT",
            rows: Some(1),
            ..Completion::default()
        };
        match sentence.words[0].as_str() {
            "ECHO" => {
                let row: Vec<ValueRef<'_>> = parameters.iter().map(Value::as_ref).collect();
                sink.row(&row);
            }
            "MANY" | "STREAM" => {
                let count: i64 = sentence.words[1].parse().unwrap();
                for number in 0..count {
                    sink.row(&[
                        ValueRef::BigInt(number),
                        ValueRef::Text("some text that takes its place"),
                    ]);
                    if sentence.words[0] == "STREAM" && number % 100 == 0 {
                        sink.flow().await?;
                    }
                }
                completion.rows = Some(count as u64);
            }
            "SLEEP" => {
                self.sleeping.store(true, SeqCst);
                std::future::pending::<()>().await;
            }
            _ => completion.notices.push(("NOTICE", "00000", "look here".to_owned())),
        }
        Ok(completion)
    }

    fn begin(self: Arc<Self>, _: TransactionModes, _: Arc<SessionValues>) -> Box<dyn Transaction> {
        unreachable!("the toy has no BEGIN")
    }

    async fn wait_committed(&self, waits: &[CommitWait]) -> Result<(), (usize, SqlError)> {
        self.waits.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        match waits.iter().position(|wait| wait.lsn == LOST) {
            Some(place) => Err((place, SqlError::unknown_outcome("the primary was deposed"))),
            None => Ok(()),
        }
    }
}

pub(super) struct Fixed;

impl Random for Fixed {
    fn next_u64(&self) -> u64 {
        4
    }
}

struct Tcp(TcpListener);

#[async_trait]
impl Listener for Tcp {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer): (TcpStream, _) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }
    fn local_address(&self) -> String {
        self.0
            .local_addr()
            .map_or_else(|_| String::new(), |address| address.to_string())
    }
}

/// A gateway over a toy database, on loopback.
pub(super) async fn gateway(max_connections: usize) -> (Gateway, Arc<Toy>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let toy = Arc::new(Toy::default());
    let limits = Limits {
        max_connections,
        authentication: Authentication::Trust,
        reads: ReadSettings::default(),
    };
    let gateway = Gateway::serve(
        Box::new(Tcp(listener)),
        limits,
        Arc::new(Fixed),
        Arc::clone(&toy) as _,
        Arc::default(),
    );
    (gateway, toy, port)
}
