//! From a body's statements to flat code.

use volt_engine::plan::Expr;
use volt_engine::procedure::{Into, Op, Piece, Raise};
use volt_engine::value::{DataType, Value};

use super::body::{Block, Declaration, IntoTargets, Kind, RaiseStmt, Stmt, Target, Text};
use super::emit::{Emitter, Made, located};
use super::loops::Loop;
use super::raise;
use super::scope::{Slot, Variable};
use crate::error::SqlError;
use crate::query::ddl::type_named;

/// What the procedure returns.
pub(super) enum Returns {
    /// No rows.
    Nothing,
    /// One row of these slots, at its end: OUT and INOUT parameters.
    Row(Vec<usize>),
    /// The rows of RETURN NEXT, of these slots, and of RETURN QUERY: RETURNS TABLE, with its columns' types.
    Table(Vec<usize>, Vec<DataType>),
}

/// Compiles a body.
pub(super) struct Compiler<'a, 'e> {
    pub(super) emit: &'a mut Emitter<'e>,
    pub(super) returns: Returns,
    pub(super) loops: Vec<Loop>,
    /// Loops over rows so far.
    pub(super) rows: usize,
}

pub(super) type Compiled = Result<(), SqlError>;

impl<'a, 'e> Compiler<'a, 'e> {
    pub(super) fn new(emit: &'a mut Emitter<'e>, returns: Returns) -> Self {
        Self {
            emit,
            returns,
            loops: Vec::new(),
            rows: 0,
        }
    }

    /// The whole body, and what happens at its end.
    pub(super) async fn body(&mut self, block: &Block) -> Compiled {
        self.block(block).await?;
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        if let Returns::Row(slots) = &self.returns {
            let row = slots.iter().map(|slot| Expr::Parameter(*slot)).collect();
            self.emit.op(Op::ReturnRow(row));
        }
        self.emit.op(Op::Return);
    }

    async fn block(&mut self, block: &Block) -> Compiled {
        self.emit.scopes.open();
        for declaration in &block.declarations {
            let declared = self.declare(declaration).await;
            declared.map_err(|error| located(error, declaration.line))?;
        }
        self.statements(&block.body).await?;
        self.emit.scopes.close();
        Ok(())
    }

    async fn declare(&mut self, declaration: &Declaration) -> Compiled {
        let data_type = match &declaration.kind {
            Kind::Record | Kind::RowOf(_) if declaration.value.is_some() || declaration.is_constant => {
                return Err(SqlError::unsupported("a record with a value"));
            }
            Kind::Record => {
                return self.emit.scopes.declare(&declaration.name, Variable::Record(None));
            }
            Kind::RowOf(table) => {
                let columns = self.table(table)?;
                let fields = self.fields(columns)?;
                return self
                    .emit
                    .scopes
                    .declare(&declaration.name, Variable::Record(Some(fields)));
            }
            Kind::Scalar(written) => type_named(written)?,
            Kind::Like(names) => self.type_like(names)?,
        };
        let value = match &declaration.value {
            Some(value) => self.emit.expression(value).await?,
            None if declaration.not_null => {
                let message = format!(
                    "variable \"{}\" must have a default value, since it's declared NOT NULL",
                    declaration.name
                );
                return Err(SqlError::new("22004", message));
            }
            None => Expr::Literal(Value::Null),
        };
        let slot = self.emit.slot(data_type)?;
        let variable = Slot {
            slot,
            fixed: declaration.is_constant.then_some("is declared CONSTANT"),
            not_null: declaration.not_null,
        };
        // A block inside a loop begins anew each time.
        self.put(&variable, &declaration.name, value);
        self.emit.scopes.declare(&declaration.name, Variable::Slot(variable))
    }

    fn table(&self, name: &str) -> Result<Vec<(String, DataType)>, SqlError> {
        let table = self.emit.map.table(name);
        let table = table.ok_or_else(|| SqlError::new("42P01", format!("relation \"{name}\" does not exist")))?;
        let columns = table.present_columns();
        Ok(columns
            .map(|(_, column)| (column.name.clone(), column.data_type))
            .collect())
    }

    fn type_like(&self, names: &[String]) -> Result<DataType, SqlError> {
        if let Some(slot) = self.emit.scopes.value(names) {
            return Ok(self.emit.code.slots[slot]);
        }
        let [table, wanted] = names else {
            let message = format!("\"{}\" is not a known variable", names.join("."));
            return Err(SqlError::new("42601", message));
        };
        let columns = self.table(table)?;
        let found = columns.into_iter().find(|(column, _)| column == wanted);
        found.map(|(_, data_type)| data_type).ok_or_else(|| {
            let message = format!("column \"{wanted}\" of relation \"{table}\" does not exist");
            SqlError::new("42703", message)
        })
    }

