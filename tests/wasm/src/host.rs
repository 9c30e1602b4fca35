//! The functions of the host, made safe. All of the module's `unsafe` is here.

use crate::{Error, Row, Value};

#[link(wasm_import_module = "volt")]
extern "C" {
    #[link_name = "arguments"]
    fn host_arguments(address: *mut u8, capacity: usize) -> usize;
    #[link_name = "execute"]
    fn host_execute(statement: u32, address: *const u8, length: usize) -> u64;
    #[link_name = "row"]
    fn host_row(address: *mut u8, capacity: usize) -> isize;
    #[link_name = "emit"]
    fn host_emit(address: *const u8, length: usize);
    #[link_name = "notice"]
    fn host_notice(level: u32, address: *const u8, length: usize);
    #[link_name = "raise"]
    fn host_raise(address: *const u8, length: usize);
    #[link_name = "now"]
    fn host_now() -> i64;
}

/// Room for a row; one that is larger is asked for again.
const ROOM: usize = 1024;

pub(crate) fn arguments() -> Row {
    received(|address, capacity| unsafe { host_arguments(address, capacity) as isize }).unwrap_or_default()
}

pub(crate) fn row() -> Option<Row> {
    received(|address, capacity| unsafe { host_row(address, capacity) })
}

fn received(ask: impl Fn(*mut u8, usize) -> isize) -> Option<Row> {
    let mut buffer = vec![0; ROOM];
    loop {
        // The host writes within the buffer, or nothing.
        let size = ask(buffer.as_mut_ptr(), buffer.len());
        if size < 0 {
            return None;
        }
        match buffer.get(..size as usize) {
            Some(bytes) => return Some(Row::decode(bytes)),
            None => buffer.resize(size as usize, 0),
        }
    }
}

pub(crate) fn execute(statement: u32, parameters: &[Value]) -> u64 {
    let row = Row::encode(parameters);
    unsafe { host_execute(statement, row.as_ptr(), row.len()) }
}

pub(crate) fn emit(row: &[Value]) {
    let row = Row::encode(row);
    unsafe { host_emit(row.as_ptr(), row.len()) }
}

pub(crate) fn notice(level: u32, message: &str) {
    unsafe { host_notice(level, message.as_ptr(), message.len()) }
}

pub(crate) fn now() -> i64 {
    unsafe { host_now() }
}

/// Never comes back.
pub(crate) fn raise(error: &Error) {
    let optional = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
    let row = Row::encode(&[
        Value::from(error.sqlstate.as_str()),
        Value::from(error.message.as_str()),
        optional(&error.detail),
        optional(&error.hint),
    ]);
    unsafe { host_raise(row.as_ptr(), row.len()) }
}
