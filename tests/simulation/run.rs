//! One run: a cluster of whole nodes, its clients, its faults, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::sleep;
use turmoil::Sim;
use volt_node::world::simulated::{EPOCH_MICROS, Faults, SimulatedDisk, SimulatedRandom};
use volt_tests::history::{Action, Answer, Operation};
use volt_tests::linearizable::{self, Verdict};
use volt_tests::replicas::{self, ReplicaSum};
use volt_tests::serializable::Checked;
use volt_tests::serializable::clients;
use volt_tests::trace::Trace;

use crate::accounts;
use crate::archive::Archive;
use crate::columns;
use crate::control;
use crate::counters;
use crate::determinism::{self, mix};
use crate::host::{name, process};
use crate::movers;
use crate::plan::{self, Fault};
use crate::restored;
use crate::serializable;
use crate::shared::{Phase, Shared};
use crate::sql::{self, LAST_ANSWER_TIMEOUT, Session};
use crate::steady;
use crate::tables;
use crate::voter;
use crate::witness;
use crate::workload::{self, CLIENTS, REGISTERS};
use crate::zones;

/// No run may take longer, in simulated time.
const LIMIT: Duration = Duration::from_secs(150);
/// How long the cluster may take to form, and to become whole after the last fault.
pub(crate) const BECOMES_WHOLE_WITHIN: Duration = Duration::from_secs(40);
/// How long clients go on after the last fault.
const WORK_AFTER: Duration = Duration::from_millis(800);
/// Fewer operations in the shortest run, of which a power cut takes half, prove nothing.
const MIN_ANSWERED: usize = 30;
/// What was wrong with an archive is over, and its cluster whole: so long afterwards it has all.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(4);
/// The longest that a message takes while nothing is wrong.
pub(crate) const MAX_LATENCY: Duration = Duration::from_millis(4);
pub(crate) const CLIENT_HOST: &str = "clients";
/// What a node logs when a checkpoint is done.
const TAKEN: &str = "recovery::checkpoint: checkpoint taken ";
/// What a node logs when it starts from one.
const LOADED: &str = "recovery::checkpoint: loaded a checkpoint ";
/// What a node logs when a fill is done.
const FILLED: &str = "replication::fill: filled ";

/// What the trace says when a process has ended at a point.
pub(crate) const MET: &str = "MET ";

/// What came of a run.
pub struct Outcome {
    /// Everything that happened.
    pub trace: Trace,
    /// What was violated, if anything was.
    pub fault: Option<String>,
    /// Operations answered, refused, and left without an answer.
    pub counts: (usize, usize, usize),
    /// Pairs of replicas that could be compared.
    pub compared: usize,
    /// What the history of transactions consisted of.
    pub checked: Checked,
    /// Fills that were done.
    pub filled: usize,
    /// Checkpoints that were taken, and that a start went out from.
    pub checkpoints: (usize, usize),
    /// The point at which a process ended, if one came to that of this seed.
    pub met: Option<String>,
    /// What went wrong, and what came of it, by the names in `plan::EVENTS`.
    pub happened: Vec<String>,
    /// Simulated time.
    pub lasted: Duration,
}