    fn fields(&mut self, columns: Vec<(String, DataType)>) -> Result<Vec<(String, usize)>, SqlError> {
        let field = |(name, data_type)| Ok((name, self.emit.slot(data_type)?));
        columns.into_iter().map(field).collect()
    }

    /// A value goes to a variable.
    pub(super) fn put(&mut self, variable: &Slot, name: &str, value: Expr) {
        let slot = variable.slot;
        self.emit.op(match variable.not_null {
            true => Op::AssignNotNull {
                slot,
                value,
                otherwise: format!("null value cannot be assigned to variable \"{name}\" declared NOT NULL"),
            },
            false => Op::Assign { slot, value },
        });
    }

    pub(super) async fn statements(&mut self, statements: &[Stmt]) -> Compiled {
        for statement in statements {
            // Statements lie inside statements.
            Box::pin(self.statement(statement)).await?;
        }
        Ok(())
    }

    async fn statement(&mut self, statement: &Stmt) -> Compiled {
        match statement {
            Stmt::Nothing => {}
            Stmt::Block(block) => self.block(block).await?,
            Stmt::Assign { target, value } => {
                let slot = self.emit.scopes.target(target);
                let slot = slot.map_err(|error| located(error, value.line))?;
                let value = self.emit.expression(value).await?;
                self.put(&slot, &target.join("."), value);
            }
            Stmt::If { arms, otherwise } => self.if_statement(arms, otherwise).await?,
            Stmt::Loop { condition, body } => {
                let begin = self.emit.here();
                let mut exits = Vec::new();
                if let Some(condition) = condition {
                    let condition = self.emit.expression(condition).await?;
                    exits.push(self.emit.jump_unless(condition));
                }
                self.loop_body(body, begin, exits).await?;
            }
            Stmt::ForRange { .. } => self.for_range(statement).await?,
            Stmt::ForRows { targets, query, body } => self.for_rows(targets, query, body).await?,
            Stmt::Leave { goes_on, when, line } => self.leave(*goes_on, when.as_ref(), *line).await?,
            Stmt::Sql { text, into } => self.sql(text, into.as_ref()).await?,
            Stmt::Perform(text) => {
                let statement = self.emit.statement(text).await?.place;
                let into = Into::Nowhere;
                self.emit.op(Op::Execute { statement, into });
            }
            Stmt::Return => self.end(),
            Stmt::ReturnNext { line } => {
                let Returns::Table(slots, _) = &self.returns else {
                    return Err(located(no_rows(), *line));
                };
                let row = slots.iter().map(|slot| Expr::Parameter(*slot)).collect();
                self.emit.op(Op::ReturnRow(row));
            }
            Stmt::ReturnQuery(text) => self.return_query(text).await?,
            Stmt::Raise(stmt) => self.raise(stmt).await?,
            Stmt::RowCount(target, line) => {
                let slot = self.emit.scopes.target(target);
                let slot = slot.map_err(|error| located(error, *line))?;
                let count = Expr::Parameter(self.emit.code.row_count);
                self.put(&slot, &target.join("."), count);
            }
        }
        Ok(())
    }

    async fn if_statement(&mut self, arms: &[(Text, Vec<Stmt>)], otherwise: &[Stmt]) -> Compiled {
        let mut ends = Vec::new();
        for (condition, body) in arms {
            let condition = self.emit.expression(condition).await?;
            let next = self.emit.jump_unless(condition);
            self.statements(body).await?;
            ends.push(self.emit.op(Op::Jump(0)));
            self.emit.land(next);
        }
        self.statements(otherwise).await?;
        ends.into_iter().for_each(|jump| self.emit.land(jump));
        Ok(())
    }

