//! A node that sends and does not receive looks well to everybody who hears it. The others must stop following it, and get
//! what it led.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;

use super::*;
use crate::metadata::failure::{FailureEnd, Medium};
use crate::world::{Listener, Network, Stream};

/// What a node does not hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deaf {
    Not,
    /// Connections that others open to it.
    ToCallers,
    /// Anything.
    ToAll,
}

/// The network, as a node hears it.
struct Hearing {
    network: Arc<dyn Network>,
    deaf: watch::Receiver<Deaf>,
}

struct HearingListener {
    listener: Box<dyn Listener>,
    deaf: watch::Receiver<Deaf>,
}

/// What arrives stays where it is while its node is deaf to it.
struct HearingStream {
    stream: Box<dyn Stream>,
    deaf: watch::Receiver<Deaf>,
    is_callers: bool,
    wakes: ReusableBoxFuture<'static, ()>,
}

impl HearingStream {
    fn new(stream: Box<dyn Stream>, deaf: &watch::Receiver<Deaf>, is_callers: bool) -> Self {
        Self {
            stream,
            wakes: ReusableBoxFuture::new(hears(deaf.clone(), is_callers)),
            deaf: deaf.clone(),
            is_callers,
        }
    }
}

impl Deaf {
    fn hears(self, is_callers: bool) -> bool {
        self == Self::Not || (self == Self::ToCallers && !is_callers)
    }
}

/// Returns when it hears.
async fn hears(mut deaf: watch::Receiver<Deaf>, is_callers: bool) {
    let _ = deaf.wait_for(|deaf| deaf.hears(is_callers)).await;
}

#[async_trait]
impl Network for Hearing {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = self.network.connect(address).await?;
        Ok(Box::new(HearingStream::new(stream, &self.deaf, false)))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (listener, deaf) = (self.network.listen(address).await?, self.deaf.clone());
        Ok(Box::new(HearingListener { listener, deaf }))
    }
}

#[async_trait]
impl Listener for HearingListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((Box::new(HearingStream::new(stream, &self.deaf, true)), from))
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

impl AsyncRead for HearingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_callers = self.is_callers;
        while !self.deaf.borrow().hears(is_callers) {
            if self.wakes.poll(context).is_pending() {
                return Poll::Pending;
            }
            let next = hears(self.deaf.clone(), is_callers);
            self.wakes.set(next);
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for HearingStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn start(place: &Place, node: NodeId) -> (Node, watch::Sender<Deaf>) {
    let (switch, deaf) = watch::channel(Deaf::Not);
    let config = place.config(node);
    let mut world = open_world(&config.data);
    world.network = Arc::new(Hearing {
        network: Arc::clone(&world.network),
        deaf,
    });
    (Place::start_in(config, world), switch)
}

/// With the detectors that are on by default.
fn the_metadata_leader_is_deaf(how: Deaf) {
    let place = Place::new(3);
    let started: Vec<(Node, watch::Sender<Deaf>)> = (1..=3).map(|node| start(&place, node)).collect();
    let nodes: Vec<&Node> = started.iter().map(|(node, _)| node).collect();
    nodes[0].initialise();
    eventually("all join", &nodes, |node| node.map().nodes.len() == 3);
    nodes[0].propose(table());
    eventually("whole", &nodes, |node| is_whole(&node.map(), 3));
    eventually("all vote", &nodes, |node| node.metadata.voters().len() == 3);
    let victim = nodes[0].metadata.leader().unwrap();
    let (deaf, switch) = &started[victim as usize - 1];
    let others: Vec<&Node> = nodes
        .iter()
        .copied()
        .filter(|node| node.metadata.node_id() != victim)
        .collect();
    switch.send_replace(how);
    let took = eventually("its primaries are others'", &others, |node| {
        let map = node.map();
        !map.is_alive(victim) && map.roles(victim).primaries == 0 && is_led_by_the_living(&map)
    });
    println!(
        "a leader that is deaf, {how:?}: other primaries after {} ms",
        took.as_millis()
    );
    eventually("the others have leases", &others, |node| {
        node.metadata.lease().is_valid()
    });
    assert!(!deaf.metadata.lease().is_valid(), "it serves on");
    let map = others[0].map();
    let failure = map.failures.iter().find(|failure| failure.node_id == victim).unwrap();
    assert_eq!(
        (failure.finding.strategy, failure.finding.medium),
        (Strategy::Heartbeat, Medium::Network)
    );
    assert!(failure.finding.evidence.contains("has answered none"), "{failure:?}");
    switch.send_replace(Deaf::Not);
    eventually("whole again", &nodes, |node| {
        let map = node.map();
        let ended = |failure: &&crate::metadata::failure::Failure| failure.end == Some(FailureEnd::Revived);
        is_whole(&map, 3) && map.failures.iter().filter(ended).count() == 1 && node.metadata.lease().is_valid()
    });
}

#[test]
fn a_metadata_leader_that_nobody_reaches_loses_what_it_led() {
    the_metadata_leader_is_deaf(Deaf::ToCallers);
}

#[test]
fn a_metadata_leader_that_hears_nothing_loses_what_it_led() {
    the_metadata_leader_is_deaf(Deaf::ToAll);
}
