//! What the operator may ask of real nodes, and what comes of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tonic::{Code, Status};
use volt_proto::v1::{
    DrainRequest, GetStatusResponse, NodeHeartbeat, NodeState, NodeStatus, PromoteRequest, RejoinRequest,
    RemoveNodeRequest, ReportFailureRequest, SwitchPrimariesRequest, WatchHeartbeatsRequest,
};
use volt_tests::operator::{control, status, status_when};

use crate::cluster::Cluster;
use crate::load::{Load, run_for};
use crate::{PARTITIONS, WHOLE, alone, block_on, connect};

/// Until what the metadata group has committed is known to every node.
const KNOWN: Duration = Duration::from_secs(10);
/// A cluster that fails over by itself has done so by then.
const AUTOMATIC_BY_THEN: Duration = Duration::from_secs(3);
/// Until a statement that can be answered is answered.
const ANSWERED: Duration = Duration::from_secs(10);
/// Until a heartbeat, or the end of the stream, arrives.
const BEAT: Duration = Duration::from_secs(10);
/// Writes that wait longer than this while primaries move have waited for a failure detector.
const SMOOTH: Duration = Duration::from_secs(3);

fn node(status: &GetStatusResponse, node_id: u32) -> Result<&NodeStatus> {
    let mut nodes = status.nodes.iter();
    nodes
        .find(|node| node.node_id == node_id)
        .with_context(|| format!("node {node_id} in the status"))
}

fn is_alive(status: &GetStatusResponse, node_id: u32) -> bool {
    node(status, node_id).is_ok_and(|node| node.is_alive)
}

fn primaries(status: &GetStatusResponse, node_id: u32) -> usize {
    let partitions = status.partitions.iter();
    partitions.filter(|partition| partition.primary == node_id).count()
}

/// Every node is primary of as many partitions, and none is on the move.
fn is_even(status: &GetStatusResponse) -> bool {
    (1..=3).all(|node_id| primaries(status, node_id) == PARTITIONS as usize / 3)
}

pub(crate) fn ensure_refused<T>(answer: Result<T, Status>, code: Code, what: &str) -> Result<()> {
    match answer {
        Ok(_) => anyhow::bail!("{what} was not refused"),
        Err(status) => {
            ensure!(status.code() == code, "{what}: {status:?}, not {code:?}");
            Ok(())
        }
    }
}

/// A row for every partition, and a count over all of them.
async fn every_partition_serves(client: &Client) -> Result<()> {
    let work = async {
        for id in 1..=100_i64 {
            client.execute("INSERT INTO load VALUES ($1, 0)", &[&id]).await?;
        }
        let row = client.query_one("SELECT count(*) FROM load", &[]).await?;
        anyhow::Ok(row.get::<_, i64>(0))
    };
    let count = timeout(ANSWERED, work)
        .await
        .context("writes to every partition, and a count")??;
    ensure!(count == 100, "there are {count} rows");
    Ok(())
}

#[test]
fn with_manual_failover_nobody_is_promoted_until_asked_for_with_the_epoch_of_now() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start_with(&["--failover", "manual"]).await?;
        let leader = cluster.leader().await?;
        let dead = (1..=3).find(|node| *node != leader).context("three nodes")?;
        let (door, survivor) = (cluster.peer(leader), cluster.sql(leader));
        let before = status_when(door, "primaries everywhere", WHOLE, is_even).await?;
        let client = connect(survivor).await?;
        cluster.nodes.node(dead).kill()?;
        status_when(door, "the death is known", KNOWN, |status| !is_alive(status, dead)).await?;
        sleep(AUTOMATIC_BY_THEN).await;

        let after = status(door).await?;
        for (was, is) in before.partitions.iter().zip(&after.partitions) {
            let wanted = if was.primary == dead { 0 } else { was.primary };
            ensure!(is.primary == wanted, "{was:?} has become {is:?}");
        }
        let count = timeout(ANSWERED, client.query_one("SELECT count(*) FROM load", &[])).await;
        ensure!(
            !matches!(count, Ok(Ok(_))),
            "a count over partitions without a primary was answered"
        );

        let mut operator = control(door).await?;
        let waiting = after.partitions.iter().filter(|partition| partition.primary == 0);
        for partition in waiting {
            let promote = |epoch, node_id| PromoteRequest {
                partition_id: partition.partition_id,
                epoch,
                node_id,
            };
            let stale = operator.promote(promote(partition.epoch - 1, leader)).await;
            ensure_refused(stale, Code::Aborted, "a promotion at a stale epoch")?;
            let to_the_dead = operator.promote(promote(partition.epoch, dead)).await;
            ensure_refused(to_the_dead, Code::FailedPrecondition, "a promotion of a dead node")?;
            let now = status(door).await?;
            ensure!(
                now.partitions.contains(partition),
                "a refused promotion changed {partition:?}"
            );
            let epoch = operator
                .promote(promote(partition.epoch, leader))
                .await?
                .into_inner()
                .epoch;
            ensure!(
                epoch > partition.epoch,
                "the new reign has epoch {epoch}: {partition:?}"
            );
        }
        let nowhere = PromoteRequest {
            partition_id: 4_711,
            epoch: 1,
            node_id: leader,
        };
        ensure_refused(
            operator.promote(nowhere).await,
            Code::NotFound,
            "a partition that is not there",
        )?;
        every_partition_serves(&connect(survivor).await?).await?;
        cluster.nodes.node(dead).start()?;
        cluster.whole().await
    });
}

