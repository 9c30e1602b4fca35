//! A database that the nodes share, with a row of each in the table `volt_liveness`, which is made when it is missing. Any
//! database will do that speaks PostgreSQL's protocol: PostgreSQL, or another VoltCluster. Several clusters may share it.
//!
//! Each round is one statement that writes and one that reads. Nothing of a round that failed is kept: the next one
//! connects anew, to the next server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{Duration, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, Statement};
use tokio_util::task::AbortOnDropHandle;
use volt_engine::NodeId;

use super::{LivenessMedium, NoLook, Own};
use crate::config::RemoteDatabase;
use crate::membership::interval::Mark;
use crate::metadata::failure::Medium;
use crate::peers::remote;
use crate::world::World;

/// Longest time for a round. It says nothing long before that: when it took more than an interval. A server that hangs
/// keeps no connection for longer.
const ROUND_LIMIT: Duration = Duration::from_secs(5);
/// `renewed_at` is for people: nothing is decided by a clock.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS volt_liveness (cluster_uuid TEXT NOT NULL, node_id BIGINT NOT NULL, \
     boot_id BIGINT NOT NULL, sequence BIGINT NOT NULL, renewed_at TIMESTAMP NOT NULL, \
     PRIMARY KEY (cluster_uuid, node_id))";
const RENEW: &str = "INSERT INTO volt_liveness (cluster_uuid, node_id, boot_id, sequence, renewed_at) \
     VALUES ($1, $2, $3, $4, now()) ON CONFLICT (cluster_uuid, node_id) DO UPDATE \
     SET boot_id = excluded.boot_id, sequence = excluded.sequence, renewed_at = excluded.renewed_at";
const LOOK: &str = "SELECT node_id, boot_id, sequence FROM volt_liveness WHERE cluster_uuid = $1";

/// The database.
pub struct Database {
    world: World,
    settings: RemoteDatabase,
    session: Mutex<Option<Session>>,
    /// Connections tried: which server is next.
    tried: AtomicUsize,
}

struct Session {
    client: Client,
    renew: Statement,
    look: Statement,
    /// Carries the messages; a server that hangs doesn't keep it.
    _carrier: AbortOnDropHandle<()>,
}

impl Database {
    /// Not yet connected.
    pub fn new(world: World, settings: RemoteDatabase) -> Self {
        Self {
            world,
            settings,
            session: Mutex::new(None),
            tried: AtomicUsize::new(0),
        }
    }

    async fn round(&self, own: Own<'_>) -> Result<Vec<(NodeId, Mark)>, NoLook> {
        let mut place = self.session.lock().await;
        // Taken out: if this round fails, or is given up, the next one begins anew.
        let session = match place.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let marks = session.round(own).await?;
        *place = Some(session);
        Ok(marks)
    }

    async fn connect(&self) -> Result<Session, NoLook> {
        let tried = self.tried.fetch_add(1, Relaxed);
        let (client, carrier) = remote::connect(&self.world, &self.settings, tried)
            .await
            .map_err(NoLook)?;
        let renew = match client.prepare(RENEW).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                client.batch_execute(CREATE).await.map_err(told)?;
                client.prepare(RENEW).await
            }
            prepared => prepared,
        };
        Ok(Session {
            renew: renew.map_err(told)?,
            look: client.prepare(LOOK).await.map_err(told)?,
            client,
            _carrier: carrier,
        })
    }
}

#[async_trait]
impl LivenessMedium for Database {
    fn medium(&self) -> Medium {
        Medium::Database
    }

    async fn renew_and_look(&self, own: Own<'_>, others: &[NodeId]) -> Result<BTreeMap<NodeId, Mark>, NoLook> {
        let round = timeout(ROUND_LIMIT, self.round(own)).await;
        let marks = round.unwrap_or_else(|_| Err(NoLook(format!("no answer within {} s", ROUND_LIMIT.as_secs()))))?;
        Ok(marks.into_iter().filter(|(node, _)| others.contains(node)).collect())
    }
}

impl Session {
    async fn round(&self, own: Own<'_>) -> Result<Vec<(NodeId, Mark)>, NoLook> {
        let (node, boot_id, sequence) = (
            i64::from(own.node_id),
            number(own.mark.boot_id),
            number(own.mark.sequence),
        );
        self.client
            .execute(&self.renew, &[&own.cluster_uuid, &node, &boot_id, &sequence])
            .await
            .map_err(told)?;
        let rows = self
            .client
            .query(&self.look, &[&own.cluster_uuid])
            .await
            .map_err(told)?;
        Ok(rows.iter().filter_map(mark_of).collect())
    }
}

/// None: this is no such row.
fn mark_of(row: &Row) -> Option<(NodeId, Mark)> {
    let column = |place| row.try_get::<_, i64>(place).ok();
    let mark = Mark {
        boot_id: column(1)?.cast_unsigned(),
        sequence: column(2)?.cast_unsigned(),
    };
    Some((NodeId::try_from(column(0)?).ok()?, mark))
}

/// As it is kept: the same bits.
fn number(number: u64) -> i64 {
    number.cast_signed()
}

fn told(error: tokio_postgres::Error) -> NoLook {
    NoLook(remote::told(&error))
}
