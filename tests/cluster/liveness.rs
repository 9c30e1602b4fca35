//! What nodes share to find each other by: a directory, and a database. Both keep one contract; and a node that is cut off from the
//! database alone is found by its row.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use volt_node::config::RemoteDatabase;
use volt_node::membership::interval::Mark;
use volt_node::membership::liveness::database::Database;
use volt_node::membership::liveness::directory::Directory;
use volt_node::membership::liveness::{LivenessMedium, Own};
use volt_node::world::World;
use volt_tests::operator;
use volt_tests::processes::Nodes;
use volt_tests::proxy::{self, Proxies};

use crate::cluster::Cluster;
use crate::detection::{failures, found};
use crate::{WHOLE, alone, block_on, connect};

/// The number that the database has among the proxies.
const DATABASE: u32 = 4;
/// A database that starts is there by then.
const STARTS_WITHIN: u32 = 100;

/// A cluster of one node, for others to keep their rows in.
async fn start_database() -> Result<Nodes> {
    let database = Nodes::start(1, |_| "127.0.0.1".to_owned())?;
    operator::initialise(database.nodes[0].peer_port, 2, WHOLE).await?;
    operator::whole(&[database.nodes[0].peer_port], WHOLE).await?;
    Ok(database)
}

fn url(host: &str, port: u16) -> String {
    format!("postgres://volt@{host}:{port}/volt")
}

/// Three nodes' views of the same medium.
type Views = Vec<Arc<dyn LivenessMedium>>;

fn worlds(folder: &Path) -> Result<Vec<World>> {
    let folders = (1..=3).map(|node| folder.join(format!("world-{node}")));
    folders.map(|folder| Ok(World::production(&folder)?)).collect()
}

/// The marks that a node sees in a round, in which it renews its own.
async fn round(views: &Views, uuid: &str, node: u32, boot_id: u64, sequence: u64) -> Result<Vec<(u32, u64, u64)>> {
    let mark = Mark { boot_id, sequence };
    let own = Own {
        cluster_uuid: uuid,
        node_id: node,
        mark,
    };
    // It looks for one that was never there, too.
    let others: Vec<u32> = [1, 2, 9].into_iter().filter(|other| *other != node).collect();
    let marks = views[node as usize - 1].renew_and_look(own, &others).await?;
    let plain = marks
        .into_iter()
        .map(|(node, mark)| (node, mark.boot_id, mark.sequence));
    Ok(plain.collect())
}

async fn keeps_the_contract(views: &Views) -> Result<()> {
    let big = u64::MAX >> 1;
    ensure!(
        round(views, "one", 1, 11, 1).await?.is_empty(),
        "somebody was there before"
    );
    ensure!(round(views, "one", 2, big, 1).await? == [(1, 11, 1)]);
    ensure!(round(views, "one", 1, 11, 2).await? == [(2, big, 1)]);
    ensure!(
        round(views, "one", 2, big, 2).await? == [(1, 11, 2)],
        "a mark that was renewed is seen"
    );
    ensure!(
        round(views, "one", 2, big, 3).await? == [(1, 11, 2)],
        "and one that was not"
    );
    // The next process of node 1 begins anew.
    ensure!(round(views, "one", 1, 12, 1).await? == [(2, big, 3)]);
    ensure!(round(views, "one", 2, big, 4).await? == [(1, 12, 1)]);
    // Nobody asked for node 3's.
    round(views, "one", 3, 31, 1).await?;
    ensure!(round(views, "one", 1, 12, 2).await? == [(2, big, 4)]);
    Ok(())
}

#[test]
fn a_directory_keeps_the_contract() {
    block_on(async {
        let folder = tempfile::tempdir()?;
        let shared = folder.path().join("shared");
        let view = |world: World| Arc::new(Directory::new(world.disk, shared.clone())) as Arc<dyn LivenessMedium>;
        let views: Views = worlds(folder.path())?.into_iter().map(view).collect();
        keeps_the_contract(&views).await?;
        // While it can't be used, nothing is seen there.
        let away = folder.path().join("away");
        std::fs::rename(&shared, &away)?;
        std::fs::write(&shared, "")?;
        ensure!(
            round(&views, "one", 1, 12, 3).await.is_err(),
            "it looked at no directory"
        );
        std::fs::remove_file(&shared)?;
        std::fs::rename(&away, &shared)?;
        ensure!(round(&views, "one", 1, 12, 4).await?.len() == 1);
        Ok(())
    });
}

