//! Files of a spool directory: loaded once, what is bad of them told, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;
use volt_tests::http;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

/// Until small files are loaded.
const SOON: Duration = Duration::from_secs(30);

/// Three nodes with a spool directory.
async fn spooling() -> anyhow::Result<(Cluster, tempfile::TempDir, Client)> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().display().to_string();
    let cluster = Cluster::start_with(&["--spool", &path, "--spool-every-ms", "50"]).await?;
    let client = connect(cluster.sql(1)).await?;
    Ok((cluster, directory, client))
}

/// Drops a file as users are told to.
pub fn drop_file(directory: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let aside = directory.join(format!("{name}.part"));
    std::fs::write(&aside, content)?;
    std::fs::rename(aside, directory.join(name))?;
    Ok(())
}

/// The file of this name, and so on, in a subdirectory; None: not there.
fn ended(directory: &Path, name: &str, suffix: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut found = names.filter(|file| {
        let id = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
        id.and_then(|rest| rest.strip_suffix(suffix))
            .is_some_and(|id| !id.is_empty() && !id.contains('.'))
    });
    found.next().map(|file| directory.join(file))
}

async fn until_there(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let end = Instant::now() + SOON;
    loop {
        if let Some(path) = ended(directory, name, "") {
            return Ok(path);
        }
        ensure!(Instant::now() < end, "{name} has not come to {}", directory.display());
        sleep(Duration::from_millis(20)).await;
    }
}

fn json(path: Option<PathBuf>) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_slice(&std::fs::read(path.context("no result")?)?)?)
}

#[test]
fn files_are_loaded_and_what_is_bad_of_them_is_told() {
    let _alone = alone();
    block_on(async {
        let (cluster, spool, client) = spooling().await?;
        let spool = spool.path();
        client
            .batch_execute(
                "CREATE TABLE orders (id INT PRIMARY KEY, item TEXT, price NUMERIC(20, 4) CHECK (price > 0), at TIMESTAMP) \
                 WITH REPLICATION = 2;
                 INSERT INTO orders VALUES (7, 'there before', 1, NULL)",
            )
            .await?;
        let csv = "id,item,price\n1,\"a, \"\"b\"\"\nc\",2.50\n2,,\n3,\"\",1\nx,d,1\n4,e,-1\n5,f\n7,g,1\n6,h,0.1\n";
        drop_file(spool, "monday.orders.csv", csv)?;
        let jsonl = "{\"id\":10,\"price\":1234567890123456.7891}\n{\"id\":11,\"colour\":\"red\"}\n[1]\n{\"item\":\"i\",\"id\":12}\n";
        drop_file(spool, "tuesday.orders.jsonl", jsonl)?;
        drop_file(spool, "nowhere.csv", "id\n1\n")?;
        drop_file(spool, "wrong.orders.csv", "id,colour\n1,red\n")?;
        drop_file(spool, "empty.orders.csv", "")?;
        drop_file(spool, "notes.txt", "not for the spool")?;
        let (done, failed) = (spool.join("done"), spool.join("failed"));
        for name in ["monday.orders.csv", "tuesday.orders.jsonl", "empty.orders.csv"] {
            until_there(&done, name).await?;
        }
        for name in ["nowhere.csv", "wrong.orders.csv"] {
            until_there(&failed, name).await?;
        }

        let select = "SELECT id, item, CAST(price AS TEXT) FROM orders ORDER BY id";
        let rows: Vec<(i32, Option<String>, Option<String>)> = client
            .query(select, &[])
            .await?
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect();
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            (1, some("a, \"b\"\nc"), some("2.5000")),
            (2, None, None),
            (3, some(""), some("1.0000")),
            (6, some("h"), some("0.1000")),
            (7, some("there before"), some("1.0000")),
            (10, None, some("1234567890123456.7891")),
            (12, some("i"), None),
        ];
        ensure!(rows == expected, "{rows:?}");

        let result = json(ended(&done, "monday.orders.csv", ".result"))?;
        ensure!(
            (result["loaded"].as_u64(), result["rejected"].as_u64()) == (Some(4), Some(4)),
            "{result}"
        );
        let rejects = ended(&done, "monday.orders.csv", ".rejects").context("no rejects")?;
        let rejects: Vec<serde_json::Value> = std::fs::read_to_string(rejects)?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let told: Vec<_> = rejects
            .iter()
            .map(|one| (one["line"].as_u64(), one["sqlstate"].as_str(), one["record"].as_str()))
            .collect();
        let expected = [
            (Some(6), Some("22P02"), Some("x,d,1")),
            (Some(7), Some("23514"), Some("4,e,-1")),
            (Some(8), Some("22P04"), Some("5,f")),
            (Some(9), Some("23505"), Some("7,g,1")),
        ];
        ensure!(told == expected, "{told:?}");
        let rejects = std::fs::read_to_string(ended(&done, "tuesday.orders.jsonl", ".rejects").context("no rejects")?)?;
        ensure!(
            rejects.contains("42703") && rejects.contains("{\\\"id\\\":11,") && rejects.lines().count() == 2,
            "{rejects}"
        );
        ensure!(json(ended(&failed, "nowhere.csv", ".result"))?["sqlstate"] == "42P01");
        ensure!(json(ended(&failed, "wrong.orders.csv", ".result"))?["sqlstate"] == "42703");

        let rows = client
            .query(
                "SELECT file, table_name, state, loaded, rejected FROM system.spool ORDER BY file",
                &[],
            )
            .await?;
        let told: Vec<String> = rows
            .iter()
            .map(|row| {
                let (file, table, state): (&str, Option<&str>, &str) = (row.get(0), row.get(1), row.get(2));
                let (loaded, rejected): (Option<i64>, Option<i64>) = (row.get(3), row.get(4));
                format!("{file} {table:?} {state} {loaded:?} {rejected:?}")
            })
            .collect();
        let expected = [
            "empty.orders.csv Some(\"orders\") done Some(0) Some(0)",
            "monday.orders.csv Some(\"orders\") done Some(4) Some(4)",
            "notes.txt None ignored None None",
            "nowhere.csv Some(\"nowhere\") failed Some(0) Some(0)",
            "tuesday.orders.jsonl Some(\"orders\") done Some(2) Some(2)",
            "wrong.orders.csv Some(\"orders\") failed Some(0) Some(0)",
        ];
        ensure!(told == expected, "{told:#?}");

        let mut sums = BTreeMap::new();
        for node in &cluster.nodes.nodes {
            let text = http::get(node.http_port, "/metrics").await?.body;
            for line in text.lines().filter(|line| line.starts_with("volt_spool_")) {
                let (name, number) = line.rsplit_once(' ').context("a metric")?;
                *sums.entry(name.to_owned()).or_insert(0.0) += number.parse::<f64>()?;
            }
        }
        let expected = [
            ("volt_spool_files_total{outcome=\"done\"}", 3.0),
            ("volt_spool_files_total{outcome=\"failed\"}", 2.0),
            ("volt_spool_rows_total{outcome=\"loaded\"}", 6.0),
            ("volt_spool_rows_total{outcome=\"rejected\"}", 6.0),
            ("volt_spool_taken_over_total", 0.0),
        ];
        let expected: BTreeMap<String, f64> = expected
            .into_iter()
            .map(|(name, number)| (name.to_owned(), number))
            .collect();
        ensure!(sums == expected, "{sums:?}");
        Ok(())
    });
}