#[test]
fn a_report_that_a_process_has_ended_counts_at_once_and_for_that_process_only() {
    /// So long that whoever waits for its end has not `ANSWERED`.
    const LEASE: Duration = Duration::from_secs(30);
    const EVIDENCE: &str = "container volt-node of pod demo-1 terminated: OOMKilled";
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start_with(&["--lease-ms", &LEASE.as_millis().to_string()]).await?;
        let leader = cluster.leader().await?;
        let victim = (1..=3).find(|node| *node != leader).context("three nodes")?;
        let door = cluster.peer(leader);
        let before = status_when(door, "primaries everywhere", WHOLE, is_even).await?;
        let boot_id = node(&before, victim)?.boot_id;
        let report = |node_id, boot_id, process_ended| ReportFailureRequest {
            node_id,
            boot_id,
            evidence: EVIDENCE.to_owned(),
            process_ended,
        };
        let mut operator = control(door).await?;
        ensure_refused(
            operator.report_failure(report(47, 11, true)).await,
            Code::NotFound,
            "a report of a node that is not there",
        )?;
        for (what, about) in [
            ("the end of an older process", report(victim, boot_id + 1, true)),
            ("the silence of a process that answers", report(victim, boot_id, false)),
        ] {
            let changed = operator.report_failure(about).await?.into_inner().changed;
            ensure!(!changed, "{what} changed something");
            ensure!(is_alive(&status(door).await?, victim), "{what} killed node {victim}");
        }

        let client = connect(cluster.sql(leader)).await?;
        cluster.nodes.node(victim).freeze()?;
        let changed = operator
            .report_failure(report(victim, boot_id, true))
            .await?
            .into_inner()
            .changed;
        ensure!(changed, "the end of the process changed nothing");
        every_partition_serves(&client).await?;
        let row = client
            .query_one(
                "SELECT detector, evidence FROM system.failovers WHERE node_id = $1",
                &[&(victim as i32)],
            )
            .await?;
        ensure!(row.get::<_, String>(0) == "operator", "the detector was {row:?}");
        ensure!(row.get::<_, String>(1).contains(EVIDENCE), "the evidence was {row:?}");
        let again = operator
            .report_failure(report(victim, boot_id, true))
            .await?
            .into_inner()
            .changed;
        ensure!(!again, "the same report changed something again");
        cluster.nodes.node(victim).kill()?;
        cluster.nodes.node(victim).start()?;
        cluster.whole().await
    });
}

