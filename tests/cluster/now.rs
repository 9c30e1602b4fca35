//! `now()` of a statement that is prepared once and executed later: the time of each execution.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Between two executions.
const PAUSE: Duration = Duration::from_millis(50);

async fn count(client: &Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[]).await?.get(0))
}

#[test]
fn a_prepared_statement_has_the_time_of_its_execution() {
    let _alone = alone();
    block_on(async {
        let cluster = Cluster::start().await?;
        let client = connect(cluster.sql(1)).await?;
        client
            .batch_execute("CREATE TABLE moments (id INT PRIMARY KEY, at TIMESTAMP)")
            .await?;
        // A row program asks for the time; a calculation with it is planned anew.
        let plain = client.prepare("INSERT INTO moments VALUES ($1, now())").await?;
        let calculated = "INSERT INTO moments VALUES ($1, now() + INTERVAL '1 hour')";
        let calculated = client.prepare(calculated).await?;
        let query = client
            .prepare("SELECT count(*) FROM moments WHERE at < now() + INTERVAL '1 hour'")
            .await?;
        for id in 0..4 {
            client.execute(&plain, &[&id]).await?;
            client.execute(&calculated, &[&(id + 10)]).await?;
            sleep(PAUSE).await;
            let seen: i64 = client.query_one(&query, &[]).await?.get(0);
            ensure!(seen == i64::from(id + 1) * 2, "{seen} rows are seen at {id}");
        }
        let times = count(&client, "SELECT count(DISTINCT at) FROM moments").await?;
        ensure!(times == 8, "{times} times");
        let delete = client
            .prepare("DELETE FROM moments WHERE at < now() - INTERVAL '1 second'")
            .await?;
        ensure!(client.execute(&delete, &[]).await? < 4, "some are too young");
        sleep(Duration::from_millis(1_200)).await;
        client.batch_execute("BEGIN").await?;
        client.execute(&delete, &[]).await?;
        client.batch_execute("COMMIT").await?;
        let left = count(&client, "SELECT count(*) FROM moments").await?;
        ensure!(left == 4, "{left} rows are left");
        Ok(())
    });
}
