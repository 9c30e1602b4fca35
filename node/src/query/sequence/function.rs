//! `nextval` in a query that reads tables: DataFusion calls it, with as many values as there are rows.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::Int64Array;
use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::calls::name_in;
use crate::error::SqlError;
use crate::metadata::Metadata;
use crate::statement::SessionValues;
use crate::txn::Sequences;

const NAME: &str = "nextval";

/// See the module.
#[derive(Debug)]
struct NextValue {
    signature: Signature,
    /// Two calls of one statement are two functions, for DataFusion evaluates what is equal once.
    place: usize,
    source: Source,
}

/// Where its values come from, and who hears of them.
#[derive(Clone)]
struct Source {
    sequences: Arc<Sequences>,
    metadata: Arc<Metadata>,
    /// None: it is only planned.
    session: Option<Arc<SessionValues>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sequences")
    }
}

impl PartialEq for NextValue {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for NextValue {}

impl Hash for NextValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place.hash(state);
    }
}

impl ScalarUDFImpl for NextValue {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType> {
        Ok(ArrowType::Int64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::NotImplemented("nextval in this place".to_owned()))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for NextValue {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let failed = |error: SqlError| DataFusionError::External(Box::new(error));
        let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) = args.args.first() else {
            return Err(failed(SqlError::unsupported("nextval of what is not a constant name")));
        };
        let name = name_in(name).map_err(failed)?;
        let sequence = self.source.metadata.map().sequence_named(&name).map_err(failed)?.id;
        let mut values = Vec::with_capacity(args.number_rows);
        for left in (1..=args.number_rows).rev() {
            let wanted = u32::try_from(left).unwrap_or(u32::MAX);
            let value = self.source.sequences.take(sequence, wanted).await.map_err(failed)?;
            if let Some(session) = &self.source.session {
                session.note(sequence, value);
            }
            values.push(value);
        }
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from(values))))
    }
}

fn function(source: Source, place: usize) -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![ArrowType::Utf8], Volatility::Volatile);
    let function = NextValue {
        signature,
        place,
        source,
    };
    Arc::new(AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf())
}

/// The function, for a session of DataFusion.
pub(in crate::query) fn next_value(sequences: &Arc<Sequences>, metadata: &Arc<Metadata>) -> ScalarUDF {
    let source = Source {
        sequences: Arc::clone(sequences),
        metadata: Arc::clone(metadata),
        session: None,
    };
    ScalarUDF::clone(&function(source, 0))
}

/// A plan whose calls tell this session of their values.
pub(in crate::query) fn with_session(
    plan: LogicalPlan,
    sequences: &Arc<Sequences>,
    metadata: &Arc<Metadata>,
    session: &Arc<SessionValues>,
) -> Result<LogicalPlan> {
    let source = Source {
        sequences: Arc::clone(sequences),
        metadata: Arc::clone(metadata),
        session: Some(Arc::clone(session)),
    };
    let mut place = 0;
    let mut bind = |expr: Expr| match expr {
        Expr::ScalarFunction(call) if call.func.name() == NAME => {
            place += 1;
            let call = ScalarFunction::new_udf(function(source.clone(), place), call.args);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(&mut bind)?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    });
    Ok(rewritten?.data)
}
