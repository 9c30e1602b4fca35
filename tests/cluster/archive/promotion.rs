//! A standby as the operator makes it, sees it and promotes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use volt_proto::v1::{Following, InitialiseRequest, PromoteStandbyRequest, PromoteStandbyResponse, Standby};
use volt_tests::operator::{control, status, status_when};

use super::standby::{archived, lies_at, places, refusal, until};
use super::{LIMIT, directory};
use crate::cluster::Cluster;
use crate::operator::ensure_refused;
use crate::{PARTITIONS, alone, block_on, connect};

const UUID: &str = "1c5f8c0e-4a0c-4f9b-9b46-8f0a9d2f5a11";

async fn promote(peer_port: u16, is_immediate: bool) -> anyhow::Result<Result<PromoteStandbyResponse, Status>> {
    let mut node = control(peer_port).await?;
    let asked = node.promote_standby(PromoteStandbyRequest { is_immediate }).await;
    Ok(asked.map(tonic::Response::into_inner))
}

/// What a standby's nodes say of how far it is, when one of them says that.
async fn told(cluster: &Cluster, what: &str, is_so: impl Fn(&Following) -> bool) -> anyhow::Result<Following> {
    let limit = Instant::now() + LIMIT;
    loop {
        let mut heard = Vec::new();
        for node in 1..=3 {
            heard.extend(status(cluster.peer(node)).await?.standby);
        }
        let following = |standby: &Standby| standby.following.clone().filter(|following| is_so(following));
        if let Some(following) = heard.iter().find_map(following) {
            return Ok(following);
        }
        ensure!(Instant::now() < limit, "{what}: {heard:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Nodes that the operator makes a standby of.
async fn founded(cluster: &Cluster, url: &str) -> anyhow::Result<()> {
    let door = cluster.peer(1);
    let initialise = InitialiseRequest {
        cluster_uuid: UUID.to_owned(),
        partitions: PARTITIONS,
        restore_from: url.to_owned(),
        is_standby: true,
        ..InitialiseRequest::default()
    };
    let limit = Instant::now() + LIMIT;
    let asked = async || anyhow::Ok(control(door).await?.initialise(initialise.clone()).await?.into_inner());
    let made = loop {
        match asked().await {
            Ok(made) => break made,
            Err(error) => ensure!(Instant::now() < limit, "{error:#}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    ensure!(made.cluster_uuid == UUID && made.restored_micros != 0, "{made:?}");
    let again = asked().await?;
    ensure!(again == made, "{again:?}, and at first {made:?}");
    cluster.whole().await
}

fn now_micros() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    i64::try_from(since.as_micros()).context("a time")
}

#[test]
fn the_operator_founds_a_standby_sees_how_far_it_is_and_promotes_it() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let place = directory(folder.path());
        let [archive, real, nothing] = places(folder.path())?;
        lies_at(&archive, &real)?;
        let first = archived(&place).await?;
        let writer = connect(first.sql(1)).await?;
        let schema = "CREATE TABLE things (id BIGINT PRIMARY KEY) WITH REPLICATION = 2";
        writer.batch_execute(schema).await?;
        writer.batch_execute("INSERT INTO things VALUES (1)").await?;

        let second = place.nodes(&[])?;
        status_when(second.peer(1), "it answers", LIMIT, |status| {
            status.cluster_uuid.is_empty()
        })
        .await?;
        let refused = promote(second.peer(1), false).await?;
        ensure_refused(refused, Code::FailedPrecondition, "a promotion of a node of no cluster")?;
        founded(&second, &place.url).await?;
        until(second.sql(3), "SELECT count(*) FROM things", "1").await?;
        let before = now_micros()?;
        writer.batch_execute("INSERT INTO things VALUES (2)").await?;
        until(second.sql(3), "SELECT count(*) FROM things", "2").await?;
        let far = told(&second, "it has come so far", |told| told.as_of_micros >= before).await?;
        let age = now_micros()? - far.as_of_micros;
        ensure!(
            far.lag_micros <= age.unsigned_abs() && far.problem.is_empty(),
            "{far:?}"
        );
        ensure!(far.newest_micros >= far.as_of_micros, "{far:?}");
        for node in 1..=3 {
            let seen = status(second.peer(node)).await?;
            let standby = seen.standby.context("it is a standby")?;
            let url = standby.url.starts_with(&format!("{}/", place.url));
            ensure!(url && !standby.is_promoting, "{standby:?}");
        }
        let seen = status(first.peer(1)).await?;
        ensure!(seen.standby.is_none(), "{:?}", seen.standby);
        let refused = promote(first.peer(1), false).await?;
        ensure_refused(
            refused,
            Code::FailedPrecondition,
            "a promotion of a cluster that is none",
        )?;

        // The archive is lost. What waits for it says so; it is asked for again, by another node; then it need not wait.
        lies_at(&archive, &nothing)?;
        let stuck = told(&second, "it says why it is stuck", |told| !told.problem.is_empty()).await?;
        ensure!(stuck.as_of_micros >= far.as_of_micros, "{stuck:?}, and before {far:?}");
        for node in [1, 2] {
            promote(second.peer(node), false).await??;
        }
        for node in 1..=3 {
            let standby = status_when(second.peer(node), "it is asked for", LIMIT, |status| {
                status.standby.as_ref().is_none_or(|standby| standby.is_promoting)
            });
            let standby = standby.await?.standby.context("it waits for the archive")?;
            ensure!(!standby.is_immediate, "{standby:?}");
        }
        let client = connect(second.sql(2)).await?;
        let (code, _) = refusal(&client, "INSERT INTO things VALUES (3)").await?;
        ensure!(code == "25006", "{code}");
        promote(second.peer(3), true).await??;
        for node in 1..=3 {
            let seen = status_when(second.peer(node), "it is promoted", LIMIT, |status| {
                status.standby.is_none()
            });
            let restored = seen.await?.restored_micros;
            ensure!(restored == stuck.as_of_micros, "as of {restored}, and it had {stuck:?}");
        }
        client.batch_execute("INSERT INTO things VALUES (3)").await?;
        until(second.sql(1), "SELECT count(*) FROM things", "3").await?;
        let refused = promote(second.peer(1), false).await?;
        ensure_refused(refused, Code::FailedPrecondition, "a promotion of what is promoted")?;
        Ok(())
    });
}
