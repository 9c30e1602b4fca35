//! The README's session, typed in psql.

use anyhow::{Result, ensure};

use crate::command::{SERVICE, psql, psql_at, wait_until};

/// Who lives, as the README asks for it.
pub const NODES: &str = "SELECT node_id, is_alive FROM system.nodes ORDER BY node_id;";

const ROWS: &str = "1|Alice\n2|Bob\n3|Charlie";

/// Creates the example table, fills it and reads it back; shows the nodes.
pub async fn example() -> Result<String> {
    // A Service answers a moment after its pods are ready, when every machine has heard of it.
    wait_until(15, "the Service demo-sql answers", async || {
        Ok(psql("SELECT 1").await? == "1")
    })
    .await?;
    psql("CREATE TABLE example (id INT PRIMARY KEY, name VARCHAR(255)) WITH REPLICATION = 2;").await?;
    psql("INSERT INTO example (id, name) VALUES (1, 'Alice');").await?;
    psql("INSERT INTO example (id, name) VALUES (2, 'Bob');").await?;
    psql("INSERT INTO example (id, name) VALUES (3, 'Charlie');").await?;
    still_there().await?;
    let nodes = psql(NODES).await?;
    ensure!(nodes == "1|t\n2|t\n3|t", "system.nodes says {nodes:?}");
    Ok(String::new())
}

/// The example's rows are what they were.
pub async fn still_there() -> Result<String> {
    still_there_at(SERVICE).await?;
    Ok(String::new())
}

/// The same, as this host has them.
pub async fn still_there_at(host: &str) -> Result<()> {
    let rows = psql_at(host, "SELECT * FROM example ORDER BY id;").await?;
    ensure!(rows == ROWS, "SELECT * FROM example at {host} gives {rows:?}");
    Ok(())
}
