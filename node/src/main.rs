//! `volt-node`: arguments only; each command lives in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use volt_node::{WORKER_STACK_BYTES, bench, cli, dev};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A distributed, in-memory SQL database that speaks the PostgreSQL protocol.
#[derive(Parser)]
#[command(name = "volt-node", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one node
    Start(Box<cli::start::Start>),
    /// Makes a new cluster of one node, which others can join
    Init(cli::init::Init),
    /// Makes one node that is left the metadata group, when a majority of it is gone for good
    RecoverQuorum(cli::recover_quorum::RecoverQuorum),
    /// Runs a cluster on this machine
    Dev(Box<dev::DevArguments>),
    /// Runs SQL statements and prints what comes of them
    Sql(cli::sql::Sql),
    /// Measures
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Kills nodes of a cluster of its own, and prints how long writes stop
    Failover(bench::failover::FailoverArguments),
    /// What writers lose while a node is filled
    Fill(bench::fill::FillArguments),
    /// Serves the least that a server can do, as a ceiling to hold the gateway against
    BareLoop(bench::bare_loop::BareLoopArguments),
    /// Executes one prepared statement over and over, in pipelines, and prints how often a second
    Calls(bench::calls::CallsArguments),
    /// Writes a log and a checkpoint, and prints how fast a start reads them back
    Replay(bench::replay::ReplayArguments),
    /// Appends records to a log, and prints how fast they are safe
    Log(bench::log::LogArguments),
}

fn main() -> ExitCode {
    // Both sides may link more than one provider; an earlier choice is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(command)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volt-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(arguments) => cli::start::run(*arguments).await,
        Command::Init(arguments) => cli::init::run(arguments).await,
        Command::RecoverQuorum(arguments) => cli::recover_quorum::run(arguments).await,
        Command::Dev(arguments) => dev::run(*arguments).await,
        Command::Sql(arguments) => cli::sql::run(arguments).await,
        Command::Bench(Bench::Failover(arguments)) => bench::failover::run(arguments).await,
        Command::Bench(Bench::Fill(arguments)) => bench::fill::run(arguments).await,
        Command::Bench(Bench::BareLoop(arguments)) => bench::bare_loop::run(arguments).await,
        Command::Bench(Bench::Calls(arguments)) => bench::calls::run(arguments).await,
        Command::Bench(Bench::Replay(arguments)) => bench::replay::run(arguments).await,
        Command::Bench(Bench::Log(arguments)) => bench::log::run(arguments).await,
    }
}
