//! Where a statement's rows go: straight into the output as DataRow messages, and what exceeds the row limit of an
//! Execute into the portal.

use async_trait::async_trait;
use volt_engine::value::ValueRef;

use super::output::{Output, Settled};
use super::{FLUSH_BYTES, MAX_PORTAL_BYTES, MAX_RESULT_BYTES, codec, messages};
use crate::error::SqlError;
use crate::statement::{Database, RowSink};
use crate::world::Stream;

/// Rows beyond an Execute's limit, encoded.
#[derive(Default)]
pub(crate) struct Rest {
    pub(crate) bytes: Vec<u8>,
    /// Where the first row that nobody has asked for begins.
    pub(crate) at: usize,
}

/// Encodes rows; never waits.
pub(crate) struct Rows<'a> {
    output: &'a mut Output,
    rest: &'a mut Rest,
    formats: &'a [i16],
    limit: u64,
    start: usize,
    count: u64,
    too_large: bool,
}

impl<'a> Rows<'a> {
    /// Rows in these formats, at most `limit` of them into the output.
    pub(crate) fn new(output: &'a mut Output, rest: &'a mut Rest, formats: &'a [i16], limit: u64) -> Self {
        let start = output.bytes.len();
        Self {
            output,
            rest,
            formats,
            limit,
            start,
            count: 0,
            too_large: false,
        }
    }

    /// Rows so far, those in the portal included; or that they are too many to keep.
    pub(crate) fn finish(self) -> Result<u64, SqlError> {
        if !self.too_large {
            return Ok(self.count);
        }
        let error = SqlError::new("54000", "the result is too large to be kept until it can be sent");
        Err(error.hint("Ask for fewer rows, with WHERE or LIMIT."))
    }

    /// Where in the output the statement's rows begin, or where rows that were not sent yet begin.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    fn put(&mut self, values: &[ValueRef<'_>]) {
        if self.too_large {
            return;
        }
        if self.count < self.limit {
            codec::data_row(&mut self.output.bytes, values, self.formats);
            self.too_large = self.output.bytes.len() > MAX_RESULT_BYTES;
        } else {
            codec::data_row(&mut self.rest.bytes, values, self.formats);
            self.too_large = self.rest.bytes.len() > MAX_PORTAL_BYTES;
        }
        self.count += 1;
    }
}

#[async_trait]
impl RowSink for Rows<'_> {
    #[inline]
    fn row(&mut self, values: &[ValueRef<'_>]) {
        self.put(values);
    }
}

/// Encodes rows, and sends them on while the statement runs.
pub(crate) struct StreamedRows<'a> {
    rows: Rows<'a>,
    stream: &'a mut dyn Stream,
    database: &'a dyn Database,
    broken: Option<Broken>,
}

/// Why nobody takes the rest of the rows.
#[derive(Debug)]
pub(crate) enum Broken {
    /// An earlier statement of the group failed after all; its error is in the output already.
    GroupFailed,
    /// The client is gone.
    Connection(std::io::Error),
}

impl<'a> StreamedRows<'a> {
    pub(crate) fn new(rows: Rows<'a>, stream: &'a mut dyn Stream, database: &'a dyn Database) -> Self {
        Self {
            rows,
            stream,
            database,
            broken: None,
        }
    }

    /// The rows, and why nobody wanted the rest of them.
    pub(crate) fn finish(self) -> (Rows<'a>, Option<Broken>) {
        (self.rows, self.broken)
    }

    async fn send(&mut self) -> Result<(), Broken> {
        let rows = &mut self.rows;
        if rows.output.settle(self.database).await == Settled::GroupFailed {
            return Err(Broken::GroupFailed);
        }
        rows.output.write(self.stream).await.map_err(Broken::Connection)?;
        rows.start = 0;
        Ok(())
    }
}

#[async_trait]
impl RowSink for StreamedRows<'_> {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        self.rows.put(values);
    }

    async fn flow(&mut self) -> Result<(), SqlError> {
        if self.broken.is_none() && self.rows.output.bytes.len() >= FLUSH_BYTES {
            self.broken = self.send().await.err();
        }
        self.state()
    }

    async fn notice(&mut self, message: String) -> Result<(), SqlError> {
        if self.broken.is_none() {
            messages::notice_response(&mut self.rows.output.bytes, &("NOTICE", "00000", message));
            self.broken = self.send().await.err();
        }
        self.state()
    }
}

impl StreamedRows<'_> {
    /// An error: nobody takes the rest.
    fn state(&self) -> Result<(), SqlError> {
        match self.broken {
            None if self.rows.too_large => Err(SqlError::new("54000", "the result is too large")),
            None => Ok(()),
            Some(_) => Err(SqlError::new("57014", "the client does not take the result")),
        }
    }
}
