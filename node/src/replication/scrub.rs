//! Replicas of a partition are compared in the background: each sums its rows at the same LSN, and who differs is in
//! doubt. It leaves the in-sync set at once, so that it is never promoted, and is filled anew.
//!
//! The primary chooses the LSN; every replica pins a snapshot when it comes there, and sums it in chunks, with pauses, so
//! that no transaction waits for longer than one chunk. One partition of a node is compared at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::{Code, Status};
use volt_engine::partition::{SnapshotSums, TableSum};
use volt_engine::{Epoch, Lsn, NodeId, PartitionId, TableId};
use volt_proto::v1;

use super::comparison::{Difference, Sums, compare};
use super::handover::Successor;
use super::replica::{Kept, NoAppointment};
use super::tick::without;
use super::{Replicas, Slot, lock};
use crate::config::DataChangeDetection;
use crate::metadata::command::{Applied, Command};
use crate::metadata::failure::{Finding, Grounds, Medium, Strategy};
use crate::metadata::map::ClusterMap;
use crate::metadata::map::ReplicationMode;
use crate::peers::{Line, never_left};

/// Bytes of rows that are summed while the partition is held.
const CHUNK_BYTES: usize = 256 << 10;
/// Pause between two chunks: some 50 MB/s at most, and a few per cent of a core.
const CHUNK_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for a replica to come to the LSN.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(2);
/// How often to look whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Longest time for one comparison: versions are kept for it meanwhile.
const LIMIT: Duration = Duration::from_secs(300);
/// LSNs that are tried in one comparison, when replicas are beyond them, or don't come to them.
const TRIES: u32 = 6;
/// Records that the second try leaves replicas to come; each later one leaves twice as many.
const FIRST_HEADROOM: Lsn = 64;
/// How often to look which comparison is due.
const LOOK: Duration = Duration::from_secs(1);

/// Why there are no sums.
enum Unsummed {
    /// The replica is beyond the LSN.
    Passed,
    /// It did not come to it.
    NotThere,
    /// Something else.
    Failed(Status),
}

/// Ends an appointment, however it came out.
struct Appointed<'a>(&'a Slot);

impl Drop for Appointed<'_> {
    fn drop(&mut self) {
        lock(self.0).end_appointment();
    }
}

/// Sums this node's replica at `lsn`.
async fn sum(slot: &Slot, lsn: Lsn) -> Result<Sums, Unsummed> {
    lock(slot).appoint(lsn).map_err(|why| match why {
        NoAppointment::Passed(_) => Unsummed::Passed,
        NoAppointment::Busy => Unsummed::Failed(Status::unavailable("it is compared already, or filled")),
    })?;
    let _appointed = Appointed(slot);
    let void = || Unsummed::Failed(Status::aborted("it was replaced meanwhile"));
    let deadline = Instant::now() + ARRIVAL_LIMIT;
    loop {
        let kept = lock(slot).appointment_kept();
        match kept {
            Kept::Pinned => break,
            Kept::Void => return Err(void()),
            Kept::NotYet if Instant::now() >= deadline => return Err(Unsummed::NotThere),
            Kept::NotYet => sleep(LOOK_AGAIN).await,
        }
    }
    let mut sums = SnapshotSums::default();
    loop {
        let more = lock(slot).sum_appointed(&mut sums, CHUNK_BYTES);
        match more {
            None => return Err(void()),
            Some(false) => return Ok(sums.finish()),
            Some(true) => sleep(CHUNK_PAUSE).await,
        }
    }
}

/// A primary asks for the sums of its backup here.
pub(crate) async fn serve(replicas: &Replicas, request: &v1::CompareRequest) -> Result<v1::CompareResponse, Status> {
    let slot = replicas
        .slot(request.partition_id)
        .ok_or_else(|| Status::failed_precondition("no such replica here"))?;
    if lock(&slot).epoch > request.epoch {
        return Err(Status::aborted("another epoch reigns"));
    }
    use v1::compare_response::Outcome;
    let (outcome, sums) = match timeout(LIMIT, sum(&slot, request.lsn)).await {
        Ok(Ok(sums)) => (Outcome::Summed, sums),
        Ok(Err(Unsummed::Passed)) => (Outcome::Passed, Sums::default()),
        Ok(Err(Unsummed::NotThere)) => (Outcome::NotThere, Sums::default()),
        Ok(Err(Unsummed::Failed(status))) => return Err(status),
        Err(_) => return Err(Status::deadline_exceeded("it takes too long")),
    };
    let table = |(table_id, TableSum { rows, checksum })| v1::TableSum {
        table_id,
        rows,
        checksum,
    };
    let tables = sums.into_iter().map(table).collect();
    let mut response = v1::CompareResponse { outcome: 0, tables };
    response.set_outcome(outcome);
    Ok(response)
}

