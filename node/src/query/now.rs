//! `now()`: the statement's time, or its transaction's.
//!
//! DataFusion's own becomes a constant when a plan is optimised, and plans are kept. So ours stays a call in a plan: a row program
//! asks its statement's context, and in a query it is made a constant when that runs.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::arrow::temporal_conversions::timestamp_us_to_datetime;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use volt_engine::plan::StatementContext;
use volt_engine::value::DataType;

use super::types::to_arrow;

const NAME: &str = "now";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        NAME
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(to_arrow(DataType::Timestamp))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("now() without a statement".to_owned()))
    }
}

/// The function, for a session of DataFusion.
pub(super) fn now() -> ScalarUDF {
    ScalarUDF::new_from_impl(Now {
        signature: Signature::nullary(Volatility::Stable),
        aliases: vec!["current_timestamp".to_owned()],
    })
}

/// A call of it.
pub(super) fn call() -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(now()), Vec::new()))
}

/// A session to plan with: nothing in a plan is of the time when it is made.
pub(super) fn timeless(context: &SessionContext) -> SessionState {
    context.state_ref().read().clone()
}

/// A session's properties, with a statement's time for DataFusion's other functions of time. Names that a plan has got in the session stay
/// taken.
pub(super) fn properties(session: &SessionState, context: &StatementContext) -> ExecutionProps {
    let mut properties = session.execution_props().clone();
    let time = timestamp_us_to_datetime(context.now_micros);
    properties.query_execution_start_time = time.map(|time| time.and_utc());
    properties
}

/// A plan that runs at a statement's time.
pub(super) fn at(plan: LogicalPlan, context: &StatementContext) -> Result<LogicalPlan> {
    let time = ScalarValue::TimestampMicrosecond(Some(context.now_micros), None);
    let bind = |expr: Expr| match expr {
        Expr::ScalarFunction(call) if call.func.name() == NAME => {
            Ok(Transformed::yes(Expr::Literal(time.clone(), None)))
        }
        other => Ok(Transformed::no(other)),
    };
    let told = plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(bind)?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(told?.data)
}
