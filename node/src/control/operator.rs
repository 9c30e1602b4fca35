//! The control service: what the operator asks for becomes a proposal; the answer says what was committed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;
use tonic::{Request, Response, Status};
use volt_engine::NodeId;
use volt_proto::v1;
use volt_proto::v1::control_server::Control;

use super::status::status;
use super::{Answers, DataPlane};
use crate::archive;
use crate::config::archive_url;
use crate::membership::Membership;
use crate::metadata::command::{Applied, Command};
use crate::metadata::identity::Founding;
use crate::metadata::map::{ClusterMap, Restoration};
use crate::metadata::standby::StandbyCommand;
use crate::metadata::{EnterError, Metadata};
use crate::peers::Peers;

/// Milliseconds between two heartbeats to the operator, unless it asks for another number.
const WATCH_INTERVAL_MS: u32 = 500;
/// What it may ask for.
const WATCH_INTERVALS_MS: std::ops::RangeInclusive<u32> = 50..=10_000;
/// Longest time to move primaries, unless another is asked for.
const SWITCH_LIMIT_MS: u32 = 10_000;
/// Longest wait for a member to become primary.
const PROMOTE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a reported death to be committed.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Answers the operator.
pub(super) struct ControlService {
    pub metadata: Arc<Metadata>,
    pub data: Arc<dyn DataPlane>,
    pub membership: Arc<Membership>,
    pub peers: Arc<Peers>,
    /// As `NodeConfig::started_at`.
    pub started_at: i64,
}

impl ControlService {
    async fn propose(&self, command: Command) -> Result<Applied, Status> {
        if self.metadata.identity().is_none() {
            return Err(Status::failed_precondition("this node belongs to no cluster yet"));
        }
        Ok(self.metadata.propose(command).await?)
    }

    /// True when `done` came to hold in time.
    async fn wait_for(&self, deadline: Instant, done: impl Fn(&ClusterMap) -> bool) -> bool {
        let mut map = self.metadata.watch();
        timeout_at(deadline, map.wait_for(|map| done(map)))
            .await
            .is_ok_and(|changed| changed.is_ok())
    }

    async fn forward_report(&self, leader: NodeId, report: v1::ReportFailureRequest) -> Result<bool, Status> {
        let address = self
            .peers
            .address(leader)
            .ok_or_else(|| Status::unavailable("the leader's address is unknown"))?;
        let client = self.peers.control_service_at(&address);
        let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(client.report_failure(report).await?.into_inner().changed)
    }

    /// The moment that this cluster began with, if that is on record: the request is one that is repeated.
    fn restored_already(&self, cluster_uuid: &str) -> Option<i64> {
        let map = self.metadata.map();
        map.restored_micros.filter(|_| map.cluster_uuid == cluster_uuid)
    }

