//! Who lives, who is dead, and who takes over. Detectors turn what was seen into evidence, `verdict` turns evidence
//! into verdicts, `promotion` and `rebalance` turn those and the map into changes: all of it pure. The loop that runs
//! where the metadata group's leader is feeds them and proposes what they say.

pub mod promotion;
pub mod rebalance;

#[cfg(test)]
mod scripts;
