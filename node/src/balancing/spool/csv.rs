//! CSV as PostgreSQL's COPY has it, with a first record that names the columns: an empty field is NULL, an empty one in quotes is the
//! empty text. Records are found by `csv-core`, which says nothing of quotes: whether a field has them is seen by its first byte, and
//! whether they are closed by their number.

use std::sync::Arc;

use csv_core::{ReadFieldResult, Reader};

use super::rows::{Input, MAX_RECORD_BYTES, Row, text_of, too_long};
use crate::error::SqlError;

/// What some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes of a field that are taken at a time.
const PIECE_BYTES: usize = 4 << 10;

/// Reads rows.
pub(super) struct CsvRows {
    reader: Reader,
    input: Input,
    columns: Option<Arc<[String]>>,
    record: Option<Record>,
}

/// The record that is being read.
struct Record {
    line: u64,
    offset: u64,
    fields: Vec<Result<Option<String>, SqlError>>,
    field: Option<Field>,
}

/// Its field that is being read.
struct Field {
    is_quoted: bool,
    quotes: usize,
    bytes: Vec<u8>,
}

impl Default for CsvRows {
    fn default() -> Self {
        Self {
            // Its default is no reader of CSV.
            reader: Reader::new(),
            input: Input::default(),
            columns: None,
            record: None,
        }
    }
}

