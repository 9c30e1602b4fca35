//! Real processes under one fault after another: killed, frozen, cut off, parted, made deaf, slowed down, all of them killed at once. Clients of every kind
//! work meanwhile, and what they were told is checked as a whole: lists and sets for strict serialisability, registers for linearisability, accounts
//! for their sum, single rows for their being there. Replicas are compared at equal LSN all the while.
//!
//! The faults and what clients ask for are drawn from a seed, which is printed; what the machine makes of it is not. `make endure MINUTES=10` goes on
//! for as long as one likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use volt_tests::history::{Action, Answer, History, Operation};
use volt_tests::linearizable::{self, Verdict};
use volt_tests::processes::Nodes;
use volt_tests::proxy::{self, Proxies};
use volt_tests::serializable::clients::{self, Procedures, Recorder, Session};
use volt_tests::serializable::{check, explain};

use crate::cluster::Cluster;
use crate::detection::failures;
use crate::load::Load;
use crate::{alone, block_on, connect, connect_to_whole};

/// How long it goes on, unless `VOLT_ENDURE_SECONDS` says otherwise.
const SECONDS: u64 = 40;
/// A client takes an answer for lost after this.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const ACCOUNTS: i64 = 20;
const BALANCE: i64 = 100;
/// Registers: few, so that clients meet; a new set of them now and then, so that no history gets too long to check.
const REGISTERS: u64 = 6;
const OPERATIONS_OF_A_REGISTER: u64 = 150;

fn number(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// kill -9, and a new process after a while.
    Kill,
    /// SIGSTOP and SIGCONT.
    Freeze,
    /// Nothing passes to the node or from it.
    CutOff,
    /// Two nodes do not hear each other.
    Part,
    /// Nothing passes on connections that others open to it.
    Deafen,
    /// What passes comes later.
    SlowDown,
    /// kill -9 of all, and new processes.
    PowerCut,
}

const FAULTS: [Fault; 9] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Freeze,
    Fault::Freeze,
    Fault::CutOff,
    Fault::Part,
    Fault::Deafen,
    Fault::SlowDown,
    Fault::PowerCut,
];

struct Run {
    cluster: Cluster,
    proxies: Arc<Proxies>,
    random: StdRng,
}

