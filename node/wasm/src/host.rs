//! The functions that a module can call.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use volt_engine::error::StatementError;
use volt_engine::procedure::{Level, MAX_NOTICES, Notice};
use volt_engine::value::Value;
use wasmtime::{Caller, Linker, Memory, ResourceLimiter, Trap};

use crate::HOST;
use crate::limits::{MAX_MEMORY_BYTES, MAX_MESSAGE_BYTES, MAX_TABLE_ELEMENTS, REQUEST_FUEL, STATEMENT_FUEL};
use crate::wire::{decode, encode};

/// What all functions are called.
const OFFERED: [&str; 7] = ["arguments", "emit", "execute", "notice", "now", "raise", "row"];

/// True of a function that a module may import.
pub(crate) fn is_offered(name: &str) -> bool {
    OFFERED.contains(&name)
}

/// What a call's instance knows.
pub(crate) struct Host {
    /// The module's memory, once the instance is made.
    pub(crate) memory: Option<Memory>,
    /// The encoded arguments.
    pub(crate) arguments: Vec<u8>,
    pub(crate) now_micros: i64,
    pub(crate) desk: Arc<Mutex<Desk>>,
    /// What is left of the last statement's rows.
    pub(crate) rows: VecDeque<Vec<Value>>,
}

/// Where a module that waits leaves what it asks for, and finds the answer. One of the two sides looks at it at a time.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) request: Option<Request>,
    pub(crate) answer: Option<Answer>,
    pub(crate) notices: Vec<Notice>,
}

/// What a module waits for.
pub(crate) enum Request {
    /// A statement.
    Execute { statement: usize, parameters: Vec<Value> },
    /// That a row is given to the caller.
    Emit(Vec<Value>),
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) affected: u64,
    pub(crate) rows: Vec<Vec<Value>>,
}

/// Why a call ends, besides traps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The module said so.
    #[error("{0}")]
    Raised(StatementError),
    /// It asked for what can't be.
    #[error("{0}")]
    WrongRequest(String),
    /// More than `MAX_MEMORY_BYTES`.
    #[error("too much memory")]
    TooMuchMemory,
}

fn wrong(what: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Failure::WrongRequest(what.into()))
}

pub(crate) fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_MEMORY_BYTES {
            return Err(wasmtime::Error::new(Failure::TooMuchMemory));
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}

/// Defines them all.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker
        .func_wrap(HOST, "now", |caller: Caller<'_, Host>| caller.data().now_micros)?
        .func_wrap(HOST, "arguments", arguments)?
        .func_wrap(HOST, "row", row)?
        .func_wrap(HOST, "notice", notice)?
        .func_wrap(HOST, "raise", raise)?
        .func_wrap_async(HOST, "execute", |caller, (statement, address, length)| {
            Box::new(execute(caller, statement, address, length))
        })?
        .func_wrap_async(HOST, "emit", |caller, (address, length)| {
            Box::new(emit(caller, address, length))
        })?;
    Ok(())
}

/// The arguments' row is written if there is room for it; its size.
fn arguments(mut caller: Caller<'_, Host>, address: u32, capacity: u32) -> wasmtime::Result<u32> {
    let bytes = std::mem::take(&mut caller.data_mut().arguments);
    give(&mut caller, &bytes, address, capacity)?;
    let size = bytes.len() as u32;
    caller.data_mut().arguments = bytes;
    Ok(size)
}

/// The next row of the last statement is written if there is room for it, and is then done with; its size, or -1 if there
/// is none.
fn row(mut caller: Caller<'_, Host>, address: u32, capacity: u32) -> wasmtime::Result<i32> {
    let Some(row) = caller.data_mut().rows.pop_front() else {
        pay(&mut caller, REQUEST_FUEL)?;
        return Ok(-1);
    };
    let bytes = encode(&row);
    if !give(&mut caller, &bytes, address, capacity)? {
        caller.data_mut().rows.push_front(row);
    }
    i32::try_from(bytes.len()).map_err(|_| wrong("a row of more than 2 GiB"))
}

/// Executes a statement: rows returned or changed.
async fn execute(mut caller: Caller<'_, Host>, statement: u32, address: u32, length: u32) -> wasmtime::Result<u64> {
    pay(&mut caller, STATEMENT_FUEL)?;
    let parameters = taken_row(&mut caller, address, length)?;
    caller.data_mut().rows.clear();
    let request = Request::Execute {
        statement: statement as usize,
        parameters,
    };
    let answer = ask(&caller, request).await;
    caller.data_mut().rows = answer.rows.into();
    Ok(answer.affected)
}

/// Gives a row to the caller.
async fn emit(mut caller: Caller<'_, Host>, address: u32, length: u32) -> wasmtime::Result<()> {
    let row = taken_row(&mut caller, address, length)?;
    ask(&caller, Request::Emit(row)).await;
    Ok(())
}

