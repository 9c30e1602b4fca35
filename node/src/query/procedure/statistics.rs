//! How often procedures were called on this node, how long they took, and how often they failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use volt_engine::ProcedureId;

/// One procedure's.
#[derive(Debug, Default)]
pub(in crate::query) struct Counts {
    pub(in crate::query) calls: AtomicU64,
    pub(in crate::query) aborts: AtomicU64,
    pub(in crate::query) total_micros: AtomicU64,
    pub(in crate::query) longest_micros: AtomicU64,
}

impl Counts {
    pub(super) fn called(&self, micros: u64, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.aborts.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
        self.longest_micros.fetch_max(micros, Ordering::Relaxed);
    }
}

/// Those of all procedures that were called; of dropped ones nothing is kept once another is called for the first time.
#[derive(Debug, Default)]
pub(in crate::query) struct Statistics(Mutex<BTreeMap<ProcedureId, Arc<Counts>>>);

impl Statistics {
    /// A procedure's; made when it is planned to be called for the first time.
    pub(super) fn of(&self, procedure: ProcedureId, exists: impl Fn(ProcedureId) -> bool) -> Arc<Counts> {
        let mut all = self.0.lock().expect("no panic under this lock");
        if !all.contains_key(&procedure) {
            all.retain(|other, _| exists(*other));
        }
        Arc::clone(all.entry(procedure).or_default())
    }

    /// A procedure's, if it was called.
    pub(in crate::query) fn get(&self, procedure: ProcedureId) -> Option<Arc<Counts>> {
        self.0
            .lock()
            .expect("no panic under this lock")
            .get(&procedure)
            .cloned()
    }
}
