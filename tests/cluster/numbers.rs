//! Numbers that look random, the same each time.

/// A sequence of them.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one, below a limit that is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
