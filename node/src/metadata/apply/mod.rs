//! Applying a command to the cluster map. Deterministic: every member of the group comes to the same map, so nothing
//! here asks a clock, a generator or a hash map's order. Never panics, whatever the command says: what makes no sense
//! is refused, and a refused command changes nothing but the map's version.

mod columns;
mod failures;
mod indexes;
pub(crate) mod links;
pub(crate) mod loss;
mod moves;
mod nodes;
mod procedures;
mod reigns;
mod restoration;
mod sequences;
mod standby;
mod tables;
mod ttl;
mod views;

use volt_engine::NodeId;

pub(super) use reigns::take_for_members;

use super::command::{Applied, Command, CommandResult, FailoverNote, Refusal};
use super::map::{ClusterMap, NodeInfo};
use crate::config::RecoveryOrder;

/// Applies one command.
pub fn apply(map: &mut ClusterMap, command: Command) -> CommandResult {
    map.version += 1;
    if let Command::Initialise {
        cluster_uuid,
        partitions,
        node,
        awaits_restoration,
    } = command
    {
        return nodes::initialise(map, (cluster_uuid, partitions), node, awaits_restoration);
    }
    if map.cluster_uuid.is_empty() {
        return Err(Refusal::NotInitialised);
    }
    if let Some(why) = map.restoring()
        && restoration::changes_catalog(&command)
    {
        return Err(Refusal::Restoring(why));
    }
    if let Some(standby) = &map.standby
        && restoration::changes_catalog(&command)
    {
        return Err(Refusal::Standby(standby.url.clone()));
    }
    moves::check_resting(map, &command)?;
    match command {
        Command::Initialise { .. } => Ok(Applied::Unchanged),
        Command::Join(joining) => nodes::join(map, joining),
        Command::NodeDead {
            node_id,
            boot_id,
            process_ended,
            finding,
            at_micros,
            changes,
            ..
        } => {
            let note = FailoverNote {
                node_id,
                finding,
                at_micros,
            };
            nodes::node_dead(map, boot_id, process_ended, note, changes)
        }
        Command::NodeAlive { node_id, boot_id } => nodes::node_alive(map, node_id, boot_id),
        Command::CreateTable {
            table,
            replication,
            mode,
        } => tables::create_table(map, table, replication, mode),
        Command::SetReplication {
            table,
            replication,
            mode,
        } => tables::set_replication(map, table, replication, mode),
        Command::AdvanceMove {
            table,
            number,
            partition,
            epoch,
            phase,
        } => moves::advance(map, (table, number), partition, epoch, phase),
        Command::TakeMode {
            by,
            boot_id,
            partition,
            epoch,
            mode,
        } => reigns::take_mode(map, (by, boot_id), partition, epoch, mode),
        Command::CreateLink { name, target, tables } => links::create(map, name, target, &tables),
        Command::DropLink { link } => links::drop(map, link),
        Command::PauseLink { link, is_paused } => links::pause(map, link, is_paused),
        Command::TrackTable { table, rule } => links::track(map, table, rule),
        Command::DropTables { tables } => tables::drop_tables(map, &tables),
        Command::AlterColumns {
            table,
            changes,
            catalog_version,
        } => columns::alter(map, table, changes, catalog_version),
        Command::SetTtl { table, ttl: Some(ttl) } => ttl::set(map, table, *ttl),
        Command::SetTtl { table, ttl: None } => ttl::drop(map, table),
        Command::CreateIndex { table, index } => indexes::create(map, table, *index),
        Command::SetIndexState { table, index, state } => indexes::set_state(map, table, index, state),
        Command::DropIndexes { indexes } => indexes::drop(map, &indexes),
        Command::CreateView { view, replace } => views::create(map, *view, replace),
        Command::ViewBuilt { table } => views::built(map, table),
        Command::DropViews { views } => views::drop(map, &views),
        Command::CreateProcedure { procedure, replace } => procedures::create(map, *procedure, replace),
        Command::DropProcedures { procedures } => procedures::drop(map, &procedures),
        Command::RenameProcedure { procedure, name } => procedures::rename(map, procedure, name),
        Command::CreateSequence { sequence } => sequences::create(map, *sequence),
        Command::DropSequences { sequences } => sequences::drop(map, &sequences),
        Command::TakeSequenceValues { sequence, count } => sequences::take(map, sequence, count),
        Command::RestartSequence {
            sequence,
            value,
            is_taken,
        } => sequences::restart(map, sequence, value, is_taken),
        Command::ChangePartition {
            by,
            boot_id,
            change,
            grounds,
        } => reigns::change_by_primary(map, by, boot_id, &change, grounds.as_deref()),
        Command::ChangePartitions { changes, failover, .. } => reigns::change_by_leader(map, &changes, failover),
        Command::Drain { node_id } => nodes::drain(map, node_id),
        Command::Rejoin { node_id, boot_id } => nodes::rejoin(map, node_id, boot_id),
        Command::Drained { node_id } => nodes::drained(map, node_id),
        Command::SetYields { node_id, yields } => {
            node(map, node_id)?.yields = yields;
            Ok(Applied::Done)
        }
        Command::SetEndangered { node_id, endangered } => nodes::set_endangered(map, node_id, endangered),
        Command::WantPrimary {
            partition,
            epoch,
            node_id,
        } => reigns::want_primary(map, partition, epoch, node_id),
        Command::RemoveNode { node_id } => nodes::remove_node(map, node_id),
        Command::RequestRecovery { node_id, order } => {
            if !node(map, node_id)?.state.is_alive() {
                map.recovering.insert(node_id);
            }
            match order == RecoveryOrder::default() {
                false => map.recovery_orders.insert(node_id, order),
                true => map.recovery_orders.remove(&node_id),
            };
            Ok(Applied::Done)
        }
        Command::Restore {
            archived,
            restoration,
            is_standby,
        } => restoration::begin(map, *archived, restoration, is_standby),
        Command::Standby(command) => standby::apply(map, command),
        Command::PartitionRestored { partition, epoch } => restoration::restored(map, partition, epoch),
        Command::AcceptLoss { lost } => loss::accept_loss(map, &lost),
        Command::RecoveryDone { node_id } => {
            map.recovering.remove(&node_id);
            map.recovery_orders.remove(&node_id);
            Ok(Applied::Done)
        }
    }
}

fn node(map: &mut ClusterMap, id: NodeId) -> Result<&mut NodeInfo, Refusal> {
    map.nodes.get_mut(&id).ok_or(Refusal::NoSuchNode(id))
}

#[cfg(test)]
mod tests;
