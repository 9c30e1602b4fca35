//! Constants: read as PostgreSQL reads them, before DataFusion and Arrow see them.
//!
//! Of those written as text, `'\x00ff'` is two bytes, `'yes'` a boolean, and `'4x'` is no integer, with the SQLSTATE and
//! the words that say so. Of numbers, those with an exponent are written out.

use std::ops::ControlFlow;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as AstType, Expr as AstExpr, Statement, Value as AstValue, ValueWithSpan, visit_expressions_mut,
};
use rust_decimal::Decimal;
use volt_engine::plan::eval::cast_value;
use volt_engine::value::Value;

use super::types::{from_arrow, to_arrow, to_scalar};
use crate::error::SqlError;

/// Writes `1.5e3` as `1500`. What has more digits than a NUMERIC can have becomes a double.
pub(super) fn write_out_exponents(statement: &mut Statement) {
    let _ = visit_expressions_mut(statement, |expr| {
        if let AstExpr::Value(ValueWithSpan {
            value: AstValue::Number(digits, _),
            ..
        }) = expr
            && digits.contains(['e', 'E'])
        {
            *expr = match Decimal::from_scientific(digits) {
                Ok(number) => AstExpr::value(AstValue::Number(number.to_string(), false)),
                Err(_) => AstExpr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(AstExpr::value(AstValue::SingleQuotedString(digits.clone()))),
                    data_type: AstType::DoublePrecision,
                    array: false,
                    format: None,
                },
            };
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The rule; it comes after the one that puts casts around constants.
#[derive(Debug)]
pub(super) struct TextLiterals;

impl AnalyzerRule for TextLiterals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(read_literal)?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })
        });
        Ok(rewritten?.data)
    }

    fn name(&self) -> &'static str {
        "text_literals"
    }
}

fn read_literal(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::Cast(cast) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &*cast.expr else {
        return Ok(Transformed::no(expr));
    };
    let target = cast.field.data_type();
    let ours = from_arrow(target);
    if to_arrow(ours) != *target {
        return Ok(Transformed::no(expr));
    }
    let failed = |error: SqlError| DataFusionError::External(Box::new(error));
    let value = cast_value(Value::Text(text.clone()), ours).map_err(|error| failed(error.into()))?;
    let scalar = to_scalar(&value, ours).map_err(failed)?;
    Ok(Transformed::yes(Expr::Literal(scalar, None)))
}
