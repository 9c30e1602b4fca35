//! Nodes in zones: when all is whole, the copies of a partition lie in as many zones as there are copies, or zones.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::plan::{self, ZONES};
use crate::shared::Shared;
use crate::sql::{answer, connect};

/// So long replicas may be on their way to where they belong.
const SPREAD_WITHIN: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Partition, copies in sync, and their zones.
const SPREAD: &str = "SELECT r.partition_id, count(*), count(DISTINCT n.zone) FROM system.replicas AS r \
    JOIN system.nodes AS n ON r.node_id = n.node_id WHERE r.in_sync GROUP BY r.partition_id ORDER BY 1";

/// Waits until that is so.
pub async fn check(shared: &Shared, seed: u64) -> Result<(), String> {
    if !plan::has_zones(seed) {
        return Ok(());
    }
    let members = shared.members();
    let zones: BTreeSet<String> = members.iter().map(|node| plan::zone(seed, *node)).collect();
    let most = zones.len().min(ZONES as usize) as i64;
    let end = Instant::now() + SPREAD_WITHIN;
    loop {
        let wrong = match crowded(members[0], most).await {
            Ok(crowded) if crowded.is_empty() => return Ok(()),
            Ok(crowded) => format!("{crowded:?}"),
            Err(what) => what,
        };
        if Instant::now() > end {
            return Err(format!(
                "partitions are not spread over zones (number, copies, zones): {wrong}"
            ));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Partitions whose copies lie in fewer zones than they could.
async fn crowded(node: u32, most: i64) -> Result<Vec<(i32, i64, i64)>, String> {
    let client = connect(node).await.ok_or("no session")?;
    let rows = answer(client.query(SPREAD, &[])).await;
    let rows = rows.map_err(|failure| format!("{failure:?}"))?;
    let spread = rows.iter().map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2)));
    let could = |copies: i64| copies.min(most);
    Ok(spread.filter(|(_, copies, zones)| *zones < could(*copies)).collect())
}
