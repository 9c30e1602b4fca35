//! Whether a node is live and ready: for `grpc.health.v1` and for `/livez`, `/readyz`.
//!
//! Live: its event loop answers. Ready: it is a node of a cluster, its lease is valid, and it serves every partition
//! whose primary it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::DataPlane;
use crate::metadata::Metadata;

/// The name under which readiness is asked for.
pub(super) const READINESS: &str = "readiness";
/// The name under which liveness is asked for.
pub(super) const LIVENESS: &str = "liveness";
/// Readiness is looked at so often.
const TICK: Duration = Duration::from_millis(200);

/// Why the node is not ready; None: it is.
pub(super) fn unready(metadata: &Metadata, data: &dyn DataPlane) -> Option<String> {
    if metadata.identity().is_none() {
        return Some("this node belongs to no cluster yet".to_owned());
    }
    if !metadata.map().is_current(metadata.node_id(), metadata.boot_id()) {
        return Some("this node has not come back into its cluster yet".to_owned());
    }
    if !metadata.lease().is_valid() {
        return Some("this node has no lease from the metadata group".to_owned());
    }
    let waiting = data.not_serving();
    (!waiting.is_empty()).then(|| format!("partitions {waiting:?} are not served yet"))
}

/// Keeps the reporter as things are.
pub(super) async fn report(reporter: HealthReporter, metadata: Arc<Metadata>, data: Arc<dyn DataPlane>) {
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_ready = None;
    loop {
        ticks.tick().await;
        let ready = unready(&metadata, &*data).is_none();
        if was_ready != Some(ready) {
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status(READINESS, status).await;
            was_ready = Some(ready);
        }
    }
}
