//! `GetStatus`: the map in the operator's words.

use volt_proto::v1;

use super::DataPlane;
use crate::archive::{Following, Report};
use crate::metadata::Metadata;
use crate::metadata::map::{ClusterMap, NodeInfo, NodeState, PartitionInfo};
use crate::metadata::standby::Standby;

/// What this node knows of itself and of the cluster.
pub(super) fn status(metadata: &Metadata, data: &dyn DataPlane) -> v1::GetStatusResponse {
    let map = metadata.map();
    let archive = match map.restoration.is_some() || map.standby.is_some() {
        true => data.archive_report().unwrap_or_default(),
        false => Report::default(),
    };
    let identity = metadata.identity();
    v1::GetStatusResponse {
        cluster_uuid: identity.map_or_else(String::new, |identity| identity.cluster_uuid),
        node_id: metadata.node_id(),
        boot_id: metadata.boot_id(),
        metadata_leader: metadata.leader().unwrap_or(0),
        map_version: map.version,
        serving: metadata.lease().is_valid(),
        nodes: map.nodes.values().map(|node| node_status(&map, node)).collect(),
        partitions: map
            .partitions
            .values()
            .map(|partition| partition_status(&map, partition))
            .collect(),
        max_replication: map.max_replication(),
        metadata_voters: metadata.voters().into_iter().collect(),
        recovering: map.recovering.iter().copied().collect(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        restored_micros: map.restored_micros.unwrap_or(0),
        awaits_restoration: map.awaits_restoration,
        restoration: map.restoration.as_ref().map(|restoration| v1::Restoration {
            partitions: restoration.partitions,
            left: restoration.left.len() as u32,
            problem: problem(&archive),
        }),
        standby: map
            .standby
            .as_ref()
            .map(|standby| standby_status(standby, archive.following)),
    }
}

/// Why partitions led here can't be restored.
fn problem(archive: &Report) -> String {
    let problems = archive.restoring.iter().filter_map(|(_, problem)| problem.as_ref());
    problems.min().cloned().unwrap_or_default()
}

fn standby_status(standby: &Standby, following: Option<Following>) -> v1::Standby {
    v1::Standby {
        url: standby.url.clone(),
        is_promoting: standby.promotion.is_some(),
        is_immediate: standby.promotion.is_some_and(|promotion| promotion.is_immediate),
        following: following.map(|following| v1::Following {
            as_of_micros: following.as_of_micros.unwrap_or(0),
            lag_micros: following.lag_micros.unwrap_or(0),
            newest_micros: following.newest_micros.unwrap_or(0),
            behind_records: following.behind_records,
            problem: following.problem.unwrap_or_default(),
        }),
    }
}

fn node_status(map: &ClusterMap, node: &NodeInfo) -> v1::NodeStatus {
    let roles = map.roles(node.node_id);
    let state = match node.state {
        NodeState::Active => v1::NodeState::Active,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Drained => v1::NodeState::Drained,
        NodeState::Dead { .. } => v1::NodeState::Dead,
    };
    v1::NodeStatus {
        node_id: node.node_id,
        name: node.name.clone(),
        address: node.address.clone(),
        sql_address: node.sql_address.clone(),
        zone: node.zone.clone(),
        incarnation: node.incarnation,
        boot_id: node.boot_id,
        is_alive: node.state.is_alive(),
        state: state.into(),
        primaries: roles.primaries,
        backups: roles.backups,
        learners: roles.learners,
        yields: node.yields,
    }
}

fn partition_status(map: &ClusterMap, partition: &PartitionInfo) -> v1::PartitionStatus {
    v1::PartitionStatus {
        partition_id: partition.partition_id,
        group_id: partition.group,
        index: partition.index,
        epoch: partition.epoch,
        primary: map.living_primary(partition).unwrap_or(0),
        in_sync: map.in_sync(partition).into_iter().collect(),
        learners: partition.learners.iter().copied().collect(),
        replication: map.groups.get(&partition.group).map_or(0, |group| group.replication),
    }
}
