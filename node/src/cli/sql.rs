//! `volt-node sql`: runs statements and prints what comes of them, where there is no psql.

use std::io::{IsTerminal, Read};

use anyhow::bail;
use clap::Args;
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

/// Arguments of `volt-node sql`.
#[derive(Args, Clone, Debug)]
pub struct Sql {
    /// The node's host
    #[arg(long, env = "PGHOST", default_value = "127.0.0.1")]
    host: String,
    /// Its SQL port
    #[arg(short, long, env = "PGPORT", default_value_t = crate::config::DEFAULT_SQL_PORT)]
    port: u16,
    /// The user
    #[arg(short = 'U', long, env = "PGUSER", default_value = "volt")]
    user: String,
    /// The database
    #[arg(short, long, env = "PGDATABASE", default_value = crate::config::DATABASE)]
    database: String,
    /// The statements; without it they are read from standard input
    #[arg(short, long)]
    command: Vec<String>,
    /// Rows only, values separated by `|`
    #[arg(short = 'A', long)]
    plain: bool,
}

/// Runs the statements; the first error ends it.
pub async fn run(arguments: Sql) -> anyhow::Result<()> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&arguments.host)
        .port(arguments.port)
        .user(&arguments.user)
        .dbname(&arguments.database);
    config
        .connect_timeout(tokio::time::Duration::from_secs(10))
        .application_name("volt-node sql");
    let (client, mut connection) = match config.connect(NoTls).await {
        Ok(connected) => connected,
        Err(error) => bail!(
            "cannot connect to {}:{}: {}",
            arguments.host,
            arguments.port,
            explain(&error)
        ),
    };
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                eprintln!("{}:  {}", notice.severity(), notice.message());
            }
        }
    });
    for sql in texts(&arguments)? {
        let messages = match client.simple_query(&sql).await {
            Ok(messages) => messages,
            Err(error) => bail!("{}", explain(&error)),
        };
        print!("{}", shown(&messages, arguments.plain));
    }
    Ok(())
}

fn texts(arguments: &Sql) -> anyhow::Result<Vec<String>> {
    if !arguments.command.is_empty() {
        return Ok(arguments.command.clone());
    }
    if std::io::stdin().is_terminal() {
        bail!("give statements with -c, or on standard input");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(vec![text])
}

/// An error as psql words it.
fn explain(error: &tokio_postgres::Error) -> String {
    let Some(error) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        return format!("{error}{}", cause.unwrap_or_default());
    };
    let mut text = format!(
        "{}:  {} (SQLSTATE {})",
        error.severity(),
        error.message(),
        error.code().code()
    );
    for (word, more) in [("DETAIL", error.detail()), ("HINT", error.hint())] {
        if let Some(more) = more {
            text.push_str(&format!("\n{word}:  {more}"));
        }
    }
    text
}

fn shown(messages: &[SimpleQueryMessage], plain: bool) -> String {
    let mut text = String::new();
    let mut table: Option<Vec<Vec<String>>> = None;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table = Some(vec![columns.iter().map(|column| column.name().to_owned()).collect()]);
            }
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|place| row.get(place).unwrap_or("").to_owned());
                table.get_or_insert_default().push(values.collect());
            }
            SimpleQueryMessage::CommandComplete(count) => match table.take() {
                Some(table) if plain => table
                    .iter()
                    .skip(1)
                    .for_each(|row| text.push_str(&(row.join("|") + "\n"))),
                Some(table) => text.push_str(&aligned(&table)),
                None if plain => {}
                None => text.push_str(&format!("OK {count}\n")),
            },
            _ => {}
        }
    }
    text
}

/// A table whose first row is its heading.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let wide = |place: usize| {
        table
            .iter()
            .filter_map(|row| row.get(place))
            .map(|value| value.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|place| wide(place).unwrap_or(0)).collect();
    let mut text = String::new();
    for (place, row) in table.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(value, width)| format!(" {value:<width$} "));
        text.push_str(cells.collect::<Vec<_>>().join("|").trim_end());
        text.push('\n');
        if place == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            text.push_str(&(rules.join("+") + "\n"));
        }
    }
    let rows = table.len().saturating_sub(1);
    text.push_str(&format!("({rows} row{})\n\n", if rows == 1 { "" } else { "s" }));
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_table_is_aligned() {
        let row = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let table = [row(&["id", "name"]), row(&["1", "Alice"]), row(&["22", ""])];
        let expected = " id | name\n----+-------\n 1  | Alice\n 22 |\n(2 rows)\n\n";
        assert_eq!(super::aligned(&table), expected);
    }
}
