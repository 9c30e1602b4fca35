//! What happened, line by line: written to a file, and hashed so that two runs can be compared.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A growing trace; clones share it.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<u8>>>);

impl Trace {
    /// One more line.
    pub fn line(&self, micros: u64, what: &str) {
        let line = format!("{:>4}.{:06} {what}\n", micros / 1_000_000, micros % 1_000_000);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(line.as_bytes());
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// FNV-1a of all of it: the same number, the same run.
    pub fn hash(&self) -> u64 {
        let bytes = self.bytes();
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    /// Writes it to a file, with its folder.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.bytes())
    }
}

/// For a `tracing` subscriber: what the nodes log becomes part of the trace.
impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_compared() {
        let (a, b) = (Trace::default(), Trace::default());
        a.line(1_500_000, "one");
        b.line(1_500_000, "one");
        assert_eq!(a.hash(), b.hash());
        b.line(2, "two");
        assert_ne!(a.hash(), b.hash());
        assert_ne!(a.hash(), b.hash());
        assert!(a.bytes().starts_with(b"   1.500000 one"));
    }
}
