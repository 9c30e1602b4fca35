//! What queries of DataFusion may take for sorting, grouping and joining: a bounded pool, and no disk behind it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

/// What all queries of this node may hold at a time; one that needs more fails with 53200. The rows themselves, and
/// what is on its way to a client, don't count.
pub(super) const QUERY_MEMORY_BYTES: usize = 512 << 20;

/// The surroundings of queries that may take so much.
pub(super) fn runtime(bytes: usize) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::query::errors::from_datafusion;

    async fn sort(bytes: usize) -> Result<usize> {
        let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime(bytes)?);
        let values: Vec<String> = (0..1_000).map(|number| format!("({})", number % 7)).collect();
        let sql = format!("SELECT a.column1 FROM (VALUES {}) a ORDER BY 1", values.join(","));
        let batches = context.sql(&sql).await?.collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }

    #[tokio::test]
    async fn a_query_that_needs_too_much_memory_fails_and_says_so() {
        assert_eq!(sort(QUERY_MEMORY_BYTES).await.unwrap(), 1_000);
        let error = from_datafusion(sort(1_000).await.unwrap_err(), "");
        assert_eq!(error.sqlstate, "53200", "{error:?}");
    }
}
