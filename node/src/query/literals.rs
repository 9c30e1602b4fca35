//! Constants written as text: read as PostgreSQL reads them, before Arrow's casts see them.
//!
//! `'\x00ff'` is two bytes, `'yes'` a boolean, and `'4x'` is no integer, with the SQLSTATE and the words that say so.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use volt_engine::plan::eval::cast_value;
use volt_engine::value::Value;

use super::types::{from_arrow, to_arrow, to_scalar};
use crate::error::SqlError;

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
