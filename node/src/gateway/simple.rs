//! The simple protocol: one text with any number of statements, each of which is settled before the next one starts.

use std::sync::Arc;

use super::command::SessionCommand;
use super::messages::{self, Reader};
use super::output::Settled;
use super::session::{Failure, RunPortal, Session};
use super::sink::{Rest, Rows};
use crate::error::SqlError;
use crate::statement::{CHANGED_RESULT, Prepared};
use crate::world::Stream;

/// A statement is planned so often, while the catalog changes.
const PLANS: u32 = 3;

impl Session {
    /// Query: always answered with ReadyForQuery at the end.
    pub(crate) async fn query(&mut self, body: &[u8], stream: &mut dyn Stream) -> Result<(), Failure> {
        self.unnamed = None;
        self.unnamed_portal.clear();
        match self.query_texts(body, stream).await {
            Ok(()) => {}
            Err(Failure::Told) => self.fail_block(),
            Err(Failure::Sql(error)) => self.tell(&error),
            Err(other) => return Err(other),
        }
        self.output.ready(self.status());
        Ok(())
    }

    async fn query_texts(&mut self, body: &[u8], stream: &mut dyn Stream) -> Result<(), Failure> {
        let sql = Reader::new(body).text()?;
        if let Some(command) = SessionCommand::parse(sql) {
            return Ok(self.command(&command)?);
        }
        let statements = self.database.split(sql)?;
        if statements.is_empty() {
            self.output.bytes.extend_from_slice(messages::EMPTY_QUERY);
            return Ok(());
        }
        let last = statements.len() - 1;
        for (place, (text, offset)) in statements.iter().enumerate() {
            self.query_with_newest(text, *offset, stream).await?;
            if place < last && self.settle().await == Settled::GroupFailed {
                return Err(Failure::Told);
            }
            if self.output.is_full() && self.send(stream).await? == Settled::GroupFailed {
                return Err(Failure::Told);
            }
        }
        Ok(())
    }

    /// A statement whose columns have changed between planning and running is planned anew: nobody has heard of them yet.
    async fn query_with_newest(&mut self, text: &str, offset: u32, stream: &mut dyn Stream) -> Result<(), Failure> {
        let start = self.output.bytes.len();
        for _ in 1..PLANS {
            match self.query_one(text, offset, stream).await {
                Err(Failure::Sql(error)) if error.message == CHANGED_RESULT => self.output.bytes.truncate(start),
                done => return done,
            }
        }
        self.query_one(text, offset, stream).await
    }

    async fn query_one(&mut self, text: &str, offset: u32, stream: &mut dyn Stream) -> Result<(), Failure> {
        if let Some(command) = SessionCommand::parse(text) {
            return Ok(self.command(&command)?);
        }
        let in_whole_text = |error: SqlError| error.shifted(offset);
        let prepared = match self.database.prepare(text, &[]).await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.check_block(None)?;
                return Err(in_whole_text(error).into());
            }
        };
        self.check_block(prepared.control())?;
        if !prepared.parameters().is_empty() {
            return Err(SqlError::new("42P02", "there is no parameter $1").into());
        }
        let start = self.output.bytes.len();
        if prepared.returns_rows() {
            messages::row_description(&mut self.output.bytes, prepared.columns(), &[]);
        }
        if let Some(control) = prepared.control() {
            self.control(control, prepared.idempotency_key(), &[]).await?;
            self.tally.succeeded += 1;
            return Ok(());
        }
        match self.run_query(&prepared, start, stream).await {
            Ok(()) => {
                self.tally.succeeded += 1;
                Ok(())
            }
            Err(Failure::Sql(error)) => Err(in_whole_text(error).into()),
            Err(other) => Err(other),
        }
    }

    async fn run_query(
        &mut self,
        prepared: &Arc<dyn Prepared>,
        start: usize,
        stream: &mut dyn Stream,
    ) -> Result<(), Failure> {
        let mut rest = Rest::default();
        let begin = self.output.bytes.len();
        let runs_inline = self.runs_inline() && prepared.idempotency_key().is_none();
        let mut rows = Rows::new(&mut self.output, &mut rest, &[], u64::MAX);
        let inline = match runs_inline {
            true => self.database.try_execute(&**prepared, &[], &self.values, &mut rows),
            false => None,
        };
        let (completion, start) = match inline {
            Some(result) => match result.and_then(|completion| rows.finish().map(|_| completion)) {
                Ok(completion) => (completion, start),
                Err(error) => {
                    self.output.bytes.truncate(start);
                    return Err(error.into());
                }
            },
            None => {
                self.output.bytes.truncate(begin);
                rest = Rest::default();
                let asked = RunPortal {
                    parameters: Vec::new(),
                    formats: &[],
                    limit: u64::MAX,
                    rest: &mut rest,
                };
                let (completion, _, sent_from) = self.run(prepared, asked, stream).await?;
                (completion, start.min(sent_from))
            }
        };
        if let Some(wait) = completion.wait {
            self.output.wait_for(wait, start);
        }
        messages::completion(&mut self.output.bytes, &completion, completion.rows);
        Ok(())
    }
}