/// Runs this seed. Only on a thread of its own, seeded with the same.
pub fn run(seed: u64) -> Outcome {
    let shared = Shared::with(plan::archives(seed).then(|| Archive::new(seed)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("SIMULATION_LOG").unwrap_or_else(|_| "warn,volt_node=info".to_owned()))
        .with_ansi(false)
        .with_timer(SimulatedTime)
        .with_writer({
            let trace = shared.trace.clone();
            move || trace.clone()
        })
        .finish();
    let result = tracing::subscriber::with_default(subscriber, || {
        let done = Cluster::new(seed, shared.clone()).run()?;
        restored::check(seed, &shared).map(|()| done)
    });
    let counts = shared.run().history.counts();
    let checked = shared.run().checked;
    let (lasted, compared, mut fault) = match result {
        Ok((lasted, compared)) => (lasted, compared, None),
        Err(fault) => (Duration::ZERO, 0, Some(fault)),
    };
    if let Some(panic) = determinism::panicked() {
        // tokio keeps a task's panic to itself.
        fault = Some(format!("a task panicked: {panic}"));
    }
    shared.trace.line(lasted.as_micros() as u64, &format!("end: {fault:?}"));
    let bytes = shared.trace.bytes();
    let said = String::from_utf8_lossy(&bytes);
    let count = |what| said.matches(what).count();
    let (filled, checkpoints) = (count(FILLED), (count(TAKEN), count(LOADED)));
    let met = said
        .split_once(MET)
        .and_then(|(_, point)| point.split(' ').next())
        .map(str::to_owned);
    drop(said);
    let happened = shared.run().happened.iter().cloned().collect();
    Outcome {
        happened,
        filled,
        checkpoints,
        met,
        trace: shared.trace,
        fault,
        counts,
        compared,
        checked,
        lasted,
    }
}

struct SimulatedTime;

impl tracing_subscriber::fmt::time::FormatTime for SimulatedTime {
    fn format_time(&self, to: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        write!(to, "{:>4}.{:06}", now.as_secs(), now.subsec_micros())
    }
}

/// All that the clients' host does.
async fn clients(seed: u64, shared: Shared) -> turmoil::Result {
    while !control::initialise().await {
        sleep(Duration::from_millis(100)).await;
    }
    control::whole(&shared.members(), BECOMES_WHOLE_WITHIN)
        .await
        .map_err(|what| format!("the cluster did not form: {what}"))?;
    let setup = sql::connect(2).await.ok_or("node 2 takes no session")?;
    for (number, table) in (0..).zip([
        "registers (id BIGINT PRIMARY KEY, value BIGINT)",
        "ledger (id BIGINT PRIMARY KEY)",
    ]) {
        let create = format!("CREATE TABLE {table} {}", tables::copies(seed, number));
        setup.batch_execute(&create).await?;
    }
    counters::make(&setup, tables::copies(seed, 2)).await?;
    accounts::make(&setup, tables::copies(seed, 3), movers::moves_all(seed)).await?;
    columns::make(&setup, tables::copies(seed, 4)).await?;
    voter::make(&setup, tables::copies(seed, 5)).await?;
    clients::make(&setup, serializable::procedures(seed)).await?;
    steady::make(&setup, &shared).await?;
    let recorder = shared.recorder();
    let session = Session::open(1).await.ok_or("node 1 takes no session")?;
    for register in 1..=REGISTERS {
        let action = Action::Insert(shared.unique());
        let sent = shared.moment();
        let answer = session
            .run(register, action)
            .await
            .map_err(|failure| format!("no row could be inserted: {failure:?}"))?;
        shared.answered(
            register,
            Operation {
                client: 0,
                sent,
                answered: sent,
                action,
                answer,
            },
        );
    }
    shared.note("work begins");
    shared.run().phase = Phase::Work;
    let members = shared.members();
    let leaver = tokio::spawn(control::usher(shared.clone()));
    let workers: Vec<_> = (1..=CLIENTS)
        .map(|number| tokio::spawn(workload::client(shared.clone(), number, seed)))
        .chain(definers(&shared, seed))
        .chain(
            members
                .iter()
                .map(|node| tokio::spawn(steady::client(shared.clone(), *node, seed))),
        )
        .chain(
            members
                .iter()
                .map(|node| tokio::spawn(witness::client(shared.clone(), *node, seed))),
        )
        .chain(
            (1..=serializable::CLIENTS)
                .map(|number| tokio::spawn(serializable::client(shared.clone(), recorder.clone(), number, seed))),
        )
        .collect();
    for worker in workers {
        worker.await?;
    }
    leaver.await??;
    control::whole(&shared.members(), BECOMES_WHOLE_WITHIN)
        .await
        .map_err(|what| format!("after the last fault: {what}"))?;
    if movers::moves_tables(seed) {
        movers::are_over(&shared.members()).await?;
    }
    shared.note("whole again");
    counters::count_the_rest(&shared).await?;
    for node in shared.members() {
        read_all_from(node, &shared).await?;
    }
    zones::check(&shared, seed).await?;
    let checked = serializable::check(&recorder, shared.members(), seed).await?;
    if shared.archive.is_some() && restored::is_of_the_newest(seed) {
        sleep(ARCHIVED_WITHIN).await;
    }
    let mut run = shared.run();
    run.checked = checked;
    run.phase = Phase::Done;
    Ok(())
}

/// Those who change tables, where there are any.
fn definers(shared: &Shared, seed: u64) -> Vec<JoinHandle<()>> {
    let movers = (0..movers::movers(seed)).map(|number| tokio::spawn(movers::mover(shared.clone(), number, seed)));
    if !plan::changes_tables(seed) {
        return movers.collect();
    }
    let members = shared.members().into_iter();
    let writers = members.map(|node| tokio::spawn(columns::writer(shared.clone(), node, seed)));
    [tokio::spawn(tables::client(shared.clone(), seed))]
        .into_iter()
        .chain([tokio::spawn(columns::changer(shared.clone(), seed))])
        .chain(writers)
        .chain(movers)
        .collect()
}

/// Every register and the whole ledger, by way of this node.
async fn read_all_from(node: u32, shared: &Shared) -> turmoil::Result {
    let session = Session::open(node)
        .await
        .ok_or_else(|| format!("node {node} takes no session at the end"))?;
    for register in 1..=REGISTERS {
        let sent = shared.moment();
        let action = Action::Read;
        let found = session
            .read_within(LAST_ANSWER_TIMEOUT, register)
            .await
            .map_err(|failure| format!("node {node} does not read register {register}: {failure:?}"))?;
        let answer = Answer::Found(found.map(|(value, _)| value));
        shared.answered(
            register,
            Operation {
                client: 100 + node,
                sent,
                answered: sent,
                action,
                answer,
            },
        );
    }
    let found = session
        .ledger()
        .await
        .map_err(|failure| format!("node {node} does not read the ledger: {failure:?}"))?;
    let client = sql::connect(node)
        .await
        .ok_or_else(|| format!("node {node} takes no session"))?;
    tables::check(&client, shared)
        .await
        .map_err(|fault| format!("read from node {node}: {fault}"))?;
    counters::check(&session, node, shared).await?;
    accounts::check(&client, node, shared).await?;
    columns::check(&client, node).await?;
    voter::check(&client, node, shared).await?;
    steady::check(&client, node, shared).await?;
    let run = shared.run();
    run.ledger
        .check(&found)
        .map_err(|fault| format!("invariant 1, read from node {node}: {fault:?}"))?;
    match run.torn(&found) {
        Some(pair) => Err(format!("invariant 5, read from node {node}: half of {pair:?} is there").into()),
        None => Ok(()),
    }
}

/// Invariants 1 and 2 over the registers' histories.
pub(crate) fn registers_are_linearizable(shared: &Shared) -> Result<(), String> {
    for (register, operations) in shared.run().history.registers() {
        match linearizable::check(operations) {
            Verdict::Linearizable => {}
            other => return Err(format!("register {register} is not linearisable: {other:?}")),
        }
    }
    Ok(())
}

/// Those, and 4 over the living nodes' replicas.
fn check(shared: &Shared) -> Result<usize, String> {
    registers_are_linearizable(shared)?;
    let nodes: Vec<_> = shared
        .run()
        .nodes
        .iter()
        .filter_map(|(id, node)| Some((*id, node.upgrade()?)))
        .collect();
    let mut sums = Vec::new();
    for (node, running) in &nodes {
        for (partition, lsn, checksum) in running.replica_checksums() {
            sums.push(ReplicaSum {
                node: *node,
                partition,
                lsn,
                checksum,
            });
        }
    }
    replicas::check(&sums).map_err(|divergence| format!("invariant 4: {divergence:?}"))
}

/// A run's cluster; what goes wrong with it is in `faults`.
pub(crate) struct Cluster {
    pub(crate) sim: Sim<'static>,
    pub(crate) shared: Shared,
    pub(crate) disks: Vec<Arc<SimulatedDisk>>,
    pub(crate) links: Arc<Faults>,
    pub(crate) seed: u64,
    /// Pairs of hosts whose messages are held, and the nodes whose faults want that.
    pub(crate) held: BTreeMap<(String, String), BTreeSet<u32>>,
    plan: Vec<Fault>,
    /// Simulated time of an earlier cluster.
    before: Duration,
}

impl Cluster {
    fn new(seed: u64, shared: Shared) -> Self {
        let client = clients(seed, shared.clone());
        let mut cluster = Self::of(seed, seed, shared, client);
        cluster.plan = plan::plan(seed);
        cluster
    }

    /// Of this seed, on a network of that one, with this for its clients, and without faults.
    pub(crate) fn of(
        seed: u64,
        rng_seed: u64,
        shared: Shared,
        client: impl Future<Output = turmoil::Result> + 'static,
    ) -> Self {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(LIMIT)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(MAX_LATENCY)
            .tcp_capacity(4096)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_micros(EPOCH_MICROS as u64))
            .enable_random_order()
            .rng_seed(rng_seed)
            .build();
        sim.client(CLIENT_HOST, client);
        let mut cluster = Self {
            sim,
            shared,
            disks: Vec::new(),
            links: Arc::default(),
            held: BTreeMap::new(),
            seed,
            plan: Vec::new(),
            before: determinism::time(),
        };
        (0..plan::nodes(seed)).for_each(|_| cluster.add_node());
        cluster
    }

    /// One more node, with nothing on its disk.
    pub(crate) fn add_node(&mut self) {
        let seed = self.seed;
        let node = self.disks.len() as u32 + 1;
        let disk = SimulatedDisk::new(SimulatedRandom::new(mix(seed ^ (u64::from(node) << 16))), true);
        self.disks.push(Arc::clone(&disk));
        self.shared.run().members.insert(node);
        let (links, shared) = (Arc::clone(&self.links), self.shared.clone());
        self.sim.host(name(node), move || {
            process(node, seed, Arc::clone(&disk), Arc::clone(&links), shared.clone())
        });
    }

    /// Steps to the end; faults begin and end between steps.
    pub(crate) fn run(mut self) -> Result<(Duration, usize), String> {
        let mut work_began = None;
        let mut begun = 0;
        let mut active: Vec<Fault> = Vec::new();
        let mut end = plan::end(&self.plan) + WORK_AFTER;
        loop {
            let is_over = self.sim.step().map_err(|error| error.to_string())?;
            let now = self.sim.elapsed();
            determinism::time_is(self.before + now);
            if let Some(panic) = determinism::panicked() {
                return Err(format!("a task panicked: {panic}"));
            }
            let phase = self.shared.run().phase;
            if is_over {
                // Checked here, while the nodes still live.
                return check(&self.shared).map(|compared| (now, compared));
            }
            self.bury();
            let age = (phase == Phase::Work).then(|| now - *work_began.get_or_insert(now));
            self.look_at_the_archive(now, age);
            let Some(age) = age else { continue };
            active = active.into_iter().map(|fault| self.met(fault, age)).collect();
            active.iter().for_each(|fault| self.flap(*fault, age));
            let (over, goes_on): (Vec<_>, Vec<_>) =
                active.into_iter().partition(|fault| age >= fault.at + fault.limit());
            active = goes_on;
            for fault in over {
                self.put_right(fault);
                end = end.max(age + WORK_AFTER);
            }
            while let Some(fault) = self.plan.get(begun).copied() {
                if age < fault.at || !(active.is_empty() || fault.overlaps) {
                    break;
                }
                begun += 1;
                let wrong = self.go_wrong(Fault { at: age, ..fault }, &active);
                active.extend(wrong.inspect(|fault| self.flap(*fault, age)));
                end = end.max(age + WORK_AFTER);
            }
            if age >= end && active.is_empty() && begun == self.plan.len() {
                self.shared.run().phase = Phase::Heal;
            }
        }
    }
}

/// The folder of traces; `SIMULATION_TRACES` names another one.
pub fn traces() -> PathBuf {
    let given = std::env::var_os("SIMULATION_TRACES").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulation"))
}

/// Where a run's trace is kept.
pub fn trace_file(seed: u64) -> PathBuf {
    traces().join(format!("seed-{seed}.trace"))
}

/// Whether the run proves anything: one in which all was refused, or no two replicas could be compared, checks nothing.
pub fn did_something(outcome: &Outcome) -> bool {
    let (answered, _, _) = outcome.counts;
    answered >= MIN_ANSWERED && outcome.compared > 0 && outcome.checked.happened >= serializable::MIN_HAPPENED
}
