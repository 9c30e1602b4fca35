//! How much of what a cluster may have.

/// Most partitions of a replication group.
pub const MAX_PARTITIONS: u32 = 16_384;
/// Partitions of a replication group, unless the cluster was made with another number.
pub const DEFAULT_PARTITIONS: u32 = 12;

/// Most procedures of a cluster.
pub const MAX_PROCEDURES: usize = 10_000;
/// Bytes of all WebAssembly modules of a cluster: they are part of each snapshot of the map.
pub const MAX_MODULES_BYTES: usize = 64 << 20;

/// Most columns of a table: PostgreSQL's bound.
pub const MAX_COLUMNS: usize = 1_600;
/// Most views of a cluster.
pub const MAX_VIEWS: usize = 10_000;
/// Most materialized views of a table: each is looked at by every write.
pub const MAX_MATERIALIZED_VIEWS: usize = 32;
/// Most secondary indexes of a table.
pub const MAX_INDEXES: usize = 64;

/// The longest life of a row under a TTL: 36,500 days.
pub const MAX_TTL_MICROS: i64 = 36_500 * 86_400 * 1_000_000;
/// Most rows that one transaction of a TTL removes: nobody else has the partition meanwhile, some milliseconds.
pub const MAX_TTL_BATCH_SIZE: u32 = 10_000;
/// Most such transactions of a table and partition a second.
pub const MAX_TTL_FREQUENCY: u32 = 100;
