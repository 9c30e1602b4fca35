//! Materialized views: rows that a partition makes of a source's rows, in the same step as these change.
//!
//! They are derived as indexes are: no effect carries them, no dump has them, and every replica makes its own from the rows
//! it applies. A view's rows are versioned like any other's, so that snapshots, undoing and waiting for a commit know nothing of
//! views. A view that comes to rows that are there already is built in steps, while they change (a row up to where it has come
//! counts, one beyond doesn't); nobody reads it before it is complete, nor at a snapshot older than that. Undoing what was
//! applied before it was complete begins it anew.
//!
//! A least or greatest value that goes is found again by an index of the source; everything else is added and subtracted.

mod groups;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Partition;
use super::view::{entries, seen_at};
use crate::catalog::ViewShape;
use crate::error::StatementError;
use crate::key::Key;
use crate::table::Version;
use crate::transaction::{Writes, Written};
use crate::{Lsn, TableId};
use groups::{Contribution, Groups, Source};

/// A view of this partition.
#[derive(Debug)]
struct Materialized {
    /// The table that its rows are in.
    table: TableId,
    shape: ViewShape,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// The source's rows up to this key count; None: none does.
    After(Option<Key>),
    /// All do, at this LSN and all later ones.
    Since(Lsn),
}

impl Materialized {
    fn counts(&self, key: &Key) -> bool {
        match &self.progress {
            Progress::After(last) => last.as_ref().is_some_and(|last| key <= last),
            Progress::Since(_) => true,
        }
    }
}

/// A partition's views.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<Materialized>);

impl Views {
    /// The table's rows are made of others.
    pub(super) fn contains(&self, table: TableId) -> bool {
        self.0.iter().any(|view| view.table == table)
    }

    fn get(&self, table: TableId) -> Option<&Materialized> {
        self.0.iter().find(|view| view.table == table)
    }

    pub(super) fn has_source(&self, table: TableId) -> bool {
        self.0.iter().any(|view| view.shape.source == table)
    }
}

/// Every row of the newest state is visible at it.
const NEWEST: Lsn = Lsn::MAX;

