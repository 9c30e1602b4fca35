//! Whatever a client sends, a session neither panics nor hangs; it answers or says goodbye.

use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};
use tokio_util::sync::CancellationToken;

use super::toy::{Fixed, Toy};
use crate::gateway::cancel::CancelRegistry;
use crate::gateway::connection::serve;
use crate::gateway::metrics::GatewayMetrics;
use crate::gateway::session::Session;
use crate::gateway::startup;
use crate::statement::ReadSettings;

/// A message with a fitting length and a body that may make sense.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\0".to_vec()),
        Just(b"a\0".to_vec()),
        Just(b"S".to_vec()),
        Just(b"P".to_vec()),
        Just(b"\0\0\0\x01".to_vec()),
        Just(b"\0\x01".to_vec()),
        Just(b"\xff\xff\xff\xff".to_vec()),
        prop::sample::select(vec![
            "GET $1",
            "PUT $1 $2",
            "LOSE0",
            "MANY 7",
            "STREAM 3",
            "ECHO numeric timestamp",
            "FAIL",
            ";;",
            "DEALLOCATE ALL"
        ])
        .prop_map(|sql| format!("{sql}\0").into_bytes()),
        any::<Vec<u8>>(),
    ];
    let kinds = b"PBDESHCQXFdcf?".to_vec();
    (prop::sample::select(kinds), prop::collection::vec(piece, 0..6)).prop_map(|(kind, pieces)| {
        let body = pieces.concat();
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(&body);
        message
    })
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(10), future).await.expect("it hangs") });
}

async fn feed(noise: Vec<u8>) {
    let (mut client, mut server) = tokio::io::duplex(1 << 20);
    let sending = async move {
        let _ = client.write_all(&noise).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
    };
    let serving = async move {
        let registration = Arc::new(CancelRegistry::default()).register(1, &Fixed);
        let mut session = Session::new(Arc::new(Toy::default()), registration, ReadSettings::default());
        let metrics = GatewayMetrics::default();
        let _ = serve(
            &mut session,
            &mut server,
            BytesMut::new(),
            &metrics,
            &CancellationToken::new(),
        )
        .await;
    };
    futures::join!(sending, serving);
}

proptest! {
    #[test]
    fn plain_noise(noise: Vec<u8>) {
        run(feed(noise));
    }

    #[test]
    fn shaped_noise(messages in prop::collection::vec(message(), 0..40)) {
        run(feed(messages.concat()));
    }

    #[test]
    fn noise_at_startup(mut noise: Vec<u8>, framed: bool, version in prop::sample::select(vec![196_608u32, 196_610, 80_877_102, 80_877_103, 7])) {
        if framed {
            let header = [(noise.len() as u32 + 8).to_be_bytes(), version.to_be_bytes()].concat();
            noise.splice(0..0, header);
        }
        run(async move {
            let (mut client, mut server) = tokio::io::duplex(1 << 16);
            let sending = async move {
                let _ = client.write_all(&noise).await;
                let _ = client.shutdown().await;
            };
            let mut input = BytesMut::new();
            let (_, _) = futures::join!(sending, startup::open(&mut server, &mut input));
        });
    }
}
