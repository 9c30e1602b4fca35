//! LIKE.

use crate::error::StatementError;

/// `%` any run, `_` any one character, `\` takes the next as it is.
///
/// When something doesn't match, only the last `%` takes one more: at worst |value| * |pattern| steps.
pub(crate) fn matches_like(value: &str, pattern: &str) -> Result<bool, StatementError> {
    let (mut value, mut pattern) = (value.chars(), pattern.chars());
    // After the last `%`: the pattern behind it, and the value from where it would go on next.
    let mut retry = None;
    loop {
        let (value_before, pattern_before) = (value.clone(), pattern.clone());
        match (pattern.next(), value.next()) {
            (Some('%'), _) => {
                value = value_before;
                retry = Some((pattern.clone(), value.clone()));
                continue;
            }
            (None, None) => return Ok(true),
            (Some('_'), Some(_)) => continue,
            (Some('\\'), found) => match pattern.next() {
                None => return Err(StatementError::InvalidEscape),
                literal if literal == found => continue,
                _ => {}
            },
            (literal, found) if literal == found => continue,
            _ => {}
        }
        drop((value_before, pattern_before));
        let Some((behind, mut from)) = retry.take() else { return Ok(false) };
        if from.next().is_none() {
            return Ok(false);
        }
        (pattern, value) = (behind.clone(), from.clone());
        retry = Some((behind, from));
    }
}

#[cfg(test)]
mod tests {
    use super::matches_like;

    #[test]
    fn as_postgresql_does_it() {
        let cases = [
            ("abc", "abc", true), ("abc", "a%", true), ("abc", "%c", true), ("abc", "_b_", true), ("abc", "", false),
            ("", "", true), ("", "%", true), ("", "_", false), ("abc", "ab", false), ("ab", "abc", false),
            ("aXbXc", "a%b%c", true), ("mississippi", "%iss%ip%", true), ("mississippi", "%iss%ipx", false),
            ("100%", "100\\%", true), ("1000", "100\\%", false), ("a_b", "a\\_b", true), ("axb", "a\\_b", false),
            ("a\\b", "a\\\\b", true), ("äöü", "_ö_", true), ("äöü", "%ü", true), ("aab", "%ab", true),
            ("ab\n", "ab_", true), ("%", "\\%", true), ("abab", "%ab", true),
        ];
        for (value, pattern, expected) in cases {
            assert_eq!(matches_like(value, pattern), Ok(expected), "{value} LIKE {pattern}");
        }
        assert!(matches_like("a\\", "a\\").is_err());
    }
}
