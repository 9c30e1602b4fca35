//! Measurements that anybody can run: `volt-node bench ...`.

pub mod bare_loop;
pub mod calls;
#[doc(hidden)]
pub mod catalog;
pub mod failover;
pub mod replay;
