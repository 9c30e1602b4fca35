//! The roles that the cluster map gives the replicas here: they follow it, version by version.

use std::collections::BTreeSet;
use std::sync::Arc;

use volt_engine::NodeId;
use volt_engine::effects::LogPayload;

use super::replica::Replica;
use super::{Outbox, Replicas, Slot, indexes, lock, sender};
use crate::metadata::map::{ClusterMap, PartitionInfo};

impl Replicas {
    pub(super) async fn follow_map(self: Arc<Self>) {
        let mut watch = self.metadata.watch();
        loop {
            let map = watch.borrow_and_update().clone();
            self.on_map(&map);
            if watch.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes the roles that the map gives this process. Older maps, from before this process joined, say nothing of it.
    fn on_map(self: &Arc<Self>, map: &ClusterMap) {
        if map
            .nodes
            .get(&self.node_id)
            .is_none_or(|node| node.boot_id != self.boot_id)
        {
            return;
        }
        self.keep_senders(map);
        for info in map.partitions.values() {
            let here = info.primary == Some(self.node_id)
                || info.in_sync.contains(&self.node_id)
                || info.learners.contains(&self.node_id);
            match (here, self.slot(info.partition_id)) {
                (true, Some(slot)) => self.take_role(&slot, info, map),
                (true, None) => self.take_role(&self.insert(Replica::new(info.partition_id)), info, map),
                (false, _) => self.remove(info.partition_id),
            }
        }
        for slot in self.all() {
            let partition = lock(&slot).partition;
            if !map.partitions.contains_key(&partition) {
                self.remove(partition); // its last table was dropped
                continue;
            }
            lock(&slot).engine.retain_tables(|table| !map.has_dropped(table));
        }
        self.hand_over_where_asked(map);
        self.nudge.notify_one();
    }

    fn take_role(&self, slot: &Slot, info: &PartitionInfo, map: &ClusterMap) {
        let mut replica = lock(slot);
        replica.awaits_role = false;
        // Whoever leads it holds new rows to what this map says.
        indexes::define(&mut replica, info.group, map, self.world.clock.boot_time());
        let wanted = map.groups.get(&info.group).map(|group| group.mode);
        (replica.mode, replica.was_async) = (info.mode, info.was_async);
        replica.next_mode = wanted.filter(|mode| *mode != info.mode);
        if replica.is_from_log && info.learners.contains(&self.node_id) {
            replica.is_from_log = false;
            let order = map.recovery_orders.get(&self.node_id);
            replica.refuses_log = order.is_some_and(|order| order.wants_fill());
        }
        if info.primary != Some(self.node_id) || info.primary_boot != self.boot_id {
            replica.follow(info.epoch);
            return;
        }
        if info.epoch < replica.epoch {
            return; // deposed already, by a primary whose entry this map doesn't have yet
        }
        let others = |set: &BTreeSet<NodeId>| {
            set.iter()
                .copied()
                .filter(|&node| node != self.node_id)
                .collect::<Vec<_>>()
        };
        let began = replica.reign().is_none();
        let new_epoch = replica.reign().map(|reign| reign.epoch) != Some(info.epoch);
        replica.reign_in(info.epoch, &others(&info.in_sync), &others(&info.learners));
        replica.doubt(&info.in_doubt);
        if began && let Some(prepared) = replica.engine.prepared() {
            let (transaction, effects, home, lsn) = (
                prepared.transaction,
                prepared.effects.clone(),
                prepared.home,
                prepared.lsn,
            );
            replica.hold.restore(transaction, effects, home, lsn, self.now_ms());
        }
        if new_epoch {
            self.append(&mut replica, &LogPayload::EpochStart);
        }
        replica.advance_commit();
        self.send_soon(&replica);
    }

    /// One sender for each other node of the map.
    fn keep_senders(self: &Arc<Self>, map: &ClusterMap) {
        let mut outboxes = self.outboxes.write().expect("no panic under this lock");
        outboxes.retain(|node, outbox| {
            let kept = map.nodes.contains_key(node);
            if !kept {
                outbox.close();
            }
            kept
        });
        for &node in map.nodes.keys().filter(|&&node| node != self.node_id) {
            outboxes.entry(node).or_insert_with(|| {
                let outbox = Arc::new(Outbox::default());
                tokio::spawn(sender::run(Arc::clone(self), node, Arc::clone(&outbox)));
                outbox
            });
        }
    }
}
