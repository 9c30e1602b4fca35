//! The rows of linked tables, read back from the links' databases, for replicas here that must be filled: what is the same there need not
//! come from their primaries. Nothing of it is trusted (`replication::fill`), so a database may be late, or hold other rows.
//!
//! A table is read once for all partitions that are to be filled here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use volt_engine::catalog::Table;
use volt_engine::key::encode_key;
use volt_engine::partition::Partition;
use volt_engine::placement::partition_index;
use volt_engine::plan::eval::assign_value;
use volt_engine::row::encode_row;
use volt_engine::value::{DataType, Value};
use volt_engine::{NodeId, PartitionId, TableId};

use super::postgres::{columns, list, quoted};
use super::sender::remote_database;
use crate::error::SqlError;
use crate::gateway::codec;
use crate::metadata::link::Link;
use crate::metadata::map::ClusterMap;
use crate::peers::remote::{Carrier, connect, told};
use crate::replication::Replicas;
use crate::txn::default_limit;
use crate::world::{Memory, World};

/// Longest wait for a database to take a connection, and for each answer.
const MESSAGE_WAIT: Duration = Duration::from_secs(10);
/// After a database could not be read, fills begin without it for so long.
const REST: Duration = Duration::from_secs(30);

/// Rows that are taken before others have their turn.
const ROWS_AT_ONCE: usize = 256;

/// What a row takes beside its bytes, about.
const ROW_OVERHEAD: usize = 64;

/// What was read, by partition.
type ByPartition = BTreeMap<PartitionId, Partition>;

/// What this node has read back.
#[derive(Default)]
pub(crate) struct Recalled {
    /// Bytes that the node may take; None: as the machine allows.
    memory_limit: Option<u64>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is not used yet.
    rows: ByPartition,
    /// Why nothing could be read, and until when it isn't tried again.
    failed: Option<(Instant, String)>,
}

/// Rows as they are read, and the bytes that there is room for: another database may have more rows than this cluster.
struct Rows<'a> {
    wanted: &'a BTreeSet<PartitionId>,
    read: ByPartition,
    room: usize,
}

impl Rows<'_> {
    /// Takes a row that is wanted; whether it is. Err: there is no room.
    fn take(&mut self, partition: PartitionId, table: TableId, (key, row): (&[u8], &[u8])) -> Result<bool, String> {
        if !self.wanted.contains(&partition) {
            return Ok(false);
        }
        let bytes = key.len() + row.len() + ROW_OVERHEAD;
        let room = self.room.checked_sub(bytes);
        self.room = room.ok_or_else(|| "it has more rows than half of this node's free memory holds".to_owned())?;
        self.read
            .entry(partition)
            .or_default()
            .take_unversioned(table, key, row);
        Ok(true)
    }
}

impl Recalled {
    pub(crate) fn new(memory_limit: Option<u64>) -> Self {
        Self {
            memory_limit,
            ..Self::default()
        }
    }

    /// Half of what is free, for the replica that is filled takes as much.
    fn room(&self, memory: &dyn Memory) -> usize {
        let limit = self.memory_limit.or_else(|| default_limit(memory, 1));
        let free = limit.map(|limit| limit.saturating_sub(memory.resident_bytes().unwrap_or(0)));
        free.map_or(usize::MAX, |free| usize::try_from(free / 2).unwrap_or(usize::MAX))
    }

    /// The rows of a partition, without LSNs. One reads at a time: the others find theirs when it is done.
    pub(crate) async fn take(&self, replicas: &Replicas, partition: PartitionId) -> Result<Partition, String> {
        let mut state = self.state.lock().await;
        if let Some(rows) = state.rows.remove(&partition) {
            return Ok(rows);
        }
        if let Some((until, why)) = &state.failed
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let map = replicas.metadata.map();
        let mut wanted = lacking(&map, replicas.node_id);
        wanted.insert(partition);
        let rows = Rows {
            wanted: &wanted,
            read: ByPartition::new(),
            room: self.room(&*replicas.world.memory),
        };
        match read(&replicas.world, &map, rows).await {
            Ok(rows) => *state = State { rows, failed: None },
            Err(why) => {
                state.failed = Some((Instant::now() + REST, why.clone()));
                return Err(why);
            }
        }
        Ok(state.rows.remove(&partition).unwrap_or_default())
    }

