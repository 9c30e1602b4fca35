//! Expressions: DataFusion's become a row program's.

use datafusion::common::Column as DfColumn;
use datafusion::logical_expr::expr::{Between, InList, Like, Placeholder, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Case, Expr as DfExpr, Operator};
use volt_engine::plan::{BinaryOp, Expr, Function, UnaryOp};

use super::super::types::{from_arrow, from_scalar};
use super::{Compiled, NotCompiled, not};

/// What a column's name stands for.
pub(super) type Columns<'a> = &'a dyn Fn(&DfColumn) -> Option<Expr>;

/// Compiles one expression.
pub(super) fn compile_expr(expr: &DfExpr, columns: Columns<'_>) -> Compiled<Expr> {
    let unary = |op, operand| compile_unary(op, operand, columns);
    match expr {
        DfExpr::Alias(alias) => compile_expr(&alias.expr, columns),
        DfExpr::Column(name) => columns(name).ok_or_else(|| NotCompiled::Shape(format!("column {name}"))),
        DfExpr::Literal(scalar, _) => match from_scalar(scalar) {
            Some(value) => Ok(Expr::Literal(value)),
            None => not(format!("the constant {scalar}")),
        },
        DfExpr::Placeholder(placeholder) => parameter(placeholder),
        DfExpr::BinaryExpr(operation) => compile_binary(operation, columns),
        DfExpr::Not(operand) => unary(UnaryOp::Not, operand),
        DfExpr::IsNull(operand) => unary(UnaryOp::IsNull, operand),
        DfExpr::IsNotNull(operand) => unary(UnaryOp::IsNotNull, operand),
        DfExpr::IsTrue(operand) => unary(UnaryOp::IsTrue, operand),
        DfExpr::IsFalse(operand) => unary(UnaryOp::IsFalse, operand),
        DfExpr::IsNotTrue(operand) => unary(UnaryOp::IsNotTrue, operand),
        DfExpr::IsNotFalse(operand) => unary(UnaryOp::IsNotFalse, operand),
        DfExpr::Negative(operand) => unary(UnaryOp::Negate, operand),
        DfExpr::Cast(cast) => Ok(Expr::Cast {
            operand: boxed(&cast.expr, columns)?,
            to: from_arrow(cast.field.data_type()),
        }),
        DfExpr::Between(between) => compile_between(between, columns),
        DfExpr::InList(InList { expr, list, negated }) => Ok(Expr::InList {
            operand: boxed(expr, columns)?,
            list: all(list, columns)?,
            negated: *negated,
        }),
        DfExpr::Like(like) if like.escape_char.is_none() => compile_like(like, columns),
        DfExpr::Case(case) if case.expr.is_none() => compile_case(case, columns),
        DfExpr::ScalarFunction(ScalarFunction { func, args }) => match function(func.name()) {
            Some(function) => Ok(Expr::Call {
                function,
                arguments: all(args, columns)?,
            }),
            None => not(format!("the function {}", func.name())),
        },
        other => not(format!("the expression {other}")),
    }
}

fn boxed(expr: &DfExpr, columns: Columns<'_>) -> Compiled<Box<Expr>> {
    compile_expr(expr, columns).map(Box::new)
}

fn all(exprs: &[DfExpr], columns: Columns<'_>) -> Compiled<Vec<Expr>> {
    exprs.iter().map(|expr| compile_expr(expr, columns)).collect()
}

fn compile_unary(op: UnaryOp, operand: &DfExpr, columns: Columns<'_>) -> Compiled<Expr> {
    Ok(Expr::Unary {
        op,
        operand: boxed(operand, columns)?,
    })
}

fn parameter(placeholder: &Placeholder) -> Compiled<Expr> {
    let number = placeholder.id.trim_start_matches('$').parse::<usize>().ok();
    number
        .filter(|number| *number > 0)
        .map(|number| Expr::Parameter(number - 1))
        .ok_or_else(|| NotCompiled::Shape(placeholder.id.clone()))
}

fn compile_binary(operation: &BinaryExpr, columns: Columns<'_>) -> Compiled<Expr> {
    let Some(op) = binary(operation.op) else {
        return not(format!("the operator {}", operation.op));
    };
    if matches!(op, BinaryOp::And | BinaryOp::Or) {
        let conditions = chain(operation).into_iter();
        let conditions = conditions.map(|condition| compile_expr(condition, columns));
        let whole = balanced(op, conditions.collect::<Compiled<Vec<_>>>()?);
        return whole.ok_or_else(|| NotCompiled::Shape("an empty chain".to_owned()));
    }
    Ok(Expr::Binary {
        op,
        left: boxed(&operation.left, columns)?,
        right: boxed(&operation.right, columns)?,
    })
}

