//! Requests with idempotency keys, repeated until they are answered while nodes die and connections break: each happens once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};
use volt_tests::http;

use crate::cluster::Cluster;
use crate::{alone, block_on, connect};

const ACCOUNTS: i64 = 12;
/// Clients at a time.
const CLIENTS: u64 = 6;
/// A request, with all its tries, takes no longer than this, though a node dies.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const WORK: Duration = Duration::from_secs(9);
const DIES_AFTER: Duration = Duration::from_secs(2);
const COMES_BACK_AFTER: Duration = Duration::from_secs(5);

/// What one client asks for.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// One more, in one account.
    Increment(i64),
    /// From one account to another, in one statement.
    Statement(i64, i64),
    /// The same in a block.
    Block(i64, i64),
}

impl Request {
    /// The `number`-th of a client.
    fn of(client: u64, number: u64) -> Self {
        let (from, to) = (
            (client + number * 5) as i64 % ACCOUNTS,
            (client * 7 + number * 3) as i64 % ACCOUNTS,
        );
        match number % 3 {
            _ if from == to => Self::Increment(from),
            0 => Self::Increment(from),
            1 => Self::Statement(from, to),
            _ => Self::Block(from, to),
        }
    }

    fn text(self, key: &str) -> String {
        let hint = format!("/* volt.idempotency_key = '{key}' */");
        match self {
            // By the session's setting, of which one text is enough.
            Self::Increment(id) => {
                format!("SET volt.idempotency_key = '{key}'; UPDATE accounts SET balance = balance + 1 WHERE id = {id}")
            }
            Self::Statement(from, to) => format!(
                "{hint} UPDATE accounts SET balance = CASE WHEN id = {from} THEN balance - 1 ELSE balance + 1 END \
                 WHERE id IN ({from}, {to})"
            ),
            Self::Block(from, to) => format!(
                "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = {from}; \
                 UPDATE accounts SET balance = balance + 1 WHERE id = {to}; {hint} COMMIT"
            ),
        }
    }

    /// What it does to each account.
    fn changes(self) -> Vec<(i64, i64)> {
        match self {
            Self::Increment(id) => vec![(id, 1)],
            Self::Statement(from, to) | Self::Block(from, to) => vec![(from, -1), (to, 1)],
        }
    }

    /// Asks once; rows of the first statement that changes any.
    async fn ask(self, client: &Client, key: &str) -> Result<()> {
        let answers = client.simple_query(&self.text(key)).await?;
        let changed: Vec<u64> = answers
            .iter()
            .filter_map(|answer| match answer {
                SimpleQueryMessage::CommandComplete(rows) if *rows > 0 => Some(*rows),
                _ => None,
            })
            .collect();
        let expected: &[u64] = match self {
            Self::Increment(_) => &[1],
            Self::Statement(..) => &[2],
            Self::Block(..) => &[1, 1],
        };
        ensure!(changed == expected, "{self:?} changed {changed:?} rows");
        Ok(())
    }
}

/// One client's work: what it does to each account, and how many requests and tries that were.
struct Worker {
    number: u64,
    ports: Vec<u16>,
    session: Option<Client>,
    tries: u64,
}

impl Worker {
    async fn session(&mut self) -> Result<&Client> {
        if self.session.is_none() {
            self.tries += 1;
            let port = self.ports[(self.number + self.tries) as usize % self.ports.len()];
            self.session = Some(timeout(Duration::from_secs(1), connect(port)).await??);
        }
        self.session.as_ref().context("a session")
    }

    /// Repeats a request, on a new session after each error, until it is answered. Now and then it doesn't wait for the answer.
    async fn until_answered(&mut self, request: Request, key: &str) -> Result<()> {
        let deadline = Instant::now() + REQUEST_LIMIT;
        loop {
            let patience = Duration::from_millis([3_000, 1, 3_000, 3, 8][self.tries as usize % 5]);
            let error = match self.session().await {
                Err(error) => error,
                Ok(session) => match timeout(patience, request.ask(session, key)).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => error,
                    Err(_) => anyhow::anyhow!("did not wait"),
                },
            };
            let code = error
                .downcast_ref::<tokio_postgres::Error>()
                .and_then(|error| error.code());
            // With a key nobody has to hear 40003 of a node that died: the coordinator asks again.
            let is_meant = code.is_none_or(|code| matches!(code.code(), "40001" | "55P03" | "57P03"));
            ensure!(is_meant && Instant::now() < deadline, "{request:?}: {error:#}");
            self.session = None;
            self.tries += 1;
            sleep(Duration::from_millis(5)).await;
        }
    }
}