impl Run {
    async fn start(&mut self, node: u32) -> Result<()> {
        self.cluster.nodes.node(node).start()?;
        let pid = self.cluster.nodes.node(node).pid().context("not running")?;
        self.proxies.process(node, pid);
        Ok(())
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let pause = self.random.random_range(from_ms..to_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    /// One fault, until it is over.
    async fn fault(&mut self, fault: Fault) -> Result<()> {
        let node = self.random.random_range(1..=3);
        let other = node % 3 + 1;
        match fault {
            Fault::Kill => {
                self.cluster.nodes.node(node).kill()?;
                self.pause(100, 3_000).await;
                self.start(node).await?;
            }
            Fault::Freeze => {
                self.cluster.nodes.node(node).freeze()?;
                self.pause(100, 5_000).await;
                self.cluster.nodes.node(node).thaw()?;
            }
            Fault::CutOff => {
                self.proxies.cut_off(node);
                self.pause(500, 5_000).await;
                self.proxies.restore(node);
            }
            Fault::Part => {
                self.proxies.part(node, other);
                self.pause(500, 5_000).await;
                self.proxies.join(node, other);
            }
            Fault::Deafen => {
                self.proxies.deafen(node);
                self.pause(500, 5_000).await;
                self.proxies.undeafen(node);
            }
            Fault::SlowDown => {
                let by = Duration::from_millis(self.random.random_range(1..80));
                self.proxies.slow_down(node, by);
                self.pause(500, 4_000).await;
                self.proxies.slow_down(node, Duration::ZERO);
            }
            Fault::PowerCut => {
                for node in 1..=3 {
                    self.cluster.nodes.node(node).kill()?;
                }
                for node in 1..=3 {
                    self.start(node).await?;
                }
            }
        }
        Ok(())
    }
}

/// A session with some node, or none now.
async fn some_client(ports: &[u16], place: &mut usize) -> Option<Client> {
    *place += 1;
    let connected = timeout(ANSWER_LIMIT, connect(ports[*place % ports.len()])).await;
    match connected {
        Ok(Ok(client)) => Some(client),
        _ => {
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// Transactions over lists and sets, one after another.
async fn transactions(ports: Vec<u16>, recorder: Recorder, number: u32, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(u64::from(number));
    let mut place = number as usize;
    while !stop.load(SeqCst) {
        let Some(client) = some_client(&ports, &mut place).await else {
            continue;
        };
        let Some(session) = Session::open(client, &recorder, number, ANSWER_LIMIT, Procedures::Called).await else {
            continue;
        };
        while !stop.load(SeqCst) && session.transaction(&mut random).await {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
    }
}

/// Money that is moved, and counted at snapshots: an error when some is missing.
async fn accounts(ports: Vec<u16>, number: u32, stop: Arc<AtomicBool>, counted: Arc<AtomicU64>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(1_000 + u64::from(number));
    let mut place = number as usize;
    while !stop.load(SeqCst) {
        let Some(client) = some_client(&ports, &mut place).await else {
            continue;
        };
        loop {
            let (from, to) = (random.random_range(1..=ACCOUNTS), random.random_range(1..=ACCOUNTS));
            let moved = format!(
                "BEGIN; UPDATE accounts SET balance = balance - 1 WHERE id = {from}; \
                 UPDATE accounts SET balance = balance + 1 WHERE id = {to}; COMMIT"
            );
            let moved = timeout(ANSWER_LIMIT, client.batch_execute(&moved)).await;
            if !matches!(moved, Ok(Ok(()))) && timeout(ANSWER_LIMIT, client.batch_execute("ROLLBACK")).await.is_err() {
                break;
            }
            let total = client.query_one("SELECT sum(balance)::BIGINT FROM accounts", &[]);
            match timeout(ANSWER_LIMIT, total).await {
                Ok(Ok(row)) => {
                    let total: i64 = row.get(0);
                    ensure!(total == ACCOUNTS * BALANCE, "the accounts have {total}");
                    counted.fetch_add(1, SeqCst);
                }
                Ok(Err(error)) if error.code().is_some() => {}
                _ => break,
            }
            if stop.load(SeqCst) {
                break;
            }
            sleep(Duration::from_millis(random.random_range(0..10))).await;
        }
    }
    Ok(())
}

/// What clients did to registers, and the moments of it.
struct Registers {
    begun: Instant,
    values: AtomicU64,
    asked: AtomicU64,
    history: Mutex<History>,
}

impl Registers {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    async fn ask(&self, client: &Client, register: u64, action: Action) -> Answer {
        let key = register.cast_signed();
        let signed = |value: u64| value.cast_signed();
        let sql = match action {
            Action::Insert(value) => format!("INSERT INTO registers VALUES ({key}, {})", signed(value)),
            Action::Write(value) => format!("UPDATE registers SET value = {} WHERE id = {key}", signed(value)),
            Action::Exchange { from, to } => {
                format!(
                    "UPDATE registers SET value = {} WHERE id = {key} AND value = {}",
                    signed(to),
                    signed(from)
                )
            }
            Action::Read => {
                let sql = "SELECT value FROM registers WHERE id = $1";
                return match timeout(ANSWER_LIMIT, client.query_opt(sql, &[&key])).await {
                    Ok(Ok(row)) => Answer::Found(row.map(|row| row.get::<_, i64>(0).cast_unsigned())),
                    _ => Answer::Refused,
                };
            }
        };
        match timeout(ANSWER_LIMIT, client.execute(&sql, &[])).await {
            Ok(Ok(1)) => Answer::Done,
            Ok(Ok(_)) => Answer::Nothing,
            Ok(Err(error)) => match error.code().map(tokio_postgres::error::SqlState::code) {
                Some("23505") => Answer::Nothing,
                // Certainly without effect.
                Some("40001" | "57P03" | "53300" | "42P01") => Answer::Refused,
                _ => Answer::Unknown,
            },
            Err(_) => Answer::Unknown,
        }
    }

    async fn work(self: Arc<Self>, ports: Vec<u16>, number: u32, stop: Arc<AtomicBool>) {
        let mut random = StdRng::seed_from_u64(2_000 + u64::from(number));
        let mut place = number as usize;
        // Who has left a request without an answer goes on as another client.
        let mut name = number;
        let mut seen = 0;
        while !stop.load(SeqCst) {
            let Some(client) = some_client(&ports, &mut place).await else {
                continue;
            };
            while !stop.load(SeqCst) {
                let asked = self.asked.fetch_add(1, SeqCst);
                let round = asked / (REGISTERS * OPERATIONS_OF_A_REGISTER);
                let register = round * REGISTERS + random.random_range(0..REGISTERS);
                let value = self.values.fetch_add(1, SeqCst) + 1;
                let action = match random.random_range(0..10) {
                    0 | 1 => Action::Insert(value),
                    2 | 3 => Action::Write(value),
                    4 => Action::Exchange { from: seen, to: value },
                    _ => Action::Read,
                };
                let sent = self.now();
                let answer = self.ask(&client, register, action).await;
                let operation = Operation {
                    client: name,
                    sent,
                    answered: self.now(),
                    action,
                    answer,
                };
                self.history.lock().await.push(register, operation);
                match answer {
                    Answer::Found(Some(value)) => seen = value,
                    Answer::Unknown => {
                        name += 100;
                        break;
                    }
                    Answer::Refused => break,
                    _ => {}
                }
                sleep(Duration::from_millis(random.random_range(0..10))).await;
            }
        }
    }

    async fn check(&self) -> Result<String> {
        let history = self.history.lock().await;
        let mut undecided = 0;
        for (register, operations) in history.registers() {
            match linearizable::check(operations) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                violation => bail!("register {register}: {violation:?} of {operations:?}"),
            }
        }
        let registers = history.registers().count();
        ensure!(
            undecided * 2 <= registers,
            "{undecided} of {registers} registers can't be decided"
        );
        let (answered, refused, lost) = history.counts();
        Ok(format!(
            "{registers} registers, {answered} requests answered, {refused} refused, {lost} lost, {undecided} registers undecided"
        ))
    }
}

async fn formed() -> Result<(Cluster, Arc<Proxies>)> {
    // Replicas that differ at the same LSN would be a failure.
    let checked = ["--detect", "heartbeat,data-change", "--checksum-interval-s", "2"];
    let cluster = Cluster::of(Nodes::start_with(3, proxy::host, &checked)?);
    let proxies = cluster.proxies().await?;
    cluster.form().await?;
    let client = connect(cluster.sql(1)).await?;
    clients::make(&client, Procedures::Called).await?;
    client
        .batch_execute(
            "CREATE TABLE registers (id BIGINT PRIMARY KEY, value BIGINT) WITH REPLICATION = 2 MODE semi_sync;
             CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT) WITH REPLICATION = 2",
        )
        .await?;
    for id in 1..=ACCOUNTS {
        client
            .execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &BALANCE])
            .await?;
    }
    cluster.whole().await?;
    Ok((cluster, proxies))
}

#[test]
fn whatever_happens_to_its_processes_a_cluster_keeps_its_word() {
    let _alone = alone();
    block_on(async {
        let (seconds, seed) = (number("VOLT_ENDURE_SECONDS", SECONDS), number("VOLT_ENDURE_SEED", 1));
        println!("VOLT_ENDURE_SEED={seed} VOLT_ENDURE_SECONDS={seconds}");
        let (cluster, proxies) = formed().await?;
        let ports = cluster.sql_ports.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let counted = Arc::new(AtomicU64::new(0));
        let recorder = Recorder::new(|_| {});
        let registers = Arc::new(Registers {
            begun: Instant::now(),
            values: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            history: Mutex::default(),
        });
        let load = Load::start(&ports);
        let mut tasks: JoinSet<Result<()>> = JoinSet::new();
        for number in 0..4 {
            let (ports, recorder, stop) = (ports.clone(), recorder.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                transactions(ports, recorder, number, stop).await;
                Ok(())
            });
        }
        for number in 0..3 {
            tasks.spawn(accounts(ports.clone(), number, Arc::clone(&stop), Arc::clone(&counted)));
            let (registers, ports, stop) = (Arc::clone(&registers), ports.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                registers.work(ports, number, stop).await;
                Ok(())
            });
        }

        let mut run = Run {
            cluster,
            proxies,
            random: StdRng::seed_from_u64(seed),
        };
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut faults = Vec::new();
        while Instant::now() < end {
            run.pause(200, 2_500).await;
            let fault = FAULTS[run.random.random_range(0..FAULTS.len())];
            println!("{:>6} ms {fault:?}", registers.now() / 1_000);
            faults.push(fault);
            run.fault(fault).await?;
            // Half of the time the next one meets a cluster that is not whole yet.
            if run.random.random_bool(0.5) {
                run.cluster.whole().await.with_context(|| format!("after {faults:?}"))?;
            }
            while let Some(ended) = tasks.try_join_next() {
                ended??;
            }
        }
        run.cluster.whole().await?;
        stop.store(true, SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        let told = load.stop().await;
        for node in 1..=3 {
            told.assert_all_there(run.cluster.sql(node)).await?;
            let client = connect_to_whole(run.cluster.sql(node)).await?;
            let session = Session::open(client, &recorder, 100 + node, ANSWER_LIMIT, Procedures::Called).await;
            let session = session.with_context(|| format!("node {node} takes no session at the end"))?;
            ensure!(
                session.read_everything().await,
                "node {node} does not read lists and sets at the end"
            );
        }
        let history = recorder.history();
        let checked = check(&history).map_err(|anomalies| anyhow::anyhow!("{}", explain(&history, &anomalies)))?;
        println!(
            "{} faults; {} rows acknowledged and there",
            faults.len(),
            told.acknowledged.len()
        );
        println!("transactions: {checked:?}");
        println!(
            "accounts counted {} times; {}",
            counted.load(SeqCst),
            registers.check().await?
        );
        let enough = told.acknowledged.len() > 100 && checked.happened > 50 && counted.load(SeqCst) > 20;
        ensure!(enough, "too little happened to say anything");
        let differ = failures(run.cluster.sql(1)).await?;
        let differ: Vec<_> = differ
            .iter()
            .filter(|failure| failure.strategy == "data_change")
            .collect();
        ensure!(
            !differ.iter().any(|failure| failure.evidence.contains("checksum")),
            "replicas differ: {differ:?}"
        );
        // Dropped before the proxies, whose streams they use.
        run.cluster.nodes.nodes.clear();
        Ok(())
    });
}
