//! Row to partition, and partition to nodes: pure placement decisions.
