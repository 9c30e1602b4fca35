//! Commands about the session itself, which the database knows nothing of: DEALLOCATE and DISCARD.

/// Such a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionCommand {
    /// `DEALLOCATE [PREPARE] name`.
    Deallocate(String),
    /// `DEALLOCATE ALL`.
    DeallocateAll,
    /// `DISCARD ALL`.
    DiscardAll,
}

impl SessionCommand {
    /// The command in this text; None: it is something else.
    pub(crate) fn parse(sql: &str) -> Option<Self> {
        let sql = sql.trim_start();
        if !matches!(sql.as_bytes().first(), Some(b'd' | b'D')) {
            return None;
        }
        let mut words = sql
            .trim_end_matches([';', ' ', '\t', '\r', '\n'])
            .split_ascii_whitespace();
        let first = words.next()?;
        let is = |word: &str, keyword: &str| word.eq_ignore_ascii_case(keyword);
        let (mut second, mut third) = (words.next()?, words.next());
        if is(first, "DEALLOCATE") && is(second, "PREPARE") && third.is_some() {
            second = third.take()?;
            third = words.next();
        }
        if third.is_some() {
            return None;
        }
        match () {
            () if is(first, "DEALLOCATE") && is(second, "ALL") => Some(Self::DeallocateAll),
            () if is(first, "DEALLOCATE") => Some(Self::Deallocate(identifier(second))),
            () if is(first, "DISCARD") && is(second, "ALL") => Some(Self::DiscardAll),
            () => None,
        }
    }

    /// Its command tag.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Self::Deallocate(_) => "DEALLOCATE",
            Self::DeallocateAll => "DEALLOCATE ALL",
            Self::DiscardAll => "DISCARD ALL",
        }
    }
}

/// A name as SQL means it: as it is in quotes, else in lower case.
fn identifier(word: &str) -> String {
    match word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => word.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::SessionCommand::{self, *};

    #[test]
    fn commands() {
        let parse = SessionCommand::parse;
        assert_eq!(parse(" deallocate all ;"), Some(DeallocateAll));
        assert_eq!(parse("DEALLOCATE PREPARE Foo"), Some(Deallocate("foo".into())));
        assert_eq!(parse("DEALLOCATE \"S_1\""), Some(Deallocate("S_1".into())));
        assert_eq!(parse("DISCARD ALL"), Some(DiscardAll));
        assert_eq!(parse("DELETE FROM a"), None);
        assert_eq!(parse("DROP TABLE a"), None);
        assert_eq!(parse("DEALLOCATE"), None);
        assert_eq!(parse("D"), None);
    }
}
