//! Whoever is told that a name means something else from now on, or nothing any more, finds no node that takes it for what it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// So long a node is silent: it is not taken for dead yet.
const SILENT: Duration = Duration::from_millis(400);
/// And so soon after it woke the statement is answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

const BEFORE: &str = "CREATE TABLE parts (id INT PRIMARY KEY, name TEXT);
    INSERT INTO parts VALUES (1, 'bolt');
    CREATE VIEW seen AS SELECT id FROM parts;
    CREATE SEQUENCE numbers;
    CREATE PROCEDURE told(OUT word TEXT) AS $$ BEGIN word := 'before'; END $$;";

/// What is said on one node, what is asked on another, and what it says before and after: values, or an SQLSTATE.
const CASES: [(&str, &str, &str, &str); 7] = [
    (
        "CREATE OR REPLACE VIEW seen AS SELECT id, name FROM parts",
        "SELECT * FROM seen",
        "1",
        "1|bolt",
    ),
    ("DROP VIEW seen", "SELECT * FROM seen", "1|bolt", "42P01"),
    (
        "ALTER TABLE parts ADD COLUMN weight INT DEFAULT 7",
        "SELECT * FROM parts",
        "1|bolt",
        "1|bolt|7",
    ),
    (
        "CREATE OR REPLACE PROCEDURE told(OUT word TEXT) AS $$ BEGIN word := 'after'; END $$",
        "CALL told(NULL)",
        "before",
        "after",
    ),
    ("DROP PROCEDURE told", "CALL told(NULL)", "after", "42883"),
    ("DROP SEQUENCE numbers", "SELECT nextval('numbers') > 0", "t", "42P01"),
    ("DROP TABLE parts", "SELECT * FROM parts", "1|bolt|7", "42P01"),
];

/// The first row of the answer, or its SQLSTATE.
async fn answer(client: &Client, question: &str) -> Result<String> {
    let messages = match client.simple_query(question).await {
        Ok(messages) => messages,
        Err(error) => return Ok(error.code().context(format!("{question}: {error}"))?.code().to_owned()),
    };
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.with_context(|| format!("{question}: no row"))?;
    let values: Vec<&str> = (0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect();
    Ok(values.join("|"))
}

#[test]
fn what_is_redefined_is_so_on_every_node_when_it_is_answered() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let (speaks, asks) = (connect(cluster.sql(1)).await?, connect(cluster.sql(3)).await?);
        speaks.batch_execute(BEFORE).await?;
        cluster.whole().await?;
        for (statement, question, before, after) in CASES {
            let found = answer(&asks, question).await?;
            ensure!(found == before, "{question} before {statement}: {found}, not {before}");
            cluster.nodes.node(3).freeze()?;
            let said = speaks.batch_execute(statement);
            tokio::pin!(said);
            let is_early = timeout(SILENT, &mut said).await.is_ok();
            cluster.nodes.node(3).thaw()?;
            ensure!(!is_early, "{statement} was answered, and node 3 can't know");
            let answered = timeout(ANSWERED_WITHIN, said).await;
            answered.with_context(|| format!("{statement} is not answered"))??;
            let found = answer(&asks, question).await?;
            ensure!(found == after, "{question} after {statement}: {found}, not {after}");
            sleep(SILENT).await;
            cluster.whole().await?;
        }
        Ok(())
    });
}