    /// The slots of the record that takes whole rows; None: the targets are variables, one a column.
    pub(super) fn record_slots(
        &mut self,
        targets: &[Target],
        made: &Made,
        line: usize,
    ) -> Result<Option<Vec<usize>>, SqlError> {
        let wrong = |what: String| Err(located(SqlError::new("42804", what), line));
        let columns: Vec<(String, DataType)> = made
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.data_type))
            .collect();
        if let [target] = targets
            && let [name] = target.as_slice()
            && let Some(record) = self.emit.scopes.record(name)
        {
            if let Some(fields) = record.clone() {
                if fields.len() != columns.len() {
                    let (has, gives) = (fields.len(), columns.len());
                    return wrong(format!(
                        "record \"{name}\" has {has} fields and the query returns {gives} columns"
                    ));
                }
                return Ok(Some(fields.into_iter().map(|(_, slot)| slot).collect()));
            }
            let fields = self.fields(columns)?;
            let slots = fields.iter().map(|(_, slot)| *slot).collect();
            if let Some(record) = self.emit.scopes.record(name) {
                *record = Some(fields);
            }
            return Ok(Some(slots));
        }
        if targets.len() != columns.len() {
            let (wants, gives) = (targets.len(), columns.len());
            return wrong(format!(
                "there are {wants} variables and the query returns {gives} columns"
            ));
        }
        Ok(None)
    }

    async fn sql(&mut self, text: &Text, into: Option<&IntoTargets>) -> Compiled {
        let made = self.emit.statement(text).await?;
        let statement = made.place;
        let Some(IntoTargets { targets, strict }) = into else {
            if made.returns_rows {
                let error = SqlError::new("42601", "query has no destination for result data")
                    .hint("If you want to discard the results of a SELECT, use PERFORM instead.");
                return Err(located(error, text.line));
            }
            let into = Into::Nowhere;
            self.emit.op(Op::Execute { statement, into });
            return Ok(());
        };
        if !made.returns_rows {
            let error = SqlError::new("42601", "INTO used with a command that cannot return data");
            return Err(located(error, text.line));
        }
        let strict = *strict;
        let of_record = self.record_slots(targets, &made, text.line)?;
        let (slots, checked) = match of_record {
            Some(slots) => (slots, Vec::new()),
            None => {
                let variable = |target| self.emit.scopes.target(target);
                let variables = targets.iter().map(variable).collect::<Result<Vec<_>, _>>();
                let variables = variables.map_err(|error| located(error, text.line))?;
                let slots = variables.iter().map(|variable| variable.slot).collect();
                let checked = variables
                    .into_iter()
                    .zip(targets)
                    .filter(|(variable, _)| variable.not_null);
                (slots, checked.collect())
            }
        };
        let into = Into::Slots {
            slots,
            strict,
            at_most_one: made.writes,
            is_statement: true,
        };
        self.emit.op(Op::Execute { statement, into });
        for (variable, target) in checked {
            self.put(&variable, &target.join("."), Expr::Parameter(variable.slot));
        }
        Ok(())
    }

    async fn return_query(&mut self, text: &Text) -> Compiled {
        let made = self.emit.statement(text).await?;
        let Returns::Table(_, types) = &self.returns else {
            return Err(located(no_rows(), text.line));
        };
        let agree = |(column, wanted): (&crate::statement::ResultColumn, &DataType)| {
            std::mem::discriminant(&column.data_type) == std::mem::discriminant(wanted)
                || (is_text(column.data_type) && is_text(*wanted))
        };
        if made.columns.len() != types.len() || !made.columns.iter().zip(types).all(agree) {
            let error = SqlError::new("42804", "structure of query does not match procedure result type");
            return Err(located(error, text.line));
        }
        self.emit.op(Op::Execute {
            statement: made.place,
            into: Into::Caller,
        });
        Ok(())
    }

    async fn raise(&mut self, stmt: &RaiseStmt) -> Compiled {
        let Some(level) = stmt.level else { return Ok(()) };
        let fail = |error| located(error, stmt.line);
        let mut sqlstate = match &stmt.sqlstate {
            Some(condition) => Some(raise::sqlstate(condition).map_err(fail)?),
            None => None,
        };
        let mut message = match &stmt.format {
            Some(format) => {
                let mut values = Vec::new();
                for argument in &stmt.arguments {
                    values.push(self.emit.expression(argument).await?);
                }
                raise::pieces(format, values).map_err(fail)?
            }
            None => stmt.sqlstate.iter().cloned().map(Piece::Text).collect(),
        };
        let (mut detail, mut hint) = (None, None);
        for (option, value) in &stmt.using {
            match option.as_str() {
                "ERRCODE" => sqlstate = Some(raise::sqlstate(&raise::quoted(&value.sql).map_err(fail)?).map_err(fail)?),
                "MESSAGE" => message = vec![Piece::Value(self.emit.expression(value).await?)],
                "DETAIL" => detail = Some(self.emit.expression(value).await?),
                "HINT" => hint = Some(self.emit.expression(value).await?),
                other => return Err(fail(SqlError::unsupported(format!("RAISE ... USING {other}")))),
            }
        }
        self.emit.op(Op::Raise(Raise {
            level,
            message,
            sqlstate: sqlstate.unwrap_or_else(|| "P0001".to_owned()),
            detail,
            hint,
        }));
        Ok(())
    }
}

fn is_text(data_type: DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_))
}

fn no_rows() -> SqlError {
    SqlError::new("42804", "the procedure returns no rows").hint("Say which with RETURNS TABLE (column type, ...).")
}
