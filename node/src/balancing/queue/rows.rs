//! Rows of the queue, and those that its statements return.

use async_trait::async_trait;
use volt_engine::value::ValueRef;

use crate::error::SqlError;
use crate::statement::{ResultColumn, RowSink, json};

/// Bytes of a statement's rows that are kept in its row.
const MAX_RESULT_BYTES: usize = 64 << 10;

/// A row that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) id: i64,
    /// Microseconds since 1970.
    pub(super) due_at: i64,
    /// How often it was claimed.
    pub(super) attempts: i32,
    pub(super) statement: String,
}

/// Takes rows that are due.
#[derive(Default)]
pub(super) struct DueRows {
    pub(super) rows: Vec<Due>,
}

#[async_trait]
impl RowSink for DueRows {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        // Of a table that somebody else has made with other columns nothing is due.
        if let [
            ValueRef::BigInt(id),
            ValueRef::Timestamp(due_at),
            ValueRef::Int(attempts),
            ValueRef::Text(statement),
        ] = *values
        {
            let statement = statement.to_owned();
            self.rows.push(Due {
                id,
                due_at,
                attempts,
                statement,
            });
        }
    }
}

/// Takes what a statement returns: a JSON object a row, values as texts.
pub(super) struct ResultRows {
    names: Vec<String>,
    rows: Vec<String>,
    bytes: usize,
}

impl ResultRows {
    pub(super) fn of(columns: &[ResultColumn]) -> Self {
        Self {
            names: columns.iter().map(|column| column.name.clone()).collect(),
            rows: Vec::new(),
            bytes: 0,
        }
    }

    /// A JSON array; None: it returns no rows.
    pub(super) fn text(&self) -> Result<Option<String>, SqlError> {
        if self.bytes > MAX_RESULT_BYTES {
            let message = format!("the statement returns more than {MAX_RESULT_BYTES} bytes");
            return Err(SqlError::new("54000", message));
        }
        Ok((!self.names.is_empty()).then(|| format!("[{}]", self.rows.join(","))))
    }
}

#[async_trait]
impl RowSink for ResultRows {
    fn row(&mut self, values: &[ValueRef<'_>]) {
        if self.bytes > MAX_RESULT_BYTES {
            return;
        }
        let row = json::object(self.names.iter().map(String::as_str).zip(values.iter().copied()));
        self.bytes += row.len() + 1;
        self.rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use volt_engine::value::DataType;

    use super::*;

    #[test]
    fn results_are_json_in_the_statements_order_and_bounded() {
        let column = |name: &str| ResultColumn {
            name: name.to_owned(),
            data_type: DataType::Text,
        };
        let mut rows = ResultRows::of(&[column("b\""), column("a")]);
        assert_eq!(rows.text(), Ok(Some("[]".to_owned())));
        rows.row(&[ValueRef::Int(7), ValueRef::Null]);
        rows.row(&[ValueRef::Text("x\n"), ValueRef::Boolean(true)]);
        let expected = r#"[{"b\"":"7","a":null},{"b\"":"x\n","a":"t"}]"#;
        assert_eq!(rows.text(), Ok(Some(expected.to_owned())));
        let long = "y".repeat(MAX_RESULT_BYTES);
        rows.row(&[ValueRef::Text(&long), ValueRef::Null]);
        assert_eq!(rows.text().unwrap_err().sqlstate, "54000");
        assert_eq!(ResultRows::of(&[]).text(), Ok(None));
    }
}