/// Leaves the module's stack until the machine has been told.
async fn ask(caller: &Caller<'_, Host>, request: Request) -> Answer {
    let desk = Arc::clone(&caller.data().desk);
    lock(&desk).request = Some(request);
    poll_fn(move |_| match lock(&desk).answer.take() {
        Some(answer) => Poll::Ready(answer),
        None => Poll::Pending,
    })
    .await
}

fn notice(mut caller: Caller<'_, Host>, level: u32, address: u32, length: u32) -> wasmtime::Result<()> {
    let level = match level {
        0 => Level::Info,
        1 => Level::Notice,
        2 => Level::Warning,
        _ => return Err(wrong(format!("a notice of the unknown level {level}"))),
    };
    if length as usize > MAX_MESSAGE_BYTES {
        return Err(too_long());
    }
    let bytes = taken(&mut caller, address, length)?;
    let message = String::from_utf8(bytes).map_err(|_| wrong("a notice that is not UTF-8"))?;
    if message.contains('\0') {
        return Err(wrong("a notice with a zero byte in it"));
    }
    let mut desk = lock(&caller.data().desk);
    if desk.notices.len() < MAX_NOTICES {
        desk.notices.push(Notice { level, message });
    }
    Ok(())
}

/// Ends the call with an error: a row of its SQLSTATE, its message, and its detail and hint, if it has them.
fn raise(mut caller: Caller<'_, Host>, address: u32, length: u32) -> wasmtime::Result<()> {
    if length as usize > MAX_MESSAGE_BYTES {
        return Err(too_long());
    }
    let mut texts = Vec::new();
    for value in taken_row(&mut caller, address, length)? {
        texts.push(match value {
            Value::Null => None,
            Value::Text(text) => Some(text),
            _ => return Err(wrong("an error that is not a row of texts")),
        });
    }
    let mut texts = texts.into_iter();
    let (Some(Some(sqlstate)), Some(Some(message))) = (texts.next(), texts.next()) else {
        return Err(wrong("an error without a SQLSTATE and a message"));
    };
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    // Class 00 is success.
    if sqlstate.len() != 5 || !sqlstate.bytes().all(is_code) || sqlstate.starts_with("00") {
        return Err(wrong(format!(
            "an error with the SQLSTATE \"{}\"",
            sqlstate.escape_default()
        )));
    }
    Err(wasmtime::Error::new(Failure::Raised(StatementError::Raised {
        sqlstate,
        message,
        detail: texts.next().flatten(),
        hint: texts.next().flatten(),
    })))
}

fn too_long() -> wasmtime::Error {
    wrong(format!("a message of more than {} KiB", MAX_MESSAGE_BYTES >> 10))
}

// ---- Memory and fuel

fn pay(caller: &mut Caller<'_, Host>, fuel: u64) -> wasmtime::Result<()> {
    let left = caller.get_fuel()?;
    caller.set_fuel(left.saturating_sub(fuel))?;
    match left < fuel {
        true => Err(Trap::OutOfFuel.into()),
        false => Ok(()),
    }
}

fn memory(caller: &Caller<'_, Host>) -> wasmtime::Result<Memory> {
    caller
        .data()
        .memory
        .ok_or_else(|| wrong("a request before its call begins"))
}

fn outside(address: u32, length: u32) -> wasmtime::Error {
    wrong(format!("{length} bytes at {address} are not all in its memory"))
}

/// Bytes of the module's memory.
fn taken(caller: &mut Caller<'_, Host>, address: u32, length: u32) -> wasmtime::Result<Vec<u8>> {
    let memory = memory(caller)?;
    let bytes = memory.data(&*caller).get(address as usize..);
    let bytes = bytes.and_then(|bytes| bytes.get(..length as usize));
    let bytes = bytes.ok_or_else(|| outside(address, length))?.to_vec();
    pay(caller, REQUEST_FUEL + u64::from(length))?;
    Ok(bytes)
}

fn taken_row(caller: &mut Caller<'_, Host>, address: u32, length: u32) -> wasmtime::Result<Vec<Value>> {
    let bytes = taken(caller, address, length)?;
    decode(&bytes).map_err(wrong)
}

/// Writes bytes into the module's memory if they are no more than it has room for there.
fn give(caller: &mut Caller<'_, Host>, bytes: &[u8], address: u32, capacity: u32) -> wasmtime::Result<bool> {
    pay(caller, REQUEST_FUEL + bytes.len() as u64)?;
    let memory = memory(caller)?;
    let place = memory.data_mut(&mut *caller).get_mut(address as usize..);
    let place = place.and_then(|place| place.get_mut(..capacity as usize));
    let place = place.ok_or_else(|| outside(address, capacity))?;
    match place.get_mut(..bytes.len()) {
        Some(place) => {
            place.copy_from_slice(bytes);
            Ok(true)
        }
        None => Ok(false),
    }
}
