//! How a node comes into the cluster: by making it (once, when told to), by joining it with an empty directory, or by
//! coming back with its data.

use std::time::Duration;

use tonic::{Code, Status};
use volt_proto::v1::{JoinRequest, JoinResponse};

use super::command::{Applied, Command, Joining, MAX_PARTITIONS, Refusal};
use super::handle::{Metadata, OpenError};
use super::identity::{Founding, Identity};
use super::propose::ProposeError;

/// Pause between two attempts to come in.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Longest wait for one seed's answer.
const SEED_LIMIT: Duration = Duration::from_secs(3);

/// Why this node will never be let in as it is.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The cluster said no, and will go on saying so.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// It has an identity already.
    #[error("this node belongs to cluster {0}")]
    AlreadyInitialised(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The node's own files or member.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Metadata {
    /// Makes a new cluster with this node as its first. Repeating it with the same UUID is no error.
    pub async fn initialise(&self, cluster_uuid: &str, founding: Founding) -> Result<String, EnterError> {
        let _one_at_a_time = self.entering.lock().await;
        let partitions = founding.partitions;
        if partitions > MAX_PARTITIONS {
            return Err(EnterError::Invalid(format!(
                "at most {MAX_PARTITIONS} partitions, not {partitions}"
            )));
        }
        if let Some(identity) = self.identity() {
            if identity.cluster_uuid != cluster_uuid {
                return Err(EnterError::AlreadyInitialised(identity.cluster_uuid));
            }
            if let Some(founding) = identity.founded_with {
                self.found(&identity, founding).await?;
            }
            return Ok(identity.cluster_uuid);
        }
        let cluster_uuid = self.uuid(cluster_uuid)?;
        let identity = Identity {
            cluster_uuid: cluster_uuid.clone(),
            node_id: self.node_id(),
            incarnation: 1,
            founded_with: Some(founding),
        };
        self.become_somebody(identity.clone()).await?;
        self.found(&identity, founding).await?;
        Ok(cluster_uuid)
    }

    fn uuid(&self, asked: &str) -> Result<String, EnterError> {
        if asked.is_empty() {
            let random = &self.world.random;
            let drawn = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
            return Ok(uuid::Builder::from_random_bytes(drawn.to_be_bytes())
                .into_uuid()
                .to_string());
        }
        let parsed = uuid::Uuid::try_parse(asked);
        parsed
            .map(|uuid| uuid.to_string())
            .map_err(|_| EnterError::Invalid(format!("{asked} is not a UUID")))
    }

    /// Returns when this process is a node of the cluster: at once when it made it, else when it has joined or come
    /// back. Asks the seeds again and again, for as long as there is hope.
    pub async fn enter(&self) -> Result<(), EnterError> {
        loop {
            if self.map().is_current(self.node_id(), self.boot_id()) {
                return Ok(());
            }
            match self.try_enter().await {
                Ok(()) => {}
                Err(Attempt::Hopeless(error)) => return Err(error),
                Err(Attempt::Later(why)) => tracing::debug!(why, "not in the cluster yet"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn try_enter(&self) -> Result<(), Attempt> {
        let _one_at_a_time = self.entering.lock().await;
        let introduction = self.introduction();
        if let Some(identity) = self.identity()
            && let Some(founding) = identity.founded_with
            && self.is_leader()
            && self.map().cluster_uuid.is_empty()
        {
            // A crash came between the group's first entry and the map's.
            let node = Joining {
                incarnation: 1,
                ..introduction
            };
            let command = Command::Initialise {
                cluster_uuid: identity.cluster_uuid,
                partitions: founding.partitions,
                node,
                awaits_restoration: founding.awaits_restoration,
            };
            return self.propose_as_leader(command).await.map(drop).map_err(failed);
        }
        if self.leader().is_some() {
            return match self.propose(Command::Join(introduction)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(failed(error)),
            };
        }
        self.join_by_seeds(introduction).await
    }

    async fn join_by_seeds(&self, introduction: Joining) -> Result<(), Attempt> {
        let own = self.config.peer_address();
        let mut last = Attempt::Later("no seed to ask".to_owned());
        let mut seeds: Vec<String> = self.config.join.clone();
        seeds.extend(self.map().nodes.values().map(|node| node.address.clone()));
        for seed in seeds.iter().filter(|seed| **seed != own) {
            match self.join_by(seed, &introduction).await {
                Ok(answer) => return self.joined(answer).await,
                Err(Attempt::Hopeless(error)) => return Err(Attempt::Hopeless(error)),
                Err(later) => last = later,
            }
        }
        Err(last)
    }

    async fn join_by(&self, seed: &str, introduction: &Joining) -> Result<JoinResponse, Attempt> {
        let mut client = self.peers.at(seed).map_err(|error| Attempt::Later(error.to_string()))?;
        let call = client.join(request(introduction.clone()));
        match tokio::time::timeout(SEED_LIMIT, call).await {
            Err(_) => Err(Attempt::Later(format!("{seed} doesn't answer"))),
            Ok(Err(status)) if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
                Err(Attempt::Hopeless(EnterError::Refused(status.message().to_owned())))
            }
            Ok(Err(status)) => Err(Attempt::Later(format!("{seed}: {}", status.message()))),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
        }
    }

    async fn joined(&self, answer: JoinResponse) -> Result<(), Attempt> {
        if self.identity().is_some() {
            return Ok(());
        }
        let JoinResponse {
            cluster_uuid,
            incarnation,
            ..
        } = answer;
        if cluster_uuid.is_empty() || incarnation == 0 {
            return Err(Attempt::Later("an answer without an identity".to_owned()));
        }
        let identity = Identity {
            cluster_uuid,
            node_id: self.node_id(),
            incarnation,
            founded_with: None,
        };
        tracing::info!(cluster = identity.cluster_uuid, incarnation, "joined");
        let begun = self.become_somebody(identity).await;
        begun.map_err(|error| Attempt::Hopeless(EnterError::Open(error)))
    }

    /// Serves another node's `Join`.
    pub(crate) async fn serve_join(&self, asked: JoinRequest) -> Result<JoinResponse, Status> {
        if self.identity().is_none() {
            return Err(Status::unavailable("this node belongs to no cluster yet"));
        }
        let joining = Joining {
            node_id: asked.node_id,
            name: asked.name,
            address: asked.address,
            sql_address: asked.sql_address,
            zone: asked.zone,
            boot_id: asked.boot_id,
            incarnation: asked.incarnation,
            cluster_uuid: asked.cluster_uuid,
        };
        match self.propose(Command::Join(joining)).await {
            Ok(Applied::Joined {
                cluster_uuid,
                incarnation,
            }) => Ok(JoinResponse {
                cluster_uuid,
                incarnation,
                leader_address: String::new(),
            }),
            Ok(other) => Err(Status::internal(format!("joining answered {other:?}"))),
            Err(ProposeError::Refused(refusal)) if may_be_let_in_later(&refusal) => {
                Err(Status::unavailable(refusal.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

enum Attempt {
    Later(String),
    Hopeless(EnterError),
}

/// The detectors haven't noticed yet that its former process is dead; or the cluster's first entry is on its way.
fn may_be_let_in_later(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::NodeIsAlive(_) | Refusal::NotInitialised)
}

fn failed(error: ProposeError) -> Attempt {
    match error {
        ProposeError::Refused(refusal) if may_be_let_in_later(&refusal) => Attempt::Later(refusal.to_string()),
        ProposeError::Refused(refusal) => Attempt::Hopeless(EnterError::Refused(refusal.to_string())),
        other => Attempt::Later(other.to_string()),
    }
}

fn request(joining: Joining) -> JoinRequest {
    JoinRequest {
        node_id: joining.node_id,
        name: joining.name,
        address: joining.address,
        sql_address: joining.sql_address,
        zone: joining.zone,
        boot_id: joining.boot_id,
        incarnation: joining.incarnation,
        cluster_uuid: joining.cluster_uuid,
    }
}
