//! The start of a connection: encryption asked for and declined, parameters, authentication, greeting.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::MAX_STARTUP_BYTES;
use super::cancel::CancelKey;
use super::messages::{self, Malformed, Reader, begin, end, put_text};
use super::options;
use crate::config::{Authentication, DATABASE};
use crate::error::SqlError;
use crate::statement::ReadChange;
use crate::world::Stream;

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const MAJOR_VERSION: i32 = 3;
/// Requests for encryption that a client may make before it starts: one of each kind.
const MAX_ENCRYPTION_REQUESTS: usize = 2;

/// What a client opens a connection for.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A session.
    Session(Startup),
    /// To cancel what another session is running.
    Cancel(CancelKey),
}

/// What a client says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Startup {
    pub(crate) user: String,
    pub(crate) database: Option<String>,
    pub(crate) application_name: String,
    pub(crate) client_encoding: Option<String>,
    /// Where it reads, as far as it says so: in `options`, or by a parameter of that name.
    pub(crate) reading: Vec<ReadChange>,
    /// Options of protocol versions that we don't know.
    unknown_options: Vec<String>,
    newer_minor: bool,
}

/// Why a connection didn't come to a session.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// For the client, and the end.
    Fatal(SqlError),
    /// The client is gone.
    Connection(std::io::Error),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error)
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Fatal(error)
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Fatal(malformed.into())
    }
}

/// Reads up to the message that says what the connection is for; `input` keeps what came behind it.
pub(crate) async fn open(stream: &mut dyn Stream, input: &mut BytesMut) -> Result<Opening, Refusal> {
    for _ in 0..=MAX_ENCRYPTION_REQUESTS {
        let message = read_untyped(stream, input).await?;
        let mut reader = Reader::new(&message);
        match reader.i32()? {
            SSL_REQUEST | GSS_REQUEST => {
                if !input.is_empty() {
                    return Err(Malformed("received unencrypted data after an encryption request").into());
                }
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            CANCEL_REQUEST => {
                let key = CancelKey {
                    process: reader.i32()?,
                    secret: reader.i32()?,
                };
                return Ok(Opening::Cancel(key));
            }
            version if version >> 16 == MAJOR_VERSION => {
                let newer_minor = version & 0xffff != 0;
                return Ok(Opening::Session(Startup {
                    newer_minor,
                    ..parameters(reader)?
                }));
            }
            version => {
                let (major, minor) = (version >> 16, version & 0xffff);
                let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
                return Err(SqlError::new("0A000", message).into());
            }
        }
    }
    Err(Malformed("too many encryption requests").into())
}

async fn read_untyped(stream: &mut dyn Stream, input: &mut BytesMut) -> Result<BytesMut, Refusal> {
    loop {
        if let Some(header) = input.first_chunk::<4>() {
            let length = u32::from_be_bytes(*header) as usize;
            if !(8..=MAX_STARTUP_BYTES).contains(&length) {
                return Err(Malformed("invalid length of startup packet").into());
            }
            if input.len() >= length {
                let mut message = input.split_to(length);
                message.advance(4);
                return Ok(message);
            }
        }
        if stream.read_buf(input).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn parameters(mut reader: Reader<'_>) -> Result<Startup, SqlError> {
    let mut startup = Startup::default();
    loop {
        let name = reader.text()?;
        if name.is_empty() {
            return if reader.is_empty() {
                Ok(startup)
            } else {
                Err(Malformed("invalid startup packet layout").into())
            };
        }
        let value = reader.text()?.to_owned();
        match name {
            "user" => startup.user = value,
            "database" => startup.database = Some(value),
            "application_name" => startup.application_name = value,
            "client_encoding" => startup.client_encoding = Some(value),
            "options" => startup.reading.extend(options::reading(&value)?),
            name if name.starts_with(options::OURS) => startup.reading.push(options::change(name, &value)?),
            option if option.starts_with("_pq_.") => startup.unknown_options.push(option.to_owned()),
            _ => {}
        }
    }
}

/// Checks who it is and what it wants. Every way of authentication has its place here, before anything else is told.
pub(crate) async fn authenticate(
    _stream: &mut dyn Stream,
    startup: &Startup,
    authentication: Authentication,
) -> Result<(), Refusal> {
    if startup.user.is_empty() {
        return Err(SqlError::new("28000", "no PostgreSQL user name specified in startup packet").into());
    }
    match authentication {
        Authentication::Trust => {}
    }
    let database = startup.database.as_ref().unwrap_or(&startup.user);
    if database != DATABASE {
        let error = SqlError::new("3D000", format!("database \"{database}\" does not exist"));
        return Err(error
            .hint(format!("A cluster has one database, \"{DATABASE}\"."))
            .into());
    }
    Ok(())
}

/// The encoding that the client is told of; we speak UTF-8 only, which `SQL_ASCII` takes unconverted.
fn encoding(startup: &Startup) -> Result<&'static str, SqlError> {
    let Some(asked) = &startup.client_encoding else {
        return Ok("UTF8");
    };
    let plain: String = asked.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_uppercase().as_str() {
        "UTF8" | "UNICODE" => Ok("UTF8"),
        "SQLASCII" => Ok("SQL_ASCII"),
        _ => Err(SqlError::new(
            "0A000",
            format!("conversion between {asked} and UTF8 is not supported"),
        )),
    }
}

/// Appends the greeting of a session.
pub(crate) fn greet(out: &mut Vec<u8>, startup: &Startup, key: CancelKey) -> Result<(), SqlError> {
    let encoding = encoding(startup)?;
    if startup.newer_minor || !startup.unknown_options.is_empty() {
        let at = begin(out, b'v');
        out.extend_from_slice(&(MAJOR_VERSION << 16).to_be_bytes());
        out.extend_from_slice(&(startup.unknown_options.len() as u32).to_be_bytes());
        startup.unknown_options.iter().for_each(|option| put_text(out, option));
        end(out, at);
    }
    out.extend_from_slice(b"R\0\0\0\x08\0\0\0\0");
    for (name, value) in [
        (
            "server_version",
            concat!("15.0 (VoltCluster ", env!("CARGO_PKG_VERSION"), ")"),
        ),
        ("server_encoding", "UTF8"),
        ("client_encoding", encoding),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
        ("is_superuser", "on"),
        ("application_name", &startup.application_name),
        ("session_authorization", &startup.user),
    ] {
        messages::parameter_status(out, name, value);
    }
    let at = begin(out, b'K');
    out.extend_from_slice(&key.process.to_be_bytes());
    out.extend_from_slice(&key.secret.to_be_bytes());
    end(out, at);
    out.extend_from_slice(messages::READY);
    out.push(b'I');
    Ok(())
}