#[test]
fn primaries_are_switched_away_without_a_pause_and_come_back_with_a_rejoin() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let leader = cluster.leader().await?;
        let away = (1..=3).find(|node| *node != leader).context("three nodes")?;
        let door = cluster.peer(leader);
        status_when(door, "primaries everywhere", WHOLE, is_even).await?;
        let load = Load::start(&cluster.sql_ports);
        run_for(&load, Duration::from_secs(1)).await?;
        let mut operator = control(door).await?;
        let moment = Instant::now();
        let request = SwitchPrimariesRequest {
            node_id: away,
            timeout_ms: 0,
        };
        let switched = operator.switch_primaries(request).await?.into_inner().switched;
        ensure!(switched == PARTITIONS / 3, "{switched} primaries were switched");
        ensure!(
            primaries(&status(door).await?, away) == 0,
            "it returned before none was left"
        );
        run_for(&load, Duration::from_secs(2)).await?;
        let now = status(door).await?;
        ensure!(primaries(&now, away) == 0, "node {away} took primaries back unasked");
        let seen = node(&now, away)?;
        ensure!(
            seen.state() == NodeState::Active && seen.yields && seen.backups == PARTITIONS,
            "{seen:?}"
        );

        let rejoin = |boot_id| RejoinRequest { node_id: away, boot_id };
        let stale = operator.rejoin(rejoin(seen.boot_id + 1)).await;
        ensure_refused(stale, Code::Aborted, "a rejoin of an older process")?;
        operator.rejoin(rejoin(seen.boot_id)).await?;
        status_when(door, "primaries everywhere again", WHOLE, is_even).await?;
        run_for(&load, Duration::from_secs(1)).await?;
        let told = load.stop().await;
        let pause = told.pause_after(moment).context("no write was acknowledged any more")?;
        println!("primaries away and back: writes stopped for {} ms", pause.as_millis());
        ensure!(pause < SMOOTH, "writes stopped for {pause:?}");
        for node in 1..=3 {
            told.assert_all_there(cluster.sql(node)).await?;
        }
        Ok(())
    });
}

#[test]
fn a_node_that_is_needed_is_neither_drained_nor_forgotten() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let mut operator = control(cluster.peer(1)).await?;
        let drain = operator.drain(DrainRequest { node_id: 3 }).await;
        ensure_refused(
            drain,
            Code::FailedPrecondition,
            "a drain that leaves two nodes to REPLICATION = 2",
        )?;
        let remove = operator.remove_node(RemoveNodeRequest { node_id: 3 }).await;
        ensure_refused(remove, Code::FailedPrecondition, "the removal of a node that lives")?;
        let request = SwitchPrimariesRequest {
            node_id: 47,
            timeout_ms: 0,
        };
        let nobody = operator.switch_primaries(request).await;
        ensure_refused(nobody, Code::NotFound, "primaries of a node that is not there")?;
        let now = status(cluster.peer(1)).await?;
        ensure!(node(&now, 3)?.state() == NodeState::Active, "{:?}", node(&now, 3)?);
        cluster.whole().await
    });
}

/// The next message; None when the stream has ended.
async fn next_beat(beats: &mut tonic::Streaming<NodeHeartbeat>) -> Result<Option<NodeHeartbeat>> {
    let beat = timeout(BEAT, beats.message())
        .await
        .context("neither a heartbeat nor the end")?;
    Ok(beat.ok().flatten())
}

#[test]
fn heartbeats_name_the_process_and_end_with_it() {
    let _alone = alone();
    block_on(async {
        let began = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
        let mut cluster = Cluster::start().await?;
        let watched = 2;
        let door = cluster.peer(watched);
        let mut operator = control(door).await?;
        for interval_ms in [49, 10_001] {
            let refused = operator.watch_heartbeats(WatchHeartbeatsRequest { interval_ms }).await;
            ensure_refused(refused, Code::InvalidArgument, "an interval out of bounds")?;
        }
        let every = WatchHeartbeatsRequest { interval_ms: 100 };
        let mut beats = operator.watch_heartbeats(every).await?.into_inner();
        for _ in 0..3 {
            let beat = next_beat(&mut beats).await?.context("the stream has ended")?;
            let known = status(door).await?;
            ensure!((beat.node_id, beat.boot_id) == (watched, known.boot_id), "{beat:?}");
            ensure!(beat.serving, "it serves, and says that it does not: {beat:?}");
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
            ensure!(
                (began..=now).contains(&beat.started_at),
                "{beat:?} started between {began} and {now}"
            );
        }
        let first = next_beat(&mut beats).await?.context("the stream has ended")?;
        cluster.nodes.node(watched).kill()?;
        while next_beat(&mut beats).await?.is_some() {}
        cluster.nodes.node(watched).start()?;
        cluster.whole().await?;
        let mut operator = control(door).await?;
        let mut beats = operator.watch_heartbeats(every).await?.into_inner();
        let second = next_beat(&mut beats).await?.context("the stream has ended")?;
        ensure!(
            second.boot_id != first.boot_id,
            "two processes have the boot id {}",
            first.boot_id
        );
        ensure!(
            second.started_at >= first.started_at,
            "{second:?} started before {first:?}"
        );
        Ok(())
    });
}
