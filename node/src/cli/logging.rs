//! Where log lines go, and how they look.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Arguments of every command that logs.
#[derive(Args, Clone, Debug)]
pub struct LogArguments {
    /// What to log: a level, or levels by module as in `info,volt_node::gateway=debug`
    #[arg(long, env = "VOLT_LOG", default_value = "info,openraft=warn")]
    log: String,
    /// How a log line looks
    #[arg(long, env = "VOLT_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

/// Starts logging to standard error.
pub fn start(arguments: &LogArguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
