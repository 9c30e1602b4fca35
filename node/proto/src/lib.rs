//! The gRPC contracts of VoltCluster. The words are in `proto/volt/v1/*.proto`; this crate knows nothing else.

/// `control.proto` (operator to node) and `peer.proto` (node to node).
pub mod v1 {
    #![allow(missing_docs, unused_qualifications, clippy::all)] // generated from the documented .proto files
    tonic::include_proto!("volt.v1");
}

/// The largest message of any call, in bytes: batches and chunks are cut below it.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;
