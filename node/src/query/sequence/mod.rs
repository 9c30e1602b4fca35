//! Sequences: `definition` makes and drops them (`options` says how they are), `identity` makes those of IDENTITY and SERIAL
//! columns, `calls` takes `nextval`, `currval` and `lastval` out of a statement, whose parameters they become, `values` gives
//! them before it runs, and `function` is `nextval` in a query that reads tables.

mod calls;
mod definition;
mod function;
mod identity;
mod options;
mod values;

pub(super) use calls::{Call, Calls, Overriding, is_call_of, take_calls};
pub(super) use definition::SequencePlan;
pub(super) use function::{next_value, with_session};
pub(super) use identity::{is_of_sequence, serial_type, take_sequences};
