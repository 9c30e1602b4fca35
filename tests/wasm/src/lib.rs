//! What a stored procedure of VoltCluster is written with, in Rust. It has no dependencies.
//!
//! ```ignore
//! use volt_procedure::{emit, procedure, statements, Error, Row};
//!
//! statements! {
//!     FIND = "SELECT name FROM example WHERE id = $1";
//! }
//!
//! fn find(arguments: Row) -> Result<(), Error> {
//!     let id: i32 = arguments.get(0)?;
//!     for row in FIND.query(&[id.into()]) {
//!         emit(&row);
//!     }
//!     Ok(())
//! }
//!
//! procedure!(find);
//! ```
//!
//! A statement that fails ends the call: nothing comes back to the procedure. So does `Err`, and a panic (SQLSTATE 38000).

mod host;
mod row;
mod value;

pub use row::Row;
pub use value::{FromValue, Value};

/// What ends a call, and takes back all that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Five capital letters and digits.
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Error {
    /// An error with this SQLSTATE; PostgreSQL's RAISE has P0001 unless it is told another.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
        }
    }
}

/// A SQL statement of this module, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Statement(pub u32);

impl Statement {
    /// Executes it: how many rows it returned or changed.
    pub fn execute(self, parameters: &[Value]) -> u64 {
        host::execute(self.0, parameters)
    }

    /// Executes it: its rows, up to the first 16 MiB of them, beyond which the call ends.
    pub fn query(self, parameters: &[Value]) -> Vec<Row> {
        self.execute(parameters);
        std::iter::from_fn(host::row).collect()
    }

    /// Executes it: its first row.
    pub fn first(self, parameters: &[Value]) -> Option<Row> {
        self.execute(parameters);
        host::row()
    }
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    Info,
    Notice,
    Warning,
}

/// Gives the caller a row: of RETURNS TABLE, or, once, of the OUT and INOUT arguments.
pub fn emit(row: &[Value]) {
    host::emit(row);
}

/// Tells the caller something, the procedure going on.
pub fn notice(level: Level, message: &str) {
    host::notice(level as u32, message);
}

/// The call's time, in microseconds since 1970, as `now()` is in its statements.
pub fn now() -> i64 {
    host::now()
}

/// What the macro `procedure` calls.
#[doc(hidden)]
pub fn run(procedure: fn(Row) -> Result<(), Error>) {
    std::panic::set_hook(Box::new(|panic| host::raise(&Error::new("38000", panic.to_string()))));
    if let Err(error) = procedure(host::arguments()) {
        host::raise(&error);
    }
}

/// Makes a function of a `Row` of arguments the module's procedure.
#[macro_export]
macro_rules! procedure {
    ($function:path) => {
        /// What the host calls.
        #[no_mangle]
        pub extern "C" fn call() {
            $crate::run($function);
        }
    };
}

/// Names the module's SQL statements and puts them where the host finds them; once a module.
#[macro_export]
macro_rules! statements {
    ($($name:ident = $sql:literal;)*) => {
        #[allow(clippy::upper_case_acronyms, non_camel_case_types)]
        #[repr(u32)]
        enum StatementNumbers { $($name),* }
        $(pub const $name: $crate::Statement = $crate::Statement(StatementNumbers::$name as u32);)*
        const STATEMENT_TEXTS: &str = concat!($($sql, "\0"),*);
        #[link_section = "volt.statements"]
        #[used]
        static STATEMENT_SECTION: [u8; STATEMENT_TEXTS.len()] = $crate::bytes_of(STATEMENT_TEXTS);
    };
}

/// What the macro `statements` calls.
#[doc(hidden)]
pub const fn bytes_of<const N: usize>(text: &str) -> [u8; N] {
    let (text, mut bytes, mut at) = (text.as_bytes(), [0; N], 0);
    while at < N {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}
