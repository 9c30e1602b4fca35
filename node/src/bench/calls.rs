//! `volt-node bench calls`: how often a second a server of the PostgreSQL protocol executes one prepared statement.
//!
//! Each client sends its statements in pipelines: so many executions with random arguments in one write, a Sync behind them, and
//! the next ones when all are answered. It reads no more of the answers than what they are, so that it takes as little of
//! the machine as a client can, and leaves the rest to the server.

use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use clap::Args;
use futures::future::try_join_all;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant};

const STATEMENT: &str = "s";
const BUFFER_BYTES: usize = 64 << 10;
/// Of an answer's message: its tag and its length.
const HEADER_BYTES: usize = 5;
/// A message that is longer is no answer to any of this.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const BINARY: i16 = 1;

/// Arguments of `volt-node bench calls`.
#[derive(Args, Clone, Debug)]
pub struct CallsArguments {
    /// The statement, with $1, $2, ... for its arguments
    #[arg(long)]
    sql: String,
    /// Its arguments, in order: int:N..M, bigint:N..M (any number of the range), text:N (so many letters), or
    /// lines:N..M:I:Q (N to M pairs, "i,q,i,q,...", of numbers up to I and up to Q)
    #[arg(long = "argument")]
    kinds: Vec<Kind>,
    /// Connections
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Executions that a connection sends at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pipeline: u32,
    /// How long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The server's port, at 127.0.0.1
    #[arg(long, default_value_t = 5433)]
    port: u16,
    /// Prints the rate alone
    #[arg(long)]
    quiet: bool,
}

/// What an argument is.
#[derive(Clone, Debug)]
enum Kind {
    Int(RangeInclusive<i32>),
    BigInt(RangeInclusive<i64>),
    Text(usize),
    Lines {
        lines: RangeInclusive<u32>,
        item: u32,
        quantity: u32,
    },
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (kind, rest) = text.split_once(':').context("no kind")?;
        Ok(match kind {
            "int" => Self::Int(range(rest)?),
            "bigint" => Self::BigInt(range(rest)?),
            "text" => Self::Text(rest.parse()?),
            "lines" => {
                let mut parts = rest.split(':');
                let mut part = || parts.next().context("lines:N..M:I:Q");
                Self::Lines {
                    lines: range(part()?)?,
                    item: part()?.parse()?,
                    quantity: part()?.parse()?,
                }
            }
            _ => bail!("no kind of argument is {kind}"),
        })
    }
}

fn range<N: FromStr<Err: std::error::Error + Send + Sync + 'static> + PartialOrd + Copy>(
    text: &str,
) -> anyhow::Result<RangeInclusive<N>> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let (low, high) = (low.parse()?, high.parse()?);
    ensure!(low <= high, "{text} is empty");
    Ok(low..=high)
}

impl Kind {
    /// The type's number in PostgreSQL.
    fn oid(&self) -> u32 {
        match self {
            Self::Int(_) => 23,
            Self::BigInt(_) => 20,
            Self::Text(_) | Self::Lines { .. } => 25,
        }
    }

    /// A value, in binary format.
    fn write(&self, random: &mut StdRng, out: &mut BytesMut) {
        match self {
            Self::Int(range) => out.put_i32(random.random_range(range.clone())),
            Self::BigInt(range) => out.put_i64(random.random_range(range.clone())),
            Self::Text(length) => out.put_bytes(b'x', *length),
            Self::Lines { lines, item, quantity } => {
                for line in 0..random.random_range(lines.clone()) {
                    let comma = if line > 0 { "," } else { "" };
                    let (item, quantity) = (random.random_range(1..=*item), random.random_range(1..=*quantity));
                    out.put_slice(format!("{comma}{item},{quantity}").as_bytes());
                }
            }
        }
    }
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    calls: u64,
    errors: u64,
    /// From a pipeline's write to its last answer.
    latencies: Vec<Duration>,
}

struct Connection {
    stream: TcpStream,
    input: BytesMut,
    first_error: Option<String>,
}

