//! A session's state: prepared statements, portals, and whether it is discarding messages after an error.

use std::collections::HashMap;
use std::sync::Arc;

use volt_engine::idempotency::IdempotencyKey;
use volt_engine::value::{DataType, Value};

use super::block::Block;
use super::cancel::Registration;
use super::command::SessionCommand;
use super::messages::{self, Malformed, Severity};
use super::metrics::Tally;
use super::output::{Output, Settled};
use super::sink::{Broken, Rest, Rows, StreamedRows};
use crate::error::SqlError;
use crate::statement::{Completion, Database, Options, Prepared, ReadSettings, SessionValues, TransactionModes};
use crate::world::Stream;

/// One client's session.
pub(crate) struct Session {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) output: Output,
    pub(crate) unnamed: Option<Arc<Statement>>,
    pub(crate) statements: HashMap<Box<[u8]>, Arc<Statement>>,
    pub(crate) unnamed_portal: Portal,
    pub(crate) portals: HashMap<Box<[u8]>, Portal>,
    /// An error has been told; everything up to the next Sync is discarded.
    pub(crate) discarding: bool,
    pub(crate) tally: Tally,
    /// The transaction block that is open.
    pub(crate) block: Option<Block>,
    /// The modes of blocks that name none.
    pub(crate) defaults: TransactionModes,
    /// The idempotency key of the next transaction that writes.
    pub(crate) key: Option<IdempotencyKey>,
    /// What it has taken of sequences, and where it reads.
    pub(crate) values: Arc<SessionValues>,
    registration: Registration,
}

/// A statement that was prepared.
pub(crate) struct Statement {
    pub(crate) body: Body,
    /// The OID of each parameter: what the client declared, or what was inferred.
    pub(crate) oids: Vec<u32>,
    /// The type that the statement wants in each place.
    pub(crate) targets: Vec<DataType>,
    /// RowDescription in text format, or NoData.
    pub(crate) description: Vec<u8>,
}

/// What a statement does.
pub(crate) enum Body {
    /// Nothing: its text was empty.
    Empty,
    /// Something to the session.
    Command(SessionCommand),
    /// Something to the database.
    Database(Arc<dyn Prepared>),
}

impl Body {
    pub(crate) fn columns(&self) -> usize {
        match self {
            Self::Database(prepared) => prepared.columns().len(),
            _ => 0,
        }
    }
}

/// A statement with its parameters, ready to run or partly run.
#[derive(Default)]
pub(crate) struct Portal {
    /// None: there is no such portal.
    pub(crate) statement: Option<Arc<Statement>>,
    pub(crate) parameters: Vec<Value>,
    pub(crate) formats: Vec<i16>,
    pub(crate) progress: Progress,
    pub(crate) rest: Rest,
}

/// How far a portal has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Not run.
    #[default]
    Bound,
    /// Run, with rows left.
    Suspended {
        /// The command tag.
        tag: &'static str,
    },
    /// Run to its end.
    Done,
}

impl Portal {
    pub(crate) fn clear(&mut self) {
        self.statement = None;
        self.parameters.clear();
        self.formats.clear();
        self.progress = Progress::Bound;
        self.rest = Rest::default();
    }
}

/// Why a message could not be answered as it wished.
#[derive(Debug)]
pub(crate) enum Failure {
    /// For the client; the session goes on.
    Sql(SqlError),
    /// The client has been told already.
    Told,
    /// The client breaks the protocol; it is told, and the connection ends.
    Protocol(Malformed),
    /// The client is gone.
    Connection(std::io::Error),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error)
    }
}

impl Session {
    pub(crate) fn new(database: Arc<dyn Database>, registration: Registration, reads: ReadSettings) -> Self {
        Self {
            database,
            output: Output::default(),
            unnamed: None,
            statements: HashMap::new(),
            unnamed_portal: Portal::default(),
            portals: HashMap::new(),
            discarding: false,
            tally: Tally::default(),
            block: None,
            defaults: TransactionModes::default(),
            key: None,
            values: Arc::new(SessionValues::reading(reads)),
            registration,
        }
    }

    /// Tells the client of an error.
    pub(crate) fn tell(&mut self, error: &SqlError) {
        self.tally.failed += 1;
        self.fail_block();
        messages::error_response(&mut self.output.bytes, Severity::Error, error);
    }

    /// The group of messages has failed: the rest of it is discarded.
    pub(crate) fn discard(&mut self) {
        self.discarding = true;
        self.fail_block();
    }

