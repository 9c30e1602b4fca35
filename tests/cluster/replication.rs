//! Replication over the network, through a file system and through a database: one contract for all three.
//!
//! Several writers each add numbered rows, one after the other; a writer's rows lie in one partition. However they are replicated, and while what
//! carries them is away for a while and a node dies:
//! - at any moment the other side has of each writer the first so many rows: none out of turn, none twice;
//! - in the end it has all that was acknowledged, and nothing else than the cluster has.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use volt_tests::postgres::Postgres;

use crate::archive::standby::{archived, standby_of};
use crate::archive::{Place, directory};
use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const STEPS: &str = "CREATE TABLE steps (writer BIGINT, step BIGINT, mine BIGINT NOT NULL, PRIMARY KEY (writer, step), CHECK (mine = step * 7 + writer))";
const WRITERS: i64 = 6;
/// Everything is there by then.
const LIMIT: Duration = Duration::from_secs(60);

/// What carries the rows to where.
enum Medium {
    /// To the backups.
    Network,
    /// To a cluster that follows the archive in this folder.
    FileSystem { archive: PathBuf, standby: Cluster },
    /// To a PostgreSQL.
    Database(Postgres),
}

impl Medium {
    /// Who reads what has arrived.
    async fn there(&self, cluster: &Cluster) -> Result<Client> {
        match self {
            Self::Network => {
                let client = connect(cluster.sql(3)).await?;
                client.batch_execute("SET volt.read_from = 'backup'").await?;
                Ok(client)
            }
            Self::FileSystem { standby, .. } => connect(standby.sql(1)).await,
            Self::Database(postgres) => connect(postgres.port).await,
        }
    }

    /// Nothing is carried for a while.
    async fn stands_still(&mut self, cluster: &mut Cluster, pause: Duration) -> Result<()> {
        match self {
            // Shorter than a lease: nobody takes its part.
            Self::Network => {
                cluster.nodes.node(3).freeze()?;
                sleep(pause / 4).await;
                cluster.nodes.node(3).thaw()
            }
            Self::FileSystem { archive, .. } => {
                let away = archive.with_extension("away");
                std::fs::rename(&*archive, &away)?;
                std::fs::write(&*archive, "no directory")?;
                sleep(pause).await;
                std::fs::remove_file(&*archive)?;
                Ok(std::fs::rename(&away, &*archive)?)
            }
            Self::Database(postgres) => {
                postgres.stop()?;
                sleep(pause).await;
                postgres.run()
            }
        }
    }
}

/// Of each writer, how many rows there are. Err: one is out of turn.
async fn seen(client: &Client) -> Result<Vec<i64>> {
    let query = "SELECT writer, count(*), max(step) FROM steps WHERE mine = step * 7 + writer GROUP BY writer";
    let mut seen = vec![0; WRITERS as usize];
    for row in client.query(query, &[]).await? {
        let (writer, count, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        ensure!(
            count == last,
            "OUT OF TURN: writer {writer} has {count} rows, the last is {last}"
        );
        seen[writer as usize] = count;
    }
    Ok(seen)
}

/// Tasks that go on until they are told to end.
struct Tasks {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<i64>>>,
}

impl Tasks {
    /// The writers; each ends with the last step that was acknowledged.
    fn write(ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let write = |writer: i64| tokio::spawn(write(writer, ports.to_vec(), Arc::clone(&stop)));
        let tasks = (0..WRITERS).map(write).collect();
        Self { stop, tasks }
    }

    async fn end(self) -> Result<Vec<i64>> {
        self.stop.store(true, SeqCst);
        let mut ends = Vec::new();
        for task in self.tasks {
            ends.push(task.await??);
        }
        Ok(ends)
    }
}

async fn write(writer: i64, ports: Vec<u16>, stop: Arc<AtomicBool>) -> Result<i64> {
    let (mut step, mut tries, mut client) = (0_i64, writer as usize, None);
    while !stop.load(SeqCst) {
        let connected = match client.take() {
            Some(connected) => connected,
            None => {
                tries += 1;
                match connect(ports[tries % ports.len()]).await {
                    Ok(connected) => connected,
                    Err(_) => {
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                }
            }
        };
        // Whether it had happened or not when its answer was lost, it has now.
        let insert = "INSERT INTO steps VALUES ($1, $2, $3) ON CONFLICT (writer, step) DO NOTHING";
        let next = step + 1;
        if connected
            .execute(insert, &[&writer, &next, &(next * 7 + writer)])
            .await
            .is_ok()
        {
            (step, client) = (next, Some(connected));
        } else {
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(step)
}

async fn holds(mut cluster: Cluster, mut medium: Medium) -> Result<()> {
    let writers = Tasks::write(&cluster.sql_ports);
    sleep(Duration::from_secs(1)).await;
    let mut looks = 0;
    for fault in 0..3 {
        let there = medium.there(&cluster).await?;
        let limit = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < limit {
            seen(&there).await?;
            looks += 1;
        }
        drop(there);
        match fault {
            0 => medium.stands_still(&mut cluster, Duration::from_secs(2)).await?,
            1 => {
                cluster.nodes.node(2).kill()?;
                sleep(Duration::from_secs(2)).await;
                cluster.nodes.node(2).start()?;
            }
            _ => {}
        }
    }
    let told = writers.end().await?;
    cluster.whole().await?;
    let here = seen(&connect(cluster.sql(1)).await?).await?;
    ensure!(
        here.iter().zip(&told).all(|(here, told)| here >= told) && told.iter().all(|told| *told > 10),
        "{here:?} are there, {told:?} were acknowledged"
    );
    let limit = Instant::now() + LIMIT;
    loop {
        let arrived = async { seen(&medium.there(&cluster).await?).await }.await;
        match arrived {
            Ok(arrived) if arrived == here => break,
            Err(error) if format!("{error:#}").contains("OUT OF TURN") => return Err(error),
            arrived => ensure!(Instant::now() < limit, "{arrived:?} in place of {here:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    ensure!(looks > 20, "{looks} looks");
    Ok(())
}

#[test]
fn the_network_holds_the_contract() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute(&format!("{STEPS} WITH REPLICATION = 2")).await?;
        cluster.whole().await?;
        holds(cluster, Medium::Network).await
    });
}

#[test]
fn the_file_system_holds_the_contract() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let place: Place = directory(folder.path());
        let cluster = archived(&place).await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute(&format!("{STEPS} WITH REPLICATION = 1")).await?;
        let standby = standby_of(&place).await?;
        let archive = folder.path().join("archive");
        holds(cluster, Medium::FileSystem { archive, standby }).await
    });
}

#[test]
fn a_database_holds_the_contract() {
    let _alone = alone();
    block_on(async {
        let postgres = Postgres::start()?;
        connect(postgres.port).await?.batch_execute(STEPS).await?;
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client.batch_execute(&format!("{STEPS} WITH REPLICATION = 1")).await?;
        let link = format!("CREATE REPLICATION LINK there TO '{}' FOR TABLE steps", postgres.url());
        client.batch_execute(&link).await.context(link)?;
        holds(cluster, Medium::Database(postgres)).await
    });
}
