//! What can go wrong with a statement inside a partition, for its caller.

use serde::{Deserialize, Serialize};

use crate::SequenceId;
use crate::effects::MAX_EFFECTS_BYTES;
use crate::idempotency::{MAX_KEPT_RESULT_BYTES, MAX_KEY_BYTES};
use crate::partition::{MAX_KEPT_BYTES, MAX_RETURNED_BYTES};

/// Bytes that are not what their layout says. Never a panic, never a large allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptError {
    /// They end too early.
    #[error("the bytes end too early")]
    Truncated,
    /// Some are left at the end.
    #[error("bytes are left over at the end")]
    TrailingBytes,
    /// A tag that means nothing here.
    #[error("the tag {0} means nothing here")]
    UnknownTag(u8),
    /// A number that doesn't fit where it belongs.
    #[error("a number is too large")]
    TooLarge,
    /// Text that is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A record that its log should not hold: a commit of what is not prepared, a second prepared transaction, a write
    /// while one is prepared, a decision that contradicts an earlier one; or a chunk of another dump.
    #[error("out of place: {0}")]
    OutOfPlace(&'static str),
}

/// A statement failed and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StatementError {
    /// SQLSTATE 23505.
    #[error("duplicate key value violates unique constraint \"{constraint}\"")]
    DuplicateKey {
        /// The table.
        table: String,
        /// The primary key's name, `TABLE_pkey`, or the unique index's.
        constraint: String,
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
    /// SQLSTATE 23514.
    #[error("new row for relation \"{table}\" violates check constraint \"{constraint}\"")]
    CheckViolation {
        /// The table.
        table: String,
        /// The constraint.
        constraint: String,
        /// `Failing row contains (1, null).`
        detail: String,
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
    /// SQLSTATE 22P02; of a timestamp 22007; of a bytea, which is hexadecimal digits, 22023.
    #[error("invalid input syntax for type {data_type}: \"{text}\"")]
    InvalidText {
        /// The type.
        data_type: String,
        /// What was given.
        text: String,
    },
    /// SQLSTATE 22025.
    #[error("LIKE pattern must not end with escape character")]
    InvalidEscape,
    /// SQLSTATE 22023.
    #[error("field position must not be zero")]
    ZeroField,
    /// SQLSTATE 54000.
    #[error("a statement may change at most {} MiB in one partition", MAX_EFFECTS_BYTES >> 20)]
    TooManyEffects,
    /// SQLSTATE 54000: it looks at more entries than a partition does without a pause.
    #[error("a statement may look at no more than {limit} rows of one partition at a time")]
    TooManyEntries {
        /// Entries allowed.
        limit: usize,
    },
    /// SQLSTATE 54000.
    #[error("a statement may sort and group no more than {} MiB in one partition", MAX_KEPT_BYTES >> 20)]
    TooMuchKept,
    /// SQLSTATE 54000.
    #[error("a statement may return at most {} MiB of the rows that it changes", MAX_RETURNED_BYTES >> 20)]
    TooMuchReturned,
    /// SQLSTATE 2201W; of OFFSET, 2201X.
    #[error("{clause} must not be negative")]
    NegativeCount {
        /// `LIMIT` or `OFFSET`.
        clause: String,
    },
    /// SQLSTATE 22023.
    #[error("an idempotency key has 1 to {MAX_KEY_BYTES} bytes")]
    InvalidKey,
    /// SQLSTATE 22023.
    #[error("idempotency key \"{key}\" was used for another statement")]
    KeyInUse {
        /// The key.
        key: String,
    },
    /// SQLSTATE 54000.
    #[error("the result of a statement with an idempotency key may have at most {} KiB", MAX_KEPT_RESULT_BYTES >> 10)]
    TooLargeToKeep,
    /// SQLSTATE 53400.
    #[error("too many idempotency keys are kept in one partition")]
    TooManyKeys,
    /// A unique index that must be looked at is not built yet: whoever runs the statement builds it and runs it again.
    #[error("a unique index of table \"{table}\" is not built yet")]
    IndexNotBuilt {
        /// The table.
        table: String,
    },
    /// A materialized view is not built yet: whoever runs the statement builds it and runs it again.
    #[error("the materialized view is not built yet")]
    ViewNotBuilt,
    /// SQLSTATE 40001.
    #[error("the transaction's snapshot is older than the materialized view")]
    ViewTooYoung,
    /// SQLSTATE 40001: the statement was planned before that.
    #[error("a column of the table was dropped at the same time")]
    ColumnDropped,
    /// SQLSTATE 40001: the statement was planned for the partitions that the table lay in.
    #[error("the table is being moved to other partitions")]
    TableMoved,
    /// No value of a sequence is at hand: whoever runs the procedure gets some and runs it again.
    #[error("no value of sequence {sequence} is at hand")]
    NoValueAtHand {
        /// The sequence.
        sequence: SequenceId,
    },
    /// SQLSTATE 0A000: all rows of a table go at once whose changes are kept one by one.
    #[error("a table that is tracked for replication links can't be truncated")]
    TrackedTruncated,
    /// SQLSTATE 23505: a change of another cluster, under a unique index.
    #[error("a row of another cluster has the values of another one here in a unique index")]
    IncomingDuplicate,
    /// SQLSTATE 42804: a program that its planner should not have made, or a parameter of the wrong type.
    #[error("{0}")]
    TypeMismatch(String),
    /// SQLSTATE 54001.
    #[error("statement too complex: an expression is more than {limit} levels deep")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// The SQLSTATE of a RAISE.
    #[error("{message}")]
    Raised {
        /// Five characters.
        sqlstate: String,
        /// The message.
        message: String,
        /// USING DETAIL.
        detail: Option<String>,
        /// USING HINT.
        hint: Option<String>,
    },
    /// SQLSTATE P0002: SELECT INTO STRICT.
    #[error("query returned no rows")]
    NoRow,
    /// SQLSTATE P0003: SELECT INTO STRICT.
    #[error("query returned more than one row")]
    MoreRows,
    /// SQLSTATE 21000.
    #[error("more than one row returned by a subquery used as an expression")]
    SubqueryRows,
    /// SQLSTATE 21000.
    #[error("ON CONFLICT DO UPDATE command cannot affect row a second time")]
    RowAffectedTwice,
    /// SQLSTATE 22004.
    #[error("{0}")]
    NullVariable(String),
    /// SQLSTATE 54000.
    #[error("procedure {name} executed more than {limit} instructions")]
    RanTooLong {
        /// The procedure.
        name: String,
        /// Instructions allowed.
        limit: u64,
    },
    /// SQLSTATE 54000.
    #[error("procedure {name} used up its {limit} units of fuel")]
    OutOfFuel {
        /// The procedure.
        name: String,
        /// Units allowed.
        limit: u64,
    },
    /// SQLSTATE 54000.
    #[error("procedure {name} needs more than {} MiB of memory", limit_bytes >> 20)]
    TooMuchMemory {
        /// The procedure.
        name: String,
        /// Bytes allowed.
        limit_bytes: usize,
    },
    /// SQLSTATE 53400.
    #[error("more than {limit} calls of WebAssembly procedures run at a time on this node")]
    TooManyModules {
        /// Calls allowed.
        limit: u32,
    },
    /// SQLSTATE 38000.
    #[error("procedure {name} trapped: {reason}")]
    Trapped {
        /// The procedure.
        name: String,
        /// Why.
        reason: String,
    },
    /// SQLSTATE 39000: a module has called a function of its host in a way that can't be served.
    #[error("procedure {name} is wrong: {what}")]
    WrongRequest {
        /// The procedure.
        name: String,
        /// What it did.
        what: String,
    },
    /// SQLSTATE 54000.
    #[error("procedure {name} keeps more than {} MiB of rows", limit_bytes >> 20)]
    TooManyRowsKept {
        /// The procedure.
        name: String,
        /// Bytes allowed.
        limit_bytes: usize,
    },
    /// SQLSTATE 0A000: a partitioned procedure met a row of another partition.
    #[error(
        "procedure {name} runs in the partition of its own key, and a row of table \"{table}\" with the partition key {key} belongs to another"
    )]
    OtherPartition {
        /// The procedure.
        name: String,
        /// The table.
        table: String,
        /// The row's partition key, as text.
        key: String,
    },
}

