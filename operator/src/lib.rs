//! The operator of VoltCluster: keeps every `VoltCluster` of a Kubernetes as its owner wants it. It observes the world,
//! decides by a pure function, and applies what was decided; see `docs/architecture/operator.md`.

pub mod apply;
pub mod controller;
pub mod crd;
pub mod decide;
pub mod heartbeats;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod resources;
