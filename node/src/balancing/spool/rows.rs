//! Rows of a file, as they come: bytes in, rows out, whatever the pieces in which the bytes come.

use std::sync::Arc;

use super::csv::CsvRows;
use super::item::Format;
use super::json_lines::JsonRows;
use crate::error::SqlError;
use crate::gateway::codec::invalid_utf8;

/// Bytes of a record. A longer one is most likely a quote that nobody closed: then nothing behind it can be trusted either.
pub(super) const MAX_RECORD_BYTES: usize = 1 << 20;

/// A row to be put, and where it is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    /// Its first byte.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) length: u64,
    /// The columns that its values are for.
    pub(super) columns: Arc<[String]>,
    /// Texts, as PostgreSQL would read them; None: NULL. Or why it is no row.
    pub(super) values: Result<Vec<Option<String>>, SqlError>,
}

/// Reads the rows of a file.
pub(super) enum Rows {
    Csv(Box<CsvRows>),
    JsonLines(JsonRows),
}

impl Rows {
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv(Box::default()),
            Format::JsonLines => Self::JsonLines(JsonRows::default()),
        }
    }

    /// The next bytes of the file; none: it ends here.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Csv(rows) => rows.feed(bytes),
            Self::JsonLines(rows) => rows.feed(bytes),
        }
    }

    /// The next row; None: more bytes are wanted, or there are none. An error is the whole file's.
    pub(super) fn next(&mut self) -> Result<Option<Row>, SqlError> {
        match self {
            Self::Csv(rows) => rows.next(),
            Self::JsonLines(rows) => rows.next(),
        }
    }
}

pub(super) fn too_long(line: u64) -> SqlError {
    let message = format!("the record that begins on line {line} has more than {MAX_RECORD_BYTES} bytes");
    SqlError::new("54000", message)
}

/// The text of bytes that PostgreSQL would take.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String, SqlError> {
    if bytes.contains(&0) {
        return Err(invalid_utf8());
    }
    String::from_utf8(bytes).map_err(|_| invalid_utf8())
}

/// Bytes that wait to be read, and where they are in the file.
#[derive(Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    at: usize,
    /// Place in the file of `bytes[at]`.
    pub(super) offset: u64,
    /// Line of it, from 0.
    pub(super) lines: u64,
    pub(super) ended: bool,
}

impl Input {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.ended |= bytes.is_empty();
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn take(&mut self, count: usize) {
        let taken = &self.bytes[self.at..self.at + count];
        self.lines += taken.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at += count;
        self.offset += count as u64;
    }
}