type Expected = Arc<Mutex<BTreeMap<i64, i64>>>;

async fn work(mut worker: Worker, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, expected: Expected) -> Result<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let request = Request::of(worker.number, number);
        let key = format!("client {} request {number}", worker.number);
        worker.until_answered(request, &key).await?;
        if number % 7 == 0 {
            // Answered, and asked for again by another session.
            worker.session = None;
            worker.until_answered(request, &key).await?;
        }
        let mut expected = expected.lock().expect("no panic under this lock");
        for (id, change) in request.changes() {
            *expected.entry(id).or_default() += change;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(worker.tries)
}

/// Of all nodes: (keys kept by primaries, requests answered with what was kept), as their metrics say.
async fn keys(cluster: &Cluster) -> Result<(u64, u64)> {
    let (mut kept, mut repeats) = (0, 0);
    for node in &cluster.nodes.nodes {
        let text = http::get(node.http_port, "/metrics").await?.body;
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|figure| figure.trim().parse::<u64>().ok())
                .with_context(|| format!("no {name}"))
        };
        kept += figure("volt_idempotency_keys")?;
        repeats += figure("volt_idempotency_repeats")?;
    }
    Ok((kept, repeats))
}

async fn balances(client: &Client) -> Result<BTreeMap<i64, i64>> {
    let rows = client.query("SELECT id, balance FROM accounts", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[test]
fn keyed_requests_happen_once_while_a_node_dies() {
    let _alone = alone();
    block_on(async {
        let mut cluster = Cluster::start().await?;
        let rows: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 0)")).collect();
        let setup = connect(cluster.sql(1)).await?;
        setup
            .batch_execute(
                "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL) WITH REPLICATION = 2",
            )
            .await?;
        setup
            .batch_execute(&format!("INSERT INTO accounts VALUES {}", rows.join(", ")))
            .await?;
        let victim = cluster.leader().await?;
        let (stop, done, expected) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
            Expected::default(),
        );
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let worker = Worker {
                number,
                ports: cluster.sql_ports.clone(),
                session: None,
                tries: number,
            };
            tasks.spawn(work(
                worker,
                Arc::clone(&stop),
                Arc::clone(&done),
                Arc::clone(&expected),
            ));
        }
        sleep(DIES_AFTER).await;
        cluster.nodes.node(victim).kill()?;
        let at_death = done.load(Ordering::Relaxed);
        sleep(COMES_BACK_AFTER - DIES_AFTER).await;
        let before_return = done.load(Ordering::Relaxed);
        cluster.nodes.node(victim).start()?;
        sleep(WORK - COMES_BACK_AFTER).await;
        stop.store(true, Ordering::Relaxed);
        let mut tries = 0;
        while let Some(worker) = tasks.join_next().await {
            tries += worker??;
        }
        let all = done.load(Ordering::Relaxed);
        println!(
            "{at_death} requests before a node died, {before_return} before it came back, {all} in all; {tries} tries failed"
        );
        ensure!(
            at_death > 0 && before_return > at_death && all > before_return,
            "requests stopped: {at_death}, {before_return}, {all}"
        );
        cluster.whole().await?;
        let (kept, repeats) = keys(&cluster).await?;
        println!("{kept} keys are kept, {repeats} requests were answered with them");
        ensure!(kept == all, "{all} requests were answered, {kept} keys are kept");
        ensure!(repeats > 0, "nothing was ever asked for again: this shows nothing");
        let expected = expected.lock().expect("no panic under this lock").clone();
        for node in 1..=3 {
            let found = balances(&connect(cluster.sql(node)).await?).await?;
            ensure!(
                found == expected,
                "node {node} has {found:?}, asked for were {expected:?}"
            );
        }
        Ok(())
    });
}
