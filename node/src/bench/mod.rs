//! Measurements that anybody can run: `volt-node bench ...`.

pub mod failover;
