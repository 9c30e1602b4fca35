//! Whatever a client sends.

use bytes::BytesMut;
use futures::executor::block_on;
use tokio::io::AsyncWriteExt;
use volt_engine::value::DataType;

use super::codec;
use super::messages::{self, Reader};
use super::startup as opening;

/// Before a session: encryption requests, the startup packet, a cancel request.
pub fn startup(bytes: &[u8]) -> bool {
    // Room for what is sent and for the answers, so that neither side waits.
    let (mut client, mut server) = tokio::io::duplex(bytes.len() + 1024);
    block_on(async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut input = BytesMut::new();
        let opening = opening::open(&mut server, &mut input).await;
        if let Ok(opening::Opening::Session(startup)) = &opening {
            let key = super::cancel::CancelKey { process: 1, secret: 2 };
            let _ = opening::greet(&mut Vec::new(), startup, key);
        }
        opening.is_ok()
    })
}

/// A stream of messages, taken apart.
pub fn messages(mut bytes: &[u8]) -> bool {
    while let Ok(Some((_, whole))) = messages::frame(bytes) {
        let mut reader = Reader::new(&bytes[5..whole]);
        while !reader.is_empty() {
            // As Parse and Bind are built: texts, then a count, then things with lengths.
            let mut step = || {
                reader.text().ok()?;
                let count = reader.count().ok()?;
                for _ in 0..count {
                    let length = reader.i32().ok()?;
                    reader.bytes(usize::try_from(length).unwrap_or(0)).ok()?;
                }
                Some(())
            };
            if step().is_none() {
                break;
            }
        }
        bytes = &bytes[whole..];
    }
    bytes.is_empty()
}

/// A parameter's value, as each type and in both formats.
pub fn parameters(bytes: &[u8]) -> bool {
    let mut is_read = false;
    let numeric = DataType::Numeric {
        precision: 10,
        scale: 2,
    };
    let targets = [
        DataType::Boolean,
        DataType::Int,
        DataType::BigInt,
        DataType::Double,
        numeric,
        DataType::Varchar(8),
        DataType::Text,
        DataType::Timestamp,
        DataType::Bytea,
    ];
    let oids = [
        codec::BOOL,
        codec::BYTEA,
        codec::INT8,
        codec::INT2,
        codec::INT4,
        codec::TEXT,
        codec::FLOAT4,
        codec::FLOAT8,
        codec::UNKNOWN,
        codec::BPCHAR,
        codec::VARCHAR,
        codec::DATE,
        codec::TIMESTAMP,
        codec::TIMESTAMPTZ,
        codec::NUMERIC,
    ];
    for target in targets {
        for oid in oids {
            for format in [0, 1] {
                if let Ok(value) = codec::parameter(bytes, format, oid, target) {
                    is_read = true;
                    // What was read can be told again.
                    codec::data_row(&mut Vec::new(), &[value.as_ref(), value.as_ref()], &[0, 1]);
                }
            }
        }
    }
    is_read
}
