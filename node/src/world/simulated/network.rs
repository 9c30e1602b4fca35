//! turmoil's network behind the network's door, and what turmoil leaves out: who refuses, who is silent, who does not hear
//! whom, and connections that break.
//!
//! A killed process's machine refuses connections; a machine without power, or cut off, says nothing. turmoil keeps
//! a connection attempt to a crashed host until the host is back, and answers "refused" to one that its partition
//! dropped. The first would hide evidence from the failure detectors, the second would invent it (a refusal is taken
//! as proof of death). So `Faults` knows who is down in which way, and cuts are made by holding messages
//! (`turmoil::hold`), which is how TCP looks when a cut heals: everything arrives, late.
//!
//! turmoil holds messages both ways. One way only is made here: what has arrived is not read until the cut heals, and no
//! connection comes about, for that takes both. A process that stands still neither reads, writes, connects nor accepts, while
//! its machine goes on: who connects to it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{Listener, Network, Stream};

/// How long an attempt to connect goes on without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refusal takes.
const REFUSAL_TIME: Duration = Duration::from_millis(1);

/// What is wrong with which host; one for the simulation.
#[derive(Default)]
pub struct Faults {
    now: watch::Sender<Wrong>,
}

#[derive(Default)]
struct Wrong {
    down: BTreeMap<String, Down>,
    /// The first does not hear the second.
    deaf: BTreeSet<(String, String)>,
    /// How often all connections of a host broke.
    breaks: BTreeMap<String, u64>,
    /// Hosts whose process stands still.
    still: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Refuses,
    Silent,
}

impl Wrong {
    fn hears(&self, hearer: &str, speaker: &str) -> bool {
        self.deaf.is_empty() || !self.deaf.contains(&(hearer.to_owned(), speaker.to_owned()))
    }

    fn stands_still(&self, host: &str) -> bool {
        !self.still.is_empty() && self.still.contains(host)
    }

    /// Each hears the other.
    fn talk(&self, one: &str, other: &str) -> bool {
        self.hears(one, other) && self.hears(other, one)
    }

    fn breaks_between(&self, one: &str, other: &str) -> u64 {
        let of = |host| self.breaks.get(host).copied().unwrap_or(0);
        of(one) + of(other)
    }
}

impl Faults {
    /// The process is dead, its machine lives: connections are refused.
    pub fn killed(&self, host: &str) {
        self.now.send_modify(|wrong| {
            wrong.down.insert(host.to_owned(), Down::Refuses);
        });
    }

    /// The machine is dead: connections are not answered.
    pub fn lost(&self, host: &str) {
        self.now.send_modify(|wrong| {
            wrong.down.insert(host.to_owned(), Down::Silent);
        });
    }

    /// The host runs again.
    pub fn is_back(&self, host: &str) {
        self.now.send_modify(|wrong| {
            wrong.down.remove(host);
        });
    }

    /// From now on `hearer` gets nothing that `speaker` sends; what is sent arrives when that is over.
    pub fn deafen(&self, hearer: &str, speaker: &str) {
        self.now.send_modify(|wrong| {
            wrong.deaf.insert((hearer.to_owned(), speaker.to_owned()));
        });
    }

    /// It hears again.
    pub fn hear(&self, hearer: &str, speaker: &str) {
        self.now.send_modify(|wrong| {
            wrong.deaf.remove(&(hearer.to_owned(), speaker.to_owned()));
        });
    }

    /// From now on the host's process does nothing by the network.
    pub fn stand_still(&self, host: &str) {
        self.now.send_modify(|wrong| {
            wrong.still.insert(host.to_owned());
        });
    }

    /// It goes on.
    pub fn go_on(&self, host: &str) {
        self.now.send_modify(|wrong| {
            wrong.still.remove(host);
        });
    }

    /// Every connection that the host has breaks, once; what was under way in it is lost.
    pub fn break_connections(&self, host: &str) {
        self.now.send_modify(|wrong| {
            *wrong.breaks.entry(host.to_owned()).or_default() += 1;
        });
    }

    /// Returns when that is so.
    async fn until(&self, is_so: impl FnMut(&Wrong) -> bool) {
        if self.now.subscribe().wait_for(is_so).await.is_err() {
            std::future::pending().await
        }
    }
}

/// The network as one host sees it. All calls must come from inside that host.
pub struct SimulatedNetwork {
    host: String,
    faults: Arc<Faults>,
}

impl SimulatedNetwork {
    /// For the host of this name.
    pub fn new(host: &str, faults: Arc<Faults>) -> Self {
        Self {
            host: host.to_owned(),
            faults,
        }
    }

