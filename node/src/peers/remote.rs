//! Connections to databases that are no nodes of this cluster.

use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

use crate::config::RemoteDatabase;
use crate::world::World;

/// Carries a connection's messages as long as it is kept.
pub(crate) type Carrier = AbortOnDropHandle<()>;

/// Connects to one of a database's servers, another one with each number; or why that can't be done.
pub(crate) async fn connect(
    world: &World,
    database: &RemoteDatabase,
    tried: usize,
) -> Result<(Client, Carrier), String> {
    let server = &database.servers[tried % database.servers.len()];
    let mut login = database.login.clone();
    if let Some(file) = &database.password_file {
        let password = world.disk.read(file).await;
        let password = password.map_err(|error| format!("{}: {error}", file.display()))?;
        login.password(password.trim_ascii_end());
    }
    let stream = world.network.connect(server).await;
    let stream = stream.map_err(|error| format!("{server}: {error}"))?;
    let (client, connection) = login.connect_raw(stream, NoTls).await.map_err(|error| told(&error))?;
    let carrier = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to another database ended");
        }
    }));
    Ok((client, carrier))
}

/// With what the server said.
pub(crate) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{}: {}", said.code().code(), said.message()),
        None => error.to_string(),
    }
}