impl Partition {
    /// The views that there are, each with the table that its rows are in, and no others. New ones are to be built. Whoever
    /// reads a table that is a view's sees to it that this was told: it is no error to read one that is not known, and empty.
    pub fn set_views<'a>(&mut self, views: impl IntoIterator<Item = (TableId, &'a ViewShape)>) {
        let mut old = std::mem::take(&mut self.views.0);
        for (table, shape) in views {
            let known = old.iter().position(|view| view.table == table && view.shape == *shape);
            let view = match known {
                Some(place) => old.swap_remove(place),
                None => {
                    self.tables.remove(&table);
                    Materialized {
                        table,
                        shape: shape.clone(),
                        progress: Progress::After(None),
                    }
                }
            };
            self.views.0.push(view);
        }
        for view in old.iter().filter(|view| !self.views.contains(view.table)) {
            self.tables.remove(&view.table);
        }
    }

    /// True when it has these views and no others.
    pub fn has_views<'a>(&self, views: impl IntoIterator<Item = (TableId, &'a ViewShape)>) -> bool {
        let mut known = self.views.0.iter();
        let is_known = |(table, shape): (TableId, &ViewShape)| {
            let next = known.next();
            next.is_some_and(|view| view.table == table && view.shape == *shape)
        };
        views.into_iter().all(is_known) && known.next().is_none()
    }

    /// True when the table is a view's that is complete.
    pub fn has_built_view(&self, table: TableId) -> bool {
        let view = self.views.get(table);
        view.is_some_and(|view| matches!(view.progress, Progress::Since(_)))
    }

    /// Counts up to `max_rows` rows of its source in each view that is not complete; true: all are.
    pub fn build_views(&mut self, max_rows: usize) -> bool {
        for place in 0..self.views.0.len() {
            self.build_view(place, max_rows);
        }
        let complete = |view: &Materialized| matches!(view.progress, Progress::Since(_));
        self.views.0.iter().all(complete)
    }

    fn build_view(&mut self, place: usize, max_rows: usize) {
        let view = &self.views.0[place];
        let Progress::After(after) = &view.progress else {
            return;
        };
        let mut groups = Groups::default();
        let mut last = None;
        let mut is_last = true;
        if let Some(source) = self.tables.get(&view.shape.source) {
            let mut rows = source.after(after.as_ref().map(Key::as_bytes));
            for (key, version) in rows.by_ref().take(max_rows) {
                let row = version.row().and_then(|row| Contribution::of(&view.shape, row));
                groups.replace(&view.shape, None, row);
                last = Some(key);
            }
            is_last = rows.next().is_none();
        }
        let changed = self.changed(view, groups, None, NEWEST);
        self.write_view(place, self.applied, changed);
        self.views.0[place].progress = match last {
            Some(last) if !is_last => Progress::After(Some(last)),
            _ => Progress::Since(self.applied),
        };
    }

    /// A row of a source was written, in whose place there was `before`.
    pub(super) fn maintain_views(&mut self, lsn: Lsn, source: TableId, key: &Key, before: Option<&[u8]>) {
        for place in 0..self.views.0.len() {
            let view = &self.views.0[place];
            if view.shape.source != source || !view.counts(key) {
                continue;
            }
            let after = self.tables.get(&source).and_then(|rows| rows.get(key));
            let contribution = |row: &[u8]| Contribution::of(&view.shape, row);
            let before = before.and_then(contribution);
            let after = after.and_then(Version::row).and_then(contribution);
            let mut groups = Groups::default();
            groups.replace(&view.shape, before, after);
            let changed = self.changed(view, groups, None, NEWEST);
            self.write_view(place, lsn, changed);
        }
    }

    /// All rows of a source were removed.
    pub(super) fn clear_views(&mut self, lsn: Lsn, source: TableId) {
        for place in 0..self.views.0.len() {
            let view = &self.views.0[place];
            if view.shape.source != source {
                continue;
            }
            let rows = self.tables.get(&view.table).into_iter();
            let rows = rows.flat_map(|rows| rows.after(None));
            let removed = rows.map(|(key, _)| (key, None)).collect();
            self.write_view(place, lsn, removed);
        }
    }

    fn write_view(&mut self, place: usize, lsn: Lsn, changed: BTreeMap<Key, Written>) {
        let table = self.views.0[place].table;
        for (key, row) in changed {
            self.write_row(lsn, table, key, row.as_deref());
        }
    }

    /// The records beyond `lsn` are undone: views that were not complete by then begin anew.
    pub(super) fn undo_views_after(&mut self, lsn: Lsn) {
        for view in &mut self.views.0 {
            if matches!(view.progress, Progress::Since(since) if since <= lsn) {
                continue;
            }
            view.progress = Progress::After(None);
            self.tables.remove(&view.table);
        }
    }

    /// The view's rows that these changes of groups make, as they are seen at a snapshot that has the source with a
    /// transaction's `writes` in their places.
    fn changed(
        &self,
        view: &Materialized,
        groups: Groups,
        writes: Option<&BTreeMap<Key, Written>>,
        snapshot: Lsn,
    ) -> BTreeMap<Key, Written> {
        let source = Source {
            table: self.tables.get(&view.shape.source),
            writes,
            snapshot,
            counts: &|key| view.counts(key),
        };
        let own = self.tables.get(&view.table);
        let see = seen_at(snapshot);
        groups.finish(&view.shape, &source, |group| see(own?.get(group)?).row)
    }

    /// The rows of a view that a transaction's own writes change, seen at a snapshot; None: it has none, or the table is no
    /// view's.
    pub(super) fn view_under(&self, table: TableId, writes: &Writes, snapshot: Lsn) -> Option<BTreeMap<Key, Written>> {
        let view = self.views.get(table)?;
        let writes = writes.table(view.shape.source)?;
        let source = self.tables.get(&view.shape.source);
        let see = seen_at(snapshot);
        let mut groups = Groups::default();
        for (key, row) in writes {
            let before = source
                .and_then(|rows| rows.get(key))
                .and_then(|version| see(version).row);
            let contribution = |row: &[u8]| Contribution::of(&view.shape, row);
            groups.replace(
                &view.shape,
                before.and_then(contribution),
                row.as_deref().and_then(contribution),
            );
        }
        Some(self.changed(view, groups, Some(writes), snapshot))
    }

    /// An error when the table is a view's that can't be read at a snapshot.
    #[inline]
    pub(super) fn check_view(&self, table: TableId, snapshot: Lsn) -> Result<(), StatementError> {
        match self.views.get(table).map(|view| &view.progress) {
            None => Ok(()),
            Some(Progress::After(_)) => Err(StatementError::ViewNotBuilt),
            Some(Progress::Since(since)) if *since <= snapshot => Ok(()),
            Some(Progress::Since(_)) => Err(StatementError::ViewTooYoung),
        }
    }
}

impl Source<'_> {
    /// Its rows that count, in key order.
    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        let entries = entries(self.table, self.writes, self.snapshot, Bound::Unbounded);
        let counted = entries.take_while(|(key, _)| (self.counts)(key));
        counted.filter_map(|(_, seen)| seen.row)
    }
}

#[cfg(test)]
mod tests;
