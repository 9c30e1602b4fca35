//! One action, carried out.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use volt_proto::v1;
use volt_proto::v1::control_client::ControlClient;

use crate::controller::Context;
use crate::crd::VoltCluster;
use crate::decide::Action;
use crate::observe::{CALL_LIMIT, Ordinal, World, connect};

/// Most time for a node's primaries to move.
const SWITCH_LIMIT: Duration = Duration::from_secs(15);
/// Most time for a promotion that was asked for; the next look asks again.
const PROMOTE_LIMIT: Duration = Duration::from_secs(2);
/// Most time for anything else that the metadata group commits.
const COMMIT_LIMIT: Duration = Duration::from_secs(5);
/// Most time for finding out what an archive has of a moment; its rows are read afterwards.
const RESTORE_LIMIT: Duration = Duration::from_secs(600);

/// For a pod that has nothing to hand over. No grace at all would take the pod off the books before its process has
/// ended, and two processes could have one volume.
const SHORTEST_GRACE_S: u32 = 1;

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The cluster doesn't allow it.
    #[error("{action}: {why}")]
    Refused {
        /// Which.
        action: &'static str,
        /// In the cluster's words.
        why: String,
    },
    /// No node answered.
    #[error("{action}: no node answers: {last}")]
    NoAnswer {
        /// Which.
        action: &'static str,
        /// The last one's failure.
        last: String,
    },
    /// Kubernetes did not do it.
    #[error("{action}: {}", super::words(.source))]
    Kubernetes {
        /// Which.
        action: &'static str,
        /// Why not.
        source: Box<kube::Error>,
    },
}

impl ActionError {
    /// It would be refused again; not merely unanswered.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::NoAnswer { .. } => false,
            Self::Kubernetes { source, .. } => super::is_rejection(source),
        }
    }
}

/// Does it, through any node that answers.
pub(super) async fn act(
    context: &Context,
    cluster: &VoltCluster,
    world: &World,
    action: &Action,
) -> Result<(), ActionError> {
    let name = action.name();
    match action {
        Action::DeletePod {
            name: pod,
            uid,
            at_once,
            ..
        } => {
            let grace_s = at_once.then_some(SHORTEST_GRACE_S);
            delete_pod(context, cluster, pod, uid, grace_s)
                .await
                .map_err(|source| ActionError::Kubernetes {
                    action: name,
                    source: Box::new(source),
                })
        }
        Action::Initialise { ordinal, .. } => through(world, action, vec![*ordinal]).await,
        Action::PromoteStandby { .. } => through(world, action, doors(world)).await,
        // The node itself is the last to be asked about its own death, or to outlive what is asked.
        Action::ReportFailure { node_id, .. }
        | Action::Promote { node_id, .. }
        | Action::Drain { node_id }
        | Action::Rejoin { node_id, .. }
        | Action::RemoveNode { node_id }
        | Action::SwitchPrimaries { node_id } => {
            let own = node_id.wrapping_sub(1);
            let mut doors = doors(world);
            doors.retain(|ordinal| *ordinal != own);
            if world.answers.contains_key(&own) && !matches!(action, Action::ReportFailure { .. }) {
                doors.push(own);
            }
            through(world, action, doors).await
        }
    }
}

/// The nodes that answer, those that serve first.
fn doors(world: &World) -> Vec<Ordinal> {
    let mut doors: Vec<Ordinal> = world.answers.keys().copied().collect();
    doors.sort_by_key(|ordinal| world.answers.get(ordinal).is_none_or(|answer| !answer.serving));
    doors
}

async fn through(world: &World, action: &Action, doors: Vec<Ordinal>) -> Result<(), ActionError> {
    let mut last = "none has an address".to_owned();
    for door in doors {
        let Some(ip) = world.pods.get(&door).and_then(|pod| pod.ip.as_deref()) else {
            continue;
        };
        let answer = match connect(ip).await {
            Ok(node) => ask(node, action).await,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        match answer {
            Ok(()) => return Ok(()),
            Err(status) if is_final(status.code()) => {
                return Err(ActionError::Refused {
                    action: action.name(),
                    why: status.message().to_owned(),
                });
            }
            Err(status) => last = format!("node {}: {}", door + 1, status.message()),
        }
    }
    Err(ActionError::NoAnswer {
        action: action.name(),
        last,
    })
}

/// Another node would say the same.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted
            | Code::DeadlineExceeded
    )
}

fn request<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

async fn ask(mut node: ControlClient<Channel>, action: &Action) -> Result<(), Status> {
    match action.clone() {
        Action::Initialise {
            cluster_uuid,
            partitions,
            restore,
            ..
        } => {
            let limit = match restore {
                Some(_) => RESTORE_LIMIT,
                None => COMMIT_LIMIT,
            };
            let (restore_from, restore_until_micros, is_standby) = restore.map_or_else(Default::default, |restore| {
                (restore.url, restore.until_micros, restore.is_standby)
            });
            let message = v1::InitialiseRequest {
                cluster_uuid,
                partitions,
                restore_from,
                restore_until_micros,
                is_standby,
            };
            node.initialise(request(message, limit)).await?;
        }
        Action::ReportFailure {
            node_id,
            boot_id,
            evidence,
            process_ended,
        } => {
            let message = v1::ReportFailureRequest {
                node_id,
                boot_id,
                evidence,
                process_ended,
            };
            node.report_failure(request(message, COMMIT_LIMIT)).await?;
        }
        Action::Promote {
            partition_id,
            epoch,
            node_id,
        } => {
            let message = v1::PromoteRequest {
                partition_id,
                epoch,
                node_id,
            };
            node.promote(request(message, PROMOTE_LIMIT)).await?;
        }
        Action::Drain { node_id } => {
            node.drain(request(v1::DrainRequest { node_id }, COMMIT_LIMIT)).await?;
        }
        Action::Rejoin { node_id, boot_id } => {
            let message = v1::RejoinRequest { node_id, boot_id };
            node.rejoin(request(message, COMMIT_LIMIT)).await?;
        }
        Action::RemoveNode { node_id } => {
            let message = v1::RemoveNodeRequest { node_id };
            node.remove_node(request(message, COMMIT_LIMIT)).await?;
        }
        Action::SwitchPrimaries { node_id } => {
            let timeout_ms = u32::try_from(SWITCH_LIMIT.as_millis()).unwrap_or(u32::MAX);
            let message = v1::SwitchPrimariesRequest { node_id, timeout_ms };
            node.switch_primaries(request(message, SWITCH_LIMIT + CALL_LIMIT))
                .await?;
        }
        Action::PromoteStandby { is_immediate } => {
            let message = v1::PromoteStandbyRequest { is_immediate };
            node.promote_standby(request(message, COMMIT_LIMIT)).await?;
        }
        Action::DeletePod { .. } => return Err(Status::invalid_argument("a pod is deleted by Kubernetes")),
    }
    Ok(())
}

/// This life of the pod and no other. `grace_s`: seconds in which it may hand over what it has; None: as its template says.
async fn delete_pod(
    context: &Context,
    cluster: &VoltCluster,
    pod: &str,
    uid: &str,
    grace_s: Option<u32>,
) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            ..Preconditions::default()
        }),
        grace_period_seconds: grace_s,
        ..DeleteParams::default()
    };
    match pods.delete(pod, &parameters).await {
        Ok(_) => Ok(()),
        // It is gone, or another one is in its place.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}
