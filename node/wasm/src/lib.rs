//! Procedures that are WebAssembly modules: what a module may be (`module`), and the machine that runs a call of one (`call`).
//!
//! What must hold: a call is a function of its module, its arguments, its time and what its statements gave, the same on
//! every machine. No clock, no randomness, no threads, no files; NaNs have one form; a bound on what it computes is counted
//! in fuel, not in time. A module sees its own memory only, and every address that it gives is checked. Whatever it does, the
//! worst is an error of its call.
//!
//! A module runs on a stack of its own, which it leaves when it asks for a statement: so the machine can ask its driver, who
//! may do it there and then (a partition) or wait for other nodes (a coordinator), and then goes back to it.

mod call;
mod host;
mod limits;
mod module;
mod modules;
mod wire;

pub use call::Call;
pub use limits::{FUEL, MAX_CALLS, MAX_MEMORY_BYTES, MAX_STATEMENT_BYTES, MAX_STATEMENTS};
pub use module::Refused;
pub use modules::{Compiled, Modules};

/// The imports' module.
pub const HOST: &str = "volt";
/// The exported function that is the procedure.
pub const ENTRY: &str = "call";
/// The exported memory.
pub const MEMORY: &str = "memory";
/// The custom section that has the module's SQL statements, each with a zero byte behind it.
pub const STATEMENTS_SECTION: &str = "volt.statements";

#[cfg(test)]
mod tests;
