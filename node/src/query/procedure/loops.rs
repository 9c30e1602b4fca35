//! Loops, and what leaves them.

use volt_engine::plan::{BinaryOp, Expr};
use volt_engine::procedure::{Into, Level, Op, Piece, Raise};
use volt_engine::value::{DataType, Value};

use super::body::{Stmt, Target, Text};
use super::compile::{Compiled, Compiler};
use super::emit::located;
use super::scope::{Slot, Variable};
use crate::error::SqlError;

/// A loop that is open: the jumps that leave it, and where CONTINUE goes, if that is known already.
#[derive(Default)]
pub(super) struct Loop {
    exits: Vec<usize>,
    continues: Vec<usize>,
}

impl Compiler<'_, '_> {
    /// A loop's body, and the way back; `exits` leave the loop too.
    pub(super) async fn loop_body(&mut self, body: &[Stmt], begin: usize, exits: Vec<usize>) -> Compiled {
        self.loops.push(Loop::default());
        self.statements(body).await?;
        let left = self.loops.pop().unwrap_or_default();
        left.continues.into_iter().for_each(|jump| self.emit.land(jump));
        self.emit.op(Op::Jump(begin));
        exits
            .into_iter()
            .chain(left.exits)
            .for_each(|jump| self.emit.land(jump));
        Ok(())
    }

    pub(super) async fn leave(&mut self, goes_on: bool, when: Option<&Text>, line: usize) -> Compiled {
        let word = if goes_on { "CONTINUE" } else { "EXIT" };
        if self.loops.is_empty() {
            let error = SqlError::new("42601", format!("{word} cannot be used outside a loop"));
            return Err(located(error, line));
        }
        let stay = match when {
            Some(condition) => {
                let condition = self.emit.expression(condition).await?;
                Some(self.emit.jump_unless(condition))
            }
            None => None,
        };
        let jump = self.emit.op(Op::Jump(0));
        if let Some(innermost) = self.loops.last_mut() {
            match goes_on {
                true => innermost.continues.push(jump),
                false => innermost.exits.push(jump),
            }
        }
        stay.into_iter().for_each(|jump| self.emit.land(jump));
        Ok(())
    }

    /// The counter is a BIGINT of its own, so that the last INTEGER is no overflow and the body can't disturb it.
    pub(super) async fn for_range(&mut self, statement: &Stmt) -> Compiled {
        let Stmt::ForRange {
            name,
            reverse,
            from,
            to,
            step,
            body,
            line,
        } = statement
        else {
            return Ok(());
        };
        let counter = self.bound(from, "lower bound of FOR loop").await?;
        let last = self.bound(to, "upper bound of FOR loop").await?;
        let by = match step {
            Some(step) => self.bound(step, "BY value of FOR loop").await?,
            None => {
                let by = self.emit.slot(DataType::BigInt)?;
                self.emit.assign(by, Expr::Literal(Value::BigInt(1)));
                by
            }
        };
        let too_small = binary(BinaryOp::LessOrEqual, by, Expr::Literal(Value::BigInt(0)));
        let fine = self.emit.jump_unless(too_small);
        self.emit.op(Op::Raise(Raise {
            level: Level::Exception,
            message: vec![Piece::Text("BY value of FOR loop must be greater than zero".to_owned())],
            sqlstate: "22023".to_owned(),
            detail: None,
            hint: None,
        }));
        self.emit.land(fine);
        let met = self.not_met()?;
        let begin = self.emit.here();
        let within = if *reverse {
            BinaryOp::GreaterOrEqual
        } else {
            BinaryOp::LessOrEqual
        };
        let exit = self.emit.jump_unless(binary(within, counter, Expr::Parameter(last)));
        let variable = self.emit.slot(DataType::Int)?;
        self.emit.assign(variable, Expr::Parameter(counter));
        self.emit.assign(met, Expr::Literal(Value::Boolean(true)));
        let onwards = if *reverse { BinaryOp::Subtract } else { BinaryOp::Add };
        self.emit.assign(counter, binary(onwards, counter, Expr::Parameter(by)));
        self.emit.scopes.open();
        let declared = self.emit.scopes.declare(name, Variable::Slot(Slot::plain(variable)));
        declared.map_err(|error| located(error, *line))?;
        self.loop_body(body, begin, vec![exit]).await?;
        self.emit.scopes.close();
        self.emit.assign(self.emit.code.found, Expr::Parameter(met));
        Ok(())
    }

    async fn bound(&mut self, text: &Text, what: &str) -> Result<usize, SqlError> {
        let value = self.emit.expression(text).await?;
        let slot = self.emit.slot(DataType::BigInt)?;
        self.emit.op(Op::AssignNotNull {
            slot,
            value,
            otherwise: format!("{what} cannot be null"),
        });
        Ok(slot)
    }

    /// A slot that says whether a loop has done anything.
    fn not_met(&mut self) -> Result<usize, SqlError> {
        let met = self.emit.slot(DataType::Boolean)?;
        self.emit.assign(met, Expr::Literal(Value::Boolean(false)));
        Ok(met)
    }

    pub(super) async fn for_rows(&mut self, targets: &[Target], query: &Text, body: &[Stmt]) -> Compiled {
        let made = self.emit.statement(query).await?;
        if !made.returns_rows {
            let error = SqlError::new("42601", "a loop needs a query that returns rows");
            return Err(located(error, query.line));
        }
        let met = self.not_met()?;
        let rows = self.rows;
        self.rows += 1;
        self.emit.op(Op::Execute {
            statement: made.place,
            into: Into::Rows(rows),
        });
        // Values come with the query's types; records have them, other variables are assigned.
        let record = self.record_slots(targets, &made, query.line)?;
        let slots = match &record {
            Some(slots) => slots.clone(),
            None => {
                let slot = |column: &crate::statement::ResultColumn| self.emit.slot(column.data_type);
                made.columns.iter().map(slot).collect::<Result<Vec<_>, _>>()?
            }
        };
        let begin = self.emit.here();
        let next = self.emit.op(Op::NextRow {
            rows,
            slots: slots.clone(),
            done: 0,
            met,
        });
        if record.is_none() {
            for (target, slot) in targets.iter().zip(slots) {
                let variable = self.emit.scopes.target(target);
                let variable = variable.map_err(|error| located(error, query.line))?;
                self.put(&variable, &target.join("."), Expr::Parameter(slot));
            }
        }
        self.loop_body(body, begin, vec![next]).await?;
        self.emit.assign(self.emit.code.found, Expr::Parameter(met));
        Ok(())
    }
}

fn binary(op: BinaryOp, slot: usize, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(Expr::Parameter(slot)),
        right: Box::new(right),
    }
}