impl Replicas {
    /// Compares the partitions that this node leads with their backups, each when it is due.
    pub(super) async fn scrub(self: Arc<Self>, settings: DataChangeDetection) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut agreed: BTreeMap<PartitionId, Instant> = BTreeMap::new();
        loop {
            looks.tick().await;
            let led = self.led_with_backups();
            agreed.retain(|partition, _| led.contains(partition));
            for partition in led {
                let last = *agreed.entry(partition).or_insert_with(Instant::now);
                if last.elapsed() < settings.checksum_interval {
                    continue;
                }
                // What could not be compared is due again as late as what was.
                self.scrub_one(partition, last.elapsed()).await;
                agreed.insert(partition, Instant::now());
            }
        }
    }

    fn led_with_backups(&self) -> Vec<PartitionId> {
        let led = |slot: &Slot| {
            let replica = lock(slot);
            let reign = replica.reign()?;
            let has_backup = reign.followers.values().any(|follower| follower.member);
            // Elsewhere a member may differ because of what it has lost, and leaves the set by other rules.
            (has_backup && replica.mode == ReplicationMode::Sync).then_some(replica.partition)
        };
        self.all().iter().filter_map(led).collect()
    }

    async fn scrub_one(self: &Arc<Self>, partition: PartitionId, since: Duration) {
        let Some(slot) = self.slot(partition) else { return };
        let mut headroom = 0;
        for _ in 0..TRIES {
            let Some((epoch, lsn, backups)) = self.comparison(&slot, headroom) else {
                return;
            };
            let asked = backups.iter().map(|node| self.ask(*node, partition, (epoch, lsn)));
            let (own, answers) = tokio::join!(timeout(LIMIT, sum(&slot, lsn)), join_all(asked));
            let Ok(Ok(own)) = own else {
                // Nothing more is written: where it stands is where it stays.
                headroom = 0;
                continue;
            };
            if answers.iter().any(|answer| matches!(answer, Err(Unsummed::Passed))) {
                headroom = FIRST_HEADROOM.max(headroom * 2);
                continue;
            }
            let mut replicas = BTreeMap::from([(self.node_id, own)]);
            for (node, answer) in backups.into_iter().zip(answers) {
                match answer {
                    Ok(sums) => _ = replicas.insert(node, sums),
                    Err(Unsummed::Failed(status)) => tracing::debug!(partition, node, %status, "not compared"),
                    Err(_) => tracing::debug!(partition, node, lsn, "not compared"),
                }
            }
            return self.judge(partition, (epoch, lsn), replicas, since).await;
        }
        tracing::debug!(partition, "not compared: its replicas did not meet at an LSN");
    }

    /// The epoch, the LSN to compare at, and with whom. None: this node doesn't lead it.
    fn comparison(&self, slot: &Slot, headroom: Lsn) -> Option<(Epoch, Lsn, Vec<NodeId>)> {
        let replica = lock(slot);
        let reign = replica.reign()?;
        let members = reign.followers.iter().filter(|(_, follower)| follower.member);
        let backups = members.map(|(node, _)| *node).collect();
        Some((reign.epoch, replica.engine.applied() + headroom, backups))
    }

    async fn ask(&self, node: NodeId, partition_id: PartitionId, (epoch, lsn): (Epoch, Lsn)) -> Result<Sums, Unsummed> {
        use v1::compare_response::Outcome;
        let failed = |error: &dyn std::fmt::Display| Unsummed::Failed(Status::unavailable(error.to_string()));
        let mut client = self.peers.client(node).map_err(|error| failed(&error))?;
        let request = v1::CompareRequest {
            partition_id,
            epoch,
            lsn,
        };
        let underway = self
            .peers
            .traffic
            .begin(node, Line::Data)
            .map_err(|refused| failed(&refused))?;
        let answer = timeout(LIMIT, client.compare(request)).await;
        match &answer {
            Ok(Err(status)) if never_left(status) => underway.not_sent(),
            Ok(Err(status)) if status.code() == Code::Unavailable => underway.lost(),
            Ok(_) => underway.answered(),
            // It may have waited for the LSN.
            Err(_) => drop(underway),
        }
        let answer = answer
            .map_err(|error| failed(&error))?
            .map_err(Unsummed::Failed)?
            .into_inner();
        match answer.outcome() {
            Outcome::Summed => {}
            Outcome::Passed => return Err(Unsummed::Passed),
            Outcome::NotThere => return Err(Unsummed::NotThere),
        }
        let table = |sum: v1::TableSum| {
            let v1::TableSum {
                table_id,
                rows,
                checksum,
            } = sum;
            (table_id, TableSum { rows, checksum })
        };
        Ok(answer.tables.into_iter().map(table).collect())
    }

    async fn judge(
        self: &Arc<Self>,
        partition: PartitionId,
        (epoch, lsn): (Epoch, Lsn),
        mut replicas: BTreeMap<NodeId, Sums>,
        since: Duration,
    ) {
        // A table that one of them has dropped already has other rows there, or none: by now this node has heard of it.
        if self.metadata.refresh().await.is_err() {
            return;
        }
        let map = self.metadata.map();
        replicas.values_mut().for_each(|sums| keep_comparable(&map, sums));
        tracing::debug!(partition, lsn, copies = replicas.len(), "compared");
        let Some(Difference { mut in_doubt, trusted }) = compare(lsn, self.node_id, &replicas) else {
            return;
        };
        let own = in_doubt.remove(&self.node_id);
        let mut epoch = epoch;
        for (node, evidence) in in_doubt {
            tracing::error!(partition, node, evidence, "a replica differs from the others");
            let grounds = self.grounds(evidence, since);
            let Some(next) = self.part_with((partition, epoch), node, grounds).await else {
                return;
            };
            epoch = next;
        }
        let Some(evidence) = own else { return };
        tracing::error!(
            partition,
            evidence,
            "the replica here differs from the others, and it is the primary"
        );
        let others = map.partitions.get(&partition).map(|info| &info.in_sync);
        let successor = others.and_then(|members| trusted.intersection(members).next().copied());
        if let Some(node) = successor
            && self.stop_serving(partition, epoch)
        {
            let grounds = Some(Box::new(self.grounds(evidence, since)));
            Arc::clone(self)
                .hand_over(partition, epoch, Successor { node, grounds })
                .await;
        }
    }

    fn grounds(&self, evidence: String, since: Duration) -> Grounds {
        Grounds {
            finding: Finding::new((Strategy::DataChange, Medium::Network), evidence, since, self.node_id),
            at_micros: self.world.clock.unix_micros(),
            in_doubt: true,
        }
    }

    /// Proposes the partition without a backup that can't be trusted. Returns the epoch in which it is so.
    async fn part_with(
        &self,
        (partition, epoch): (PartitionId, Epoch),
        node: NodeId,
        grounds: Grounds,
    ) -> Option<Epoch> {
        let map = self.metadata.map();
        let change = without(map.partitions.get(&partition)?, epoch, self.node_id, &[node])?;
        let command = Command::ChangePartition {
            by: self.node_id,
            boot_id: self.boot_id,
            change,
            grounds: Some(Box::new(grounds)),
        };
        match self.metadata.propose(command).await {
            Ok(Applied::Changed { epoch }) => Some(epoch),
            answer => {
                tracing::warn!(
                    partition,
                    node,
                    ?answer,
                    "a replica in doubt was not dropped; it will be compared again"
                );
                None
            }
        }
    }
}

/// Leaves out what is no table's any more, and the rows of views, which every replica makes for itself.
fn keep_comparable(map: &ClusterMap, sums: &mut Sums) {
    let is_view = |table: &TableId| map.tables.get(table).is_some_and(|table| table.view.is_some());
    sums.retain(|table, _| !map.has_dropped(*table) && !is_view(table));
}
