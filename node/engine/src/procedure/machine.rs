//! What runs a call, whatever its procedure is written in. It asks for each statement's execution and is told what came
//! of it; it does nothing else to the world.

use super::{Notice, Procedure};
use crate::SequenceId;
use crate::error::StatementError;
use crate::plan::cast::{assign, cast, fits};
use crate::plan::eval::{Datum, Evaluated};
use crate::value::{DataType, Value, ValueRef};

/// Bytes of rows that one call may keep, about.
pub(super) const MAX_KEPT_BYTES: usize = 16 << 20;

/// A call on its way. After an error it is not asked again.
pub trait Machine {
    /// Runs until something is needed from outside.
    fn advance(&mut self) -> Result<Next, StatementError>;

    /// The parameters of the statement at hand.
    fn frame(&self) -> &[Value];

    /// What came of the statement: rows returned or changed, and those that were to be kept, of which it takes what it needs.
    fn executed(&mut self, affected: u64, rows: &mut Collector) -> Result<(), StatementError>;

    /// Gives the row that `Next::Row` told of, once.
    fn give_row(&mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Result<(), StatementError>;

    /// The value of a sequence that was asked for, or that the statement at hand needs as a parameter.
    fn put(&mut self, slot: usize, value: i64) -> Result<(), StatementError>;

    /// What it told the caller so far.
    fn take_notices(&mut self) -> Vec<Notice>;

    /// Rows that were returned to the caller.
    fn returned(&self) -> u64;
}

/// What the machine needs next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Execute this statement with `Machine::frame` as its parameters, then tell `Machine::executed`.
    Execute {
        /// Its place in `Procedure::statements`.
        statement: usize,
        /// What to do with its rows.
        rows: RowsTaken,
    },
    /// Tell the next value of this sequence by `Machine::put`.
    Value {
        /// The sequence.
        sequence: SequenceId,
        /// Where the value goes.
        slot: usize,
    },
    /// Give the caller the row of `Machine::give_row`.
    Row,
    /// Nothing; but it has run for a while, and goes on when it is asked again. Who may wait lets others run meanwhile.
    Pause,
    /// It has ended; all that it did counts.
    Done,
}

/// What to do with a statement's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsTaken {
    /// Collect at most so many for `executed`, and drop the rest.
    Kept(usize),
    /// Give them to the caller.
    Caller,
}

/// The rows of a statement that the machine is to be told, one behind the other. Used again for each statement of a call, so
/// that most rows cost no allocation.
#[derive(Debug, Default)]
pub struct Collector {
    limit: usize,
    /// Columns of each row.
    width: usize,
    values: Vec<Value>,
    rows: usize,
    bytes: usize,
}

impl Collector {
    /// At most so many rows are kept, the first ones.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// For the next statement.
    pub fn begin(&mut self, limit: usize) {
        self.values.clear();
        (self.limit, self.width, self.rows, self.bytes) = (limit, 0, 0, 0);
    }

    /// One row; all of a statement have as many columns.
    pub fn row(&mut self, values: &[ValueRef<'_>]) {
        if self.rows >= self.limit || self.bytes > MAX_KEPT_BYTES {
            return;
        }
        self.width = values.len();
        self.values.extend(values.iter().map(|value| value.to_value()));
        self.rows += 1;
        self.bytes += size_of_row(self.values.get(self.values.len() - values.len()..).unwrap_or_default());
    }

    /// An error when they were more bytes than a call may keep.
    pub fn check(&self, procedure: &Procedure) -> Result<(), StatementError> {
        match self.bytes > MAX_KEPT_BYTES {
            true => Err(too_many(procedure)),
            false => Ok(()),
        }
    }

    /// The values of the rows, which are gone then.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Value> {
        self.rows = 0;
        self.values.drain(..)
    }

    /// The rows, which are gone then.
    pub fn take_rows(&mut self) -> Vec<Vec<Value>> {
        let (width, count) = (self.width, self.rows);
        let mut values = self.drain();
        (0..count).map(|_| values.by_ref().take(width).collect()).collect()
    }
}

/// A call's arguments, one a parameter that is given (IN, INOUT), as the parameters' types.
pub fn arguments_of(procedure: &Procedure, arguments: &[Value]) -> Result<Vec<Value>, StatementError> {
    let inputs = procedure.parameters.iter().filter(|parameter| parameter.is_input);
    let count = inputs.clone().count();
    if count != arguments.len() {
        let name = &procedure.name;
        let message = format!("procedure {name} takes {count} arguments, not {}", arguments.len());
        return Err(StatementError::TypeMismatch(message));
    }
    let one = |(argument, parameter): (&Value, &super::Parameter)| as_type(argument, parameter.data_type);
    arguments.iter().zip(inputs).map(one).collect()
}

pub(super) fn too_many(procedure: &Procedure) -> StatementError {
    StatementError::TooManyRowsKept {
        name: procedure.name.clone(),
        limit_bytes: MAX_KEPT_BYTES,
    }
}

/// A value as this type: everything that can be cast, but no text too long for VARCHAR(n).
pub fn as_type(value: &Value, data_type: DataType) -> Result<Value, StatementError> {
    as_variable(Datum::Ref(value.as_ref()), data_type)
}

/// What a variable of this type takes: everything that can be cast, but no text too long for VARCHAR(n).
pub(super) fn as_variable(value: Datum<'_>, data_type: DataType) -> Result<Value, StatementError> {
    variable(value, data_type).map(Datum::into_value)
}

/// The same, where it lies.
pub(super) fn variable(value: Datum<'_>, data_type: DataType) -> Evaluated<'_> {
    match data_type {
        _ if fits(value.as_ref(), data_type) => Ok(value),
        DataType::Varchar(_) => assign(cast(value, DataType::Text)?, data_type),
        _ => cast(value, data_type),
    }
}

pub(super) fn size_of_row(row: &[Value]) -> usize {
    let size = |value: &Value| match value.as_ref() {
        ValueRef::Text(text) => text.len(),
        ValueRef::Bytea(bytes) => bytes.len(),
        _ => 0,
    };
    size_of_val(row) + row.iter().map(size).sum::<usize>()
}
