//! Spans of keys, half open: what a walk over a table covers, and what a transaction remembers of it.

use crate::key::Key;

/// The keys from `from` on, below `to`; None: up to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Key,
    pub(crate) to: Option<Key>,
}

/// The least key that is greater than all that begin so; None: there is no such key.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|&byte| byte < 0xFF)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(Key::new(&after))
}

impl Span {
    pub(crate) fn all() -> Self {
        Self {
            from: Key::least(),
            to: None,
        }
    }

    /// The keys that begin so.
    pub(crate) fn of_prefix(prefix: Key) -> Self {
        Self {
            to: after_prefix(prefix.as_bytes()),
            from: prefix,
        }
    }

    /// This key alone.
    pub(crate) fn of_key(key: &Key) -> Self {
        let from = key.clone();
        Self { from, to: None }.up_to(key, false)
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        *key >= self.from && self.to.as_ref().is_none_or(|to| key < to)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// What of it was looked at by a walk that ended with this key.
    pub(crate) fn up_to(self, last: &Key, backward: bool) -> Self {
        if backward {
            return Self {
                from: last.clone(),
                ..self
            };
        }
        let mut after = last.as_bytes().to_vec();
        after.push(0);
        Self {
            to: Some(Key::new(&after)),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_has_the_keys_that_begin_so(
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF)], 0..4),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xFE), Just(0xFF)], 0..6),
        ) {
            let range = Span::of_prefix(Key::new(&prefix));
            prop_assert_eq!(range.contains(&Key::new(&key)), key.starts_with(&prefix));
        }

        #[test]
        fn a_walk_has_looked_at_what_lies_up_to_its_last_key(
            last in prop::collection::vec(0u8..3, 0..4),
            key in prop::collection::vec(0u8..3, 0..5),
        ) {
            let (last, key) = (Key::new(&last), Key::new(&key));
            prop_assert_eq!(Span::all().up_to(&last, false).contains(&key), key <= last);
            prop_assert_eq!(Span::all().up_to(&last, true).contains(&key), key >= last);
        }
    }
}
