//! What every way to share work out through a medium promises, with real processes: each piece happens once, whoever dies or freezes with it
//! in its hands, every living node has its share, and what dead nodes had goes to the others.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::spool::drop_file;
use crate::{alone, block_on, connect};

/// Until all pieces are done, failovers included.
const DONE: Duration = Duration::from_secs(90);
/// What a piece does must not be done twice: nothing of a table says so, but its number of rows.
const EFFECTS: &str =
    "CREATE TABLE happened (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, piece INT) WITH REPLICATION = 2";
const STRATEGIES: [&str; 3] = ["round-robin", "random", "weighted"];
/// Pieces that are shared out among three nodes, and the least that each of them does.
const PIECES: i32 = 30;
const LEAST: i64 = 1;

/// A way to share work out.
trait Medium {
    fn name(&self) -> &'static str;
    /// Rows of `happened` that a piece makes.
    fn effects(&self) -> i64;
    /// Arguments of every node.
    fn arguments(&self, strategy: &str) -> Vec<String>;
    /// Offers pieces of work.
    async fn offer(&self, client: &Client, pieces: Range<i32>) -> anyhow::Result<()>;
    /// Whether a node is in the middle of one.
    async fn is_busy(&self, client: &Client, node: u32) -> anyhow::Result<bool>;
    /// Pieces that are done.
    async fn done(&self, client: &Client) -> anyhow::Result<i64>;
    /// What each node did.
    async fn shares(&self, client: &Client) -> anyhow::Result<BTreeMap<i32, i64>>;
}

/// Files of a directory.
struct Spool {
    directory: TempDir,
    rows: i64,
}

impl Spool {
    fn with_rows(rows: i64) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { directory, rows })
    }
}

impl Medium for Spool {
    fn name(&self) -> &'static str {
        "spool directory"
    }

    fn effects(&self) -> i64 {
        self.rows
    }

    fn arguments(&self, strategy: &str) -> Vec<String> {
        let directory = self.directory.path().display().to_string();
        let words = [
            "--spool",
            &directory,
            "--spool-balance",
            strategy,
            "--spool-every-ms",
            "50",
        ];
        words.map(str::to_owned).to_vec()
    }

    async fn offer(&self, _: &Client, pieces: Range<i32>) -> anyhow::Result<()> {
        for piece in pieces {
            let rows = format!("{piece}\n").repeat(usize::try_from(self.rows)?);
            drop_file(
                self.directory.path(),
                &format!("{piece}.happened.csv"),
                &format!("piece\n{rows}"),
            )?;
        }
        Ok(())
    }

    async fn is_busy(&self, _: &Client, node: u32) -> anyhow::Result<bool> {
        let said = std::fs::read(self.directory.path().join("nodes").join(format!("node-{node}")))?;
        let said: serde_json::Value = serde_json::from_slice(&said)?;
        let loaded = said["loaded"].as_i64().unwrap_or(0);
        Ok(loaded > 0 && loaded < self.rows)
    }

    async fn done(&self, client: &Client) -> anyhow::Result<i64> {
        let count = "SELECT COUNT(*) FROM system.spool WHERE state = 'done' AND rejected = 0";
        Ok(client.query_one(count, &[]).await?.get(0))
    }

    async fn shares(&self, client: &Client) -> anyhow::Result<BTreeMap<i32, i64>> {
        shares(client, "SELECT node_id, COUNT(*) FROM volt_spool GROUP BY node_id").await
    }
}

/// Rows of a table.
struct Queue;

/// Takes a while, so that its node can die in the middle.
const SLOW: &str = "CREATE OR REPLACE PROCEDURE slow(which INT) AS $$ DECLARE i INT := 0; BEGIN WHILE i < 800000 LOOP i := i + 1; END LOOP; \
     INSERT INTO happened (piece) VALUES (which); END $$";

impl Medium for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn effects(&self) -> i64 {
        1
    }

    fn arguments(&self, strategy: &str) -> Vec<String> {
        let words = ["--queue", "--queue-balance", strategy, "--queue-every-ms", "50"];
        words.map(str::to_owned).to_vec()
    }

    async fn offer(&self, client: &Client, pieces: Range<i32>) -> anyhow::Result<()> {
        client.batch_execute(SLOW).await?;
        until_queue(client).await?;
        for piece in pieces {
            let statement = format!("CALL slow({piece})");
            client
                .execute("INSERT INTO volt_queue (statement) VALUES ($1)", &[&statement])
                .await?;
        }
        Ok(())
    }

    async fn is_busy(&self, client: &Client, node: u32) -> anyhow::Result<bool> {
        let count = format!("SELECT COUNT(*) FROM volt_queue WHERE node_id = {node} AND state = 'claimed'");
        Ok(client.query_one(&count, &[]).await?.get::<_, i64>(0) > 0)
    }

    async fn done(&self, client: &Client) -> anyhow::Result<i64> {
        let count = "SELECT COUNT(*) FROM volt_queue WHERE state = 'done'";
        Ok(client.query_one(count, &[]).await?.get(0))
    }

    async fn shares(&self, client: &Client) -> anyhow::Result<BTreeMap<i32, i64>> {
        shares(
            client,
            "SELECT node_id, COUNT(*) FROM volt_queue WHERE state = 'done' GROUP BY node_id",
        )
        .await
    }
}

