//! turmoil's network behind the network's door, and what turmoil leaves out: who refuses, and who is silent.
//!
//! A killed process's machine refuses connections; a machine without power, or cut off, says nothing. turmoil keeps
//! a connection attempt to a crashed host until the host is back, and answers "refused" to one that its partition
//! dropped. The first would hide evidence from the failure detectors, the second would invent it (a refusal is taken
//! as proof of death). So `Faults` knows who is down in which way, and cuts are made by holding messages
//! (`turmoil::hold`), which is how TCP looks when a cut heals: everything arrives, late.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{Listener, Network, Stream};

/// How long an attempt to connect goes on without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refusal takes.
const REFUSAL_TIME: Duration = Duration::from_millis(1);

/// Which hosts are down, and how; one for the simulation.
pub struct Faults {
    down: watch::Sender<BTreeMap<String, Down>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Refuses,
    Silent,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            down: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl Faults {
    /// The process is dead, its machine lives: connections are refused.
    pub fn killed(&self, host: &str) {
        self.down.send_modify(|down| {
            down.insert(host.to_owned(), Down::Refuses);
        });
    }

    /// The machine is dead: connections are not answered.
    pub fn lost(&self, host: &str) {
        self.down.send_modify(|down| {
            down.insert(host.to_owned(), Down::Silent);
        });
    }

    /// The host runs again.
    pub fn is_back(&self, host: &str) {
        self.down.send_modify(|down| {
            down.remove(host);
        });
    }

    fn is_silent(&self, host: &str) -> bool {
        self.down.borrow().get(host) == Some(&Down::Silent)
    }

    /// Returns when the host refuses.
    async fn refuses(&self, host: &str) {
        let mut down = self.down.subscribe();
        if down
            .wait_for(|down| down.get(host) == Some(&Down::Refuses))
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Returns when the host is not silent.
    async fn speaks(&self, host: &str) {
        let mut down = self.down.subscribe();
        if down
            .wait_for(|down| down.get(host) != Some(&Down::Silent))
            .await
            .is_err()
        {
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
                self.faults.speaks(host).await;
                match TcpStream::connect((host, port)).await {
                    // Not the host's word: turmoil lost the attempt together with the host.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && self.faults.is_silent(host) => {}
                    connected => break connected,
                }
            }
        };
        let connected = tokio::select! {
            biased;
            () = self.faults.refuses(host) => {
                tokio::time::sleep(REFUSAL_TIME).await;
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("{address} refuses")));
            }
            connected = tokio::time::timeout(CONNECT_TIMEOUT, attempt) => connected,
        };
        match connected {
            Ok(stream) => Ok(Box::new(stream?)),
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
        Ok(Box::new(SimulatedListener { listener, local }))
    }
}

struct SimulatedListener {
    listener: TcpListener,
    local: String,
}

#[async_trait]
impl Listener for SimulatedListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local.clone()
    }
}
