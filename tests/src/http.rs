//! One request over HTTP, as a probe or Prometheus makes it.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 and so on.
    pub status: u16,
    /// The heading lines.
    pub head: String,
    /// The rest.
    pub body: String,
}

/// GET from a port of loopback. The server ends the connection.
pub async fn get(port: u16, path: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the heading")?;
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    Ok(Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}
