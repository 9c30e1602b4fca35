//! What a real driver sees.

use std::sync::atomic::Ordering::SeqCst;

use tokio::time::{Duration, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::toy::gateway;

async fn connect(port: u16) -> Client {
    let target = format!("host=127.0.0.1 port={port} user=volt dbname=volt");
    let (client, connection) = tokio_postgres::connect(&target, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn sqlstate(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", |code| code.code())
}

#[tokio::test]
async fn prepared_statements() {
    let (_gateway, toy, port) = gateway(10).await;
    let client = connect(port).await;
    let put = client.prepare("PUT $1 $2").await.unwrap();
    let get = client.prepare("GET $1").await.unwrap();
    assert_eq!(get.params(), [Type::INT8]);
    assert_eq!(get.columns()[0].type_(), &Type::VARCHAR);
    assert_eq!(client.execute(&put, &[&1i64, &"one"]).await.unwrap(), 1);
    assert_eq!(toy.waits.load(SeqCst), 1);
    let rows = client.query(&get, &[&1i64]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "one");
    assert!(client.query(&get, &[&2i64]).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_type_in_binary() {
    let (_gateway, _toy, port) = gateway(10).await;
    let client = connect(port).await;
    let bytes = &b"\x00\xff"[..];
    let sentence = "ECHO bool int bigint double text bytea varchar";
    let row = client
        .query_one(
            sentence,
            &[&true, &-5i32, &i64::MAX, &1.5f64, &"käse", &bytes, &None::<&str>],
        )
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, i32>(1), -5);
    assert_eq!(row.get::<_, i64>(2), i64::MAX);
    assert_eq!(row.get::<_, f64>(3), 1.5);
    assert_eq!(row.get::<_, &str>(4), "käse");
    assert_eq!(row.get::<_, &[u8]>(5), b"\x00\xff");
    assert_eq!(row.get::<_, Option<&str>>(6), None);
}

#[tokio::test]
async fn simple_protocol() {
    let (_gateway, toy, port) = gateway(10).await;
    let client = connect(port).await;
    let messages = client.simple_query("PUT0; MANY 3; NOTICE").await.unwrap();
    let rows = messages
        .iter()
        .filter(|message| matches!(message, SimpleQueryMessage::Row(_)))
        .count();
    assert_eq!(rows, 3);
    assert_eq!(toy.waits.load(SeqCst), 1);
    assert!(client.simple_query("").await.is_ok());
    let error = client.simple_query("MANY 1; WRONG").await.unwrap_err();
    assert_eq!(sqlstate(&error), "42601");
    let position = error.as_db_error().and_then(|error| error.position().cloned());
    assert_eq!(position, Some(tokio_postgres::error::ErrorPosition::Original(8)));
    assert_eq!(
        sqlstate(&client.simple_query("LOSE0; MANY 2").await.unwrap_err()),
        "40003"
    );
    assert_eq!(sqlstate(&client.simple_query("FAIL").await.unwrap_err()), "22012");
    assert_eq!(
        sqlstate(&client.simple_query("DEALLOCATE x").await.unwrap_err()),
        "26000"
    );
    client.batch_execute("DEALLOCATE ALL").await.unwrap();
    client.batch_execute("DISCARD ALL").await.unwrap();
}

#[tokio::test]
async fn a_pipeline_with_one_lost_write() {
    let (_gateway, _toy, port) = gateway(10).await;
    let client = connect(port).await;
    let put = client.prepare("PUT $1 $2").await.unwrap();
    let lose = client.prepare("LOSE $1 $2").await.unwrap();
    let get = client.prepare("GET $1").await.unwrap();
    for _ in 0..20 {
        let (a, b, c, d, e) = futures::join!(
            client.execute(&put, &[&1i64, &"one"]),
            client.execute(&lose, &[&2i64, &"two"]),
            client.query(&get, &[&1i64]),
            client.execute(&lose, &[&3i64, &"three"]),
            client.execute(&put, &[&4i64, &"four"]),
        );
        assert_eq!(a.unwrap(), 1);
        assert_eq!(sqlstate(&b.unwrap_err()), "40003");
        assert_eq!(c.unwrap()[0].get::<_, &str>(0), "one");
        assert_eq!(sqlstate(&d.unwrap_err()), "40003");
        assert_eq!(e.unwrap(), 1);
    }
}

#[tokio::test]
async fn large_results() {
    let (_gateway, _toy, port) = gateway(10).await;
    let client = connect(port).await;
    for sentence in ["MANY 50000", "STREAM 50000"] {
        let rows = client.query(sentence, &[]).await.unwrap();
        assert_eq!(rows.len(), 50_000);
        assert_eq!(rows[49_999].get::<_, i64>(0), 49_999);
    }
}

#[tokio::test]
async fn cancelling() {
    let (_gateway, toy, port) = gateway(10).await;
    let client = connect(port).await;
    let token = client.cancel_token();
    let sleeping = tokio::spawn(async move {
        let error = client.simple_query("SLEEP").await.unwrap_err();
        client.simple_query("MANY 1").await.unwrap();
        error
    });
    while !toy.sleeping.load(SeqCst) {
        tokio::task::yield_now().await;
    }
    token.cancel_query(NoTls).await.unwrap();
    let error = timeout(Duration::from_secs(5), sleeping).await.unwrap().unwrap();
    assert_eq!(sqlstate(&error), "57014");
}

#[tokio::test]
async fn refusals() {
    let (gateway, _toy, port) = gateway(1).await;
    let wrong = format!("host=127.0.0.1 port={port} user=volt dbname=other");
    let error = tokio_postgres::connect(&wrong, NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&error), "3D000");
    let client = connect(port).await;
    let right = format!("host=127.0.0.1 port={port} user=volt dbname=volt");
    let error = tokio_postgres::connect(&right, NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&error), "53300");
    for (options, code) in [("volt.read_from=standby", "22023"), ("volt.nothing=1", "42704")] {
        let unclear = format!("{right} options='-c geqo=off -c {options}'");
        let error = tokio_postgres::connect(&unclear, NoTls).await.err().unwrap();
        assert_eq!(sqlstate(&error), code);
    }
    // Who is there goes on, and nobody else comes.
    gateway.close();
    assert!(client.simple_query("MANY 1").await.is_ok());
    let error = tokio_postgres::connect(&right, NoTls).await.err().unwrap();
    assert_eq!(sqlstate(&error), "57P03");
    gateway.stop().await;
    assert!(client.simple_query("MANY 1").await.is_err());
    assert_eq!(gateway.metrics().sessions.load(SeqCst), 0);
}

#[tokio::test]
async fn the_session_goes_on_after_errors() {
    let (_gateway, _toy, port) = gateway(10).await;
    let client = connect(port).await;
    assert_eq!(sqlstate(&client.query("WRONG", &[]).await.unwrap_err()), "42601");
    assert_eq!(sqlstate(&client.query("FAIL", &[]).await.unwrap_err()), "22012");
    assert_eq!(
        sqlstate(&client.query("MANY 1; MANY 2", &[]).await.unwrap_err()),
        "42601"
    );
    assert_eq!(client.query("MANY 2", &[]).await.unwrap().len(), 2);
}