impl CsvRows {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.feed(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, SqlError> {
        loop {
            let Some(record) = self.next_record()? else {
                return Ok(None);
            };
            match &self.columns {
                None => self.columns = Some(header(record)?),
                Some(columns) => return Ok(Some(self.row(record, Arc::clone(columns)))),
            }
        }
    }

    fn row(&self, record: Record, columns: Arc<[String]>) -> Row {
        let values = values(record.fields, &columns);
        Row {
            line: record.line,
            offset: record.offset,
            length: self.input.offset - record.offset,
            columns,
            values,
        }
    }

    /// None: more bytes are wanted, or there is none.
    fn next_record(&mut self) -> Result<Option<Record>, SqlError> {
        if self.record.is_none() && !self.begin_record() {
            return Ok(None);
        }
        loop {
            let Some(is_last) = self.next_field()? else {
                return Ok(None);
            };
            if is_last {
                return Ok(self.record.take());
            }
        }
    }

    /// False: there are no bytes of one yet.
    fn begin_record(&mut self) -> bool {
        let rest = self.input.rest();
        if self.input.offset == 0 {
            if rest.len() < BYTE_ORDER_MARK.len() && !self.input.ended {
                return false;
            }
            if rest.starts_with(BYTE_ORDER_MARK) {
                self.input.take(BYTE_ORDER_MARK.len());
            }
        }
        let ends = self
            .input
            .rest()
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'));
        self.input.take(ends.count());
        if self.input.rest().is_empty() {
            return false;
        }
        self.record = Some(Record {
            line: self.input.lines + 1,
            offset: self.input.offset,
            fields: Vec::new(),
            field: None,
        });
        true
    }

    /// Reads on; whether a field is whole now that is its record's last; None: more bytes are wanted.
    fn next_field(&mut self) -> Result<Option<bool>, SqlError> {
        let Some(record) = &mut self.record else {
            return Ok(None);
        };
        loop {
            let rest = self.input.rest();
            if rest.is_empty() && !self.input.ended {
                return Ok(None);
            }
            let field = record.field.get_or_insert_with(|| Field {
                is_quoted: rest.first() == Some(&b'"'),
                quotes: 0,
                bytes: Vec::new(),
            });
            let mut piece = [0; PIECE_BYTES];
            let (result, read, written) = self.reader.read_field(rest, &mut piece);
            field.quotes += rest[..read].iter().filter(|byte| **byte == b'"').count();
            field.bytes.extend_from_slice(&piece[..written]);
            self.input.take(read);
            if self.input.offset - record.offset > MAX_RECORD_BYTES as u64 {
                return Err(too_long(record.line).hint("A quote may be missing."));
            }
            let is_last = match result {
                ReadFieldResult::InputEmpty if !self.input.ended => return Ok(None),
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => continue,
                ReadFieldResult::Field { record_end } => record_end,
                ReadFieldResult::End => true,
            };
            let field = record.field.take();
            record.fields.extend(field.map(Field::value));
            return Ok(Some(is_last));
        }
    }
}

impl Field {
    fn value(self) -> Result<Option<String>, SqlError> {
        // A quote in a quoted field is two; so they are even once it is closed.
        if self.is_quoted && self.quotes % 2 == 1 {
            return Err(SqlError::new("22P04", "unterminated CSV quoted field"));
        }
        if self.bytes.is_empty() && !self.is_quoted {
            return Ok(None);
        }
        text_of(self.bytes).map(Some)
    }
}

/// The columns that the first record names.
fn header(record: Record) -> Result<Arc<[String]>, SqlError> {
    let no_name = || SqlError::new("42601", "the first record names no column in one of its fields");
    let name = |field: Result<Option<String>, SqlError>| field?.filter(|name| !name.is_empty()).ok_or_else(no_name);
    record.fields.into_iter().map(name).collect()
}

fn values(fields: Vec<Result<Option<String>, SqlError>>, columns: &[String]) -> Result<Vec<Option<String>>, SqlError> {
    let count = fields.len();
    let values = fields.into_iter().collect::<Result<Vec<_>, _>>()?;
    if count > columns.len() {
        return Err(SqlError::new("22P04", "extra data after last expected column"));
    }
    match columns.get(count) {
        Some(missing) => Err(SqlError::new("22P04", format!("missing data for column \"{missing}\""))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of a file that comes in pieces of this size.
    fn rows(file: &[u8], piece: usize) -> Result<Vec<Row>, SqlError> {
        let (mut reader, mut rows) = (CsvRows::default(), Vec::new());
        for bytes in file.chunks(piece.max(1)).chain([&[][..]]) {
            reader.feed(bytes);
            while let Some(row) = reader.next()? {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Line and values, or SQLSTATE, of each row.
    fn told(file: &str) -> Vec<(u64, String)> {
        let rows = rows(file.as_bytes(), 1_000).unwrap();
        let told = |row: &Row| match &row.values {
            Ok(values) => format!("{values:?}"),
            Err(error) => format!("{} {}", error.sqlstate, error.message),
        };
        rows.iter().map(|row| (row.line, told(row))).collect()
    }

    #[test]
    fn fields_are_as_copy_has_them() {
        let file = "id,name\n1,\n2,\"\"\n3,\"a,\"\"b\"\"\nc\"\r\n\r\n4,d\"e\r\n5, f";
        let expected = [
            (2, r#"[Some("1"), None]"#),
            (3, r#"[Some("2"), Some("")]"#),
            (4, r#"[Some("3"), Some("a,\"b\"\nc")]"#),
            (7, r#"[Some("4"), Some("d\"e")]"#),
            (8, r#"[Some("5"), Some(" f")]"#),
        ];
        assert_eq!(told(file), expected.map(|(line, values)| (line, values.to_owned())));
        assert_eq!(told("\u{feff}id\n7"), [(2, r#"[Some("7")]"#.to_owned())]);
        assert_eq!(told("id,name\n"), []);
        assert_eq!(told(""), []);
    }

    #[test]
    fn what_is_no_row_is_told_with_its_line() {
        let file = "id,name\n1\n1,2,3\n4,\"open\n5,5\n";
        let expected = [
            (2, "22P04 missing data for column \"name\""),
            (3, "22P04 extra data after last expected column"),
            (4, "22P04 unterminated CSV quoted field"),
        ];
        assert_eq!(told(file), expected.map(|(line, what)| (line, what.to_owned())));
        let rows = rows(b"id\n\xff\n8\n", 1).unwrap();
        assert_eq!(rows[0].values.clone().unwrap_err().sqlstate, "22021");
        assert_eq!(rows[1].values, Ok(vec![Some("8".to_owned())]));
    }

    #[test]
    fn a_header_names_columns_and_a_record_has_an_end() {
        let refused = |file: &str| rows(file.as_bytes(), 7).unwrap_err().sqlstate;
        assert_eq!(refused("id,,x\n1,2,3\n"), "42601");
        assert_eq!(refused(&format!("id\n\"{}", "x\n".repeat(MAX_RECORD_BYTES))), "54000");
    }

    #[test]
    fn a_row_says_where_it_is() {
        let file = "id,name\n1,\"a\nb\"\r\n2,c\n";
        for row in rows(file.as_bytes(), 1).unwrap() {
            let whole = &file[row.offset as usize..(row.offset + row.length) as usize];
            let expected = if row.line == 2 { "1,\"a\nb\"" } else { "2,c" };
            assert_eq!(whole.trim_end(), expected);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(file in "[ab1,\"\r\n\u{e9}]{0,80}", piece in 1_usize..9) {
            let file = format!("id,name\n{file}");
            let whole = rows(file.as_bytes(), 1_000);
            let pieces = rows(file.as_bytes(), piece);
            let told = |rows: Result<Vec<Row>, SqlError>| {
                rows.map(|rows| rows.into_iter().map(|row| (row.line, row.offset, row.values)).collect::<Vec<_>>())
            };
            prop_assert_eq!(told(whole), told(pieces));
        }

        #[test]
        fn what_was_written_is_read(values in prop::collection::vec((any::<i64>(), "[^\\x00]{0,12}"), 0..20)) {
            let line = |(id, text): &(i64, String)| format!("{id},\"{}\"\n", text.replace('"', "\"\""));
            let file = format!("id,name\n{}", values.iter().map(line).collect::<String>());
            let expected: Vec<_> = values.iter().map(|(id, text)| vec![Some(id.to_string()), Some(text.clone())]).collect();
            let read = rows(file.as_bytes(), 5).unwrap();
            let read: Vec<_> = read.into_iter().map(|row| row.values.unwrap()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
