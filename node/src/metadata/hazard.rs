//! What a node thinks of another's future; `membership/hazard.rs` makes it. It is not in the map: each node has its own.

/// How likely a node is to fail soon, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hazard {
    /// Between 0 and 1.
    pub score: f64,
    /// A phrase for each thing that speaks for it, the greatest first.
    pub reasons: Vec<String>,
}