#[test]
fn a_database_keeps_the_contract() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let mut database = start_database().await?;
        let port = database.nodes[0].sql_port;
        let settings = RemoteDatabase::new(&url("127.0.0.1", port), None).map_err(anyhow::Error::msg)?;
        let view = |world| Arc::new(Database::new(world, settings.clone())) as Arc<dyn LivenessMedium>;
        let views: Views = worlds(folder.path())?.into_iter().map(view).collect();
        keeps_the_contract(&views).await?;
        // Another cluster's rows are none of this one's.
        ensure!(
            round(&views, "two", 1, 71, 1).await?.is_empty(),
            "it sees another cluster's"
        );
        ensure!(round(&views, "two", 2, 72, 1).await? == [(1, 71, 1)]);
        // While it can't be used, nothing is seen there; the same view goes on when it is back, with what was there.
        database.node(1).kill()?;
        ensure!(
            round(&views, "one", 1, 12, 3).await.is_err(),
            "it looked at no database"
        );
        database.node(1).start()?;
        let mut seen = round(&views, "one", 1, 12, 4).await;
        for _ in 0..STARTS_WITHIN {
            if seen.is_ok() {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            seen = round(&views, "one", 1, 12, 4).await;
        }
        ensure!(seen? == [(2, u64::MAX >> 1, 4)]);
        let rows = connect(port).await?.query("SELECT 1 FROM volt_liveness", &[]).await?;
        ensure!(rows.len() == 5, "a row a node: {}", rows.len());
        Ok(())
    });
}

#[test]
fn a_node_that_is_cut_off_from_the_shared_database_is_found_by_its_row() {
    let _alone = alone();
    block_on(async {
        let mut database = start_database().await?;
        let port = database.nodes[0].sql_port;
        let proxies = Proxies::start(&[(DATABASE, port)]).await?;
        let url = url(&proxy::host(DATABASE), port);
        let arguments = [
            "--detect",
            "heartbeat,interval",
            "--probe-interval-ms",
            "200",
            "--liveness-database",
            &url,
        ];
        let mut cluster = Cluster::of(Nodes::start_with(3, |_| "127.0.0.1".to_owned(), &arguments)?);
        for node in &cluster.nodes.nodes {
            proxies.process(node.node, node.pid().context("not running")?);
        }
        cluster.form().await?;
        let leader = cluster.leader().await?;
        let victim = leader % 3 + 1;
        three_rows(port).await?;
        // A database that nobody can use, and that comes back, says nothing against anybody.
        database.node(1).freeze()?;
        sleep(Duration::from_secs(3)).await;
        database.node(1).thaw()?;
        sleep(Duration::from_secs(3)).await;
        let told = failures(cluster.sql(leader)).await?;
        ensure!(
            told.is_empty(),
            "the database stood still, and nodes are blamed: {told:?}"
        );
        proxies.part(victim, DATABASE);
        let failure = found(cluster.sql(leader), |failure| failure.node_id == victim as i32).await?;
        println!("cut off from the database: {failure:?}");
        ensure!(
            failure.strategy == "interval" && failure.medium == "database",
            "{failure:?}"
        );
        let evidence = "its row in volt_liveness was not renewed at 3 looks in a row, one each 200 ms";
        ensure!(failure.evidence.contains(evidence), "{failure:?}");
        let status = operator::status(cluster.peer(leader)).await?;
        ensure!(
            status.partitions.iter().all(|partition| partition.primary != victim),
            "it still leads partitions"
        );
        proxies.join(victim, DATABASE);
        cluster.whole().await?;
        found(cluster.sql(victim), |failure| failure.outcome.contains("heard again")).await?;
        ensure!(failures(cluster.sql(leader)).await?.len() == 1, "one failure");
        // Dropped before the proxies, whose streams they use.
        cluster.nodes.nodes.clear();
        Ok(())
    });
}

/// Returns when each node has its row.
async fn three_rows(port: u16) -> Result<()> {
    let client = connect(port).await?;
    for _ in 0..STARTS_WITHIN {
        if let Ok(rows) = client.query("SELECT node_id FROM volt_liveness", &[]).await
            && rows.len() == 3
        {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("not every node has its row")
}
