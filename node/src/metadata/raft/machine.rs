//! The state machine: applies committed commands to the cluster map, publishes it, and keeps a snapshot of it on disk
//! (`metadata/snapshot`: header, length, CRC-32C, body), so that the log stays short.

use std::io::{self, Cursor};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageIOError, StoredMembership,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Failure, Group, MemberId, corrupt};
use crate::metadata::apply::{apply, take_for_members};
use crate::metadata::command::{Applied, CommandResult, Refusal};
use crate::metadata::map::ClusterMap;
use crate::world::{Disk, Planted, PlantedBug};

const FILE: &str = "metadata/snapshot";
const HEADER: &[u8; 8] = b"VOLTMSN1";

/// What a snapshot holds.
#[derive(Clone, Default, Serialize, Deserialize)]
struct State {
    applied: Option<LogId<MemberId>>,
    membership: StoredMembership<MemberId, BasicNode>,
    map: ClusterMap,
}

/// Where the newest map and the place in the log up to which it is applied are to be seen.
#[derive(Default)]
pub(crate) struct Published {
    /// The map.
    pub map: watch::Sender<Arc<ClusterMap>>,
    /// Index of the last applied entry; never ahead of the map.
    pub index: watch::Sender<u64>,
    /// The map's catalog version, for who asks at every statement; never behind the map.
    pub catalog_version: AtomicU64,
}

/// The state machine.
pub(crate) struct Machine {
    disk: Arc<dyn Disk>,
    state: State,
    newest: Newest,
    publish: Arc<Published>,
    planted: Planted,
}

/// The newest snapshot, shared with those who build the next one.
type Newest = Arc<Mutex<Option<(SnapshotMeta<MemberId, BasicNode>, Bytes)>>>;

impl Machine {
    /// As the last snapshot left it.
    pub(crate) async fn open(disk: Arc<dyn Disk>, publish: Arc<Published>, planted: Planted) -> io::Result<Self> {
        let mut machine = Self {
            disk,
            state: State::default(),
            newest: Newest::default(),
            publish,
            planted,
        };
        match machine.disk.read(Path::new(FILE)).await {
            Ok(file) => {
                let bytes = unwrap_file(&file).ok_or_else(|| corrupt(FILE))?;
                machine.state = postcard::from_bytes(&bytes).map_err(|_| corrupt(FILE))?;
                *machine.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    Some((meta(&machine.state), bytes));
                machine.publish();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(machine)
    }

    /// The map, the membership and the place in the log that the snapshot and these entries make, whether they were committed or not.
    pub(super) fn with_all(
        mut self,
        entries: Vec<Entry<Group>>,
    ) -> (ClusterMap, StoredMembership<MemberId, BasicNode>) {
        for entry in entries {
            // What was refused changes nothing, here as there.
            let _ = self.apply_one(entry);
        }
        (self.state.map, self.state.membership)
    }

    /// The place in the log of the snapshot.
    pub(super) fn applied(&self) -> Option<LogId<MemberId>> {
        self.state.applied
    }

    fn publish(&self) {
        let newest = self.publish.map.borrow().version;
        if newest != self.state.map.version {
            let catalog_version = self.state.map.catalog_version;
            self.publish.catalog_version.store(catalog_version, Ordering::Release);
            self.publish.map.send_replace(Arc::new(self.state.map.clone()));
        }
        self.publish
            .index
            .send_replace(self.state.applied.map_or(0, |id| id.index));
    }

    fn apply_one(&mut self, entry: Entry<Group>) -> CommandResult {
        self.state.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Applied::Done),
            EntryPayload::Membership(membership) => {
                self.state.membership = StoredMembership::new(Some(entry.log_id), membership);
                Ok(Applied::Done)
            }
            EntryPayload::Normal(command) => {
                if command.term().is_some_and(|term| term != entry.log_id.leader_id.term) {
                    return Err(Refusal::NotAllowed("decided in another leader's term".to_owned()));
                }
                if self.planted.has(PlantedBug::StaleReplicaPromoted) {
                    take_for_members(&mut self.state.map, &command);
                }
                let text = tracing::enabled!(tracing::Level::DEBUG).then(|| format!("{command:?}"));
                let result = apply(&mut self.state.map, command);
                tracing::debug!(index = entry.log_id.index, command = text, ?result, "applied");
                result
            }
        }
    }
}

fn meta(state: &State) -> SnapshotMeta<MemberId, BasicNode> {
    let id = state.applied.map_or_else(
        || "empty".to_owned(),
        |id| format!("{}-{}", id.leader_id.term, id.index),
    );
    SnapshotMeta {
        last_log_id: state.applied,
        last_membership: state.membership.clone(),
        snapshot_id: id,
    }
}

fn wrap_file(body: &[u8]) -> Bytes {
    let mut file = HEADER.to_vec();
    file.extend_from_slice(&(body.len() as u64).to_le_bytes());
    file.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    file.extend_from_slice(body);
    file.into()
}

fn unwrap_file(file: &Bytes) -> Option<Bytes> {
    let rest = file.strip_prefix(HEADER)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (checksum, body) = rest.split_first_chunk::<4>()?;
    let whole =
        body.len() as u64 == u64::from_le_bytes(*length) && crc32c::crc32c(body) == u32::from_le_bytes(*checksum);
    whole.then(|| file.slice_ref(body))
}

fn writing(error: &(impl std::error::Error + 'static)) -> Failure {
    StorageIOError::write_snapshot(None, AnyError::new(error)).into()
}

fn as_snapshot(meta: SnapshotMeta<MemberId, BasicNode>, bytes: &Bytes) -> Snapshot<Group> {
    Snapshot {
        meta,
        snapshot: Box::new(Cursor::new(bytes.to_vec())),
    }
}

/// Builds a snapshot of the state as it was when it was asked for.
pub(crate) struct Builder {
    disk: Arc<dyn Disk>,
    state: State,
    newest: Newest,
}

impl RaftSnapshotBuilder<Group> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Group>, Failure> {
        let body = postcard::to_stdvec(&self.state).map_err(|error| writing(&error))?;
        let (meta, file) = (meta(&self.state), wrap_file(&body));
        self.disk
            .write_atomic(Path::new(FILE), file)
            .await
            .map_err(|error| writing(&error))?;
        let bytes = Bytes::from(body);
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *newest = Some((meta.clone(), bytes.clone()));
        Ok(as_snapshot(meta, &bytes))
    }
}

impl RaftStateMachine<Group> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<MemberId>>, StoredMembership<MemberId, BasicNode>), Failure> {
        Ok((self.state.applied, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<CommandResult>, Failure>
    where
        I: IntoIterator<Item = Entry<Group>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let results = entries.into_iter().map(|entry| self.apply_one(entry)).collect();
        self.publish();
        Ok(results)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            disk: Arc::clone(&self.disk),
            state: self.state.clone(),
            newest: Arc::clone(&self.newest),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<MemberId, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        let bytes = Bytes::from(snapshot.into_inner());
        let state: State = postcard::from_bytes(&bytes).map_err(|error| writing(&error))?;
        self.disk
            .write_atomic(Path::new(FILE), wrap_file(&bytes))
            .await
            .map_err(|error| writing(&error))?;
        self.state = state;
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *newest = Some((meta.clone(), bytes));
        drop(newest);
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Group>>, Failure> {
        let newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(newest.as_ref().map(|(meta, bytes)| as_snapshot(meta.clone(), bytes)))
    }
}