    /// Waits for commits and sends everything.
    pub(crate) async fn send(&mut self, stream: &mut dyn Stream) -> std::io::Result<Settled> {
        let settled = self.settle().await;
        self.output.write(stream).await?;
        Ok(settled)
    }

    /// Waits for commits.
    pub(crate) async fn settle(&mut self) -> Settled {
        let settled = self.output.settle(&*self.database).await;
        let failed = std::mem::take(&mut self.output.failed_waits);
        self.tally.failed += failed;
        self.tally.succeeded = self.tally.succeeded.saturating_sub(failed);
        settled
    }

    /// Runs a command about the session.
    pub(crate) fn command(&mut self, command: &SessionCommand) -> Result<(), SqlError> {
        match command {
            SessionCommand::Deallocate(name) => {
                if self.statements.remove(name.as_bytes()).is_none() {
                    return Err(no_statement(name.as_bytes()));
                }
            }
            SessionCommand::DeallocateAll => self.statements.clear(),
            SessionCommand::DiscardAll => {
                if self.block.is_some() {
                    let message = "DISCARD ALL cannot run inside a transaction block";
                    return Err(SqlError::new("25001", message));
                }
                self.defaults = TransactionModes::default();
                self.key = None;
                self.values = Arc::new(SessionValues::reading(self.values.reads.defaults()));
                self.statements.clear();
                self.unnamed = None;
            }
        }
        messages::command_complete(&mut self.output.bytes, command.tag(), None);
        Ok(())
    }

    /// Whether a statement without a key of its own may run inline: not in a block, and not with a key, for then it may have
    /// to be tried again.
    pub(crate) fn runs_inline(&self) -> bool {
        self.block.is_none() && self.key.is_none()
    }

    /// How a statement outside a block is carried out: by the key in its hint, or by the one that was set, which is used up.
    fn options(&mut self, prepared: &dyn Prepared) -> Result<Options, SqlError> {
        let hint = prepared.idempotency_key();
        if self.block.is_some() || !prepared.writes() {
            if hint.is_some() && prepared.writes() {
                let message = "a statement inside a transaction block has no idempotency key of its own";
                return Err(SqlError::new("25001", message).hint("Give the key to COMMIT."));
            }
            return Ok(Options::default());
        }
        let set = self.key.take();
        Ok(Options {
            idempotency_key: hint.cloned().or(set),
        })
    }

    /// Runs a statement that could not run inline. Its rows go to the output and, beyond `limit`, to `rest`; what it
    /// gave before it failed is taken back, unless it is on its way already.
    pub(crate) async fn run(
        &mut self,
        prepared: &Arc<dyn Prepared>,
        portal: RunPortal<'_>,
        stream: &mut dyn Stream,
    ) -> Result<(Completion, u64, usize), Failure> {
        let options = self.options(&**prepared)?;
        let rows = Rows::new(&mut self.output, portal.rest, portal.formats, portal.limit);
        let mut sink = StreamedRows::new(rows, stream, &*self.database);
        let session = Arc::clone(&self.values);
        let executed = match &mut self.block {
            Some(block) => {
                block.used = true;
                block
                    .transaction
                    .execute(Arc::clone(prepared), portal.parameters, &mut sink)
            }
            None => self
                .database
                .execute(Arc::clone(prepared), portal.parameters, options, session, &mut sink),
        };
        let result = tokio::select! {
            result = executed => result,
            () = self.registration.cancelled() => Err(cancelled()),
        };
        let (rows, broken) = sink.finish();
        match broken {
            Some(Broken::GroupFailed) => return Err(Failure::Told),
            Some(Broken::Connection(error)) => return Err(Failure::Connection(error)),
            None => {}
        }
        let start = rows.start();
        match result.and_then(|completion| Ok((completion, rows.finish()?, start))) {
            Ok(done) => Ok(done),
            Err(error) => {
                self.output.bytes.truncate(start);
                Err(error.into())
            }
        }
    }
}

/// What `Session::run` takes of a portal.
pub(crate) struct RunPortal<'a> {
    pub(crate) parameters: Vec<Value>,
    pub(crate) formats: &'a [i16],
    pub(crate) limit: u64,
    pub(crate) rest: &'a mut Rest,
}

fn cancelled() -> SqlError {
    SqlError::new("57014", "canceling statement due to user request")
        .detail("A statement that writes may have taken effect nevertheless.")
}

pub(crate) fn no_statement(name: &[u8]) -> SqlError {
    let name = String::from_utf8_lossy(name);
    SqlError::new("26000", format!("prepared statement \"{name}\" does not exist"))
}
