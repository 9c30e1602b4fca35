//! The machine of a module: it polls the module's own stack by hand, until that asks for something or ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use volt_engine::error::StatementError;
use volt_engine::plan::StatementContext;
use volt_engine::procedure::{Collector, Machine, Next, Notice, Parameter, Procedure, RowsTaken, as_type};
use volt_engine::value::{DataType, Value, ValueRef};
use wasmtime::{InstancePre, PoolConcurrencyLimitError, Store, Trap};

use crate::host::{Answer, Desk, Failure, Host, Request, lock};
use crate::limits::{FUEL, MAX_CALLS, MAX_MEMORY_BYTES, PAUSE_FUEL};
use crate::wire::encode;
use crate::{ENTRY, MEMORY};

type Running = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

/// A call on its way. Dropped before its end, it ends there.
pub struct Call<'p> {
    procedure: &'p Procedure,
    /// None: it has ended.
    running: Option<Running>,
    desk: Arc<Mutex<Desk>>,
    /// The parameters of the statement at hand.
    frame: Vec<Value>,
    /// The row that the caller is to be given.
    row: Vec<Value>,
    returned: u64,
}

impl<'p> Call<'p> {
    pub(crate) fn new(
        pre: InstancePre<Host>,
        procedure: &'p Procedure,
        arguments: &[Value],
        context: &StatementContext,
    ) -> Self {
        let desk = Arc::<Mutex<Desk>>::default();
        let host = Host {
            memory: None,
            arguments: encode(arguments),
            now_micros: context.now_micros,
            desk: Arc::clone(&desk),
            rows: VecDeque::new(),
        };
        Self {
            procedure,
            running: Some(Box::pin(run(pre, host))),
            desk,
            frame: Vec::new(),
            row: Vec::new(),
            returned: 0,
        }
    }

    fn wrong(&self, what: impl Into<String>) -> StatementError {
        StatementError::WrongRequest {
            name: self.procedure.name.clone(),
            what: what.into(),
        }
    }

    fn asked(&mut self, request: Option<Request>) -> Result<Next, StatementError> {
        match request {
            None => Ok(Next::Pause),
            Some(Request::Execute { statement, parameters }) => {
                self.frame = self.parameters(statement, parameters)?;
                Ok(Next::Execute {
                    statement,
                    rows: RowsTaken::Kept(usize::MAX),
                })
            }
            Some(Request::Emit(row)) => {
                self.row = self.row_of(row)?;
                self.returned += 1;
                lock(&self.desk).answer = Some(Answer::default());
                Ok(Next::Row)
            }
        }
    }

    /// A statement's parameters, as its types.
    fn parameters(&self, statement: usize, given: Vec<Value>) -> Result<Vec<Value>, StatementError> {
        let Some(wanted) = self.procedure.statements.get(statement) else {
            let count = self.procedure.statements.len();
            return Err(self.wrong(format!("statement {statement} of {count}, counted from 0")));
        };
        let wanted = &wanted.parameters;
        if wanted.len() != given.len() {
            return Err(self.wrong(format!(
                "{} parameters for statement {statement}, which has {}",
                given.len(),
                wanted.len()
            )));
        }
        let one = |(value, data_type): (&Value, &DataType)| as_type(value, *data_type);
        given.iter().zip(wanted).map(one).collect()
    }

    /// A row for the caller, as the types of its columns.
    fn row_of(&self, given: Vec<Value>) -> Result<Vec<Value>, StatementError> {
        let columns = &self.procedure.columns;
        if columns.is_empty() {
            return Err(self.wrong("it returns a row, and was created without columns or OUT arguments"));
        }
        if columns.len() != given.len() {
            return Err(self.wrong(format!(
                "it returns a row of {} values, not {}",
                given.len(),
                columns.len()
            )));
        }
        if self.has_outputs() && self.returned > 0 {
            return Err(self.wrong("it returns its OUT arguments twice"));
        }
        let one = |(value, (_, data_type)): (&Value, &(String, DataType))| as_type(value, *data_type);
        given.iter().zip(columns).map(one).collect()
    }

    fn has_outputs(&self) -> bool {
        self.procedure
            .parameters
            .iter()
            .any(|parameter: &Parameter| parameter.is_output)
    }

    fn ended(&self) -> Result<Next, StatementError> {
        match self.has_outputs() && self.returned == 0 {
            true => Err(self.wrong("it has OUT arguments and returns none")),
            false => Ok(Next::Done),
        }
    }

    /// Why the module's stack ended.
    fn failed(&self, error: &wasmtime::Error) -> StatementError {
        let name = self.procedure.name.clone();
        match error.downcast_ref::<Failure>() {
            Some(Failure::Raised(raised)) => return raised.clone(),
            Some(Failure::WrongRequest(what)) => return self.wrong(what),
            Some(Failure::TooMuchMemory) => {
                let limit_bytes = MAX_MEMORY_BYTES;
                return StatementError::TooMuchMemory { name, limit_bytes };
            }
            None => {}
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return StatementError::TooManyModules { limit: MAX_CALLS };
        }
        let reason = match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => return StatementError::OutOfFuel { name, limit: FUEL },
            Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
            None => format!("{error:#}"),
        };
        StatementError::Trapped { name, reason }
    }
}

impl Machine for Call<'_> {
    /// A module's statements take none (CREATE PROCEDURE sees to it).
    fn put(&mut self, _: usize, _: i64) -> Result<(), StatementError> {
        Err(StatementError::TypeMismatch(
            "a module was given a value of a sequence".to_owned(),
        ))
    }

    fn advance(&mut self) -> Result<Next, StatementError> {
        let Some(running) = &mut self.running else {
            return Ok(Next::Done);
        };
        match running.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => {
                self.running = None;
                match ended {
                    Ok(()) => self.ended(),
                    Err(error) => Err(self.failed(&error)),
                }
            }
            Poll::Pending => {
                let request = lock(&self.desk).request.take();
                self.asked(request)
            }
        }
    }

    fn frame(&self) -> &[Value] {
        &self.frame
    }

    fn give_row(&mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Result<(), StatementError> {
        sink(
            &std::mem::take(&mut self.row)
                .iter()
                .map(Value::as_ref)
                .collect::<Vec<_>>(),
        );
        Ok(())
    }

    fn executed(&mut self, affected: u64, rows: &mut Collector) -> Result<(), StatementError> {
        let rows = rows.take_rows();
        lock(&self.desk).answer = Some(Answer { affected, rows });
        Ok(())
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut lock(&self.desk).notices)
    }

    fn returned(&self) -> u64 {
        self.returned
    }
}

/// A module's whole life in one call.
async fn run(pre: InstancePre<Host>, host: Host) -> wasmtime::Result<()> {
    let mut store = Store::new(pre.module().engine(), host);
    store.limiter(|host| host);
    store.set_fuel(FUEL)?;
    store.fuel_async_yield_interval(Some(PAUSE_FUEL))?;
    let instance = pre.instantiate_async(&mut store).await?;
    store.data_mut().memory = instance.get_memory(&mut store, MEMORY);
    let entry = instance.get_typed_func::<(), ()>(&mut store, ENTRY)?;
    entry.call_async(&mut store, ()).await
}