/// Until the nodes have made the table.
async fn until_queue(client: &Client) -> anyhow::Result<()> {
    let end = Instant::now() + DONE;
    while client
        .query("SELECT id FROM volt_queue WHERE id = 0", &[])
        .await
        .is_err()
    {
        ensure!(Instant::now() < end, "nobody has made the queue");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn shares(client: &Client, query: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn start(medium: &impl Medium, strategy: &str) -> anyhow::Result<(Cluster, Client)> {
    let arguments = medium.arguments(strategy);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::start_with(&arguments).await?;
    let client = connect(cluster.sql(1)).await?;
    client.batch_execute(EFFECTS).await?;
    Ok((cluster, client))
}

async fn until_done(medium: &impl Medium, client: &Client, pieces: i32) -> anyhow::Result<()> {
    let end = Instant::now() + DONE;
    loop {
        let done = medium.done(client).await.unwrap_or(0);
        if done == i64::from(pieces) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{}: {done} of {pieces} pieces are done",
            medium.name()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Every piece has happened, and once.
async fn check_once(medium: &impl Medium, client: &Client, pieces: i32) -> anyhow::Result<()> {
    let happened = shares(client, "SELECT piece, COUNT(*) FROM happened GROUP BY piece").await?;
    let expected: BTreeMap<i32, i64> = (0..pieces).map(|piece| (piece, medium.effects())).collect();
    ensure!(happened == expected, "{}: {happened:?}", medium.name());
    Ok(())
}

async fn check_shares<M: Medium>(fresh: impl Fn() -> anyhow::Result<M>) -> anyhow::Result<()> {
    for strategy in STRATEGIES {
        let medium = &fresh()?;
        let (_cluster, client) = start(medium, strategy).await?;
        medium.offer(&client, 0..PIECES).await?;
        until_done(medium, &client, PIECES).await?;
        check_once(medium, &client, PIECES).await?;
        let shares = medium.shares(&client).await?;
        println!("{}, {strategy}: {shares:?}", medium.name());
        let has_share = |node| shares.get(&node).is_some_and(|share| *share >= LEAST);
        ensure!((1..=3).all(has_share), "{}, {strategy}: {shares:?}", medium.name());
    }
    Ok(())
}

async fn until_busy(medium: &impl Medium, client: &Client, node: u32) -> anyhow::Result<()> {
    let end = Instant::now() + DONE;
    while !medium.is_busy(client, node).await? {
        ensure!(Instant::now() < end, "{}: node {node} has nothing", medium.name());
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn check_faults(medium: &impl Medium) -> anyhow::Result<()> {
    let (mut cluster, client) = start(medium, "round-robin").await?;
    medium.offer(&client, 0..10).await?;
    until_busy(medium, &client, 2).await?;
    // Its lease ends meanwhile, and others do what it had; then it goes on where it was.
    cluster.nodes.node(2).freeze()?;
    until_done(medium, &client, 10).await?;
    cluster.nodes.node(2).thaw()?;
    cluster.whole().await?;
    medium.offer(&client, 10..20).await?;
    until_busy(medium, &client, 3).await?;
    cluster.nodes.node(3).kill()?;
    until_done(medium, &client, 20).await?;
    cluster.nodes.node(3).start()?;
    cluster.whole().await?;
    medium.offer(&client, 20..26).await?;
    until_done(medium, &client, 26).await?;
    sleep(Duration::from_secs(1)).await;
    check_once(medium, &client, 26).await.context("after the faults")
}

#[test]
fn files_of_a_spool_are_shared_out_by_every_strategy() {
    let _alone = alone();
    block_on(check_shares(|| Spool::with_rows(10)));
}

#[test]
fn files_of_a_spool_happen_once_though_their_nodes_freeze_and_die() {
    let _alone = alone();
    block_on(async { check_faults(&Spool::with_rows(10_000)?).await });
}

#[test]
fn statements_of_a_queue_are_shared_out_by_every_strategy() {
    let _alone = alone();
    block_on(check_shares(|| Ok(Queue)));
}

#[test]
fn statements_of_a_queue_happen_once_though_their_nodes_freeze_and_die() {
    let _alone = alone();
    block_on(check_faults(&Queue));
}

#[test]
fn a_statement_of_the_queue_leaves_its_result_or_its_error() {
    let _alone = alone();
    block_on(async {
        let (_cluster, client) = start(&Queue, "round-robin").await?;
        until_queue(&client).await?;
        client
            .batch_execute("CREATE PROCEDURE doubled(n INT, OUT twice INT) AS $$ BEGIN twice := 2 * n; END $$")
            .await?;
        let statements = [
            "INSERT INTO happened (piece) VALUES (1), (2)",
            "CALL doubled(21, NULL)",
            "INSERT INTO happened (id, piece) OVERRIDING SYSTEM VALUE VALUES (1, 1), (1, 2)",
            "INSERT INTO nowhere VALUES (1)",
            "COMMIT",
            "DROP TABLE happened",
        ];
        for statement in statements {
            client
                .execute("INSERT INTO volt_queue (statement) VALUES ($1)", &[&statement])
                .await?;
        }
        let later = "INSERT INTO volt_queue (statement, due_at) VALUES ('DELETE FROM happened', '2100-01-01')";
        client.execute(later, &[]).await?;
        let open = "SELECT COUNT(*) FROM volt_queue WHERE state NOT IN ('done', 'failed')";
        let end = Instant::now() + DONE;
        while client.query_one(open, &[]).await?.get::<_, i64>(0) > 1 {
            ensure!(Instant::now() < end, "statements are left");
            sleep(Duration::from_millis(50)).await;
        }
        let rows = client
            .query(
                "SELECT statement, state, affected, result, sqlstate, attempts FROM volt_queue ORDER BY statement",
                &[],
            )
            .await?;
        let told: Vec<String> = rows
            .iter()
            .map(|row| {
                let (statement, state): (&str, &str) = (row.get(0), row.get(1));
                let (affected, result): (Option<i64>, Option<&str>) = (row.get(2), row.get(3));
                let (sqlstate, attempts): (Option<&str>, i32) = (row.get(4), row.get(5));
                let first: String = statement.chars().take(18).collect();
                format!("{first}: {state} {affected:?} {result:?} {sqlstate:?} {attempts}")
            })
            .collect();
        let expected = [
            "CALL doubled(21, N: done None Some(\"[{\\\"twice\\\":\\\"42\\\"}]\") None 1",
            "COMMIT: failed None None Some(\"0A000\") 1",
            "DELETE FROM happen: ready None None None 0",
            "DROP TABLE happene: failed None None Some(\"25001\") 1",
            "INSERT INTO happen: failed None None Some(\"23505\") 1",
            "INSERT INTO happen: done Some(2) None None 1",
            "INSERT INTO nowher: failed None None Some(\"42P01\") 1",
        ];
        ensure!(told == expected, "{told:#?}");
        let happened: i64 = client.query_one("SELECT COUNT(*) FROM happened", &[]).await?.get(0);
        ensure!(happened == 2, "{happened} rows");
        Ok(())
    });
}

#[test]
fn a_statement_whose_row_is_taken_away_in_the_middle_does_not_happen() {
    let _alone = alone();
    block_on(async {
        let (_cluster, client) = start(&Queue, "round-robin").await?;
        let claimed = "SELECT id FROM volt_queue WHERE state = 'claimed'";
        // As a node does that claims it when the lease has ended, and then gives it up.
        let taken = "UPDATE volt_queue SET attempts = attempts + 1, state = 'failed', due_at = NULL WHERE id = $1 AND state = 'claimed'";
        let (mut offered, end) = (0, Instant::now() + DONE);
        // On a busy machine one may be done before it can be taken away; then the next one is offered.
        'taken: loop {
            ensure!(Instant::now() < end, "none of {offered} rows could be taken away");
            Queue.offer(&client, offered..offered + 1).await?;
            offered += 1;
            while Instant::now() < end {
                if let Some(row) = client.query_opt(claimed, &[]).await? {
                    let id: i64 = row.get(0);
                    if client.execute(taken, &[&id]).await? == 1 {
                        break 'taken;
                    }
                }
                let open = "SELECT COUNT(*) FROM volt_queue WHERE state IN ('ready', 'claimed')";
                if client.query_one(open, &[]).await?.get::<_, i64>(0) == 0 {
                    break;
                }
            }
        }
        sleep(Duration::from_secs(2)).await;
        let happened: i64 = client.query_one("SELECT COUNT(*) FROM happened", &[]).await?.get(0);
        let failed: i64 = client
            .query_one("SELECT COUNT(*) FROM volt_queue WHERE state = 'failed'", &[])
            .await?
            .get(0);
        ensure!(
            (happened, failed) == (i64::from(offered) - 1, 1),
            "{happened} of {offered} happened, {failed} failed"
        );
        Ok(())
    });
}
