//! Replication links: the changes of tables, told by SQL to another database, a VoltCluster or a PostgreSQL.
//!
//! ```text
//!   primary ──committed records──> outgoing ──changes──> sender ──SQL──> PostgreSQL: rows, and how far, in one transaction
//!                                                           └─────SQL──> VoltCluster: incoming, which resolves conflicts
//! ```
//!
//! Each node tells what its primaries have committed, by one connection a link (`sender`). How far a partition has been told stands in the other
//! database (`volt_link_progress`), so that whoever leads the partition next goes on there. The records lie in the partition's tail; what
//! is there no more is found again by the versions of its rows (`outgoing`).
//!
//! What must hold:
//! - only what is committed is told, in the order of its partition;
//! - in PostgreSQL a partition's changes and how far it has been told are one transaction, of the one sender that has the partition last: a
//!   change happens there once;
//! - in a VoltCluster a change may come twice, and is known (`volt_engine::partition::Incorporated`); it goes round in a ring of links until
//!   it comes to where it is known.

mod cluster;
mod copy;
mod outgoing;
mod postgres;
mod progress;
mod recall;
mod sender;
mod states;
mod sweep;
mod target;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::metadata::link::{Link, LinkId};
use crate::replication::Replicas;
pub(crate) use postgres::{key_as_json, row_as_json};
pub(crate) use recall::Recalled;
pub(crate) use sender::remote_database;
pub(crate) use states::LinkStates;
pub use states::{LinkReport, PartitionTold};

/// Tells this node's partitions to every link's database, for as long as the process lives.
pub(crate) fn start(replicas: &Arc<Replicas>, states: &Arc<LinkStates>) -> Vec<tokio::task::JoinHandle<()>> {
    vec![
        tokio::spawn(follow(Arc::clone(replicas), Arc::clone(states))),
        tokio::spawn(sweep::run(Arc::clone(replicas), Arc::clone(states))),
    ]
}

/// Has a sender for each link that the map has, and none for others.
async fn follow(replicas: Arc<Replicas>, states: Arc<LinkStates>) {
    let mut maps = replicas.metadata.watch();
    let mut senders: BTreeMap<LinkId, (Arc<Link>, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        let map = replicas.metadata.map();
        senders.retain(|id, (link, _)| map.links.get(id) == Some(link));
        states.retain(|link| map.links.get(&link).is_some_and(|link| !link.is_paused));
        for (&id, link) in &map.links {
            if !link.is_paused && !senders.contains_key(&id) {
                let run = sender::run(Arc::clone(link), Arc::clone(&replicas), Arc::clone(&states));
                let task = AbortOnDropHandle::new(tokio::spawn(run));
                senders.insert(id, (Arc::clone(link), task));
            }
        }
        drop(map);
        if maps.changed().await.is_err() {
            return;
        }
    }
}
