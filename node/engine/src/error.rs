//! What can go wrong with a statement inside a partition, for its caller.

use serde::{Deserialize, Serialize};

/// A statement failed and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StatementError {
    /// SQLSTATE 23505.
    #[error("duplicate key value violates unique constraint \"{table}_pkey\"")]
    DuplicateKey {
        /// The table.
        table: String,
        /// `Key (id)=(1) already exists.`
        detail: String,
    },
    /// SQLSTATE 23502.
    #[error("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint")]
    NotNull {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// SQLSTATE 22001.
    #[error("value too long for type character varying({limit})")]
    TooLong {
        /// Characters allowed.
        limit: u32,
    },
    /// SQLSTATE 22003.
    #[error("{what} out of range")]
    OutOfRange {
        /// `integer`, `bigint`, `numeric`, `double precision`, `timestamp`.
        what: String,
    },
    /// SQLSTATE 22012.
    #[error("division by zero")]
    DivisionByZero,
    /// SQLSTATE 22P02.
    #[error("invalid input syntax for type {data_type}: \"{text}\"")]
    InvalidText {
        /// The type.
        data_type: String,
        /// What was given.
        text: String,
    },
    /// SQLSTATE 42804: a program that its planner should not have made, or a parameter of the wrong type.
    #[error("{0}")]
    TypeMismatch(String),
}

impl StatementError {
    /// The SQLSTATE, five characters.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::DuplicateKey { .. } => "23505",
            Self::NotNull { .. } => "23502",
            Self::TooLong { .. } => "22001",
            Self::OutOfRange { .. } => "22003",
            Self::DivisionByZero => "22012",
            Self::InvalidText { .. } => "22P02",
            Self::TypeMismatch(_) => "42804",
        }
    }
}
