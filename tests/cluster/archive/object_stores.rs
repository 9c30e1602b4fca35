//! Archives in object stores, whose servers run on this machine. Without them these tests are skipped, unless VOLT_REQUIRE_CLIENTS is set, as
//! `make test` does.

use std::process::Command;

use anyhow::ensure;
use volt_node::archive::contract;
use volt_node::world::World;
use volt_tests::object_stores::{BUCKET, Server};
use volt_tests::tools::finish;

use super::{Place, damaged, session};
use crate::{alone, block_on};

/// Tells the test below which URL to try: what is in a process's environment is read when a store is opened.
const CONTRACT_URL: &str = "VOLT_CONTRACT_URL";

fn missing(what: &str) -> anyhow::Result<()> {
    ensure!(std::env::var_os("VOLT_REQUIRE_CLIENTS").is_none(), "{what} is missing");
    println!("SKIPPED: {what} is missing");
    Ok(())
}

/// Part of the tests below, each of which runs it in a process with an environment of its own.
#[test]
#[ignore = "run by others"]
fn the_contract_holds() {
    block_on(async {
        let url = std::env::var(CONTRACT_URL)?;
        let data = tempfile::tempdir()?;
        let world = World::production(data.path())?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        contract::holds(&world, &url, "contract")
            .await
            .map_err(anyhow::Error::msg)
    });
}

fn holds_contract(place: &Place) -> anyhow::Result<()> {
    let itself = ["archive::object_stores::the_contract_holds", "--exact", "--ignored"];
    let mut command = Command::new(std::env::current_exe()?);
    command.args(itself).env(CONTRACT_URL, &place.url);
    let said = finish(command.envs(place.environment.iter().map(|(name, value)| (name, value))))?;
    ensure!(said.contains("1 passed"), "{said}");
    Ok(())
}

#[test]
fn a_cluster_is_restored_from_s3() {
    let _alone = alone();
    block_on(async {
        let Some(server) = Server::s3().await? else {
            return missing("moto");
        };
        let place = Place {
            url: format!("s3://{BUCKET}/volt/cluster"),
            environment: server.environment.clone(),
        };
        holds_contract(&place)?;
        session(&place).await?;
        let other = Place {
            url: format!("s3://{BUCKET}/volt/other"),
            environment: server.environment.clone(),
        };
        damaged::is_shown(&other, async || {
            let keys = server.keys("volt/other/").await?;
            let of_rows = keys
                .iter()
                .filter(|key| key.contains("/log/") || key.contains("/base/"));
            ensure!(of_rows.clone().count() > 0, "nothing is archived");
            for key in of_rows {
                server.bend(key).await?;
            }
            Ok(())
        })
        .await
    });
}

#[test]
fn azure_holds_the_contract() {
    let _alone = alone();
    block_on(async {
        let folder = tempfile::tempdir()?;
        let Some(server) = Server::azure(folder.path()).await? else {
            return missing("azurite");
        };
        holds_contract(&Place {
            url: format!("az://{BUCKET}/volt/cluster"),
            environment: server.environment.clone(),
        })
    });
}
