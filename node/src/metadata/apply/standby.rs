//! A cluster that follows an archive, and ceases to.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::restoration::take_catalog;
use crate::metadata::command::{Applied, CommandResult, Refusal};
use crate::metadata::map::ClusterMap;
use crate::metadata::standby::{Promotion, StandbyCommand};

pub(super) fn apply(map: &mut ClusterMap, command: StandbyCommand) -> CommandResult {
    let Some(standby) = &mut map.standby else {
        return Err(Refusal::NotAllowed("this cluster is no standby".to_owned()));
    };
    match command {
        StandbyCommand::Follow {
            at_micros,
            archived,
            sequences,
        } => {
            if standby
                .promotion
                .is_some_and(|promotion| promotion.settled_micros.is_some())
            {
                return Err(Refusal::NotAllowed("it follows no more".to_owned()));
            }
            if at_micros < standby.at_micros {
                return Ok(Applied::Unchanged);
            }
            standby.at_micros = at_micros;
            if let Some(archived) = archived.filter(|archived| archived.version > standby.archived_version) {
                standby.archived_version = archived.version;
                take_catalog(map, *archived);
            }
            for (id, sequence) in sequences {
                if let Some(known) = map.sequences.get_mut(&id) {
                    *known = Arc::new(sequence);
                }
            }
            Ok(Applied::Done)
        }
        StandbyCommand::Promote { is_immediate } => {
            let promotion = standby.promotion.get_or_insert(Promotion::default());
            promotion.is_immediate |= is_immediate;
            Ok(Applied::Done)
        }
        StandbyCommand::Settle { at_micros } => {
            let promotion = standby.promotion.as_mut();
            let promotion = promotion.ok_or_else(|| Refusal::NotAllowed("nobody has promoted it".to_owned()))?;
            promotion.settled_micros = promotion.settled_micros.max(Some(at_micros));
            Ok(Applied::Done)
        }
        StandbyCommand::Promoted => {
            let settled = standby.promotion.and_then(|promotion| promotion.settled_micros);
            let settled = settled.ok_or_else(|| Refusal::NotAllowed("its promotion is not settled".to_owned()))?;
            map.standby = None;
            map.restored_micros = Some(settled);
            map.catalog_version += 1;
            Ok(Applied::Done)
        }
    }
}
