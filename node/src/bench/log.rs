//! `volt-node bench log`: how fast the node's log takes records and has them safe, by group commit.
//!
//! Many appenders, each for a partition of its own, queue records in the node's own log, in a folder of its own under the one that is
//! named, and wait until their own are safe before they queue more.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Durability;
use crate::recovery::log::{Log, LogEntry, LogOptions};
use crate::recovery::sink::InOrder;
use crate::world::World;

const CLUSTER: Uuid = Uuid::nil();
/// Records that an appender queues before it waits.
const OUTSTANDING: [u64; 3] = [64, 512, 4_096];

/// Arguments of `volt-node bench log`.
#[derive(Args, Clone, Debug)]
pub struct LogArguments {
    /// Records of each measurement
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// Bytes of a record
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    bytes: u32,
    /// Those who append at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    appenders: u32,
    /// How often each is measured; the quickest counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where the log lies, on the disk that is measured
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

/// Appends, and prints how fast.
pub async fn run(arguments: LogArguments) -> anyhow::Result<()> {
    println!(
        "{} records of {} bytes by {} appenders; best of {}",
        arguments.records, arguments.bytes, arguments.appenders, arguments.rounds
    );
    println!("            outstanding   records/s   records a write");
    for durability in [Durability::Fsync, Durability::Async] {
        for outstanding in OUTSTANDING {
            let (mut best, mut writes) = (0.0_f64, 0);
            for _ in 0..arguments.rounds {
                let (a_second, written) = measure(&arguments, durability, outstanding).await?;
                if a_second > best {
                    (best, writes) = (a_second, written);
                }
            }
            println!(
                "{:<10} {:>3} x {outstanding:>6} {best:>11.0} {:>17.0}",
                format!("{durability:?}").to_lowercase(),
                arguments.appenders,
                arguments.records as f64 / writes.max(1) as f64
            );
        }
    }
    Ok(())
}

/// Records a second, and how often more of them were safe.
async fn measure(arguments: &LogArguments, durability: Durability, outstanding: u64) -> anyhow::Result<(f64, u64)> {
    let folder = tempfile::tempdir_in(&arguments.folder)?;
    let world = World::production(folder.path())?;
    let mut nothing = InOrder::new(|_, _| Ok(()));
    let opened = Log::open(&world, LogOptions::new(durability), CLUSTER, &mut nothing);
    let log = Arc::new(opened.await?);
    let share = arguments.records / u64::from(arguments.appenders);
    let all = share * u64::from(arguments.appenders);
    let mut safe = log.safe();
    let counting = tokio::spawn(async move {
        let mut writes = 1;
        while *safe.borrow_and_update() < all && safe.changed().await.is_ok() {
            writes += 1;
        }
        writes
    });
    let begun = Instant::now();
    let mut appenders = JoinSet::new();
    let payload = Bytes::from(vec![b'x'; arguments.bytes as usize]);
    for appender in 1..=arguments.appenders {
        appenders.spawn(append(
            Arc::clone(&log),
            appender,
            (share, outstanding),
            payload.clone(),
        ));
    }
    while let Some(ended) = appenders.join_next().await {
        ended??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok((all as f64 / seconds, counting.await?))
}

/// One of the appenders: so many records, and so many of them outstanding at a time.
async fn append(
    log: Arc<Log>,
    appender: u32,
    (records, outstanding): (u64, u64),
    payload: Bytes,
) -> anyhow::Result<()> {
    let mut lsn = 0;
    while lsn < records {
        let mut ticket = 0;
        for _ in 0..outstanding.min(records - lsn) {
            lsn += 1;
            let record = LogEntry::Record {
                epoch: 1,
                lsn,
                payload: payload.clone(),
            };
            ticket = log.append(appender, &record);
        }
        log.wait_safe(ticket).await?;
    }
    Ok(())
}
