//! TTL: each primary removes the rows of its partitions that have expired, some at a time.
//!
//! A step is a serial transaction of its partition as any DELETE is: it runs under the partition's mutex, if nobody holds that, with
//! the lease; its effects are put on record and replicated. What has expired is decided there and then, by this node's clock and
//! by the catalog that it knows at that moment: so a row that has got a later time stays, and so does everything once every
//! node knows that a TTL is longer, or gone. Backups decide nothing. A new primary goes on where the rows are.
//!
//! Bounded: a step removes no more rows than the TTL's batch size, and a second has no more steps than its frequency. A step
//! that meets a held partition waits a moment for its turn, then leaves it for the next second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use volt_engine::catalog::Table;
use volt_engine::partition::{Expired, Outcome, Partition, Reached};
use volt_engine::{PartitionId, TableId};

use super::participant::{Participant, Ran};
use crate::metadata::map::ClusterMap;

/// How often it is looked for what has expired.
const EVERY: Duration = Duration::from_secs(1);
/// How long a step waits for a partition that others hold.
const TURN_LIMIT: Duration = Duration::from_millis(50);

/// What has expired on this node since its start.
#[derive(Default)]
pub(crate) struct Expiry(Mutex<Figures>);

#[derive(Default)]
struct Figures {
    /// Of all tables, also of those that are gone.
    rows: u64,
    tables: BTreeMap<TableId, ExpiryFigures>,
}

/// The same of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExpiryFigures {
    /// Rows that this node's primaries removed.
    pub(crate) rows: u64,
    /// When this node looked last, microseconds since 1970; None: it leads no partition of the table, or has not come to it.
    pub(crate) last_run_micros: Option<i64>,
}

impl Expiry {
    /// Of a table.
    pub(crate) fn of(&self, table: TableId) -> ExpiryFigures {
        self.figures().tables.get(&table).copied().unwrap_or_default()
    }

    /// Rows of all tables.
    pub(crate) fn rows(&self) -> u64 {
        self.figures().rows
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removed(&self, table: TableId, rows: u64) {
        let mut figures = self.figures();
        figures.rows += rows;
        figures.tables.entry(table).or_default().rows += rows;
    }

    fn ran(&self, table: TableId, now_micros: i64) {
        self.figures().tables.entry(table).or_default().last_run_micros = Some(now_micros);
    }

    /// Tables without a TTL are forgotten.
    fn retain(&self, map: &ClusterMap) {
        let expires = |table: &TableId| map.tables.get(table).is_some_and(|table| table.ttl.is_some());
        self.figures().tables.retain(|table, _| expires(table));
    }
}

/// Removes what expires, for as long as the process lives.
pub(super) async fn run(participant: Arc<Participant>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let map = participant.replicas.metadata.map();
        participant.expiry.retain(&map);
        if map.standby.is_some() {
            continue; // what expired in the cluster that it follows goes here when it has gone there
        }
        for table in map.tables.values().filter(|table| table.ttl.is_some()) {
            participant.expire_table(&map, table).await;
        }
    }
}

impl Participant {
    async fn expire_table(&self, map: &ClusterMap, table: &Table) {
        let partitions = map.groups.get(&table.group).map(|group| &group.partitions);
        let node = Some(self.replicas.node_id);
        let is_led = |id: &&PartitionId| map.partitions.get(*id).is_some_and(|info| info.primary == node);
        let mut looked = false;
        for partition in partitions.into_iter().flatten().filter(is_led) {
            self.expire_in(*partition, table.id).await;
            looked = true;
        }
        if looked {
            self.expiry.ran(table.id, self.replicas.world.clock.unix_micros());
        }
    }

    /// A second's steps in one partition.
    async fn expire_in(&self, partition: PartitionId, table: TableId) {
        let (mut steps, mut after, mut waited) = (0, None, false);
        loop {
            let step = self.expire_some(partition, table, after.as_ref());
            steps += 1;
            match step.ran {
                Ran::Done { affected, .. } if affected > 0 => self.expiry.removed(table, affected),
                Ran::Done { .. } => {}
                Ran::Held if !waited => {
                    waited = true;
                    self.wait_for_turn(partition).await;
                    continue;
                }
                Ran::Held | Ran::NotPrimary => return,
                Ran::Failed { error, .. } => {
                    tracing::warn!(partition, table, %error, "expired rows can't be removed now");
                    return;
                }
            }
            if step.reached.is_none() || steps >= step.max_frequency {
                return;
            }
            after = step.reached;
            // Others come in between.
            tokio::task::yield_now().await;
        }
    }

    fn expire_some(&self, partition: PartitionId, table: TableId, after: Option<&Reached>) -> Step {
        let (mut reached, mut max_frequency) = (None, 0);
        let mut run = |engine: &Partition| {
            // The catalog and the clock of this moment: what was looked up before may have changed.
            let map = self.replicas.metadata.map();
            let now_micros = self.replicas.world.clock.unix_micros();
            let Some((expired, frequency)) = expired(engine, &map, table, now_micros, after) else {
                return Ok(Outcome::default());
            };
            (reached, max_frequency) = (expired.reached, frequency);
            Ok(expired.outcome)
        };
        let ran = self.run_here(partition, false, None, &mut |_| {}, |engine, _| run(engine));
        Step {
            ran,
            reached,
            max_frequency,
        }
    }

    async fn wait_for_turn(&self, partition: PartitionId) {
        // Whether it came is seen by trying again.
        let _ = self.turn(partition, Instant::now() + TURN_LIMIT).await;
    }
}

/// What came of looking once.
struct Step {
    ran: Ran,
    /// There may be more behind this.
    reached: Option<Reached>,
    /// The TTL's, as it was then.
    max_frequency: u32,
}

/// What a partition has that has expired, and how many steps a second there may be; None: nothing of the table expires.
fn expired(
    engine: &Partition,
    map: &ClusterMap,
    table: TableId,
    now_micros: i64,
    after: Option<&Reached>,
) -> Option<(Expired, u32)> {
    let table = map.tables.get(&table).filter(|_| engine.check_open(table).is_ok())?;
    let ttl = table.ttl.as_ref()?;
    let column = table.columns.get(ttl.column)?;
    let expired = engine.expire((table.id, ttl, column.data_type), now_micros, after);
    Some((expired, ttl.max_frequency))
}