    /// Returns when the host refuses, and that is heard.
    async fn refuses(&self, host: &str) {
        let refuses = |wrong: &Wrong| wrong.down.get(host) == Some(&Down::Refuses) && wrong.talk(&self.host, host);
        self.faults.until(refuses).await;
    }

    /// Returns when the host is not silent.
    async fn speaks(&self, host: &str) {
        let speaks = |wrong: &Wrong| wrong.down.get(host) != Some(&Down::Silent) && wrong.talk(&self.host, host);
        self.faults.until(speaks).await;
    }

    /// Returns when this host's process does not stand still.
    async fn goes_on(&self) {
        self.faults.until(|wrong| !wrong.stands_still(&self.host)).await;
    }

    fn is_silent(&self, host: &str) -> bool {
        self.faults.now.borrow().down.get(host) == Some(&Down::Silent)
    }
}

fn parts(address: &str) -> io::Result<(&str, u16)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is no host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[async_trait]
impl Network for SimulatedNetwork {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let (host, port) = parts(address)?;
        let attempt = async {
            loop {
                self.goes_on().await;
                self.speaks(host).await;
                match TcpStream::connect((host, port)).await {
                    // Not the host's word: turmoil lost the attempt together with the host.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && self.is_silent(host) => {}
                    connected => break connected,
                }
            }
        };
        let connected = tokio::select! {
            biased;
            () = self.refuses(host) => {
                tokio::time::sleep(REFUSAL_TIME).await;
                self.goes_on().await;
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{address} refuses")));
            }
            connected = tokio::time::timeout(CONNECT_TIMEOUT, attempt) => connected,
        };
        match connected {
            Ok(stream) => Ok(Box::new(Line::new(stream?, &self.host, host, &self.faults))),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{address} does not answer"),
            )),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (_, port) = parts(address)?;
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        let local = format!("{}:{}", self.host, listener.local_addr()?.port());
        Ok(Box::new(SimulatedListener {
            listener,
            local,
            host: self.host.clone(),
            faults: Arc::clone(&self.faults),
        }))
    }
}

struct SimulatedListener {
    listener: TcpListener,
    local: String,
    host: String,
    faults: Arc<Faults>,
}

#[async_trait]
impl Listener for SimulatedListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer) = self.listener.accept().await?;
        self.faults.until(|wrong| !wrong.stands_still(&self.host)).await;
        let from = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
        let line = Line::new(stream, &self.host, &from, &self.faults);
        Ok((Box::new(line), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local.clone()
    }
}

/// One connection, as the host at one end of it has it.
struct Line {
    stream: TcpStream,
    host: String,
    peer: String,
    faults: Arc<Faults>,
    /// Breaks of both hosts' connections when this one came about.
    breaks: u64,
    /// Returns when anything has changed of what is wrong; for who reads,
    change: Change,
    /// and for who writes.
    change_for_writer: Option<Change>,
}

type Change = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Line {
    fn new(stream: TcpStream, host: &str, peer: &str, faults: &Arc<Faults>) -> Self {
        Self {
            stream,
            breaks: faults.now.borrow().breaks_between(host, peer),
            host: host.to_owned(),
            peer: peer.to_owned(),
            change: Self::change(faults),
            change_for_writer: None,
            faults: Arc::clone(faults),
        }
    }

    fn change(faults: &Faults) -> Change {
        let mut now = faults.now.subscribe();
        Box::pin(async move {
            if now.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    /// Whether something may be read now; fails when the connection is broken.
    fn is_open(&self) -> io::Result<bool> {
        let wrong = self.faults.now.borrow();
        match wrong.breaks_between(&self.host, &self.peer) == self.breaks {
            true => Ok(wrong.hears(&self.host, &self.peer) && !wrong.stands_still(&self.host)),
            false => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Ready when something may be written; fails when the connection is broken.
    fn poll_may_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.is_open()?;
            if !self.faults.now.borrow().stands_still(&self.host) {
                self.change_for_writer = None;
                return Poll::Ready(Ok(()));
            }
            let faults = &self.faults;
            let change = self.change_for_writer.get_or_insert_with(|| Self::change(faults));
            ready!(change.as_mut().poll(cx));
            self.change_for_writer = None;
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.is_open()? {
                let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
                if read.is_ready() {
                    return read;
                }
            }
            ready!(self.change.as_mut().poll(cx));
            self.change = Self::change(&self.faults);
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_may_write(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