impl StatementError {
    /// The SQLSTATE, five characters; of RAISE its default, for its own is in the error.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::Raised { .. } => "P0001",
            Self::NoRow => "P0002",
            Self::MoreRows => "P0003",
            Self::SubqueryRows | Self::RowAffectedTwice => "21000",
            Self::NullVariable(_) => "22004",
            Self::RanTooLong { .. } | Self::TooManyRowsKept { .. } => "54000",
            Self::OutOfFuel { .. } | Self::TooMuchMemory { .. } => "54000",
            Self::TooManyModules { .. } => "53400",
            Self::Trapped { .. } => "38000",
            Self::WrongRequest { .. } => "39000",
            Self::OtherPartition { .. } | Self::TrackedTruncated => "0A000",
            Self::DuplicateKey { .. } | Self::IncomingDuplicate => "23505",
            Self::NotNull { .. } => "23502",
            Self::CheckViolation { .. } => "23514",
            Self::TooLong { .. } => "22001",
            Self::OutOfRange { .. } => "22003",
            Self::InvalidEscape => "22025",
            Self::DivisionByZero => "22012",
            Self::InvalidText { data_type, .. } if data_type == "timestamp" => "22007",
            Self::InvalidText { data_type, .. } if data_type == "bytea" => "22023",
            Self::InvalidText { .. } => "22P02",
            Self::TooManyEffects
            | Self::TooManyEntries { .. }
            | Self::TooMuchKept
            | Self::TooMuchReturned
            | Self::TooLargeToKeep => "54000",
            Self::NegativeCount { clause } if clause == "LIMIT" => "2201W",
            Self::NegativeCount { .. } => "2201X",
            Self::InvalidKey | Self::KeyInUse { .. } | Self::ZeroField => "22023",
            Self::TooManyKeys => "53400",
            Self::IndexNotBuilt { .. } | Self::ViewNotBuilt | Self::NoValueAtHand { .. } => "57P03",
            Self::ViewTooYoung | Self::ColumnDropped | Self::TableMoved => "40001",
            Self::TypeMismatch(_) => "42804",
            Self::TooDeep { .. } => "54001",
        }
    }
}