    /// A fill is over: what nobody will ask for takes no memory.
    pub(crate) fn forget_what_is_not_wanted(&self, replicas: &Replicas) {
        if let Ok(mut state) = self.state.try_lock() {
            let wanted = lacking(&replicas.metadata.map(), replicas.node_id);
            state.rows.retain(|partition, _| wanted.contains(partition));
        }
    }
}

/// The partitions of which this node is to have a replica, and has none in sync.
fn lacking(map: &ClusterMap, node: NodeId) -> BTreeSet<PartitionId> {
    let learns = map.partitions.values().filter(|info| info.learners.contains(&node));
    learns.map(|info| info.partition_id).collect()
}

/// All linked tables of these partitions. Err: of none of them anything could be read.
async fn read(world: &World, map: &ClusterMap, mut rows: Rows<'_>) -> Result<ByPartition, String> {
    let groups: BTreeSet<_> = rows
        .wanted
        .iter()
        .filter_map(|partition| Some(map.partitions.get(partition)?.group))
        .collect();
    let mut left: BTreeSet<TableId> = map
        .links
        .values()
        .flat_map(|link| &link.tables)
        .copied()
        .filter(|id| map.tables.get(id).is_some_and(|table| groups.contains(&table.group)))
        .collect();
    if left.is_empty() {
        return Err("no replication link has a table of it".to_owned());
    }
    let (mut has_read, mut why) = (false, String::new());
    for link in map.links.values() {
        let tables: Vec<&Table> = link
            .tables
            .intersection(&left)
            .filter_map(|id| map.tables.get(id).map(AsRef::as_ref))
            .collect();
        if tables.is_empty() {
            continue;
        }
        let client = match client(world, link).await {
            Ok(client) => client,
            Err(error) => {
                why = format!("link {}: {error}", link.name);
                continue;
            }
        };
        for table in tables {
            match read_table(&client.0, map, table, &mut rows).await {
                Ok(()) => {
                    has_read = true;
                    left.remove(&table.id);
                }
                Err(error) => why = format!("link {}, table {}: {error}", link.name, table.name),
            }
        }
    }
    match has_read {
        true => Ok(rows.read),
        false => Err(why),
    }
}

/// A connection to the first of the link's servers that takes one.
async fn client(world: &World, link: &Link) -> Result<(Client, Carrier), String> {
    let database = remote_database(&link.target)?;
    let mut why = late();
    for server in 0..database.servers.len() {
        match timeout(MESSAGE_WAIT, connect(world, &database, server)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => why = error,
            Err(_) => why = late(),
        }
    }
    Err(why)
}

fn late() -> String {
    format!("no answer within {} s", MESSAGE_WAIT.as_secs())
}

/// What a linked PostgreSQL's settings must be for its texts to be those that we read. Others take them for what they are.
const SETTINGS: &str = "SET datestyle = 'ISO'; SET extra_float_digits = 1; SET bytea_output = 'hex'";

async fn read_table(client: &Client, map: &ClusterMap, table: &Table, rows: &mut Rows<'_>) -> Result<(), String> {
    let names = list(columns(table).map(|(_, name)| quoted(name)), ", ");
    let query = format!("SELECT {names} FROM {}", quoted(&table.name));
    let said = |error| told(&error);
    let set = timeout(MESSAGE_WAIT, client.batch_execute(SETTINGS));
    set.await.map_err(|_| late())?.map_err(said)?;
    let answer = timeout(MESSAGE_WAIT, client.simple_query_raw(&query));
    let answer = answer.await.map_err(|_| late())?.map_err(said)?;
    pin_mut!(answer);
    let (mut taken, mut unread, mut seen) = (0_u64, 0_u64, 0_usize);
    while let Some(message) = timeout(MESSAGE_WAIT, answer.next()).await.map_err(|_| late())? {
        let SimpleQueryMessage::Row(row) = message.map_err(said)? else {
            continue;
        };
        seen += 1;
        if seen.is_multiple_of(ROWS_AT_ONCE) {
            // Heartbeats run on these threads too.
            tokio::task::yield_now().await;
        }
        match place(map, table, &row) {
            Ok((partition, key, row)) => taken += u64::from(rows.take(partition, table.id, (&key, &row))?),
            // Somebody else's: it comes from the primary if it is one of ours.
            Err(error) => {
                tracing::debug!(table = table.name, %error, "a row of a linked database can't be read");
                unread += 1;
            }
        }
    }
    tracing::info!(
        table = table.name,
        taken,
        unread,
        "rows were read back from a linked database"
    );
    Ok(())
}

