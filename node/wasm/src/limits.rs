//! What a module, and a call of it, may need.

/// Units of fuel of a call: about one an instruction, so that a call computes for a second at most, during which its
/// partition does nothing else.
pub const FUEL: u64 = 500_000_000;
/// Fuel that a SQL statement costs besides what the module computes: about the time that a look-up takes.
pub(crate) const STATEMENT_FUEL: u64 = 2_000;
/// Fuel that any other request to the host costs, besides one unit for each byte that it passes.
pub(crate) const REQUEST_FUEL: u64 = 100;
/// A call that has used so much fuel lets others run, where its driver can wait.
pub(crate) const PAUSE_FUEL: u64 = 5_000_000;

/// Bytes of a module's memory.
pub const MAX_MEMORY_BYTES: usize = 16 << 20;
/// Elements of a module's table.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 20_000;
/// Bytes of the stack that a module's functions have.
pub(crate) const MODULE_STACK_BYTES: usize = 512 << 10;
/// Bytes of the whole stack: what the host's functions need is in it.
pub(crate) const STACK_BYTES: usize = 1 << 20;

/// Calls that run on a node at a time, most of them waiting for their statements.
pub const MAX_CALLS: u32 = 1_000;
/// Compiled modules that are kept.
pub(crate) const MAX_COMPILED: usize = 256;
/// Bytes of the modules whose compiled code is kept.
pub(crate) const MAX_COMPILED_BYTES: usize = 64 << 20;

/// SQL statements of a module.
pub const MAX_STATEMENTS: usize = 1_000;
/// Bytes of all its statements.
pub const MAX_STATEMENT_BYTES: usize = 64 << 10;
/// Bytes of one notice, and of an error's texts together.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 10;
