//! How far each partition has been told, as a table of the other database: `volt_link_progress`.
//!
//! `owner` is the connection that tells a partition. Who takes it over writes its own number there, in the way of whatever the one before it has
//! under way: a transaction that is not committed by then finds that it owns the partition no more.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use volt_engine::PartitionId;

use super::target::{Mark, NotTold};
use crate::metadata::link::LinkId;
use crate::peers::remote::told;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS volt_link_progress (cluster_uuid TEXT NOT NULL, link_id BIGINT NOT NULL, \
     partition_id BIGINT NOT NULL, lsn BIGINT, epoch BIGINT, owner BIGINT NOT NULL, told_at TIMESTAMP, \
     PRIMARY KEY (cluster_uuid, link_id, partition_id))";
const TAKE: &str = "INSERT INTO volt_link_progress (cluster_uuid, link_id, partition_id, owner) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (cluster_uuid, link_id, partition_id) DO UPDATE SET owner = excluded.owner";
const LOOK: &str = "SELECT lsn, epoch FROM volt_link_progress WHERE cluster_uuid = $1 AND link_id = $2 AND partition_id = $3 AND owner = $4";
const NOTE: &str = "UPDATE volt_link_progress SET lsn = $5, epoch = $6, told_at = now() \
     WHERE cluster_uuid = $1 AND link_id = $2 AND partition_id = $3 AND owner = $4";
const STILL: &str = "UPDATE volt_link_progress SET told_at = now() \
     WHERE cluster_uuid = $1 AND link_id = $2 AND partition_id = $3 AND owner = $4";

/// The rows of one link, of one connection.
pub(super) struct Progress {
    pub(super) cluster_uuid: String,
    pub(super) link: LinkId,
    pub(super) owner: i64,
}

pub(super) fn not_told(error: tokio_postgres::Error) -> NotTold {
    NotTold::Remote(told(&error))
}

impl Progress {
    pub(super) async fn take_over(&self, client: &Client, partition: PartitionId) -> Result<Option<Mark>, NotTold> {
        let (link, id) = (self.link.cast_signed(), i64::from(partition));
        let taken = client
            .execute(TAKE, &[&self.cluster_uuid, &link, &id, &self.owner])
            .await;
        match taken {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                client.batch_execute(CREATE).await.map_err(not_told)?;
                let again = client
                    .execute(TAKE, &[&self.cluster_uuid, &link, &id, &self.owner])
                    .await;
                again.map_err(not_told)?
            }
            taken => taken.map_err(not_told)?,
        };
        let row = client
            .query_opt(LOOK, &[&self.cluster_uuid, &link, &id, &self.owner])
            .await;
        let row = row.map_err(not_told)?.ok_or(NotTold::Moved(partition))?;
        let number = |column: usize| row.try_get::<_, Option<i64>>(column).map_err(not_told);
        let mark = number(0)?.zip(number(1)?);
        Ok(mark.map(|(lsn, epoch)| Mark {
            lsn: lsn.cast_unsigned(),
            epoch: epoch.cast_unsigned(),
        }))
    }

    /// Notes how far the partition is told, if it is this connection's to tell; None: as far as before.
    pub(super) async fn note(
        &self,
        client: &Client,
        partition: PartitionId,
        mark: Option<Mark>,
    ) -> Result<(), NotTold> {
        let (link, id) = (self.link.cast_signed(), i64::from(partition));
        let own: [&(dyn ToSql + Sync); 4] = [&self.cluster_uuid, &link, &id, &self.owner];
        let noted = match mark.map(|mark| (mark.lsn.cast_signed(), mark.epoch.cast_signed())) {
            Some((lsn, epoch)) => {
                let values = [own[0], own[1], own[2], own[3], &lsn, &epoch];
                client.execute(NOTE, &values).await
            }
            None => client.execute(STILL, &own).await,
        };
        match noted.map_err(not_told)? {
            1 => Ok(()),
            _ => Err(NotTold::Moved(partition)),
        }
    }
}
