//! Three nodes and the table that clients write into.

use std::sync::Arc;

use anyhow::Context;
use volt_proto::v1::GetStatusResponse;
use volt_tests::operator;
use volt_tests::processes::Nodes;
use volt_tests::proxy::Proxies;

use crate::{PARTITIONS, WHOLE, connect};

/// A cluster of real processes on loopback.
pub struct Cluster {
    /// The processes.
    pub nodes: Nodes,
    /// Where peers and the operator reach them, by number less 1.
    pub peer_ports: Vec<u16>,
    /// Where SQL is spoken, by number less 1.
    pub sql_ports: Vec<u16>,
}

impl Cluster {
    /// Three nodes, whole, with the table of the load.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same, with more arguments of `volt-node start`.
    pub async fn start_with(more: &[&str]) -> anyhow::Result<Self> {
        let cluster = Self::of(Nodes::start_with(3, |_| "127.0.0.1".to_owned(), more)?);
        cluster.form().await?;
        Ok(cluster)
    }

    /// These nodes, which form no cluster yet.
    pub fn of(nodes: Nodes) -> Self {
        let peer_ports = nodes.nodes.iter().map(|node| node.peer_port).collect();
        let sql_ports = nodes.nodes.iter().map(|node| node.sql_port).collect();
        Self {
            nodes,
            peer_ports,
            sql_ports,
        }
    }

    /// Makes them a cluster, whole, with the table of the load.
    pub async fn form(&self) -> anyhow::Result<()> {
        self.form_with(PARTITIONS).await
    }

    /// The same with so many partitions.
    pub async fn form_with(&self, partitions: u32) -> anyhow::Result<()> {
        operator::initialise(self.peer_ports[0], partitions, WHOLE).await?;
        operator::whole(&self.peer_ports, WHOLE).await?;
        let client = connect(self.sql_ports[0]).await?;
        client
            .batch_execute("CREATE TABLE load (id BIGINT PRIMARY KEY, writer INT) WITH REPLICATION = 2")
            .await?;
        operator::whole(&self.peer_ports, WHOLE).await
    }

    /// Returns when all of them see a whole cluster.
    pub async fn whole(&self) -> anyhow::Result<()> {
        operator::whole(&self.peer_ports, WHOLE).await
    }

    /// SQL's port of a node.
    pub fn sql(&self, node: u32) -> u16 {
        self.sql_ports[node as usize - 1]
    }

    /// The peer port of a node.
    pub fn peer(&self, node: u32) -> u16 {
        self.peer_ports[node as usize - 1]
    }

    /// The metadata leader: losing it is the worst case.
    pub async fn leader(&self) -> anyhow::Result<u32> {
        Ok(operator::status(self.peer_ports[0]).await?.metadata_leader)
    }

    /// What the first node says of the cluster.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        operator::status(self.peer_ports[0]).await
    }

    /// Proxies before its nodes, which must advertise `proxy::host`.
    pub async fn proxies(&self) -> anyhow::Result<Arc<Proxies>> {
        let ports: Vec<(u32, u16)> = self
            .nodes
            .nodes
            .iter()
            .map(|node| (node.node, node.peer_port))
            .collect();
        let proxies = Proxies::start(&ports).await?;
        for node in &self.nodes.nodes {
            proxies.process(node.node, node.pid().context("not running")?);
        }
        Ok(proxies)
    }
}
