//! Proxies between nodes, so that one can be cut off without root: each node's peer port is advertised under a loopback
//! address of the node's own, where a proxy listens. While a node is cut off nothing passes to it or from it, and nothing
//! is closed: bytes wait, as in a network that lost its route. Two nodes can be parted from each other alone; and what
//! connections a node has can be left to themselves, as when its machine vanishes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use procfs::process::{FDTarget, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What does not pass.
#[derive(Default)]
struct Cuts {
    nodes: BTreeSet<u32>,
    pairs: BTreeSet<(u32, u32)>,
    /// Nothing passes on connections that others open to these.
    deaf: BTreeSet<u32>,
    /// Connections of a node that are older than this number are dead, though nobody says so.
    vanished: BTreeMap<u32, u64>,
    connections: u64,
    /// What passes to or from a node comes so much later.
    slow: BTreeMap<u32, Duration>,
}

/// A connection: the nodes at its ends, who opened it first, and its number.
#[derive(Clone)]
struct Ends {
    nodes: Vec<u32>,
    number: u64,
}

impl Cuts {
    fn pass(&self, ends: &Ends) -> bool {
        let parted = |(a, b): &(u32, u32)| ends.nodes.contains(a) && ends.nodes.contains(b);
        let cut = |node: &u32| {
            let vanished = self.vanished.get(node).is_some_and(|first| ends.number < *first);
            vanished || self.nodes.contains(node)
        };
        let deaf = ends.nodes.last().is_some_and(|target| self.deaf.contains(target));
        !deaf && !ends.nodes.iter().any(cut) && !self.pairs.iter().any(parted)
    }

    fn delay(&self, ends: &Ends) -> Duration {
        let delays = ends.nodes.iter().filter_map(|node| self.slow.get(node));
        delays.sum()
    }
}

/// Under which loopback address the node's proxy listens.
pub fn host(node: u32) -> String {
    format!("127.0.7.{node}")
}

/// Proxies before nodes.
pub struct Proxies {
    cuts: watch::Sender<Cuts>,
    /// Which process is which node: who opened a connection is found by it.
    processes: watch::Sender<BTreeMap<u32, u32>>,
}