/// Runs the clients, and prints what they did.
pub async fn run(arguments: CallsArguments) -> anyhow::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..arguments.clients {
        connections.push(Connection::open(&arguments).await?);
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs(arguments.seconds);
    let clients = connections
        .into_iter()
        .map(|connection| tokio::spawn(client(connection, arguments.clone(), end)));
    let mut all = Seen::default();
    for seen in try_join_all(clients).await? {
        let seen = seen?;
        all.calls += seen.calls;
        all.errors += seen.errors;
        all.latencies.extend(seen.latencies);
    }
    let rate = all.calls as f64 / begin.elapsed().as_secs_f64();
    if arguments.quiet {
        ensure!(all.errors == 0, "{} errors", all.errors);
        println!("{rate:.0}");
        return Ok(());
    }
    all.latencies.sort_unstable();
    let at = |part: f64| {
        let place = (all.latencies.len().saturating_sub(1) as f64 * part) as usize;
        all.latencies.get(place).copied().unwrap_or_default()
    };
    println!(
        "{rate:.0} a second, {} errors, pipelines: {:?} (median), {:?} (99 %)",
        all.errors,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

/// Sends until the end.
async fn client(mut connection: Connection, arguments: CallsArguments, end: Instant) -> anyhow::Result<Seen> {
    let mut random = StdRng::from_os_rng();
    let mut seen = Seen::default();
    let mut output = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        let begin = Instant::now();
        if begin > end {
            break;
        }
        for _ in 0..arguments.pipeline {
            execution(&arguments.kinds, &mut random, &mut output)?;
        }
        frontend::sync(&mut output);
        connection.stream.write_all_buf(&mut output).await?;
        let (calls, errors) = connection.answers().await?;
        seen.calls += calls;
        seen.errors += errors;
        seen.latencies.push(begin.elapsed());
    }
    if let Some(error) = connection.first_error {
        eprintln!("an error: {error}");
    }
    Ok(seen)
}

/// Bind and Execute, with random arguments.
fn execution(kinds: &[Kind], random: &mut StdRng, output: &mut BytesMut) -> anyhow::Result<()> {
    frontend::bind(
        "",
        STATEMENT,
        [BINARY],
        kinds,
        |kind, out| {
            kind.write(random, out);
            Ok(IsNull::No)
        },
        [BINARY],
        output,
    )
    .map_err(|_| anyhow::anyhow!("an argument is too long"))?;
    Ok(frontend::execute("", 0, output)?)
}

impl Connection {
    /// Connects, and prepares the statement.
    async fn open(arguments: &CallsArguments) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", arguments.port)).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            input: BytesMut::with_capacity(BUFFER_BYTES),
            first_error: None,
        };
        let mut output = BytesMut::new();
        frontend::startup_message([("user", "volt"), ("database", "volt")], &mut output)?;
        connection.stream.write_all_buf(&mut output).await?;
        connection.answers().await?;
        let types = arguments.kinds.iter().map(Kind::oid);
        frontend::parse(STATEMENT, &arguments.sql, types, &mut output)?;
        frontend::sync(&mut output);
        connection.stream.write_all_buf(&mut output).await?;
        connection.answers().await?;
        match connection.first_error.take() {
            Some(error) => bail!("{error}"),
            None => Ok(connection),
        }
    }

    /// Reads until the server is ready again: how many statements were completed, and how many errors came.
    async fn answers(&mut self) -> anyhow::Result<(u64, u64)> {
        let (mut completed, mut errors) = (0, 0);
        loop {
            while let Some(header) = self.input.first_chunk::<HEADER_BYTES>() {
                let [tag, length @ ..] = *header;
                let length = u32::from_be_bytes(length) as usize + 1;
                ensure!(
                    (HEADER_BYTES..MAX_MESSAGE_BYTES).contains(&length),
                    "a message of {length} bytes"
                );
                if self.input.len() < length {
                    break;
                }
                match tag {
                    b'C' => completed += 1,
                    b'E' => {
                        errors += 1;
                        let text = String::from_utf8_lossy(&self.input[HEADER_BYTES..length]).replace('\0', " ");
                        self.first_error.get_or_insert(text);
                    }
                    _ => {}
                }
                self.input.advance(length);
                if tag == b'Z' {
                    return Ok((completed, errors));
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the server has closed the connection");
            }
        }
    }
}
