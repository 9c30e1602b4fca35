//! Measurements that anybody can run: `volt-node bench ...`.

pub mod bare_loop;
pub mod calls;
pub mod failover;
pub mod log;
pub mod replay;
#[cfg(test)]
mod tpcc_tests;
