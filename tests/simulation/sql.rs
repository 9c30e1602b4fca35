//! A client's session: the PostgreSQL protocol over the simulated network.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, Statement};
use volt_tests::history::{Action, Answer};

/// SQL's port on every simulated node.
pub const SQL_PORT: u16 = 5432;
/// After this time a client takes an answer for lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The same when all is put right. Nobody who is gone holds a partition for longer than 1.5 s; who has voted, 3.5 s.
pub const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection with its statements prepared.
pub struct Session {
    client: Client,
    read: Statement,
    insert: Statement,
    write: Statement,
    exchange: Statement,
    exchange_version: Statement,
    ledger: Statement,
    pair: Statement,
}

/// The statement's answer, or whether anything may have happened.
#[derive(Debug)]
pub enum Failure {
    /// Certainly nothing happened; with the SQLSTATE.
    Refused(String),
    /// Nobody knows; the session is of no more use.
    Unknown,
}

/// A bare connection to the node.
pub async fn connect(node: u32) -> Option<Client> {
    let attempt = async {
        let stream = turmoil::net::TcpStream::connect((format!("node-{node}"), SQL_PORT))
            .await
            .ok()?;
        let (client, connection) = Config::new()
            .user("volt")
            .dbname("volt")
            .connect_raw(stream, NoTls)
            .await
            .ok()?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Some(client)
    };
    timeout(ANSWER_TIMEOUT, attempt).await.ok().flatten()
}

impl Session {
    /// Connects and prepares; None if the node doesn't answer or refuses.
    pub async fn open(node: u32) -> Option<Self> {
        let client = connect(node).await?;
        let prepared = async {
            Ok::<_, tokio_postgres::Error>(Self {
                read: client
                    .prepare("SELECT value, _version FROM registers WHERE id = $1")
                    .await?,
                insert: client.prepare("INSERT INTO registers VALUES ($1, $2)").await?,
                write: client.prepare("UPDATE registers SET value = $2 WHERE id = $1").await?,
                exchange: client
                    .prepare("UPDATE registers SET value = $3 WHERE id = $1 AND value = $2")
                    .await?,
                exchange_version: client
                    .prepare("UPDATE registers SET value = $3 WHERE id = $1 AND _version = $2")
                    .await?,
                ledger: client.prepare("INSERT INTO ledger VALUES ($1)").await?,
                pair: client.prepare("INSERT INTO ledger VALUES ($1), ($2)").await?,
                client,
            })
        };
        timeout(ANSWER_TIMEOUT, prepared).await.ok()?.ok()
    }

    /// For statements that are not prepared.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Does this to a register.
    pub async fn run(&self, register: u64, action: Action) -> Result<Answer, Failure> {
        let id = register as i64;
        let done = |rows| if rows == 0 { Answer::Nothing } else { Answer::Done };
        match action {
            Action::Read => Ok(Answer::Found(self.read(register).await?.map(|(value, _)| value))),
            Action::Insert(value) => match answer(self.client.execute(&self.insert, &[&id, &(value as i64)])).await {
                Err(Failure::Refused(state)) if state == "23505" => Ok(Answer::Nothing),
                rows => rows.map(done),
            },
            Action::Write(value) => answer(self.client.execute(&self.write, &[&id, &(value as i64)]))
                .await
                .map(done),
            Action::Exchange { from, to } => answer(
                self.client
                    .execute(&self.exchange, &[&id, &(from as i64), &(to as i64)]),
            )
            .await
            .map(done),
        }
    }

    /// A register's value and its version.
    pub async fn read(&self, register: u64) -> Result<Option<(u64, i64)>, Failure> {
        self.read_within(ANSWER_TIMEOUT, register).await
    }

