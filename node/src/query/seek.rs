//! Where DataFusion reads a table for a condition: only the partition that can have such rows, and there perhaps by the
//! primary key or an index.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Filter, LogicalPlan, TableScan};
use volt_engine::placement::partition_index;
use volt_engine::plan::eval::{Scope, cast_value};
use volt_engine::plan::{Access, Expr, StatementContext};

use super::compile::{Seek, seek};
use super::tables::VoltTable;

/// Tells each scan under a condition where to look. The plan has no parameters any more.
pub(super) fn with_seeks(plan: LogicalPlan) -> Result<LogicalPlan> {
    let told = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::Filter(filter) = &node else {
            return Ok(Transformed::no(node));
        };
        let LogicalPlan::TableScan(scan) = &*filter.input else {
            return Ok(Transformed::no(node));
        };
        let provider = source_as_provider(&scan.source)?;
        let Some(narrowed) = provider
            .downcast_ref::<VoltTable>()
            .and_then(|table| narrowed(table, filter))
        else {
            return Ok(Transformed::no(node));
        };
        let scan = TableScan {
            source: provider_as_source(Arc::new(narrowed)),
            ..scan.clone()
        };
        let filter = Filter::try_new(filter.predicate.clone(), Arc::new(LogicalPlan::TableScan(scan)))?;
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    })?;
    Ok(told.data)
}

/// The table as a scan under this condition must see it; None: all of it.
fn narrowed(of: &VoltTable, filter: &Filter) -> Option<VoltTable> {
    let Seek { access, partition_key } = seek(&of.table, &filter.predicate)?;
    let partitions = match partition_key.as_ref().and_then(|key| only_partition(of, key)) {
        Some(index) => vec![*of.partitions.get(index as usize)?],
        None => of.partitions.clone(),
    };
    let access = match access {
        Access::Scan => None,
        access => Some(access),
    };
    Some(of.narrowed(partitions, access))
}

/// Which of its group's partitions has the rows with this key; None: what it is equal to is no value of the column.
fn only_partition(of: &VoltTable, key: &Expr) -> Option<u32> {
    let column = of.table.columns.get(of.table.partition_column?)?;
    let context = StatementContext { now_micros: 0 };
    let scope = Scope {
        row: None,
        lsn: 0,
        parameters: &[],
        context: &context,
    };
    let value = cast_value(key.eval(&scope).ok()?, column.data_type).ok()?;
    Some(partition_index(value.as_ref(), of.partitions.len() as u32))
}
