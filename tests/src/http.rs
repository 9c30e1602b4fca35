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
    let (status, head, body) = request(port, "GET", path, &[]).await?;
    let body = String::from_utf8(body)?;
    Ok(Answer { status, head, body })
}

/// Any request to a port of loopback: status, heading, body.
pub async fn request(port: u16, method: &str, path: &str, body: &[u8]) -> Result<(u16, String, Vec<u8>)> {
    const END: &[u8] = b"\r\n\r\n";
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let length = match (method, body) {
        ("GET", []) => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{length}\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(END.len()).position(|bytes| bytes == END);
    let body = answer.split_off(end.context("no end of the heading")? + END.len());
    let head = String::from_utf8(answer)?.to_lowercase();
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    Ok((status, head, body))
}