impl Proxies {
    /// Listens for each (node, peer port).
    pub async fn start(ports: &[(u32, u16)]) -> Result<Arc<Self>> {
        let proxies = Arc::new(Self {
            cuts: watch::Sender::new(Cuts::default()),
            processes: watch::Sender::new(BTreeMap::new()),
        });
        for (node, port) in ports.iter().copied() {
            let listener = TcpListener::bind((host(node), port))
                .await
                .with_context(|| host(node))?;
            let proxies = Arc::clone(&proxies);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&proxies).carry(stream, node, port));
                }
            });
        }
        Ok(proxies)
    }

    /// The node's process now.
    pub fn process(&self, node: u32, pid: u32) {
        self.processes.send_modify(|processes| {
            processes.insert(pid, node);
        });
    }

    /// From now on nothing passes to the node or from it.
    pub fn cut_off(&self, node: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.nodes.insert(node));
    }

    /// From now on nothing passes between these two.
    pub fn part(&self, a: u32, b: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.pairs.insert((a, b)));
    }

    /// What waited between these two passes, and everything after it.
    pub fn join(&self, a: u32, b: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.pairs.remove(&(a, b)));
    }

    /// From now on nothing passes on connections that others open to the node; on its own all does.
    pub fn deafen(&self, node: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.deaf.insert(node));
    }

    /// What waited passes, and everything after it.
    pub fn undeafen(&self, node: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.deaf.remove(&node));
    }

    /// From now on everything to the node and from it comes later, each piece that is read at a time; nothing: at once again.
    pub fn slow_down(&self, node: u32, by: Duration) {
        self.cuts.send_modify(|cuts| match by.is_zero() {
            true => drop(cuts.slow.remove(&node)),
            false => drop(cuts.slow.insert(node, by)),
        });
    }

    /// Nothing passes on the connections that the node has now, for ever, and nobody hears that they ended. New ones are
    /// as good as any.
    pub fn vanish(&self, node: u32) {
        self.cuts
            .send_modify(|cuts| _ = cuts.vanished.insert(node, cuts.connections + 1));
    }

    /// What waited passes, and everything after it.
    pub fn restore(&self, node: u32) {
        self.cuts.send_modify(|cuts| _ = cuts.nodes.remove(&node));
    }

    async fn carry(self: Arc<Self>, from: TcpStream, target: u32, port: u16) {
        // Nobody's connection could not be cut: its opener tries again, and is known by then.
        let Some(source) = self.opener(&from) else { return };
        let mut number = 0;
        self.cuts.send_if_modified(|cuts| {
            cuts.connections += 1;
            number = cuts.connections;
            false
        });
        let nodes = vec![source, target];
        let ends = Ends { nodes, number };
        passes(&mut self.cuts.subscribe(), &ends).await;
        let Ok(to) = TcpStream::connect(("127.0.0.1", port)).await else {
            return;
        };
        let _ = (from.set_nodelay(true), to.set_nodelay(true));
        let (from_read, from_write) = from.into_split();
        let (to_read, to_write) = to.into_split();
        let there = copy(from_read, to_write, self.cuts.subscribe(), ends.clone());
        let back = copy(to_read, from_write, self.cuts.subscribe(), ends);
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    }

    /// Which node's process holds the other end of this connection.
    fn opener(&self, stream: &TcpStream) -> Option<u32> {
        let inode = socket_inode(stream.peer_addr().ok()?, stream.local_addr().ok()?)?;
        let processes = self.processes.borrow();
        processes
            .iter()
            .find(|(pid, _)| holds(**pid, inode))
            .map(|(_, node)| *node)
    }
}

/// The inode of the socket that is connected from here to there, from the kernel's table. Both ends count: a local port
/// may serve several connections at once, and one that just ended.
fn socket_inode(from: SocketAddr, to: SocketAddr) -> Option<u64> {
    const TRIES: usize = 3;
    // The table changes while it is read, which can hide a line.
    let ours = || {
        let lines = procfs::net::tcp().ok()?.into_iter();
        let mut ours = lines.filter(|line| line.local_address == from && line.remote_address == to && line.inode != 0);
        ours.next().map(|line| line.inode)
    };
    (0..TRIES).find_map(|_| ours())
}

fn holds(pid: u32, socket: u64) -> bool {
    let files = i32::try_from(pid)
        .ok()
        .and_then(|pid| Process::new(pid).ok()?.fd().ok());
    let mut files = files.into_iter().flatten().flatten();
    files.any(|file| matches!(file.target, FDTarget::Socket(inode) if inode == socket))
}

async fn passes(cuts: &mut watch::Receiver<Cuts>, ends: &Ends) {
    let _ = cuts.wait_for(|cuts| cuts.pass(ends)).await;
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut cuts: watch::Receiver<Cuts>, ends: Ends) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let delay = cuts.borrow().delay(&ends);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        // Also the end of a connection does not pass while a node is cut off.
        passes(&mut cuts, &ends).await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    async fn connected(from: SocketAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(from).unwrap();
        let there = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        (there, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn of_two_connections_from_one_port_each_is_known_for_what_it_is() {
        let (first, first_accepted) = connected("127.0.0.1:0".parse().unwrap()).await;
        let (second, second_accepted) = connected(first.local_addr().unwrap()).await;
        let inode = |accepted: &TcpStream| {
            let (from, to) = (accepted.peer_addr().unwrap(), accepted.local_addr().unwrap());
            socket_inode(from, to).unwrap()
        };
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
        assert_ne!(inode(&first_accepted), inode(&second_accepted));
        assert!(holds(std::process::id(), inode(&second_accepted)));
        drop(second);
        assert!(!holds(std::process::id(), u64::MAX));
    }
}
