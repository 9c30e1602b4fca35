//! Rows in batches, each a transaction. A function of the rows alone: whoever reads the file again makes the same batches of it, however its
//! bytes came, for a batch's number is what says that it is loaded.

use super::rows::Row;

/// Rows of a batch.
const MAX_ROWS: usize = 500;
/// Bytes of a batch's rows in the file, but for the last row: far less than what a transaction may change in one partition.
const MAX_BYTES: u64 = 512 << 10;

/// Some rows of a file, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// Its place among the file's batches, from 0.
    pub(super) number: u64,
    /// At least one.
    pub(super) rows: Vec<Row>,
}

/// Makes batches.
#[derive(Default)]
pub(super) struct Batches {
    next: Batch,
    bytes: u64,
}

impl Batches {
    /// One more row; the batch that it makes full.
    pub(super) fn push(&mut self, row: Row) -> Option<Batch> {
        self.bytes += row.length;
        self.next.rows.push(row);
        (self.next.rows.len() >= MAX_ROWS || self.bytes >= MAX_BYTES).then(|| self.take())
    }

    /// What is left at the end of the file.
    pub(super) fn rest(&mut self) -> Option<Batch> {
        (!self.next.rows.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Batch {
        self.bytes = 0;
        let number = self.next.number + 1;
        std::mem::replace(
            &mut self.next,
            Batch {
                number,
                rows: Vec::new(),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(length: u64) -> Row {
        Row {
            line: 1,
            offset: 0,
            length,
            columns: [].into(),
            values: Ok(Vec::new()),
        }
    }

    fn sizes(lengths: impl Iterator<Item = u64>) -> Vec<(u64, usize)> {
        let mut batches = Batches::default();
        let mut made: Vec<Batch> = lengths.filter_map(|length| batches.push(row(length))).collect();
        made.extend(batches.rest());
        made.iter().map(|batch| (batch.number, batch.rows.len())).collect()
    }

    #[test]
    fn batches_are_bounded_by_rows_and_bytes() {
        assert_eq!(sizes(std::iter::empty()), []);
        assert_eq!(sizes(std::iter::repeat_n(10, 1_001)), [(0, 500), (1, 500), (2, 1)]);
        assert_eq!(sizes(std::iter::repeat_n(MAX_BYTES / 2, 3)), [(0, 2), (1, 1)]);
        assert_eq!(sizes([MAX_BYTES * 2, 1].into_iter()), [(0, 1), (1, 1)]);
    }
}