    /// The same, with other patience.
    pub async fn read_within(&self, limit: Duration, register: u64) -> Result<Option<(u64, i64)>, Failure> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&(register as i64)];
        let row = answer_within(limit, self.client.query_opt(&self.read, &parameters)).await?;
        Ok(row.map(|row| (row.get::<_, i64>(0) as u64, row.get(1))))
    }

    /// Writes a register if it still has this version. Its values are unique, so that this is an exchange of the value that
    /// was read with the version.
    pub async fn exchange_version(&self, register: u64, version: i64, to: u64) -> Result<Answer, Failure> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&(register as i64), &version, &(to as i64)];
        match answer(self.client.execute(&self.exchange_version, &parameters)).await? {
            0 => Ok(Answer::Nothing),
            _ => Ok(Answer::Done),
        }
    }

    /// One more in each of these counters, once, however often it is asked for with this key.
    pub async fn count(&self, key: u64, counters: &[u64]) -> Result<(), Failure> {
        let ids: Vec<String> = counters.iter().map(u64::to_string).collect();
        let text = format!(
            "/* volt.idempotency_key = '{key}' */ UPDATE counters SET value = value + 1 WHERE id IN ({})",
            ids.join(", ")
        );
        let answers = answer(self.client.simple_query(&text)).await?;
        let expected = counters.len() as u64;
        let is_told = |answer: &SimpleQueryMessage| matches!(answer, SimpleQueryMessage::CommandComplete(rows) if *rows == expected);
        assert!(answers.iter().any(is_told), "{text}: {answers:?}");
        Ok(())
    }

    /// The number of a request, by an IDENTITY column: one, however often it is asked for.
    pub async fn number(&self, key: u64) -> Result<i64, Failure> {
        let text = format!(
            "/* volt.idempotency_key = 'number {key}' */ INSERT INTO numbers (request) VALUES ({key}) RETURNING id"
        );
        let rows = match answer(self.client.query(&text, &[])).await {
            Err(Failure::Refused(state)) if state == "23505" => panic!("a number came twice"),
            rows => rows?,
        };
        Ok(rows[0].get(0))
    }

    /// All numbers that were given: request, number.
    pub async fn numbers(&self) -> Result<Vec<(u64, i64)>, Failure> {
        let rows = self.client.query("SELECT request, id FROM numbers", &[]);
        let rows = answer_within(LAST_ANSWER_TIMEOUT, rows).await?;
        let row = |row: &Row| (row.get::<_, i64>(0) as u64, row.get(1));
        Ok(rows.iter().map(row).collect())
    }

    /// All counters: id, value.
    pub async fn counters(&self) -> Result<BTreeMap<u64, u64>, Failure> {
        let rows = self.client.query("SELECT id, value FROM counters", &[]);
        let rows = answer_within(LAST_ANSWER_TIMEOUT, rows).await?;
        let rows = rows
            .iter()
            .map(|row| (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64));
        Ok(rows.collect())
    }

    /// All registers at one moment: id, value.
    pub async fn read_all(&self) -> Result<Vec<(u64, u64)>, Failure> {
        let rows = answer(self.client.query("SELECT id, value FROM registers ORDER BY id", &[])).await?;
        Ok(rows
            .iter()
            .map(|row| (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1) as u64))
            .collect())
    }

    /// One more row of the ledger.
    pub async fn add(&self, id: u64) -> Result<(), Failure> {
        answer(self.client.execute(&self.ledger, &[&(id as i64)]))
            .await
            .map(drop)
    }

    /// Two more rows, in one statement, as a rule in two partitions.
    pub async fn add_pair(&self, first: u64, second: u64) -> Result<(), Failure> {
        answer(self.client.execute(&self.pair, &[&(first as i64), &(second as i64)]))
            .await
            .map(drop)
    }

    /// The whole ledger.
    pub async fn ledger(&self) -> Result<Vec<u64>, Failure> {
        let rows = self.client.query("SELECT id FROM ledger", &[]);
        let rows = answer_within(LAST_ANSWER_TIMEOUT, rows).await?;
        Ok(rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect())
    }
}

/// Waits for an answer and says what an error means.
pub async fn answer<T>(call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    answer_within(ANSWER_TIMEOUT, call).await
}

/// The same of a call that may take longer.
pub async fn answer_within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    let Ok(result) = timeout(limit, call).await else {
        return Err(Failure::Unknown);
    };
    result.map_err(|error| match error.code().map(|code| code.code()) {
        // 40003: statement completion unknown. 57P01: the node ends. No SQLSTATE: the connection broke.
        None | Some("40003" | "57P01") => Failure::Unknown,
        Some(state @ ("57P03" | "40001" | "23505" | "53300" | "P0001")) => Failure::Refused(state.to_owned()),
        Some(state) => panic!("an answer that no fault explains: {state} {error:?}"),
    })
}
