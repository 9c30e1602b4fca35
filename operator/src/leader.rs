//! One of several operators leads: the one whose name stands in a Lease. kube has no leader election, and the crates for
//! it follow an older kube. The rules are those of Kubernetes' own client: a Lease is over when its holder hasn't renewed
//! it for its duration, counted from when *we* saw the last renewal, so that clocks needn't agree; and every write names
//! the version that it was decided on.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep, timeout};

/// A Lease that isn't renewed for so long is over.
const DURATION: Duration = Duration::from_secs(15);
/// The holder gives up when it couldn't renew for so long: before anybody else may take over.
const RENEW_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait for the API server.
const CALL_LIMIT: Duration = Duration::from_secs(4);

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none.
    Create,
    /// It is ours, or nobody's.
    Take,
    /// It is somebody else's.
    Wait,
}

/// `unchanged_for`: since we saw the last renewal.
fn step(lease: Option<&LeaseSpec>, me: &str, unchanged_for: Duration) -> Step {
    let Some(lease) = lease else {
        return Step::Create;
    };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let duration = lease
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.map_or(DURATION, Duration::from_secs);
    match holder {
        "" => Step::Take,
        holder if holder == me => Step::Take,
        _ if unchanged_for > duration => Step::Take,
        _ => Step::Wait,
    }
}

/// A candidate, and the holder after `lead` has returned.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    me: String,
    /// The newest renewal that was seen, and when.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    /// `me` is the pod's name; the Lease is in this namespace.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            seen: None,
        }
    }

    /// Returns when the Lease is ours.
    pub async fn lead(&mut self) {
        loop {
            match timeout(CALL_LIMIT, self.attempt()).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "the Lease can't be had"),
                Err(_) => tracing::warn!(lease = self.name, "no answer about the Lease"),
            }
            sleep(RETRY).await;
        }
    }

    /// Renews it; returns when it is lost, or may be.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < RENEW_LIMIT {
            sleep(RETRY).await;
            let asked = Instant::now();
            match timeout(CALL_LIMIT, self.attempt()).await {
                Ok(Ok(true)) => renewed = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, lease = self.name, "the Lease was not renewed"),
                Err(_) => tracing::warn!(lease = self.name, "no answer about the Lease"),
            }
        }
    }

    /// Gives it back, so that the next one needn't wait.
    pub async fn resign(&mut self) {
        let free = async {
            let mut lease = self.leases.get_opt(&self.name).await?;
            if let Some(spec) = lease.as_mut().and_then(|lease| lease.spec.as_mut())
                && spec.holder_identity.as_deref() == Some(&self.me)
            {
                spec.holder_identity = Some(String::new());
            } else {
                return Ok(());
            }
            if let Some(lease) = lease {
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if !matches!(timeout(CALL_LIMIT, free).await, Ok(Ok(()))) {
            tracing::warn!("the Lease was not given back; the next leader waits for its end");
        }
    }

    /// True when it is ours now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = self.leases.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone());
        let unchanged_for = match (&spec, &self.seen) {
            (Some(spec), Some((seen, at))) if spec == seen => at.elapsed(),
            (Some(spec), _) => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
            (None, _) => Duration::ZERO,
        };
        let step = if lease.is_some() {
            step(Some(&spec.clone().unwrap_or_default()), &self.me, unchanged_for)
        } else {
            step(None, &self.me, unchanged_for)
        };
        let written = match (step, lease) {
            (Step::Wait, _) => return Ok(false),
            (Step::Take, Some(mut lease)) => {
                lease.spec = Some(self.held(spec.as_ref()));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
            (Step::Create | Step::Take, _) => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.held(None)),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(lease) => {
                tracing::debug!(lease = lease.name_any(), "the Lease is ours");
                Ok(true)
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.cloned().unwrap_or_default();
        let was_mine = before.holder_identity.as_deref() == Some(&self.me);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| was_mine).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!was_mine)),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_over() {
        let soon = Duration::from_secs(14);
        assert_eq!(step(None, "a", soon), Step::Create);
        assert_eq!(step(Some(&held_by("")), "a", soon), Step::Take);
        assert_eq!(step(Some(&held_by("a")), "a", soon), Step::Take);
        assert_eq!(step(Some(&held_by("b")), "a", soon), Step::Wait);
        assert_eq!(step(Some(&held_by("b")), "a", Duration::from_secs(16)), Step::Take);
    }

    #[test]
    fn a_holder_gives_up_before_another_may_begin() {
        assert!(RENEW_LIMIT + CALL_LIMIT < DURATION);
    }
}
