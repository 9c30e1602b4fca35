//! Clients whose history is checked: lists and sets as tables, and all the ways in which a transaction can be run.
//!
//! A list is a text to which `,17` is appended (its row's key is what is validated), or the rows of one partition key in
//! order of their positions (a range). A set is the rows of one partition key, scanned by range, one set or several. New
//! objects take the place of old ones as a run goes on, so that all of them stay short.

mod block;
mod recorder;
mod schema;
mod single;

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::history::{Level, Outcome, Transaction};
use schema::Statements;

pub use recorder::Recorder;
pub use schema::{Procedures, make};

/// Values that are given out while the same objects are in use.
const VALUES_OF_AN_ERA: u64 = 120;
/// After so many the last objects stay in use.
const ERAS: u64 = 12;
/// Lists of each kind, and sets, of an era.
const OBJECTS_OF_AN_ERA: u64 = 3;
/// Texts are the lists from 0 on, those of rows from here on.
const FIRST_OF_ROWS: u64 = 1_000;
/// A member of a set is a random bucket, then a number that no other member has.
const BUCKETS: u64 = 8;
const BUCKET: u64 = 1_000_000;

/// What a statement came to.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// Certainly nothing happened.
    Refused,
    /// Nobody knows; the session is of no more use.
    Unknown,
}

/// A statement's parameters.
type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

type Told<T> = Result<T, Failure>;

/// A session with its statements prepared.
pub struct Session {
    client: Client,
    statements: Statements,
    recorder: Recorder,
    number: u32,
    answer_limit: Duration,
    thinks: Duration,
}

impl Session {
    /// Prepares the statements, those of procedures if they are called. After `answer_limit` an answer is taken for lost.
    pub async fn open(
        client: Client,
        recorder: &Recorder,
        number: u32,
        answer_limit: Duration,
        procedures: Procedures,
    ) -> Option<Self> {
        let prepared = Statements::prepare(&client, procedures);
        let statements = timeout(answer_limit, prepared).await.ok()?.ok()?;
        Some(Self {
            client,
            statements,
            recorder: recorder.clone(),
            number,
            answer_limit,
            thinks: Duration::ZERO,
        })
    }

    /// The same, who thinks for up to so long before each statement of every other block.
    pub fn thinking(self, thinks: Duration) -> Self {
        Self { thinks, ..self }
    }

    /// One transaction of any kind, recorded. False: the session is of no more use.
    pub async fn transaction(&self, random: &mut StdRng) -> bool {
        let began = self.recorder.moment();
        let mut transaction = Transaction {
            client: self.number,
            began,
            ended: began,
            level: Level::Serializable,
            outcome: Outcome::Unknown,
            steps: Vec::new(),
        };
        let told = match random.random_range(0..5) {
            0..2 => self.single(random, &mut transaction).await,
            _ => self.block(random, &mut transaction).await,
        };
        let is_lost = told == Err(Failure::Unknown);
        self.recorder.push(transaction);
        !is_lost
    }

    /// Everything at one moment.
    pub async fn read_everything(&self) -> bool {
        self.read_everything_since(self.recorder.moment()).await
    }

    /// Everything at one moment, which is not before `began`.
    pub async fn read_everything_since(&self, began: u64) -> bool {
        let mut steps = Vec::new();
        let told = self.everything(&mut steps).await;
        self.recorder.push(Transaction {
            client: self.number,
            began,
            ended: began,
            level: Level::Serializable,
            outcome: if told.is_ok() {
                Outcome::Committed
            } else {
                Outcome::Aborted
            },
            steps,
        });
        told.is_ok()
    }

    /// Waits for an answer and says what an error means.
    async fn answer<T>(&self, call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Told<T> {
        let Ok(result) = timeout(self.answer_limit, call).await else {
            return Err(Failure::Unknown);
        };
        result.map_err(|error| match error.code().map(|code| code.code()) {
            // 40003: statement completion unknown. 57P01: the node ends. No SQLSTATE: the connection broke.
            None | Some("40003" | "57P01") => Failure::Unknown,
            Some("57P03" | "40001" | "55P03" | "53300") => Failure::Refused,
            Some(state) => panic!("an answer that no fault explains: {state} {error:?}"),
        })
    }

    async fn query(&self, statement: &Statement, parameters: Parameters<'_>) -> Told<Vec<Row>> {
        self.answer(self.client.query(statement, parameters)).await
    }

    async fn query_one(&self, statement: &Statement, parameters: Parameters<'_>) -> Told<Row> {
        self.answer(self.client.query_one(statement, parameters)).await
    }

    async fn execute(&self, statement: &Statement, parameters: Parameters<'_>) -> Told<u64> {
        self.answer(self.client.execute(statement, parameters)).await
    }

    // ---- Objects of the present era

    fn object(&self, random: &mut StdRng) -> u64 {
        self.recorder.era() * OBJECTS_OF_AN_ERA + random.random_range(0..OBJECTS_OF_AN_ERA)
    }

    fn text(&self, random: &mut StdRng) -> u64 {
        self.object(random)
    }

    fn rows(&self, random: &mut StdRng) -> u64 {
        FIRST_OF_ROWS + self.object(random)
    }

    fn member(&self, random: &mut StdRng) -> u64 {
        random.random_range(0..BUCKETS) * BUCKET + self.recorder.unique()
    }
}

/// The outcome of what was sent when this was the answer.
fn outcome<T>(told: &Told<T>) -> Outcome {
    match told {
        Ok(_) => Outcome::Committed,
        Err(Failure::Refused) => Outcome::Aborted,
        Err(Failure::Unknown) => Outcome::Unknown,
    }
}
