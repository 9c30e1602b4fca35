//! What a standby runs, and PROMOTE.

use std::time::Duration;

use tokio::time::timeout;
use volt_engine::value::timestamp_to_text;

use super::SqlEngine;
use super::execute::Notices;
use super::planned::{Plan, Planned};
use crate::archive::reports_of_all;
use crate::error::SqlError;
use crate::metadata::command::Command;
use crate::metadata::standby::StandbyCommand;
use crate::statement::{Prepared, ReadSettings, SessionValues, TransactionModes};

/// How long PROMOTE waits. What has not come about by then goes on.
const PROMOTE_LIMIT: Duration = Duration::from_secs(60);

/// What changes nothing that is archived. A call's statements are looked at one by one, inside a block.
pub(super) fn runs_on_standby(planned: &Planned, is_in_block: bool) -> bool {
    match &planned.plan {
        Plan::Program(_) | Plan::Query { .. } | Plan::Constants(_) => !planned.writes() && !planned.takes_values(),
        Plan::Call(_) => is_in_block,
        Plan::Empty | Plan::Set | Plan::Show(_) | Plan::Explain(_) | Plan::Control(_) => true,
        Plan::RecoverNode(_) | Plan::DrainNode(_) | Plan::Promote { .. } => true,
        _ => false,
    }
}

impl SqlEngine {
    /// An error when this cluster is a standby, and the statement not one for that.
    pub(super) fn check_standby(&self, planned: &Planned, is_in_block: bool) -> Result<(), SqlError> {
        match &self.metadata.map().standby {
            Some(standby) if !runs_on_standby(planned, is_in_block) => Err(SqlError::of_standby(&standby.url)),
            _ => Ok(()),
        }
    }

    /// Every block of a standby reads one cut.
    pub(super) fn modes_here(&self, modes: TransactionModes) -> TransactionModes {
        TransactionModes {
            read_only: modes.read_only || self.metadata.map().standby.is_some(),
            ..modes
        }
    }

    /// The settings, if the session's statements that only read go to backups. A standby's do not: each backup is somewhere between two cuts.
    pub(super) fn reads_of_backups(&self, session: &SessionValues) -> Option<ReadSettings> {
        let settings = session.reads.from_backups()?;
        self.metadata.map().standby.is_none().then_some(settings)
    }

    /// PROMOTE: returns when the cluster is one of its own.
    pub(super) async fn promote(&self, is_immediate: bool) -> Result<Notices, SqlError> {
        let command = StandbyCommand::Promote { is_immediate };
        self.metadata.propose(Command::Standby(command)).await?;
        let mut maps = self.metadata.watch();
        let promoted = timeout(PROMOTE_LIMIT, maps.wait_for(|map| map.standby.is_none())).await;
        let promoted = promoted.is_ok_and(|map| map.is_ok());
        if promoted {
            let at_micros = self.metadata.map().restored_micros.unwrap_or_default();
            let message = format!("this cluster is promoted as of {} UTC", timestamp_to_text(at_micros));
            return Ok(vec![("NOTICE", "00000", message)]);
        }
        let reports = reports_of_all(&self.coordinator.participant.replicas).await;
        let told = reports.into_iter().find_map(|(_, report)| report.following);
        let why = told.and_then(|told| told.problem);
        let why = why.unwrap_or_else(|| "it is still being followed".to_owned());
        let hint = "It goes on by itself; see system.standby. PROMOTE IMMEDIATE takes what there is, and does not ask the archive.";
        Err(SqlError::new("55000", format!("this cluster is not promoted yet: {why}")).hint(hint))
    }
}
