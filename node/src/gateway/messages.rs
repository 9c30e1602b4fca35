//! The protocol's messages: a cursor that reads a client's, and functions that append the server's to a buffer.

use crate::error::SqlError;
use crate::gateway::MAX_MESSAGE_BYTES;
use crate::gateway::codec;
use crate::statement::{Completion, ResultColumn};

/// A message that breaks the protocol; the connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The kind of the first message in `input` and its whole length, or None while it is not there entirely.
pub(crate) fn frame(input: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    let Some(header) = input.first_chunk::<5>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
        return Err(Malformed("invalid message length"));
    }
    let whole = length + 1;
    Ok((input.len() >= whole).then_some((header[0], whole)))
}

/// Reads a message's body from its front.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*first))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*first))
    }

    /// A count in 16 bits.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        Ok(self.i16()? as u16 as usize)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.rest.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    /// The bytes before the next zero byte.
    pub(crate) fn zero_terminated(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let end = end.ok_or(Malformed("invalid string in message"))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    /// The text before the next zero byte.
    pub(crate) fn text(&mut self) -> Result<&'a str, SqlError> {
        std::str::from_utf8(self.zero_terminated()?).map_err(|_| codec::invalid_utf8())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

const TOO_SHORT: Malformed = Malformed("insufficient data left in message");

impl From<Malformed> for SqlError {
    fn from(malformed: Malformed) -> Self {
        Self::new("08P01", malformed.0)
    }
}

/// Starts a message; `end` takes what it returns.
pub(crate) fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    out.len() - 4
}

/// Writes the length of the message that `begin` started.
pub(crate) fn end(out: &mut [u8], at: usize) {
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

pub(crate) const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
pub(crate) const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
pub(crate) const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
pub(crate) const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub(crate) const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";
pub(crate) const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";
/// ReadyForQuery, without the status of the transaction block behind it.
pub(crate) const READY: &[u8] = b"Z\0\0\0\x05";

/// How bad an error is for the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
}

pub(crate) fn error_response(out: &mut Vec<u8>, severity: Severity, error: &SqlError) {
    let word = if severity == Severity::Fatal { "FATAL" } else { "ERROR" };
    let at = begin(out, b'E');
    put_fields(out, word, &error.sqlstate, &error.message);
    for (field, text) in [(b'D', &error.detail), (b'H', &error.hint)] {
        if let Some(text) = text {
            out.push(field);
            put_text(out, text);
        }
    }
    if let Some(position) = error.position {
        out.push(b'P');
        put_text(out, &position.to_string());
    }
    out.push(0);
    end(out, at);
}

pub(crate) fn notice_response(out: &mut Vec<u8>, (severity, sqlstate, message): &(&str, &str, String)) {
    let at = begin(out, b'N');
    put_fields(out, severity, sqlstate, message);
    out.push(0);
    end(out, at);
}

fn put_fields(out: &mut Vec<u8>, severity: &str, sqlstate: &str, message: &str) {
    for (field, text) in [(b'S', severity), (b'V', severity), (b'C', sqlstate), (b'M', message)] {
        out.push(field);
        put_text(out, text);
    }
}

/// The notices and the command tag that end a statement; `rows` stands in for the count, if there is one.
pub(crate) fn completion(out: &mut Vec<u8>, completion: &Completion, rows: Option<u64>) {
    for notice in &completion.notices {
        notice_response(out, notice);
    }
    command_complete(out, completion.tag, rows);
}

pub(crate) fn command_complete(out: &mut Vec<u8>, tag: &str, rows: Option<u64>) {
    let at = begin(out, b'C');
    out.extend_from_slice(tag.as_bytes());
    if let Some(rows) = rows {
        out.push(b' ');
        codec::text::put_unsigned(out, rows);
    }
    out.push(0);
    end(out, at);
}

pub(crate) fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    let at = begin(out, b'S');
    put_text(out, name);
    put_text(out, value);
    end(out, at);
}

pub(crate) fn parameter_description(out: &mut Vec<u8>, oids: &[u32]) {
    let at = begin(out, b't');
    out.extend_from_slice(&(oids.len() as u16).to_be_bytes());
    for oid in oids {
        out.extend_from_slice(&oid.to_be_bytes());
    }
    end(out, at);
}

/// RowDescription; `formats` as Bind gave them: none (text), one for all, or one a column.
pub(crate) fn row_description(out: &mut Vec<u8>, columns: &[ResultColumn], formats: &[i16]) {
    let at = begin(out, b'T');
    out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
    for (place, column) in columns.iter().enumerate() {
        put_text(out, &column.name);
        out.extend_from_slice(&[0; 6]); // of no table
        out.extend_from_slice(&codec::oid(column.data_type).to_be_bytes());
        out.extend_from_slice(&codec::size(column.data_type).to_be_bytes());
        out.extend_from_slice(&codec::modifier(column.data_type).to_be_bytes());
        out.extend_from_slice(&format_of(formats, place).to_be_bytes());
    }
    end(out, at);
}

/// The format of one value: 0 text, 1 binary.
pub(crate) fn format_of(formats: &[i16], place: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(place).copied().unwrap_or(0),
    }
}
