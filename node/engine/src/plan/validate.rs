//! Checks a program, where it is made and where it comes over the wire: no column out of range, no row of the wrong length, no bottomless expression.

use super::{Access, Action, Expr, OnConflict, Program, Stage};
use crate::error::StatementError;

/// Deeper expressions are refused: evaluation recurses.
pub const MAX_EXPRESSION_DEPTH: usize = 256;
/// More stages are refused: each feeds the next by a call.
pub const MAX_STAGES: usize = 32;

impl Program {
    /// Everything that a program must satisfy to be run; the engine never panics on one that doesn't, but a program
    /// that passes fails only because of its data.
    pub fn validate(&self) -> Result<(), StatementError> {
        let columns = self.columns.len();
        if self.primary_key.is_empty() || self.primary_key.iter().any(|&column| column >= columns) {
            return Err(malformed("its primary key is not of its columns"));
        }
        check_all(self.checks.iter().map(|check| &check.condition), columns)?;
        check_all(self.returning.iter().flatten(), columns)?;
        self.check_on_conflict()?;
        match &self.action {
            Action::Select { .. } | Action::Truncate { .. } if self.returning.is_some() => {
                Err(malformed("it writes no rows that it could return"))
            }
            Action::Select {
                access,
                filter,
                stages,
                project,
                ..
            } => {
                self.check_access(access)?;
                check_all(filter.iter(), columns)?;
                check_all(project.iter(), check_stages(stages, columns)?)
            }
            Action::Insert { rows } => {
                if rows.iter().any(|row| row.len() != columns) {
                    return Err(malformed("a row has not one value a column"));
                }
                check_all(rows.iter().flatten(), 0)
            }
            Action::Update { access, filter, set } => {
                self.check_access(access)?;
                if set.iter().any(|&(column, _)| column >= columns) {
                    return Err(malformed("it sets a column out of range"));
                }
                check_all(filter.iter().chain(set.iter().map(|(_, value)| value)), columns)
            }
            Action::Truncate { .. } => Ok(()),
            Action::Delete { access, filter } => {
                self.check_access(access)?;
                check_all(filter.iter(), columns)
            }
        }
    }

    fn check_on_conflict(&self) -> Result<(), StatementError> {
        let is_insert = matches!(self.action, Action::Insert { .. });
        match &self.on_conflict {
            Some(_) if !is_insert => Err(malformed("it puts no rows that could meet others")),
            None | Some(OnConflict::Nothing) => Ok(()),
            Some(OnConflict::Update { set, filter }) => {
                let columns = self.columns.len();
                let may_change = |place: &usize| *place < columns && !self.primary_key.contains(place);
                if !set.iter().all(|(place, _)| may_change(place)) {
                    return Err(malformed("it sets a column of the primary key, or one out of range"));
                }
                check_all(filter.iter().chain(set.iter().map(|(_, value)| value)), 2 * columns)
            }
        }
    }

    fn check_access(&self, access: &Access) -> Result<(), StatementError> {
        match access {
            Access::Scan => Ok(()),
            Access::Point(values) if values.len() != self.primary_key.len() => {
                Err(malformed("a point has not one value a key column"))
            }
            Access::Prefix(values) if values.is_empty() || values.len() > self.primary_key.len() => {
                Err(malformed("a prefix is not of its key"))
            }
            Access::Point(values) | Access::Prefix(values) => check_all(values.iter(), 0),
            Access::Range(range) => {
                let bounds = range.from.iter().chain(&range.to);
                let length = range.prefix.len() + usize::from(bounds.clone().next().is_some());
                if length > self.primary_key.len() {
                    return Err(malformed("a range is not of its key"));
                }
                check_all(range.prefix.iter().chain(bounds.map(|bound| &bound.value)), 0)
            }
            Access::Index(index) => {
                let range = &index.range;
                let bounds = range.from.iter().chain(&range.to);
                let length = range.prefix.len() + usize::from(bounds.clone().next().is_some());
                if length > index.shape.columns.len() {
                    return Err(malformed("a range is not of its index"));
                }
                let mut places = index.shape.columns.iter().map(|column| column.place);
                if places.any(|place| place >= self.columns.len()) {
                    return Err(malformed("an index's column is out of range"));
                }
                check_all(index.shape.predicate.iter(), self.columns.len())?;
                check_all(range.prefix.iter().chain(bounds.map(|bound| &bound.value)), 0)
            }
        }
    }
}

