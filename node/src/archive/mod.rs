//! The archive: what every partition did, kept outside the cluster, in a directory or an object store.
//!
//! ```text
//!   primary ──committed records, sealed──> log/  ┐
//!           ──rows, now and then─────────> base/ │──> a new cluster as it was at a moment (`restore`)
//!   leader of the metadata group ─cuts───> cut/  │──> rows that a replica need not be sent (`RECOVER NODE`)
//!                        ──catalogs──────> catalog/ ┘
//! ```
//!
//! Each partition's primary archives it by itself (`ship`), so that the work spreads like the partitions, and goes on behind what its
//! predecessor archived. The leader of the metadata group takes a consistent cut of all partitions each second (`cuts`): a
//! moment to which a cluster can be restored. Nothing waits for the archive: while it can't be written the log is kept as far as
//! `--tail-margin` goes, and beyond that a new base is taken.

mod chain;
mod cuts;
mod layout;
mod objects;
mod read;
mod report;
mod restore;
mod retain;
mod ship;
mod standby;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::ArchiveConfig;
use crate::replication::Replicas;
use crate::txn::Coordinator;

#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub use objects::contract;
pub(crate) use read::load_newest;
pub use report::{Archived, Following, Report};
pub(crate) use report::{of_all as reports_of_all, own as own_report, serve as serve_report};
pub(crate) use restore::{begin as begin_restoration, run as restore_what_is_left};
pub(crate) use ship::Archiver;
pub use ship::Figures;
pub(crate) use standby::{PART_BYTES, Staged, Way, run as follow_archive, stage};
pub(crate) use store::{ArchiveError, Store};

/// Starts what archives this node's partitions, and the cuts while this node leads the metadata group.
pub(crate) fn start(
    config: &ArchiveConfig,
    store: Store,
    replicas: &Arc<Replicas>,
    coordinator: &Arc<Coordinator>,
) -> Arc<Archiver> {
    let _ = replicas.archive.set(store.clone());
    let archiver = Archiver::new(config.clone(), store.clone(), Arc::clone(replicas));
    let _ = replicas.archiver.set(Arc::downgrade(&archiver));
    tokio::spawn(Arc::clone(&archiver).run());
    let cuts = cuts::run(
        config.clone(),
        store.clone(),
        Arc::clone(coordinator),
        Arc::clone(&archiver),
    );
    tokio::spawn(cuts);
    tokio::spawn(retain::run(config.clone(), store, Arc::clone(replicas)));
    archiver
}
