//! Checks a procedure, where it is made and where the metadata group takes it in: no slot, statement or target out of range.

use super::{Body, Code, Into, MAX_MODULE_BYTES, MAX_PARTS, Op, Piece, Procedure, Raise};
use crate::error::StatementError;
use crate::plan::Expr;
use crate::plan::validate::check_all;
use crate::value::DataType;

impl Procedure {
    /// Everything that a procedure must satisfy to be run; a machine never panics on one that doesn't.
    pub fn validate(&self) -> Result<(), StatementError> {
        if self.statements.len() > MAX_PARTS {
            return Err(malformed(&format!("it has more than {MAX_PARTS} statements")));
        }
        if let Some(by) = &self.partition_by
            && by.parameter >= self.parameters.len()
        {
            return Err(malformed("it is partitioned by a parameter that it has not"));
        }
        for statement in &self.statements {
            match &statement.program {
                Some(program) => program.validate()?,
                None if self.partition_by.is_some() => {
                    return Err(malformed("a statement has nothing to run in its partition"));
                }
                None => {}
            }
            check_all(statement.keys.iter(), 0)?;
            let slots: Vec<usize> = statement.sequences.iter().map(|(_, slot)| *slot).collect();
            match &self.body {
                Body::Code(code) => code.check_slots(&slots)?,
                Body::Module(_) if !slots.is_empty() => {
                    return Err(malformed("a module's statement takes values of sequences"));
                }
                Body::Module(_) => {}
            }
        }
        match &self.body {
            Body::Code(code) => self.check_code(code),
            Body::Module(bytes) if bytes.len() > MAX_MODULE_BYTES => {
                Err(malformed(&format!("it has more than {MAX_MODULE_BYTES} bytes")))
            }
            Body::Module(_) => Ok(()),
        }
    }

    fn check_code(&self, code: &Code) -> Result<(), StatementError> {
        for (what, count) in [("instructions", code.ops.len()), ("variables", code.slots.len())] {
            if count > MAX_PARTS {
                return Err(malformed(&format!("it has more than {MAX_PARTS} {what}")));
            }
        }
        let of_type = |slot: usize, wanted: DataType| code.slots.get(slot) == Some(&wanted);
        if !of_type(code.found, DataType::Boolean) || !of_type(code.row_count, DataType::BigInt) {
            return Err(malformed("FOUND and the row count have no slots of their types"));
        }
        let types_agree = self
            .parameters
            .iter()
            .zip(&code.slots)
            .all(|(parameter, slot)| parameter.data_type == *slot);
        if self.parameters.len() > code.slots.len() || !types_agree {
            return Err(malformed("its parameters are not its first slots"));
        }
        code.ops.iter().try_for_each(|op| self.check_op(code, op))
    }

    fn check_op(&self, code: &Code, op: &Op) -> Result<(), StatementError> {
        match op {
            Op::Assign { slot, value } | Op::AssignNotNull { slot, value, .. } => {
                code.check_slots(&[*slot])?;
                check_all([value].into_iter(), 0)
            }
            Op::NextValue { slot, .. } => code.check_slots(&[*slot]),
            Op::Jump(target) => code.check_target(*target),
            Op::JumpUnless { condition, target } => {
                code.check_target(*target)?;
                check_all([condition].into_iter(), 0)
            }
            Op::Execute { statement, into } => {
                if *statement >= self.statements.len() {
                    return Err(malformed("a statement is out of range"));
                }
                match into {
                    Into::Slots { slots, .. } => code.check_slots(slots),
                    Into::Exists(slot) => code.check_slots(&[*slot]),
                    Into::Rows(rows) => check_rows(*rows),
                    Into::Nowhere | Into::Caller => Ok(()),
                }
            }
            Op::NextRow { rows, slots, done, met } => {
                check_rows(*rows)?;
                code.check_slots(slots)?;
                code.check_slots(&[*met])?;
                code.check_target(*done)
            }
            Op::ReturnRow(values) if values.len() != self.columns.len() => {
                Err(malformed("a returned row has not one value a column"))
            }
            Op::ReturnRow(values) => check_all(values.iter(), 0),
            Op::Raise(raise) => check_all(raised(raise), 0),
            Op::Return => Ok(()),
        }
    }
}

impl Code {
    fn check_slots(&self, slots: &[usize]) -> Result<(), StatementError> {
        if slots.iter().all(|slot| *slot < self.slots.len()) {
            return Ok(());
        }
        Err(malformed("a slot is out of range"))
    }

    fn check_target(&self, target: usize) -> Result<(), StatementError> {
        if target <= self.ops.len() {
            return Ok(());
        }
        Err(malformed("a jump leads out of its code"))
    }
}

fn raised(raise: &Raise) -> impl Iterator<Item = &Expr> {
    let values = raise.message.iter().filter_map(|piece| match piece {
        Piece::Value(value) => Some(value),
        Piece::Text(_) => None,
    });
    values.chain(&raise.detail).chain(&raise.hint)
}

fn check_rows(rows: usize) -> Result<(), StatementError> {
    if rows < MAX_PARTS {
        return Ok(());
    }
    Err(malformed("a loop is out of range"))
}

fn malformed(what: &str) -> StatementError {
    StatementError::TypeMismatch(format!("malformed procedure: {what}"))
}
