//! The machine that runs a procedure's code.

use std::collections::VecDeque;

use super::machine::{
    Collector, MAX_KEPT_BYTES, Machine, Next, RowsTaken, arguments_of, as_variable, size_of_row, too_many, variable,
};
use super::{Body, Code, Into, Level, MAX_NOTICES, Notice, Op, Piece, Procedure, Raise};
use crate::error::StatementError;
use crate::plan::cast::fits;
use crate::plan::eval::{Datum, Datums, Scope, ValueRefs};
use crate::plan::{Expr, StatementContext};
use crate::value::{DataType, Value, ValueRef};

/// Instructions that one call may execute; a second or so, during which its partition does nothing else.
pub const MAX_STEPS: u64 = 5_000_000;

/// A call on its way.
pub struct Execution<'p> {
    procedure: &'p Procedure,
    code: &'p Code,
    context: StatementContext,
    frame: Vec<Value>,
    /// The next instruction.
    at: usize,
    steps: u64,
    /// The rows of the loops that are under way.
    kept: Vec<VecDeque<Vec<Value>>>,
    kept_bytes: usize,
    notices: Vec<Notice>,
    /// Rows returned to the caller.
    returned: u64,
    executing: Option<&'p Into>,
    /// The row that the caller is to be given.
    row: &'p [Expr],
}

impl<'p> Execution<'p> {
    /// A call with these arguments, one a parameter that is given (IN, INOUT), of its type or NULL.
    pub fn new(
        procedure: &'p Procedure,
        arguments: &[Value],
        context: StatementContext,
    ) -> Result<Self, StatementError> {
        let Body::Code(code) = &procedure.body else {
            let message = format!("procedure {} is a module, not code", procedure.name);
            return Err(StatementError::TypeMismatch(message));
        };
        let mut frame = vec![Value::Null; code.slots.len()];
        let mut given = arguments_of(procedure, arguments)?.into_iter();
        for (slot, parameter) in procedure.parameters.iter().enumerate() {
            if parameter.is_input
                && let Some(argument) = given.next()
            {
                frame[slot] = argument;
            }
        }
        let mut execution = Self {
            procedure,
            code,
            context,
            frame,
            at: 0,
            steps: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            notices: Vec::new(),
            returned: 0,
            executing: None,
            row: &[],
        };
        execution.set(code.found, Value::Boolean(false));
        execution.set(code.row_count, Value::BigInt(0));
        Ok(execution)
    }
}

