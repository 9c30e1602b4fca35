//! A JSON object a line: its names are columns. Numbers stand as they are written, so that a NUMERIC loses no digit; `null` is NULL; an
//! object or an array is its text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;

use super::rows::{Input, MAX_RECORD_BYTES, Row, text_of, too_long};
use crate::error::SqlError;

/// Reads rows.
#[derive(Default)]
pub(super) struct JsonRows {
    input: Input,
    /// The columns of the row before: mostly those of the next.
    columns: Option<Arc<[String]>>,
    /// Bytes that have no end of line in them.
    seen: usize,
}

impl JsonRows {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.feed(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, SqlError> {
        loop {
            let Some(length) = self.next_line() else {
                return Ok(None);
            };
            let (line, offset) = (self.input.lines + 1, self.input.offset);
            if length > MAX_RECORD_BYTES {
                return Err(too_long(line));
            }
            let bytes = self.input.rest()[..length].to_vec();
            self.input.take(length);
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let (columns, values) = match text_of(bytes).and_then(|text| object(&text)) {
                Ok(object) => {
                    let (names, values): (Vec<_>, Vec<_>) = object.into_iter().unzip();
                    (self.columns_of(names), Ok(values))
                }
                Err(error) => (Arc::from([]), Err(error)),
            };
            return Ok(Some(Row {
                line,
                offset,
                length: length as u64,
                columns,
                values,
            }));
        }
    }

    /// Bytes of the next line, with its end; None: more are wanted, or there is none.
    fn next_line(&mut self) -> Option<usize> {
        let rest = self.input.rest();
        if let Some(place) = rest[self.seen..].iter().position(|byte| *byte == b'\n') {
            let length = self.seen + place + 1;
            self.seen = 0;
            return Some(length);
        }
        self.seen = rest.len();
        let is_whole = self.input.ended || rest.len() > MAX_RECORD_BYTES;
        (is_whole && !rest.is_empty()).then(|| std::mem::take(&mut self.seen))
    }

    fn columns_of(&mut self, names: Vec<String>) -> Arc<[String]> {
        match &self.columns {
            Some(columns) if **columns == *names => Arc::clone(columns),
            _ => Arc::clone(self.columns.insert(names.into())),
        }
    }
}

/// What an object has, by name: the texts of its values.
fn object(line: &str) -> Result<BTreeMap<String, Option<String>>, SqlError> {
    let invalid = |why: &str| SqlError::new("22P02", "invalid input syntax for type json").detail(why);
    // Once it is known to be an object, its parts are found between its signs.
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(line).map_err(|error| invalid(&error.to_string()))?;
    let mut rest = line
        .trim_start()
        .strip_prefix('{')
        .ok_or_else(|| invalid("no object"))?;
    let mut values = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',', ':']);
        if rest.starts_with('}') {
            return Ok(values);
        }
        let (name, behind) = part(rest).ok_or_else(|| invalid("no name"))?;
        let name = serde_json::from_str::<String>(name).map_err(|error| invalid(&error.to_string()))?;
        let behind = behind.trim_start_matches([' ', '\t', '\r', '\n', ':']);
        let (value, behind) = part(behind).ok_or_else(|| invalid("no value"))?;
        let text = match value.as_bytes().first() {
            Some(b'"') => Some(serde_json::from_str::<String>(value).map_err(|error| invalid(&error.to_string()))?),
            Some(b'n') => None,
            _ => Some(value.to_owned()),
        };
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(SqlError::new("22P05", "unsupported Unicode escape sequence")
                .detail("\\u0000 cannot be converted to text."));
        }
        if values.insert(name.clone(), text).is_some() {
            return Err(SqlError::new(
                "42701",
                format!("column \"{name}\" specified more than once"),
            ));
        }
        rest = behind;
    }
}

/// The value that a text begins with, as it is written, and what is behind it.
fn part(text: &str) -> Option<(&str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    text.split_at_checked(values.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(file: &str, piece: usize) -> Vec<Row> {
        let (mut reader, mut rows) = (JsonRows::default(), Vec::new());
        for bytes in file.as_bytes().chunks(piece).chain([&[][..]]) {
            reader.feed(bytes);
            while let Some(row) = reader.next().unwrap() {
                rows.push(row);
            }
        }
        rows
    }

    #[test]
    fn values_stand_as_they_are_written() {
        let file = concat!(
            "{\"id\": 12345678901234567890.1234567890, \"name\":\"a\\n\\u00e9,}\" , \"x\":null}\n",
            "\n",
            "  {\"id\":1e3,\"deep\":{\"a\":[1, 2]},\"yes\":true}\r\n",
            "{}",
        );
        for piece in [1, 7, 1_000] {
            let rows = rows(file, piece);
            let told: Vec<_> = rows
                .iter()
                .map(|row| (row.line, row.columns.join(","), row.values.clone().unwrap()))
                .collect();
            let some = |text: &str| Some(text.to_owned());
            let first = vec![some("12345678901234567890.1234567890"), some("a\n\u{e9},}"), None];
            let second = vec![some("{\"a\":[1, 2]}"), some("1e3"), some("true")];
            let expected = [
                (1, "id,name,x".to_owned(), first),
                (3, "deep,id,yes".to_owned(), second),
                (4, String::new(), vec![]),
            ];
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_is_no_object_is_told_with_its_line() {
        let file = "{\"id\":1\n[1]\n{\"id\":1} x\n{\"a\":1,\"a\":2}\n{\"a\":\"\\u0000\"}\n{\"id\":2}\n";
        let rows = rows(file, 3);
        let states: Vec<_> = rows
            .iter()
            .map(|row| row.values.as_ref().err().map_or("", |error| error.sqlstate.as_str()))
            .collect();
        assert_eq!(states, ["22P02", "22P02", "22P02", "42701", "22P05", ""]);
        assert_eq!(rows[5].line, 6);
    }

    #[test]
    fn a_line_has_an_end() {
        let mut reader = JsonRows::default();
        reader.feed(&vec![b' '; MAX_RECORD_BYTES + 1]);
        assert_eq!(reader.next().unwrap_err().sqlstate, "54000");
    }
}
