//! Message by message: what a driver hides.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::toy::gateway;

struct Wire {
    stream: TcpStream,
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn execute(portal: &str, limit: u32) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0", &limit.to_be_bytes()].concat())
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

impl Wire {
    async fn open(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let body = b"\0\x03\0\0user\0volt\0\0";
        let length = (body.len() as u32 + 4).to_be_bytes();
        stream
            .write_all(&[&8u32.to_be_bytes()[..], &80_877_103u32.to_be_bytes()].concat())
            .await
            .unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
        stream.write_all(&[&length[..], body].concat()).await.unwrap();
        let mut wire = Self { stream };
        wire.kinds(1).await;
        wire
    }

    async fn send(&mut self, messages: &[Vec<u8>]) {
        self.stream.write_all(&messages.concat()).await.unwrap();
    }

    /// The kinds of the messages up to the n-th ReadyForQuery, errors with their SQLSTATE.
    async fn kinds(&mut self, mut readies: usize) -> String {
        let mut kinds = String::new();
        while readies > 0 {
            let kind = self.stream.read_u8().await.unwrap();
            let length = self.stream.read_u32().await.unwrap() as usize;
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body).await.unwrap();
            kinds.push(char::from(kind));
            if kind == b'E' {
                let code = body
                    .split(|byte| *byte == 0)
                    .find(|field| field.first() == Some(&b'C'))
                    .unwrap();
                kinds.push_str(std::str::from_utf8(&code[1..]).unwrap());
            }
            readies -= usize::from(kind == b'Z');
        }
        kinds
    }

    async fn ask<const N: usize>(&mut self, messages: [Vec<u8>; N]) -> String {
        self.send(&messages).await;
        let asks = |message: &&Vec<u8>| message[0] == b'Q' || message.ends_with(b"S\0\0\0\x04");
        let readies = messages.iter().filter(asks).count();
        self.kinds(readies).await
    }
}

#[tokio::test]
async fn portals_are_suspended_and_resumed() {
    let (_gateway, _toy, port) = gateway(10).await;
    let mut wire = Wire::open(port).await;
    let describe = message(b'D', b"P\0");
    let more = execute("", 2);
    let kinds = wire.ask([
        parse("", "MANY 5"),
        bind("", ""),
        describe,
        more.clone(),
        more.clone(),
        more.clone(),
        more,
        sync(),
    ]);
    assert_eq!(kinds.await, "12TDDsDDsDCCZ");
    let kinds = wire.ask([
        bind("p", ""),
        execute("p", 5),
        message(b'C', b"Pp\0"),
        execute("p", 0),
        sync(),
    ]);
    assert_eq!(kinds.await, "2DDDDDC3E34000Z");
    // A Sync ends what was bound.
    assert_eq!(
        wire.ask([bind("p", ""), sync(), execute("p", 1), sync()]).await,
        "2ZE34000Z"
    );
}

#[tokio::test]
async fn errors_discard_up_to_sync() {
    let (_gateway, _toy, port) = gateway(10).await;
    let mut wire = Wire::open(port).await;
    let kinds = wire.ask([
        parse("", "FAIL"),
        bind("", ""),
        execute("", 0),
        parse("x", "PUT0"),
        sync(),
        bind("", "x"),
        sync(),
    ]);
    assert_eq!(kinds.await, "12E22012ZE26000Z");
    assert_eq!(
        wire.ask([parse("", ""), bind("", ""), execute("", 0), sync()]).await,
        "12IZ"
    );
    assert_eq!(wire.ask([message(b'F', b""), sync()]).await, "E0A000Z");
    assert_eq!(
        wire.ask([parse("a", "PUT0"), parse("a", "PUT0"), sync()]).await,
        "1E42P05Z"
    );
}

#[tokio::test]
async fn a_lost_write_fails_its_group_only() {
    let (_gateway, _toy, port) = gateway(10).await;
    let mut wire = Wire::open(port).await;
    assert_eq!(
        wire.ask([parse("p", "PUT0"), parse("l", "LOSE0"), parse("m", "MANY 1"), sync()])
            .await,
        "111Z"
    );
    let run = |name| [bind("", name), execute("", 0)].concat();
    let kinds = wire.ask([
        run("p"),
        run("l"),
        run("p"),
        sync(),
        run("p"),
        sync(),
        run("l"),
        run("m"),
        sync(),
        run("m"),
        sync(),
    ]);
    assert_eq!(kinds.await, "2C2E40003Z2CZ2E40003Z2DCZ");
    // The group is still open when its loss shows: what follows is discarded.
    wire.send(&[run("l")]).await;
    assert_eq!(
        wire.ask([message(b'H', b""), run("p"), sync(), run("p"), sync()])
            .await
            .replace("2E40003Z", "X"),
        "X2CZ"
    );
    // A reader's wait is a write's wait: rows go only after it, also when they stream.
    assert_eq!(wire.ask([parse("s", "STREAM 20000"), sync()]).await, "1Z");
    assert_eq!(wire.ask([run("l"), run("s"), sync()]).await, "2E40003Z");
}

#[tokio::test]
async fn breaking_the_protocol_ends_the_connection() {
    let (_gateway, _toy, port) = gateway(10).await;
    for wrong in [
        message(b'?', b""),
        message(b'B', b"x"),
        [&b"Q"[..], &u32::MAX.to_be_bytes()].concat(),
        b"Q\0\0\0\x03".to_vec(),
    ] {
        let mut wire = Wire::open(port).await;
        wire.send(&[wrong]).await;
        let mut rest = Vec::new();
        wire.stream.read_to_end(&mut rest).await.unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("08P01"));
    }
}

#[tokio::test]
async fn a_large_message_comes_in_pieces() {
    let (_gateway, _toy, port) = gateway(10).await;
    let mut wire = Wire::open(port).await;
    let text = format!("MANY 1 {}\0", "x".repeat(3 << 20));
    assert_eq!(wire.ask([message(b'Q', text.as_bytes())]).await, "TDCZ");
    assert_eq!(wire.ask([message(b'Q', b"MANY 1\0")]).await, "TDCZ");
}