impl Machine for Execution<'_> {
    /// The slots' values.
    fn frame(&self) -> &[Value] {
        &self.frame
    }

    fn put(&mut self, slot: usize, value: i64) -> Result<(), StatementError> {
        self.take(slot, Value::BigInt(value))
    }

    fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn returned(&self) -> u64 {
        self.returned
    }

    fn advance(&mut self) -> Result<Next, StatementError> {
        debug_assert!(
            self.executing.is_none(),
            "what came of the last statement has been told"
        );
        while let Some(op) = self.code.ops.get(self.at) {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                let name = self.procedure.name.clone();
                return Err(StatementError::RanTooLong { name, limit: MAX_STEPS });
            }
            self.at += 1;
            match op {
                Op::Assign { slot, value } => {
                    let value = self.convert(*slot, value)?;
                    self.set(*slot, value);
                }
                Op::AssignNotNull { slot, value, otherwise } => {
                    let value = self.convert(*slot, value)?;
                    if value == Value::Null {
                        return Err(StatementError::NullVariable(otherwise.clone()));
                    }
                    self.set(*slot, value);
                }
                &Op::NextValue { slot, sequence } => return Ok(Next::Value { sequence, slot }),
                Op::Jump(target) => self.at = *target,
                Op::JumpUnless { condition, target } => {
                    if !condition.is_true(&self.scope())? {
                        self.at = *target;
                    }
                }
                Op::Execute { statement, into } => {
                    self.executing = Some(into);
                    return Ok(Next::Execute {
                        statement: *statement,
                        rows: taken(into),
                    });
                }
                Op::NextRow { rows, slots, done, met } => self.next_row(*rows, slots, *done, *met),
                Op::ReturnRow(values) => {
                    self.row = values;
                    return Ok(Next::Row);
                }
                Op::Raise(raise) => self.raise(raise)?,
                Op::Return => break,
            }
        }
        Ok(Next::Done)
    }

    fn give_row(&mut self, sink: &mut dyn FnMut(&[ValueRef<'_>])) -> Result<(), StatementError> {
        let row = std::mem::take(&mut self.row).iter().zip(&self.procedure.columns);
        let scope = self.scope();
        let values = row.map(|(value, (_, data_type))| variable(value.evaluate(&scope)?, *data_type));
        let values = values.collect::<Result<Datums<'_>, _>>()?;
        sink(&values.iter().map(Datum::as_ref).collect::<ValueRefs<'_>>());
        drop(values);
        self.returned += 1;
        Ok(())
    }

    fn executed(&mut self, affected: u64, rows: &mut Collector) -> Result<(), StatementError> {
        let Some(into) = self.executing.take() else {
            return Err(StatementError::TypeMismatch("no statement was asked for".to_owned()));
        };
        match into {
            Into::Nowhere => self.tell(affected),
            Into::Caller => {
                self.returned += affected;
                self.tell(affected);
            }
            Into::Exists(slot) => self.set(*slot, Value::Boolean(affected > 0)),
            Into::Slots {
                slots,
                strict,
                at_most_one,
                is_statement,
            } => {
                if *strict || !*is_statement || (*at_most_one && affected > 1) {
                    check_one(affected, *is_statement)?;
                }
                let mut first = rows.drain();
                for &slot in slots {
                    let value = first.next().unwrap_or(Value::Null);
                    self.take(slot, value)?;
                }
                if *is_statement {
                    self.tell(affected.min(1));
                }
            }
            Into::Rows(number) => self.keep(*number, rows.take_rows())?,
        }
        Ok(())
    }
}

impl Execution<'_> {
    /// FOUND and the row count.
    fn tell(&mut self, affected: u64) {
        self.set(self.code.found, Value::Boolean(affected > 0));
        self.set(self.code.row_count, Value::BigInt(affected as i64));
    }

    fn keep(&mut self, number: usize, rows: Vec<Vec<Value>>) -> Result<(), StatementError> {
        if self.kept.len() <= number {
            self.kept.resize_with(number + 1, VecDeque::new);
        }
        let before: usize = self.kept[number].iter().map(|row| size_of_row(row)).sum();
        self.kept_bytes -= before.min(self.kept_bytes);
        self.kept_bytes += rows.iter().map(|row| size_of_row(row)).sum::<usize>();
        if self.kept_bytes > MAX_KEPT_BYTES {
            return Err(too_many(self.procedure));
        }
        self.kept[number] = rows.into();
        Ok(())
    }

    fn next_row(&mut self, rows: usize, slots: &[usize], done: usize, met: usize) {
        match self.kept.get_mut(rows).and_then(VecDeque::pop_front) {
            Some(row) => {
                self.kept_bytes -= size_of_row(&row).min(self.kept_bytes);
                // They have the slots' types: the slots were made for them, or `take` would be asked.
                for (&slot, value) in slots.iter().zip(row) {
                    self.set(slot, value);
                }
                self.set(met, Value::Boolean(true));
            }
            None => self.at = done,
        }
    }

    fn raise(&mut self, raise: &Raise) -> Result<(), StatementError> {
        let mut message = String::new();
        for piece in &raise.message {
            match piece {
                Piece::Text(text) => message.push_str(text),
                Piece::Value(value) => message.push_str(&self.text(value)?.unwrap_or_else(|| "<NULL>".to_owned())),
            }
        }
        if raise.level != Level::Exception {
            if self.notices.len() < MAX_NOTICES {
                self.notices.push(Notice {
                    level: raise.level,
                    message,
                });
            }
            return Ok(());
        }
        let text = |value: &Option<Expr>| value.as_ref().map_or(Ok(None), |value| self.text(value));
        Err(StatementError::Raised {
            sqlstate: raise.sqlstate.clone(),
            message,
            detail: text(&raise.detail)?,
            hint: text(&raise.hint)?,
        })
    }

    fn text(&self, value: &Expr) -> Result<Option<String>, StatementError> {
        let value = value.evaluate(&self.scope())?;
        Ok((!value.is_null()).then(|| value.as_ref().to_text()))
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            row: None,
            lsn: 0,
            parameters: &self.frame,
            context: &self.context,
        }
    }

    fn value(&self, value: &Expr, data_type: DataType) -> Result<Value, StatementError> {
        as_variable(value.evaluate(&self.scope())?, data_type)
    }

    fn convert(&self, slot: usize, value: &Expr) -> Result<Value, StatementError> {
        let data_type = self.code.slots.get(slot).copied().unwrap_or(DataType::Text);
        self.value(value, data_type)
    }

    /// A slot takes a value of any type.
    fn take(&mut self, slot: usize, value: Value) -> Result<(), StatementError> {
        let data_type = self.code.slots.get(slot).copied().unwrap_or(DataType::Text);
        let value = match value {
            value if fits(value.as_ref(), data_type) => value,
            value => as_variable(Datum::Ref(value.as_ref()), data_type)?,
        };
        self.set(slot, value);
        Ok(())
    }

    fn set(&mut self, slot: usize, value: Value) {
        if let Some(place) = self.frame.get_mut(slot) {
            *place = value;
        }
    }
}

fn taken(into: &Into) -> RowsTaken {
    match into {
        Into::Nowhere | Into::Exists(_) => RowsTaken::Kept(0),
        Into::Slots { .. } => RowsTaken::Kept(1),
        Into::Rows(_) => RowsTaken::Kept(usize::MAX),
        Into::Caller => RowsTaken::Caller,
    }
}

/// PostgreSQL's errors of STRICT, and of a subquery that is an expression.
fn check_one(affected: u64, is_statement: bool) -> Result<(), StatementError> {
    match (affected, is_statement) {
        (0, true) => Err(StatementError::NoRow),
        (2.., true) => Err(StatementError::MoreRows),
        (2.., false) => Err(StatementError::SubqueryRows),
        _ => Ok(()),
    }
}
