//! Another database that nodes speak to, from a URL: what can't be used is refused at once.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The port of a URL that names none.
const DEFAULT_PORT: u16 = 5432;
/// As what a node presents itself.
const APPLICATION: &str = "volt-node";

/// A database that speaks PostgreSQL's protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDatabase {
    /// Whom to be and where; without a password.
    pub login: Config,
    /// `host:port` of each of its servers, in the order in which they are tried.
    pub servers: Vec<String>,
    /// The file that has the password; it is read at each connection, so that it may change.
    pub password_file: Option<PathBuf>,
}

impl RemoteDatabase {
    /// From `postgres://USER@HOST:PORT/DATABASE`, or why not. What is said of it never has the URL, which may hold a secret.
    pub fn new(url: &str, password_file: Option<PathBuf>) -> Result<Self, String> {
        // The driver's own words may quote a part of the URL.
        let mut login = Config::from_str(url).map_err(|_| "it is no postgres:// URL".to_owned())?;
        if login.get_password().is_some() {
            return Err("it has a password in it, which others can see; name a file that has it".to_owned());
        }
        if login.get_user().is_none() {
            return Err("it names no user".to_owned());
        }
        if !matches!(login.get_ssl_mode(), SslMode::Disable | SslMode::Prefer) {
            return Err(
                "sslmode: a node speaks to a database without TLS, only disable and prefer can be kept".to_owned(),
            );
        }
        login.ssl_mode(SslMode::Disable);
        login.application_name(APPLICATION);
        let servers = servers(&login)?;
        Ok(Self {
            login,
            servers,
            password_file,
        })
    }
}

fn servers(login: &Config) -> Result<Vec<String>, String> {
    let (hosts, ports) = (login.get_hosts(), login.get_ports());
    if hosts.is_empty() {
        return Err("it names no host".to_owned());
    }
    let server = |(place, host): (usize, &Host)| {
        let port = ports.get(place).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        match host {
            Host::Tcp(host) => Ok(super::join_host_port(host, port)),
            #[cfg(unix)]
            Host::Unix(_) => Err("it names a Unix socket, which no other machine has".to_owned()),
        }
    };
    hosts.iter().enumerate().map(server).collect()
}

impl fmt::Display for RemoteDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.login.get_user().unwrap_or_default();
        let database = self.login.get_dbname().unwrap_or(user);
        let servers = self.servers.join(", ");
        write!(formatter, "database {database} of {servers}, as {user}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        RemoteDatabase::new(url, None).unwrap_err()
    }

    #[test]
    fn servers_in_their_order() {
        let database = RemoteDatabase::new("postgres://a@one:5433,two:5434/x", None).unwrap();
        assert_eq!(database.servers, ["one:5433", "two:5434"]);
        let database = RemoteDatabase::new("postgresql://a@[::1]/x", None).unwrap();
        assert_eq!(database.servers, ["[::1]:5432"]);
    }

    #[test]
    fn what_can_not_be_used_is_refused_and_no_secret_is_told() {
        for url in ["http://a@b", "postgres://a:hush@b:port/x", "postgres://a:hush@b/x"] {
            assert!(!refused(url).contains("hush"), "{}", refused(url));
        }
        assert!(refused("postgres://b/x").contains("no user"));
        assert!(refused("postgres://a@/x").contains("no host"));
        assert!(refused("postgres://a@%2Frun%2Fpostgresql/x").contains("Unix socket"));
        assert!(refused("postgres://a@b/x?sslmode=require").contains("TLS"));
    }
}
