//! Stored procedures: several statements with variables and control flow between them, compiled once.
//!
//! A call is run by a `Machine`: it says which statement is next and takes what came of it, so that one machine serves both
//! a partition, which runs a partitioned procedure's row programs there and then (`Partition::call`), and a coordinator,
//! which runs any procedure's statements in a transaction over several partitions. `Execution` is the machine of flat code:
//! variables live in slots, the parameters first, and a statement sees slot `n` as its parameter `n`. A procedure that is a
//! WebAssembly module has a machine outside of this crate; its statements have parameters of their own.

mod execution;
mod machine;
mod validate;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use execution::{Execution, MAX_STEPS};
pub use machine::{Collector, Machine, Next, RowsTaken, arguments_of, as_type};

use crate::plan::{Expr, Program};
use crate::value::DataType;
use crate::{ProcedureId, SequenceId};

/// Most instructions, statements and slots of a procedure, each.
pub const MAX_PARTS: usize = 10_000;

/// Bytes of a WebAssembly module, at most: it lies in the catalog, on every node.
pub const MAX_MODULE_BYTES: usize = 1 << 20;

/// Notices of one call; the rest is not told.
pub const MAX_NOTICES: usize = 1_000;

/// A procedure of the catalog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Procedure {
    /// Its number; a procedure that is replaced gets a new one.
    pub id: ProcedureId,
    /// Its name, in the one schema `public`.
    pub name: String,
    /// Its language: `plpgsql`, `sql` for one statement, or `wasm`.
    pub language: String,
    /// The text between its name and its body's end, as it was written, but without a module.
    pub source: String,
    /// Its parameters: the first slots.
    pub parameters: Vec<Parameter>,
    /// The columns of the rows that it returns; none: it returns no rows.
    pub columns: Vec<(String, DataType)>,
    /// The partition that it runs in; None: it runs where its statements lead it.
    pub partition_by: Option<PartitionBy>,
    /// What runs.
    pub body: Body,
    /// The statements that it executes.
    pub statements: Vec<Statement>,
}

impl Procedure {
    /// The types of the parameters that one of its statements sees.
    pub fn types_of<'p>(&'p self, statement: &'p Statement) -> &'p [DataType] {
        match &self.body {
            Body::Code(code) => &code.slots,
            Body::Module(_) => &statement.parameters,
        }
    }

    /// Bytes of its module, if it is one.
    pub fn module_bytes(&self) -> usize {
        match &self.body {
            Body::Code(_) => 0,
            Body::Module(bytes) => bytes.len(),
        }
    }
}

/// What a procedure runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Flat code.
    Code(Code),
    /// A WebAssembly module, its bytes.
    Module(Bytes),
}

/// A parameter of a procedure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name; empty: it has none.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// It is given by the caller (IN, INOUT).
    pub is_input: bool,
    /// It is returned (OUT, INOUT).
    pub is_output: bool,
}

/// What decides the partition of a partitioned procedure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionBy {
    /// The table whose partitions are meant.
    pub table: crate::TableId,
    /// The type of its partition column.
    pub data_type: DataType,
    /// The place of the parameter that has the partition column's value.
    pub parameter: usize,
}

/// A SQL statement of a procedure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Its text; `$n` is slot `n - 1`, or a module's parameter.
    pub sql: String,
    /// The types of its parameters, of a module's statement; in code they are the slots.
    pub parameters: Vec<DataType>,
    /// The tables that it names.
    pub tables: Vec<crate::TableId>,
    /// Of a partitioned procedure: what runs in the partition.
    pub program: Option<Program>,
    /// Partition keys, to be evaluated before the program runs, that must lie in the procedure's partition.
    pub keys: Vec<Expr>,
    /// The sequences whose next values it takes. Of a partitioned procedure they go to these slots before it runs.
    pub sequences: Vec<(SequenceId, usize)>,
}