/// The row as it is here, its key, and the partition that it belongs to.
fn place(map: &ClusterMap, table: &Table, row: &SimpleQueryRow) -> Result<(PartitionId, Vec<u8>, Vec<u8>), SqlError> {
    let mut values = vec![Value::Null; table.columns.len()];
    for (number, (place, _)) in columns(table).enumerate() {
        let text = row
            .try_get(number)
            .map_err(|error| SqlError::internal(error.to_string()))?;
        values[place] = match text {
            Some(text) => value(text, table.columns[place].data_type)?,
            None => Value::Null,
        };
    }
    let by = table.partition_column.map(|column| values[column].as_ref());
    let partitions = map.groups.get(&table.group).map(|group| &group.partitions);
    let partition = by.zip(partitions).and_then(|(by, partitions)| {
        let count = u32::try_from(partitions.len()).ok().filter(|count| *count > 0)?;
        partitions.get(partition_index(by, count) as usize).copied()
    });
    let partition = partition.ok_or_else(|| SqlError::internal("a linked table without partitions"))?;
    let key = encode_key(table.primary_key.iter().map(|&place| values[place].as_ref()));
    let row = encode_row(&values.iter().map(Value::as_ref).collect::<Vec<_>>());
    Ok((partition, key, row))
}

fn value(text: &str, data_type: DataType) -> Result<Value, SqlError> {
    const TEXT: i16 = 0;
    let value = codec::parameter(text.as_bytes(), TEXT, 0, data_type)?;
    Ok(assign_value(value, data_type)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_as_much_room_as_there_is_and_only_wanted_ones_take_it() {
        let wanted = BTreeSet::from([3]);
        let mut rows = Rows {
            wanted: &wanted,
            read: ByPartition::new(),
            room: 3 * (8 + ROW_OVERHEAD),
        };
        let row = encode_row(&[]);
        let key = vec![7; 8 - row.len()];
        assert_eq!(rows.take(4, 1, (&key, &row)), Ok(false));
        for last in 0..3 {
            let key = [&key[1..], &[last]].concat();
            assert_eq!(rows.take(3, 1, (&key, &row)), Ok(true));
        }
        assert!(rows.take(3, 1, (&key, &row)).is_err());
        assert_eq!(rows.read[&3].stats().rows, 3);
    }

    #[test]
    fn values_are_what_they_were() {
        use DataType::{BigInt, Boolean, Bytea, Double, Int, Numeric, Text, Timestamp, Varchar};
        let numeric = Numeric {
            precision: 10,
            scale: 2,
        };
        let cases = [
            (Int, "-7", Value::Int(-7)),
            (BigInt, "9007199254740993", Value::BigInt(9_007_199_254_740_993)),
            (Boolean, "t", Value::Boolean(true)),
            (Double, "0.30000000000000004", Value::Double(0.1 + 0.2)),
            (numeric, "1.50", Value::Numeric("1.50".parse().unwrap())),
            (Varchar(5), "abc", Value::Text("abc".to_owned())),
            (Text, "", Value::Text(String::new())),
            (Timestamp, "1970-01-01 00:00:01.5", Value::Timestamp(1_500_000)),
            (Bytea, "\\x00ff", Value::Bytea(vec![0, 255])),
        ];
        for (data_type, text, expected) in cases {
            assert_eq!(value(text, data_type).unwrap(), expected, "{text}");
        }
        assert!(value("infinity", Timestamp).is_err() && value("seven", Int).is_err());
    }
}
