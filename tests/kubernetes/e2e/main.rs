//! The whole product on a real Kubernetes: installs the chart, applies `examples.yaml`, works with the database as a
//! user would, breaks things under load, and counts what was promised and kept.
//!
//! It runs inside the cluster's network (`tests/kubernetes/e2e.sh` brings it there) and drives kubectl, helm and psql.

mod cluster;
mod command;
mod failover;
mod install;
mod load;
mod refuse;
mod remove;
mod scale;
mod session;
mod suite;

use std::process::ExitCode;

use suite::Suite;

#[tokio::main]
async fn main() -> ExitCode {
    let mut suite = Suite::default();
    suite.step("the chart is clean: helm lint", install::lint()).await;
    suite
        .step("helm install brings two operators", install::operator())
        .await;
    suite
        .step("a VoltCluster with no replicas is rejected", refuse::no_replicas())
        .await;
    suite
        .step("examples.yaml becomes a Ready cluster", install::example())
        .await;
    suite
        .step("its number of partitions can't be changed", refuse::fixed_fields())
        .await;
    suite
        .step("a session with psql through the Service", session::example())
        .await;
    suite.step("helm test", install::chart_test()).await;
    suite
        .step(
            "a primary's pod dies under load: nothing is lost",
            failover::primary_dies(),
        )
        .await;
    suite
        .step(
            "from 3 nodes to 4 and back under load: nothing is lost",
            scale::out_and_in(),
        )
        .await;
    suite
        .step("fewer nodes than REPLICATION needs are refused", scale::too_few())
        .await;
    suite
        .step(
            "a nonsense image gets a condition that says so",
            refuse::nonsense_image(),
        )
        .await;
    suite
        .step(
            "the leading operator dies and the other takes over",
            install::operator_dies(),
        )
        .await;
    suite
        .step(
            "what was acknowledged is still there at the end",
            session::still_there(),
        )
        .await;
    suite
        .step("deleting the VoltCluster removes all of it", remove::all())
        .await;
    suite.finish().await
}