    /// What makes a new cluster what the one of this archive was.
    async fn restoration(&self, url: &str, until_micros: i64) -> Result<(ClusterMap, Restoration), Status> {
        let url = archive_url(url).map_err(Status::invalid_argument)?;
        let until = if until_micros == 0 { i64::MAX } else { until_micros };
        let begun = archive::begin_restoration(self.metadata.world(), &url, until).await;
        begun.map_err(|error| Status::failed_precondition(error.to_string()))
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WatchHeartbeatsStream = Answers<v1::NodeHeartbeat>;

    async fn initialise(
        &self,
        request: Request<v1::InitialiseRequest>,
    ) -> Result<Response<v1::InitialiseResponse>, Status> {
        let v1::InitialiseRequest {
            cluster_uuid,
            partitions,
            restore_from,
            restore_until_micros,
            is_standby,
        } = request.into_inner();
        if is_standby && (restore_from.is_empty() || restore_until_micros != 0) {
            let why = "a standby follows an archive, from the newest moment in it";
            return Err(Status::invalid_argument(why));
        }
        // First of all: what can't be restored must not leave an empty cluster behind.
        let awaits_restoration = !restore_from.is_empty();
        let already = self.restored_already(&cluster_uuid);
        let restoration = match (awaits_restoration, already) {
            (true, None) => Some(self.restoration(&restore_from, restore_until_micros).await?),
            _ => None,
        };
        let founding = Founding {
            partitions,
            awaits_restoration,
        };
        let cluster_uuid = match self.metadata.initialise(&cluster_uuid, founding).await {
            Ok(cluster_uuid) => cluster_uuid,
            Err(error @ EnterError::AlreadyInitialised(_)) => return Err(Status::already_exists(error.to_string())),
            Err(error @ EnterError::Invalid(_)) => return Err(Status::invalid_argument(error.to_string())),
            Err(error) => return Err(Status::internal(error.to_string())),
        };
        let mut restored_micros = already.unwrap_or(0);
        if let Some((archived, restoration)) = restoration {
            restored_micros = restoration.at_micros;
            let archived = Box::new(archived);
            self.metadata
                .propose(Command::Restore {
                    archived,
                    restoration,
                    is_standby,
                })
                .await?;
        }
        Ok(Response::new(v1::InitialiseResponse {
            cluster_uuid,
            restored_micros,
        }))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.metadata, &*self.data)))
    }

    async fn watch_heartbeats(
        &self,
        request: Request<v1::WatchHeartbeatsRequest>,
    ) -> Result<Response<Self::WatchHeartbeatsStream>, Status> {
        let every = match request.get_ref().interval_ms {
            0 => WATCH_INTERVAL_MS,
            millis if WATCH_INTERVALS_MS.contains(&millis) => millis,
            millis => {
                return Err(Status::invalid_argument(format!(
                    "interval_ms must be 50 to 10000, not {millis}"
                )));
            }
        };
        let mut ticks = interval(Duration::from_millis(u64::from(every)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (metadata, started_at) = (Arc::clone(&self.metadata), self.started_at);
        let beat = move |_| {
            Ok(v1::NodeHeartbeat {
                node_id: metadata.node_id(),
                boot_id: metadata.boot_id(),
                map_version: metadata.map().version,
                serving: metadata.lease().is_valid(),
                started_at,
            })
        };
        Ok(Response::new(Box::pin(IntervalStream::new(ticks).map(beat))))
    }

    async fn report_failure(
        &self,
        request: Request<v1::ReportFailureRequest>,
    ) -> Result<Response<v1::ReportFailureResponse>, Status> {
        let report = request.into_inner();
        let (node, boot_id) = (report.node_id, report.boot_id);
        let map = self.metadata.map();
        if !map.nodes.contains_key(&node) {
            return Err(Status::not_found(format!("there is no node {node}")));
        }
        if !map.is_current(node, boot_id) || !map.is_alive(node) {
            return Ok(Response::new(v1::ReportFailureResponse { changed: false }));
        }
        // Evidence is kept where it was given, too: when the leader itself is the dead one, it calls an election.
        let membership = Arc::clone(&self.membership);
        let (evidence, ended) = (report.evidence.clone(), report.process_ended);
        tokio::spawn(async move { membership.reported(node, boot_id, evidence, ended).await });
        if let Some(leader) = self.metadata.leader()
            && leader != self.metadata.node_id()
            && leader != node
        {
            let changed = self.forward_report(leader, report).await?;
            return Ok(Response::new(v1::ReportFailureResponse { changed }));
        }
        let dead = |map: &ClusterMap| !map.is_alive(node) || !map.is_current(node, boot_id);
        let changed = self.wait_for(Instant::now() + REPORT_LIMIT, dead).await;
        if !changed && ended {
            return Err(Status::unavailable("the metadata group has not committed it yet"));
        }
        Ok(Response::new(v1::ReportFailureResponse { changed }))
    }

    async fn promote(&self, request: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        let v1::PromoteRequest {
            partition_id,
            epoch,
            node_id,
        } = *request.get_ref();
        self.propose(Command::WantPrimary {
            partition: partition_id,
            epoch,
            node_id,
        })
        .await?;
        let is_primary = |map: &ClusterMap| {
            map.partitions
                .get(&partition_id)
                .is_some_and(|partition| partition.primary == Some(node_id))
        };
        if !self.wait_for(Instant::now() + PROMOTE_LIMIT, is_primary).await {
            let waiting = self.membership.waiting().get(&partition_id).map(ToString::to_string);
            let why = waiting.unwrap_or_else(|| "its primary has not handed over".to_owned());
            return Err(Status::deadline_exceeded(format!("partition {partition_id}: {why}")));
        }
        let epoch = self
            .metadata
            .map()
            .partitions
            .get(&partition_id)
            .map_or(0, |partition| partition.epoch);
        Ok(Response::new(v1::PromoteResponse { epoch }))
    }

    async fn switch_primaries(
        &self,
        request: Request<v1::SwitchPrimariesRequest>,
    ) -> Result<Response<v1::SwitchPrimariesResponse>, Status> {
        let v1::SwitchPrimariesRequest { node_id, timeout_ms } = *request.get_ref();
        let limit = if timeout_ms == 0 { SWITCH_LIMIT_MS } else { timeout_ms };
        let deadline = Instant::now() + Duration::from_millis(u64::from(limit));
        self.propose(Command::SetYields { node_id, yields: true }).await?;
        let held = |map: &ClusterMap| map.roles(node_id).primaries;
        let before = held(&self.metadata.map());
        // A partition with one copy has nowhere to go.
        if !self
            .wait_for(deadline, |map| map.primaries_to_hand_over(node_id) == 0)
            .await
        {
            let left = self.metadata.map().primaries_to_hand_over(node_id);
            return Err(Status::deadline_exceeded(format!(
                "node {node_id} still has {left} primaries that others could take"
            )));
        }
        let switched = before.saturating_sub(held(&self.metadata.map()));
        Ok(Response::new(v1::SwitchPrimariesResponse { switched }))
    }

    async fn rejoin(&self, request: Request<v1::RejoinRequest>) -> Result<Response<v1::RejoinResponse>, Status> {
        let v1::RejoinRequest { node_id, boot_id } = *request.get_ref();
        let boot_id = (boot_id != 0).then_some(boot_id);
        self.propose(Command::Rejoin { node_id, boot_id }).await?;
        Ok(Response::new(v1::RejoinResponse {}))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let node_id = request.get_ref().node_id;
        self.propose(Command::Drain { node_id }).await?;
        Ok(Response::new(v1::DrainResponse {}))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let node_id = request.get_ref().node_id;
        self.propose(Command::RemoveNode { node_id }).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn promote_standby(
        &self,
        request: Request<v1::PromoteStandbyRequest>,
    ) -> Result<Response<v1::PromoteStandbyResponse>, Status> {
        let is_immediate = request.get_ref().is_immediate;
        self.propose(Command::Standby(StandbyCommand::Promote { is_immediate }))
            .await?;
        Ok(Response::new(v1::PromoteStandbyResponse {}))
    }
}
