//! Who this node is, for good: the `identity` file of its data directory. Written once, when the node is initialised or
//! has joined; a node without one may join a cluster, and never makes one by itself.

use std::io;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use volt_engine::NodeId;

use crate::world::Disk;

const FILE: &str = "identity";
/// The first line; the second is the CRC-32C of the rest, which is JSON, so that a person can read it.
const HEADER: &str = "volt-identity 1";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster's UUID, as text.
    pub cluster_uuid: String,
    /// The node's number.
    pub node_id: NodeId,
    /// New with every empty data directory.
    pub incarnation: u64,
    /// Set on the first node: what it made the cluster with, so that an initialisation that a crash interrupted is finished.
    pub founded_with: Option<Founding>,
}

/// What a cluster begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Partitions of each replication group; 0: the default.
    pub partitions: u32,
    /// It is to become what an archived one was.
    pub awaits_restoration: bool,
}

/// Reads it; None: the data directory has none.
pub(crate) async fn read(disk: &dyn Disk) -> io::Result<Option<Identity>> {
    let bytes = match disk.read(Path::new(FILE)).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let identity = decode(&bytes).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the data directory's identity, {FILE}, is corrupt"),
        )
    })?;
    Ok(Some(identity))
}

/// Writes it, whole or not at all.
pub(crate) async fn write(disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
    disk.write_atomic(Path::new(FILE), encode(identity)?).await
}

fn encode(identity: &Identity) -> io::Result<Bytes> {
    let json = serde_json::to_string(identity).map_err(io::Error::other)?;
    Ok(format!("{HEADER}\n{:08x}\n{json}\n", crc32c::crc32c(json.as_bytes())).into())
}

fn decode(bytes: &[u8]) -> Option<Identity> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let (header, checksum, json) = (lines.next()?, lines.next()?, lines.next()?);
    let intact = header == HEADER && checksum == format!("{:08x}", crc32c::crc32c(json.as_bytes()));
    intact.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let cluster_uuid = "0b3c".to_owned();
        let identity = Identity {
            cluster_uuid,
            node_id: 3,
            incarnation: 2,
            founded_with: Some(Founding {
                partitions: 12,
                awaits_restoration: true,
            }),
        };
        let bytes = encode(&identity).unwrap();
        assert_eq!(decode(&bytes), Some(identity));
        let mut bad = bytes.to_vec();
        bad[30] ^= 1;
        assert_eq!(decode(&bad), None);
    }
}
