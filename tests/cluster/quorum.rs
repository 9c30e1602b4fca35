//! A cluster that lost the majority of its metadata group for good, disks and all: one node that is left is made the group by hand.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep, timeout};
use volt_tests::processes::binary;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const LIMIT: Duration = Duration::from_secs(40);
/// A node that can't answer may let its clients wait.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// What `volt-node recover-quorum` says, and whether it did as it was told.
fn recover_quorum(data: &Path, more: &[&str]) -> anyhow::Result<(bool, String)> {
    let output = Command::new(binary())
        .args(["recover-quorum", "--data"])
        .arg(data)
        .args(more)
        .output()
        .context("volt-node recover-quorum")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn one_of_three_that_is_left_goes_on_when_it_is_told_to() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute("INSERT INTO load VALUES (1, 1), (2, 2), (3, 3)")
            .await?;
        let data = cluster.nodes.node(1).data().to_owned();
        let lost = ["--lost", "2,3"];
        let refused = |more: &[&str], why: &str| {
            let (done, said) = recover_quorum(&data, more)?;
            ensure!(!done && said.contains(why), "{why:?} was expected: {said}");
            Ok(())
        };
        refused(&lost, "does its node run?")?;
        for node in [1, 2, 3] {
            cluster.nodes.node(node).kill()?;
        }
        for node in [2, 3] {
            cluster.nodes.node(node).lose_data()?;
        }
        refused(&["--lost", "3"], "a majority is left")?;
        refused(&["--lost", "1,3"], "node 1 is this one")?;
        refused(&["--lost", "2,9"], "there is no node 9")?;

        // What it would do; alone, the node that is left can't go on.
        let (told, said) = recover_quorum(&data, &lost)?;
        ensure!(told && said.contains("nothing was changed"), "{said}");
        ensure!(
            said.contains("of every partition a replica is left that has all"),
            "{said}"
        );
        let uuid = said
            .split("--accept-loss ")
            .nth(1)
            .context("the UUID is not told")?
            .trim()
            .to_owned();
        let nobody = "00000000-0000-0000-0000-000000000000".to_owned();
        refused(&[lost[0], lost[1], "--accept-loss", &nobody], "nothing was changed")?;
        cluster.nodes.node(1).start()?;
        sleep(Duration::from_secs(3)).await;
        let count = async {
            let client = connect(cluster.sql(1)).await?;
            anyhow::Ok(client.query_one("SELECT count(*) FROM load", &[]).await?)
        };
        let answer = timeout(ANSWER_WAIT, count).await;
        ensure!(!matches!(answer, Ok(Ok(_))), "one of three answered");
        cluster.nodes.node(1).kill()?;

        let (done, said) = recover_quorum(&data, &[lost[0], lost[1], "--accept-loss", &uuid])?;
        ensure!(done, "{said}");
        cluster.nodes.node(1).start()?;
        let limit = Instant::now() + LIMIT;
        let client = loop {
            let written = async {
                let client = connect(cluster.sql(1)).await?;
                client
                    .batch_execute("INSERT INTO load VALUES (4, 4) ON CONFLICT DO NOTHING")
                    .await?;
                anyhow::Ok(client)
            };
            if let Ok(Ok(client)) = timeout(ANSWER_WAIT, written).await {
                break client;
            }
            ensure!(
                Instant::now() < limit,
                "no write is taken: {}",
                cluster.nodes.node(1).log()?
            );
            sleep(Duration::from_millis(200)).await;
        };
        let count = client.query_one("SELECT count(*) FROM load", &[]).await?;
        ensure!(count.get::<_, i64>(0) == 4, "{count:?}");

        // New nodes come in place of the lost ones, and any of them may then be lost.
        for node in [2, 3] {
            cluster.nodes.node(node).start()?;
        }
        cluster.whole().await?;
        cluster.nodes.node(1).kill()?;
        let client = connect(cluster.sql(2)).await?;
        let limit = Instant::now() + LIMIT;
        while client
            .batch_execute("INSERT INTO load VALUES (5, 5) ON CONFLICT DO NOTHING")
            .await
            .is_err()
        {
            ensure!(Instant::now() < limit, "no write is taken");
            sleep(Duration::from_millis(200)).await;
        }
        let count = client.query_one("SELECT count(*) FROM load", &[]).await?;
        ensure!(count.get::<_, i64>(0) == 5, "{count:?}");
        Ok(())
    });
}