/// Flat code over slots.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Code {
    /// The types of the slots, the parameters' first.
    pub slots: Vec<DataType>,
    /// The instructions; it ends behind the last one too.
    pub ops: Vec<Op>,
    /// The slot of FOUND.
    pub found: usize,
    /// The slot of the last statement's row count.
    pub row_count: usize,
}

/// An instruction. Expressions see the slots as parameters; targets are places in `Code::ops`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// A slot takes a value, converted to its type.
    Assign {
        /// The slot.
        slot: usize,
        /// The value.
        value: Expr,
    },
    /// As `Assign`, but a NULL is an error: the variable is NOT NULL.
    AssignNotNull {
        /// The slot.
        slot: usize,
        /// The value.
        value: Expr,
        /// The error's message.
        otherwise: String,
    },
    /// A slot takes the next value of a sequence.
    NextValue {
        /// The slot.
        slot: usize,
        /// The sequence.
        sequence: SequenceId,
    },
    /// Goes on elsewhere.
    Jump(usize),
    /// Goes on elsewhere unless this is true; NULL is not.
    JumpUnless {
        /// The condition.
        condition: Expr,
        /// Where to.
        target: usize,
    },
    /// Executes a statement.
    Execute {
        /// Its place in `Procedure::statements`.
        statement: usize,
        /// What becomes of its rows.
        into: Into,
    },
    /// The next row of a statement's rows goes to the slots, or the loop is over.
    NextRow {
        /// The rows, by the number that `Into::Rows` gave them.
        rows: usize,
        /// One a column.
        slots: Vec<usize>,
        /// Where to go when there is none.
        done: usize,
        /// Whether there was a row at all, for FOUND after the loop: a BOOLEAN slot.
        met: usize,
    },
    /// Returns a row to the caller.
    ReturnRow(Vec<Expr>),
    /// RAISE.
    Raise(Raise),
    /// The end.
    Return,
}

/// What becomes of a statement's rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Into {
    /// Nothing.
    Nowhere,
    /// The first one's values go to the slots, NULL without one; with `strict`, anything but one row is an error.
    Slots {
        /// One a column.
        slots: Vec<usize>,
        /// STRICT.
        strict: bool,
        /// Of a statement that writes: more than one row is an error.
        at_most_one: bool,
        /// FOUND and the row count tell of it; they don't of a subquery inside an expression.
        is_statement: bool,
    },
    /// Whether there is one, to a BOOLEAN slot.
    Exists(usize),
    /// They are kept for `Op::NextRow`.
    Rows(usize),
    /// They are returned to the caller.
    Caller,
}

/// RAISE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raise {
    /// How loud.
    pub level: Level,
    /// The message, in pieces.
    pub message: Vec<Piece>,
    /// The SQLSTATE of an exception.
    pub sqlstate: String,
    /// USING DETAIL.
    pub detail: Option<Expr>,
    /// USING HINT.
    pub hint: Option<Expr>,
}

/// The level of a RAISE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// To the caller.
    Info,
    /// To the caller.
    Notice,
    /// To the caller.
    Warning,
    /// The procedure fails, and with it all that it did.
    Exception,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Piece {
    /// Itself.
    Text(String),
    /// A value, as text.
    Value(Expr),
}

/// What RAISE told the caller, the procedure going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Info, Notice or Warning.
    pub level: Level,
    /// The message.
    pub message: String,
}

impl Procedure {
    /// Every sequence that it takes values of.
    pub fn sequences(&self) -> impl Iterator<Item = SequenceId> {
        let ops = match &self.body {
            Body::Code(code) => code.ops.as_slice(),
            Body::Module(_) => &[],
        };
        let of_ops = ops.iter().filter_map(|op| match op {
            Op::NextValue { sequence, .. } => Some(*sequence),
            _ => None,
        });
        let of_statements = self.statements.iter().flat_map(|statement| &statement.sequences);
        of_ops.chain(of_statements.map(|(sequence, _)| *sequence))
    }
}

#[cfg(test)]
mod tests;
