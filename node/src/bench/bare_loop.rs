//! `volt-node bench bare-loop`: the least that a server can do for a prepared point read over the PostgreSQL protocol.
//!
//! It answers every statement with one INT column from an array, without a parser, sessions, errors or bounds, in the
//! same read-all, write-once manner as the gateway. So it is the ceiling on this machine and this build, which the
//! gateway is held against; see `tests/bench/wire.sh`. Not a server for anything else.

use bytes::{Buf, BytesMut};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Rows that there are.
const ROWS: usize = 100_000;
const BUFFER_BYTES: usize = 64 << 10;
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
/// AuthenticationOk, three parameters, ReadyForQuery.
const GREETING: &[&[u8]] = &[
    b"R\0\0\0\x08\0\0\0\0",
    b"S\0\0\0\x18server_version\x0015.0\0",
    b"S\0\0\0\x19client_encoding\0UTF8\0",
    b"S\0\0\0\x23standard_conforming_strings\0on\0",
    READY,
];
const READY: &[u8] = b"Z\0\0\0\x05I";
/// A RowDescription: `abalance`, an INT in text format.
const DESCRIPTION: &[u8] = b"T\0\0\0\x21\0\x01abalance\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";

/// Arguments of `volt-node bench bare-loop`.
#[derive(Args, Clone, Debug)]
pub struct BareLoopArguments {
    /// The port to listen on
    #[arg(long, default_value_t = 15534)]
    port: u16,
}

/// Serves until it is killed.
pub async fn run(arguments: BareLoopArguments) -> anyhow::Result<()> {
    let balances: &'static [i32] = (0..ROWS as i32).collect::<Vec<_>>().leak();
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, balances));
    }
}

async fn serve(mut stream: TcpStream, balances: &'static [i32]) -> Option<()> {
    let mut input = BytesMut::with_capacity(BUFFER_BYTES);
    let mut output = Vec::with_capacity(BUFFER_BYTES);
    let (mut started, mut key) = (false, 0);
    loop {
        let header = usize::from(started);
        while let Some(length) = input.get(header..header + 4) {
            let length = header + u32::from_be_bytes(length.try_into().ok()?) as usize;
            let Some(message) = input.get(..length) else { break };
            if started {
                answer(message, balances, &mut key, &mut output)?;
            } else {
                let code = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?);
                if ENCRYPTION_REQUESTS.contains(&code) {
                    output.push(b'N');
                } else {
                    started = true;
                    output.extend(GREETING.concat());
                }
            }
            input.advance(length);
            if header != usize::from(started) {
                break;
            }
        }
        stream.write_all(&output).await.ok()?;
        output.clear();
        if stream.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers one message; None ends the connection.
fn answer(message: &[u8], balances: &[i32], key: &mut usize, output: &mut Vec<u8>) -> Option<()> {
    match message[0] {
        b'P' => output.extend_from_slice(b"1\0\0\0\x04"),
        b'B' => {
            *key = first_parameter(message.get(5..)?)?;
            output.extend_from_slice(b"2\0\0\0\x04");
        }
        b'D' => output.extend_from_slice(DESCRIPTION),
        b'E' => {
            row(*balances.get(*key)?, output);
            output.extend_from_slice(b"C\0\0\0\x0dSELECT 1\0");
        }
        b'S' => output.extend_from_slice(READY),
        b'Q' => output.extend_from_slice(b"C\0\0\0\x07OK\0Z\0\0\0\x05I"),
        b'X' => return None,
        _ => {}
    }
    Some(())
}

/// The first parameter of a Bind, which is digits.
fn first_parameter(bind: &[u8]) -> Option<usize> {
    let portal = bind.iter().position(|byte| *byte == 0)? + 1;
    let statement = portal + bind.get(portal..)?.iter().position(|byte| *byte == 0)? + 1;
    let formats = u16::from_be_bytes(bind.get(statement..statement + 2)?.try_into().ok()?);
    let at = statement + 2 + 2 * usize::from(formats) + 2;
    let length = u32::from_be_bytes(bind.get(at..at + 4)?.try_into().ok()?) as usize;
    std::str::from_utf8(bind.get(at + 4..at + 4 + length)?)
        .ok()?
        .parse()
        .ok()
}

fn row(value: i32, output: &mut Vec<u8>) {
    let mut digits = [0u8; 10];
    let (mut at, mut rest) = (digits.len(), value.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let length = (digits.len() - at) as u32;
    output.push(b'D');
    output.extend_from_slice(&(10 + length).to_be_bytes());
    output.extend_from_slice(&[0, 1]);
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(&digits[at..]);
}
