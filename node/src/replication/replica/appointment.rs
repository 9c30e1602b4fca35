//! A snapshot at an LSN that is agreed on before every replica has come to it: each pins it when it does, so that all of
//! them can be read at the same LSN while records go on. One at a time.

use volt_engine::Lsn;
use volt_engine::partition::SnapshotSums;

use super::{Replica, Role};

/// A snapshot to be pinned, or pinned.
#[derive(Debug)]
pub(crate) struct Appointment {
    lsn: Lsn,
    is_kept: bool,
    /// A later fill replaces what is pinned.
    fills: u64,
}

/// Why there is no appointment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAppointment {
    /// The replica is beyond that LSN: at this one.
    Passed(Lsn),
    /// It has another one, or no state that could be read.
    Busy,
}

/// What became of an appointment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The replica has not come to it yet.
    NotYet,
    /// Its snapshot is pinned.
    Pinned,
    /// Its state was replaced.
    Void,
}

impl Replica {
    /// Will pin a snapshot at `lsn`, now if it is there. The caller ends the appointment, whatever comes of it.
    pub(crate) fn appoint(&mut self, lsn: Lsn) -> Result<(), NoAppointment> {
        let readable = matches!(self.role, Role::Primary(_) | Role::Follower { filling: None });
        if self.appointment.is_some() || !readable {
            return Err(NoAppointment::Busy);
        }
        if self.engine.applied() > lsn {
            return Err(NoAppointment::Passed(self.engine.applied()));
        }
        self.appointment = Some(Appointment {
            lsn,
            is_kept: false,
            fills: self.fills,
        });
        self.keep_appointment();
        Ok(())
    }

    /// A record was applied.
    pub(super) fn keep_appointment(&mut self) {
        let applied = self.engine.applied();
        if let Some(appointment) = self.appointment.as_mut().filter(|appointment| !appointment.is_kept)
            && appointment.lsn == applied
        {
            appointment.is_kept = self.engine.pin(applied);
        }
    }

    /// How far records may be applied before the appointment is kept.
    pub(super) fn next_stop(&self, lsn: Lsn) -> Lsn {
        let awaited = self.appointment.as_ref().filter(|appointment| !appointment.is_kept);
        let ahead = awaited.filter(|appointment| appointment.lsn > self.engine.applied());
        ahead.map_or(lsn, |appointment| appointment.lsn.min(lsn))
    }

    /// What became of the appointment.
    pub(crate) fn appointment_kept(&self) -> Kept {
        match &self.appointment {
            Some(appointment) if appointment.fills != self.fills => Kept::Void,
            Some(appointment) if appointment.is_kept => Kept::Pinned,
            Some(appointment) if self.engine.applied() < appointment.lsn => Kept::NotYet,
            _ => Kept::Void,
        }
    }

    /// Sums the next rows of the snapshot. False: that were all. None: it is void.
    pub(crate) fn sum_appointed(&self, sums: &mut SnapshotSums, max_bytes: usize) -> Option<bool> {
        let appointment = self
            .appointment
            .as_ref()
            .filter(|_| self.appointment_kept() == Kept::Pinned)?;
        Some(self.engine.sum_chunk(appointment.lsn, sums, max_bytes))
    }

    /// True when it is at a record that is about to be cut.
    pub(super) fn is_appointed_beyond(&self, lsn: Lsn) -> bool {
        self.appointment
            .as_ref()
            .is_some_and(|appointment| appointment.lsn > lsn)
    }

    /// It is no longer needed.
    pub(crate) fn end_appointment(&mut self) {
        let Some(appointment) = self.appointment.take() else {
            return;
        };
        if appointment.is_kept && appointment.fills == self.fills {
            self.engine.unpin(appointment.lsn);
        }
    }
}
