//! CancelRequest: a second connection that names a session's key and stops the statement that it is running.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::world::Random;

/// What a client must know to cancel a session's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey {
    /// The session's number, in the place of PostgreSQL's process id.
    pub(crate) process: i32,
    /// A random number.
    pub(crate) secret: i32,
}

/// The keys of all open sessions.
#[derive(Default)]
pub(crate) struct CancelRegistry {
    sessions: Mutex<HashMap<CancelKey, Arc<Notify>>>,
}

/// A session's place in the registry; gone when this is dropped.
pub(crate) struct Registration {
    registry: Arc<CancelRegistry>,
    pub(crate) key: CancelKey,
    signal: Arc<Notify>,
}

impl CancelRegistry {
    pub(crate) fn register(self: &Arc<Self>, process: i32, random: &dyn Random) -> Registration {
        let key = CancelKey {
            process,
            secret: random.next_u64() as i32,
        };
        let signal = Arc::new(Notify::new());
        self.lock().insert(key, Arc::clone(&signal));
        Registration {
            registry: Arc::clone(self),
            key,
            signal,
        }
    }

    /// Stops what the session is running now; nothing if it is idle, or if there is no such session.
    pub(crate) fn cancel(&self, key: CancelKey) {
        if let Some(signal) = self.lock().get(&key) {
            signal.notify_waiters();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CancelKey, Arc<Notify>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Returns when somebody cancels what runs meanwhile.
    pub(crate) async fn cancelled(&self) {
        self.signal.notified().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.key);
    }
}
