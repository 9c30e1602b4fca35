//! `volt-node bench replay`: how long a node reads its data directory back at a start, by one lane and by several.
//!
//! It writes a log of its own into a temporary folder, through the node's own log, and reads it back as a start does; then
//! it takes a checkpoint, so that the log goes, and reads that back. The files are in the kernel's cache, so that what is
//! measured is reading, checking and applying them, and no disk.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use anyhow::bail;
use clap::Args;
use tokio::task::yield_now;
use tokio::time::Duration;
use uuid::Uuid;
use volt_engine::PartitionId;
use volt_engine::effects::{EffectsBuilder, LogPayload};
use volt_engine::key::encode_key;
use volt_engine::row::encode_row;
use volt_engine::value::ValueRef;

use crate::config::{Durability, NodeConfig};
use crate::recovery::log::{LogEntry, OF_THE_NODE};
use crate::recovery::{Reading, Recovered, recover};
use crate::replication::Slot;
use crate::world::World;

const CLUSTER: Uuid = Uuid::nil();
const TABLE: u32 = 1;
/// Records of a partition between two marks of what is committed.
const MARK_EVERY: u64 = 100;
/// The log's queue is waited for when it is longer.
const QUEUE_BYTES: usize = 16 << 20;
const MEGABYTE: f64 = 1e6;

/// Arguments of `volt-node bench replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArguments {
    /// Records, each of one new row
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// Letters of a row's text
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    text: u32,
    /// Partitions, whose records lie in the log in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// How often each is measured; the quickest counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Writes, reads back, and prints what it took.
pub async fn run(arguments: ReplayArguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut config = NodeConfig::new(1, "");
    // Nothing here has to survive a loss of power.
    config.durability = Durability::Async;
    let world = World::production(folder.path())?;
    let bench = Bench {
        world,
        config,
        arguments,
    };
    let log_bytes = bench.write().await?;
    println!(
        "{} records of {} partitions, texts of {} bytes; best of {}",
        bench.arguments.records, bench.arguments.partitions, bench.arguments.text, bench.arguments.rounds
    );
    println!("                lanes        MB   seconds    rows/s      MB/s   s a GB");
    bench.measure("log", log_bytes).await?;
    let checkpoint_bytes = bench.take_checkpoint().await?;
    bench.measure("checkpoint", checkpoint_bytes).await
}

struct Bench {
    world: World,
    config: NodeConfig,
    arguments: ReplayArguments,
}

impl Bench {
    async fn recover(&self, lanes: usize) -> anyhow::Result<Recovered> {
        let reading = Reading {
            lanes,
            ..Reading::of_runtime()
        };
        Ok(recover(&self.world, &self.config, CLUSTER, reading).await?)
    }

    /// Returns how long the log is.
    async fn write(&self) -> anyhow::Result<u64> {
        let log = self.recover(1).await?.log;
        let partitions = u64::from(self.arguments.partitions);
        let text = "x".repeat(self.arguments.text as usize);
        for number in 0..self.arguments.records {
            let (partition, lsn) = (1 + (number % partitions) as PartitionId, 1 + number / partitions);
            let mut effects = EffectsBuilder::default();
            let values = [ValueRef::BigInt(number as i64), ValueRef::Text(&text)];
            effects.put(TABLE, &encode_key([values[0]]), &encode_row(&values));
            let payload = LogPayload::Write(effects.finish()).encode();
            log.append(partition, &LogEntry::Record { epoch: 1, lsn, payload });
            let is_last = number + partitions >= self.arguments.records;
            if lsn % MARK_EVERY == 0 || is_last {
                log.append(partition, &LogEntry::Committed { lsn });
            }
            while log.queued_bytes() > QUEUE_BYTES {
                log.wait_safe(log.last_ticket()).await?;
                yield_now().await;
            }
        }
        log.close().await?;
        Ok(log.bytes_on_disk())
    }

    /// Makes the log needless; returns how long the checkpoint is.
    async fn take_checkpoint(&self) -> anyhow::Result<u64> {
        let mut recovered = self.recover(Reading::of_runtime().lanes).await?;
        let slots: Vec<Slot> = recovered
            .replicas
            .drain(..)
            .map(|replica| Arc::new(Mutex::new(replica)))
            .collect();
        let log = Arc::clone(&recovered.log);
        let replicas_at = move |mark| {
            log.append(OF_THE_NODE, &LogEntry::Mark { mark });
            slots.clone()
        };
        recovered.checkpointer.take(replicas_at).await?;
        recovered.log.close().await?;
        let figures = recovered.checkpointer.figures();
        let bytes = figures.bytes.load(Relaxed);
        Ok(bytes)
    }

    async fn measure(&self, what: &str, bytes: u64) -> anyhow::Result<()> {
        let workers = Reading::of_runtime().lanes;
        let mut counts = vec![1, workers];
        counts.dedup();
        let mut best = vec![Duration::MAX; counts.len()];
        // In turn, so that what else the machine does meets all of them.
        for _ in 0..self.arguments.rounds {
            for (best, &lanes) in best.iter_mut().zip(&counts) {
                let recovered = self.recover(lanes).await?;
                recovered.log.close().await?;
                *best = recovered.took.min(*best);
                let found: u64 = recovered.replicas.iter().map(|replica| replica.committed).sum();
                if found != self.arguments.records {
                    bail!("{found} records came back of {}", self.arguments.records);
                }
            }
        }
        for (lanes, took) in counts.into_iter().zip(best) {
            let seconds = took.as_secs_f64();
            let megabytes = bytes as f64 / MEGABYTE;
            println!(
                "{what:<12} {lanes:>8} {megabytes:>9.0} {seconds:>9.2} {:>9.0} {:>9.0} {:>8.2}",
                self.arguments.records as f64 / seconds,
                megabytes / seconds,
                seconds / (megabytes / 1000.0),
            );
        }
        Ok(())
    }
}