/// How many columns the rows of the last stage have.
fn check_stages(stages: &[Stage], mut columns: usize) -> Result<usize, StatementError> {
    if stages.len() > MAX_STAGES {
        return Err(StatementError::TooDeep { limit: MAX_STAGES });
    }
    for stage in stages {
        match stage {
            Stage::Filter(condition) => check_all([condition].into_iter(), columns)?,
            Stage::Project(exprs) => {
                check_all(exprs.iter(), columns)?;
                columns = exprs.len();
            }
            Stage::Limit { skip, fetch } => check_all(skip.iter().chain(fetch), 0)?,
            Stage::Sort(keys) => check_all(keys.iter().map(|key| &key.expr), columns)?,
            Stage::Aggregate { group, aggregates } => {
                let arguments = aggregates.iter().flat_map(|one| one.argument.iter().chain(&one.filter));
                check_all(group.iter().chain(arguments), columns)?;
                columns = group.len() + aggregates.len();
            }
        }
    }
    Ok(columns)
}

fn malformed(what: &str) -> StatementError {
    StatementError::TypeMismatch(format!("malformed program: {what}"))
}

pub(crate) fn check_all<'a>(exprs: impl Iterator<Item = &'a Expr>, columns: usize) -> Result<(), StatementError> {
    // An explicit stack: this is what guards recursion.
    let mut open: Vec<(&Expr, usize)> = exprs.map(|expr| (expr, 1)).collect();
    while let Some((expr, depth)) = open.pop() {
        if depth > MAX_EXPRESSION_DEPTH {
            return Err(StatementError::TooDeep {
                limit: MAX_EXPRESSION_DEPTH,
            });
        }
        let inside = depth + 1;
        match expr {
            Expr::Column(column) if *column >= columns => return Err(malformed("a column is out of range")),
            Expr::Version(_) if columns == 0 => return Err(malformed("there is no row to take a version from")),
            Expr::Column(_) | Expr::Parameter(_) | Expr::Literal(_) | Expr::Version(_) => {}
            Expr::Binary { left, right, .. } => open.extend([(&**left, inside), (&**right, inside)]),
            Expr::Unary { operand, .. } | Expr::Cast { operand, .. } => open.push((operand, inside)),
            Expr::InList { operand, list, .. } => {
                open.push((operand, inside));
                open.extend(list.iter().map(|item| (item, inside)));
            }
            Expr::Like { operand, pattern, .. } => open.extend([(&**operand, inside), (&**pattern, inside)]),
            Expr::Case { arms, otherwise } => {
                open.extend(
                    arms.iter()
                        .flat_map(|(condition, value)| [(condition, inside), (value, inside)]),
                );
                open.extend(otherwise.iter().map(|value| (&**value, inside)));
            }
            Expr::Call { arguments, .. } => open.extend(arguments.iter().map(|argument| (argument, inside))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::UnaryOp;

    #[test]
    fn depth_and_columns_are_bounded() {
        let nest = |depth: usize| {
            (1..depth).fold(Expr::Column(0), |operand, _| Expr::Unary {
                op: UnaryOp::Not,
                operand: Box::new(operand),
            })
        };
        assert!(check_all([nest(MAX_EXPRESSION_DEPTH)].iter(), 1).is_ok());
        assert!(check_all([nest(MAX_EXPRESSION_DEPTH + 1)].iter(), 1).is_err());
        assert!(check_all([Expr::Column(1)].iter(), 1).is_err());
        assert!(check_all([Expr::Version(0)].iter(), 1).is_ok());
        assert!(check_all([Expr::Version(0)].iter(), 0).is_err());
    }
}
