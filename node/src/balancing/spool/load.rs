//! Loads the files of this node, one after the other.

use std::io;
use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};
use volt_engine::value::{DataType, Value};

use super::Spool;
use super::batch::{Batch, Batches};
use super::item::{Format, ItemId, ItemName};
use super::ledger::{self, Entries, Entry, Ignored, Reject};
use super::rows::{Row, Rows};
use crate::error::SqlError;
use crate::gateway::codec;
use crate::peers::retry::half_and_random_half;
use crate::statement::{Options, Prepared, SessionValues, Transaction, TransactionModes};

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Rows of an INSERT; a statement of so many has one plan for all files of the table.
const ROWS_A_STATEMENT: usize = 50;
/// How often a batch is tried before its file is given back, for any node to take.
const MAX_TRIES: u32 = 8;
/// The longest pause between two tries; the first ones are shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Rows of a file that may be rejected: with more it is most likely no file of its table, and the rest is left.
const MAX_REJECTS: u64 = 10_000;

/// Why a file, or a batch of it, is not loaded.
pub(super) enum Trouble {
    /// The batch is: somebody else has done it.
    Noted,
    /// The cluster can't now: later, perhaps.
    NotNow(SqlError),
    /// The file can't be loaded, or not all of it.
    File(SqlError),
    /// The directory says so; that there is no file: somebody else has it now.
    Disk(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<SqlError> for Trouble {
    fn from(error: SqlError) -> Self {
        // A conflict, no memory or no room, nobody there, no connection, an index that is being built.
        match error.sqlstate.get(..2) {
            Some("08" | "40" | "53" | "55" | "57") => Self::NotNow(error),
            _ => Self::File(error),
        }
    }
}

/// It may be one row's fault: a value of another type or size, a constraint.
fn blames_a_row(error: &SqlError) -> bool {
    matches!(error.sqlstate.get(..2), Some("22" | "23" | "54"))
}

/// Names columns that can't be written.
fn blames_columns(error: &SqlError) -> bool {
    matches!(error.sqlstate.as_str(), "42703" | "42701" | "428C9")
}

impl Spool {
    /// Loads what this node has, until there is no more.
    pub(super) async fn load_all_in_hand(&self) -> io::Result<()> {
        loop {
            let mut files = super::items(self.world.disk.list(&self.hand(self.metadata.node_id())).await?);
            files.sort();
            let Some((item, id)) = files.into_iter().find_map(|item| item.id.map(|id| (item, id))) else {
                return Ok(());
            };
            let loaded = self.load(&item, id).await;
            self.doing("", &Entries::new());
            match loaded {
                Ok(()) | Err(Trouble::Noted) => {}
                Err(Trouble::File(error)) => self.fail(&item, id, &error).await?,
                Err(Trouble::NotNow(error)) => {
                    tracing::warn!(file = item.full(), %error, "a file can't be loaded now");
                    return self.give_back(&item).await;
                }
                Err(Trouble::Disk(error)) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::info!(file = item.full(), "a file was taken away while it was loaded");
                    return Ok(());
                }
                Err(Trouble::Disk(error)) => return Err(error),
            }
        }
    }

    async fn load(&self, item: &ItemName, id: ItemId) -> Result<(), Trouble> {
        self.check_age(id)?;
        let mut entries = self.entries(id).await?;
        let path = self.hand(self.metadata.node_id()).join(item.full());
        let (mut rows, mut batches, mut offset) = (Rows::of(item.format), Batches::default(), 0);
        loop {
            let piece = self.world.disk.read_range(&path, offset, PIECE_BYTES).await?;
            offset += piece.len() as u64;
            rows.feed(&piece);
            while let Some(row) = rows.next()? {
                if let Some(batch) = batches.push(row) {
                    self.load_batch(item, id, &batch, &mut entries).await?;
                }
            }
            if piece.is_empty() {
                break;
            }
        }
        if let Some(batch) = batches.rest() {
            self.load_batch(item, id, &batch, &mut entries).await?;
        }
        Ok(self.finish(item, id, &entries).await?)
    }

    /// Nobody may load what may have been loaded and forgotten.
    fn check_age(&self, id: ItemId) -> Result<(), Trouble> {
        let age = self.now_seconds() - id.claimed_at;
        if age.abs() <= ledger::KEPT {
            return Ok(());
        }
        let message = format!(
            "the file was claimed {} days ago: which of its rows are loaded is not known any more",
            age / 86_400
        );
        Err(Trouble::File(
            SqlError::new("55000", message).hint("Compare it with the table, and drop what is missing again."),
        ))
    }

    /// Loads a batch unless it is loaded.
    async fn load_batch(
        &self,
        item: &ItemName,
        id: ItemId,
        batch: &Batch,
        entries: &mut Entries,
    ) -> Result<(), Trouble> {
        let mut tries = 0;
        while !entries.contains_key(&batch.number) {
            self.check_age(id)?;
            tries += 1;
            let began = Instant::now();
            match self.try_batch(item, id, batch).await {
                Ok(entry) => {
                    self.figures.loaded(entry.loaded, entry.rejects.len() as u64);
                    self.took(began.elapsed(), batch.rows.len());
                    entries.insert(batch.number, entry);
                }
                Err(Trouble::Noted) if tries < MAX_TRIES => *entries = self.entries(id).await?,
                Err(Trouble::NotNow(_)) if tries < MAX_TRIES => self.pause(tries).await,
                Err(trouble) => return Err(trouble),
            }
        }
        self.doing(&item.full(), entries);
        if ledger::sums(entries).1 <= MAX_REJECTS {
            return Ok(());
        }
        let message = format!("more than {MAX_REJECTS} rows were rejected: the rest of the file was left");
        Err(Trouble::File(SqlError::new("54000", message)))
    }

    async fn pause(&self, tries: u32) {
        let longest = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
        sleep(half_and_random_half(longest, self.world.random.next_u64())).await;
    }

    /// One transaction: the rows that can be put, and the note of it.
    async fn try_batch(&self, item: &ItemName, id: ItemId, batch: &Batch) -> Result<Entry, Trouble> {
        let session = Arc::<SessionValues>::default();
        let mut transaction = Arc::clone(&self.database).begin(TransactionModes::default(), session);
        let mut entry = Entry {
            node: self.metadata.node_id(),
            at: self.now_seconds(),
            ..Entry::default()
        };
        let alike = batch.rows.chunk_by(|one, other| one.columns == other.columns);
        for rows in alike.flat_map(|rows| rows.chunks(ROWS_A_STATEMENT)) {
            self.put(&mut *transaction, item, rows, &mut entry).await?;
        }
        match self.note(&mut *transaction, (id, batch.number), &entry).await {
            Err(error) if error.sqlstate == "23505" => return Err(Trouble::Noted),
            noted => noted?,
        }
        self.check_age(id)?;
        let wait = transaction.commit(Options::default()).await?;
        self.wait(wait).await?;
        Ok(entry)
    }

    /// Puts rows of the same columns, and notes those that can't be put.
    async fn put(
        &self,
        transaction: &mut dyn Transaction,
        item: &ItemName,
        rows: &[Row],
        entry: &mut Entry,
    ) -> Result<(), Trouble> {
        let columns = rows.first().map_or(&[][..], |row| &row.columns);
        let one = match self.insert(&item.table, columns, 1).await {
            Ok(one) => one,
            Err(error) if item.format == Format::JsonLines && blames_columns(&error) => {
                entry.rejects.extend(
                    rows.iter()
                        .map(|row| Reject::of(row, row.values.as_ref().err().unwrap_or(&error))),
                );
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut values = Vec::new();
        for row in rows {
            match read(row, one.parameters()) {
                Ok(read) => values.push((row, read)),
                Err(error) => entry.rejects.push(Reject::of(row, &error)),
            }
        }
        if values.len() > 1 && !columns.is_empty() {
            let all = self.insert(&item.table, columns, values.len()).await?;
            let parameters = values.iter().flat_map(|(_, values)| values.iter().cloned()).collect();
            if self.put_or_rewind(transaction, all, parameters).await?.is_ok() {
                entry.loaded += values.len() as u64;
                return Ok(());
            }
        }
        for (row, values) in values {
            match self.put_or_rewind(transaction, Arc::clone(&one), values).await? {
                Ok(()) => entry.loaded += 1,
                Err(error) => entry.rejects.push(Reject::of(row, &error)),
            }
        }
        Ok(())
    }

    /// The inner error is that of a row, and has changed nothing.
    async fn put_or_rewind(
        &self,
        transaction: &mut dyn Transaction,
        insert: Arc<dyn Prepared>,
        values: Vec<Value>,
    ) -> Result<Result<(), SqlError>, Trouble> {
        let before = transaction.savepoint();
        match transaction.execute(insert, values, &mut Ignored).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if blames_a_row(&error) => {
                transaction.rewind(before)?;
                Ok(Err(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn insert(&self, table: &str, columns: &[String], rows: usize) -> Result<Arc<dyn Prepared>, SqlError> {
        self.database.prepare(&insert_text(table, columns, rows), &[]).await
    }

    /// Tells the others how far this node is.
    fn doing(&self, file: &str, entries: &Entries) {
        let (loaded, rejected) = ledger::sums(entries);
        let mut state = self.state();
        state.doing.file = file.to_owned();
        state.doing.loaded = loaded;
        state.doing.rejected = rejected;
    }

    /// A batch of so many rows took so long.
    fn took(&self, time: Duration, rows: usize) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / (rows as u64).max(1);
        let mut state = self.state();
        let average = state
            .doing
            .row_micros
            .map_or(micros, |before| (7 * before + micros) / 8);
        state.doing.row_micros = Some(average);
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The INSERT of so many rows, each value a parameter.
fn insert_text(table: &str, columns: &[String], rows: usize) -> String {
    let table = quoted(table);
    if columns.is_empty() {
        return format!("INSERT INTO {table} DEFAULT VALUES");
    }
    let names: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    let row = |row: usize| {
        let first = row * columns.len() + 1;
        let values: Vec<String> = (first..first + columns.len())
            .map(|place| format!("${place}"))
            .collect();
        format!("({})", values.join(","))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO {table} ({}) VALUES {}", names.join(","), rows.join(","))
}

/// A row's values for parameters of these types.
fn read(row: &Row, types: &[DataType]) -> Result<Vec<Value>, SqlError> {
    let texts = row.values.as_ref().map_err(Clone::clone)?;
    let value = |(text, data_type): (&Option<String>, &DataType)| match text {
        None => Ok(Value::Null),
        Some(text) => codec::parameter(text.as_bytes(), 0, 0, *data_type),
    };
    texts.iter().zip(types).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let columns = ["id".to_owned(), "a \"b\"".to_owned()];
        assert_eq!(
            insert_text("T", &columns, 2),
            r#"INSERT INTO "T" ("id","a ""b""") VALUES ($1,$2),($3,$4)"#
        );
        assert_eq!(insert_text("t", &[], 1), r#"INSERT INTO "t" DEFAULT VALUES"#);
    }

    #[test]
    fn errors_are_the_moments_the_rows_or_the_files() {
        let error = |sqlstate: &str| SqlError::new(sqlstate, "");
        for now in ["40001", "40003", "57P03", "53200", "55000"] {
            assert!(matches!(Trouble::from(error(now)), Trouble::NotNow(_)), "{now}");
            assert!(!blames_a_row(&error(now)));
        }
        for file in ["42P01", "42703", "0A000", "XX000"] {
            assert!(matches!(Trouble::from(error(file)), Trouble::File(_)), "{file}");
            assert!(!blames_a_row(&error(file)));
        }
        assert!(
            ["22P02", "23505", "23514", "54000"]
                .iter()
                .all(|row| blames_a_row(&error(row)))
        );
    }
}