/// The operands of a chain of one operator, from left to right.
fn chain(top: &BinaryExpr) -> Vec<&DfExpr> {
    let mut operands = Vec::new();
    let mut open = vec![&*top.right, &*top.left];
    while let Some(expr) = open.pop() {
        match expr {
            DfExpr::BinaryExpr(inner) if inner.op == top.op => open.extend([&*inner.right, &*inner.left]),
            other => operands.push(other),
        }
    }
    operands
}

/// A tree over these operands, in their order and no deeper than it must be: evaluation recurses. None: there are none.
pub(in crate::query) fn balanced(op: BinaryOp, mut operands: Vec<Expr>) -> Option<Expr> {
    while operands.len() > 1 {
        let mut left = operands.into_iter();
        let mut pairs = Vec::with_capacity(left.len().div_ceil(2));
        while let Some(first) = left.next() {
            pairs.push(match left.next() {
                Some(second) => both(op, first, second),
                None => first,
            });
        }
        operands = pairs;
    }
    operands.pop()
}

fn both(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

fn compile_between(between: &Between, columns: Columns<'_>) -> Compiled<Expr> {
    let operand = compile_expr(&between.expr, columns)?;
    let low = compile_expr(&between.low, columns)?;
    let high = compile_expr(&between.high, columns)?;
    let inside = both(
        BinaryOp::And,
        both(BinaryOp::GreaterOrEqual, operand.clone(), low),
        both(BinaryOp::LessOrEqual, operand, high),
    );
    if !between.negated {
        return Ok(inside);
    }
    Ok(Expr::Unary {
        op: UnaryOp::Not,
        operand: Box::new(inside),
    })
}

fn compile_like(like: &Like, columns: Columns<'_>) -> Compiled<Expr> {
    Ok(Expr::Like {
        operand: boxed(&like.expr, columns)?,
        pattern: boxed(&like.pattern, columns)?,
        negated: like.negated,
        case_insensitive: like.case_insensitive,
    })
}

fn compile_case(case: &Case, columns: Columns<'_>) -> Compiled<Expr> {
    let arms = case.when_then_expr.iter();
    let arms = arms.map(|(when, then)| Ok((compile_expr(when, columns)?, compile_expr(then, columns)?)));
    let otherwise = case.else_expr.as_deref();
    Ok(Expr::Case {
        arms: arms.collect::<Compiled<Vec<_>>>()?,
        otherwise: otherwise.map(|expr| boxed(expr, columns)).transpose()?,
    })
}

fn binary(op: Operator) -> Option<BinaryOp> {
    Some(match op {
        Operator::Eq => BinaryOp::Equal,
        Operator::NotEq => BinaryOp::NotEqual,
        Operator::Lt => BinaryOp::Less,
        Operator::LtEq => BinaryOp::LessOrEqual,
        Operator::Gt => BinaryOp::Greater,
        Operator::GtEq => BinaryOp::GreaterOrEqual,
        Operator::Plus => BinaryOp::Add,
        Operator::Minus => BinaryOp::Subtract,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::StringConcat => BinaryOp::Concatenate,
        _ => return None,
    })
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "coalesce" => Function::Coalesce,
        "nullif" => Function::NullIf,
        "lower" => Function::Lower,
        "upper" => Function::Upper,
        "character_length" | "length" | "char_length" => Function::Length,
        "abs" => Function::Abs,
        "now" => Function::Now,
        "split_part" => Function::SplitPart,
        "left" => Function::Left,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(expr: &Expr) -> String {
        match expr {
            Expr::Binary { left, right, .. } => format!("({} {})", shape(left), shape(right)),
            Expr::Column(column) => column.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_chain_becomes_a_flat_tree_in_its_order() {
        let over = |count: usize| balanced(BinaryOp::Or, (0..count).map(Expr::Column).collect());
        assert_eq!(over(0), None);
        assert_eq!(over(1).as_ref().map(shape).as_deref(), Some("0"));
        assert_eq!(over(5).as_ref().map(shape).as_deref(), Some("(((0 1) (2 3)) 4)"));
    }
}
