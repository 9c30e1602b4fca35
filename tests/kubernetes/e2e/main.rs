//! The whole product on a real Kubernetes: installs the chart, applies `examples.yaml`, works with the database as a
//! user would, breaks things under load, and counts what was promised and kept.
//!
//! It runs inside the cluster's network (`tests/kubernetes/e2e.sh` brings it there) and drives kubectl, helm and psql.

mod chart;
mod cluster;
mod command;
mod failover;
mod install;
mod load;
mod machines;
mod operators;
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
    becomes_a_cluster(&mut suite).await;
    survives(&mut suite).await;
    ends(&mut suite).await;
    suite.finish().await
}

async fn becomes_a_cluster(suite: &mut Suite) {
    suite.step("the chart is clean: helm lint", chart::lint()).await;
    suite
        .step("the chart refuses values that make no sense", chart::bad_values())
        .await;
    suite
        .step("helm install brings two operators", install::operator())
        .await;
    suite
        .step("the operator may do what it does and no more", chart::rights())
        .await;
    suite
        .step("a VoltCluster with no replicas is rejected", refuse::no_replicas())
        .await;
    suite
        .step("a standby that contradicts itself is rejected", refuse::standbys())
        .await;
    suite
        .step("examples.yaml becomes a Ready cluster", install::example())
        .await;
    suite
        .step(
            "it can't be scaled to nothing, nor get other partitions, nor become a standby",
            refuse::changes(),
        )
        .await;
    suite
        .step("a session with psql through the Service", session::example())
        .await;
    suite
        .step("kubectl get shows it, its identity is kept", install::columns())
        .await;
    suite.step("helm test", chart::its_test()).await;
}

async fn survives(suite: &mut Suite) {
    suite
        .step(
            "primaries' pods die under load, one after the other: nothing is lost",
            failover::primaries_die(),
        )
        .await;
    suite
        .step(
            "a primary's container is killed under load: nothing is lost",
            failover::container_is_killed(),
        )
        .await;
    suite
        .step(
            "from 3 nodes to 4 and back under load, the leading operator dies meanwhile: nothing is lost",
            scale::out_and_in(),
        )
        .await;
    suite
        .step("fewer nodes than REPLICATION needs are refused", scale::too_few())
        .await;
    suite
        .step(
            "a nonsense image in a running cluster costs one pod and loses nothing",
            refuse::nonsense_update(),
        )
        .await;
    suite
        .step(
            "a nonsense image of a new cluster gets a condition that says so",
            refuse::nonsense_image(),
        )
        .await;
    suite
        .step(
            "a child that somebody deletes is made again",
            install::child_is_deleted(),
        )
        .await;
    suite
        .step(
            "what was acknowledged is still there at the end",
            session::still_there(),
        )
        .await;
}

async fn ends(suite: &mut Suite) {
    suite
        .step(
            "a VoltCluster that is deleted and applied again has its data",
            remove::and_again(),
        )
        .await;
    suite
        .step("deleting the VoltCluster removes all of it", remove::all())
        .await;
    suite
        .step("an operator of one namespace keeps to it", chart::one_namespace())
        .await;
}
