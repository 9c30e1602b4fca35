//! What a SQL client can be told went wrong: the one place that maps causes to SQLSTATEs.

use volt_engine::error::StatementError;

/// An error for a SQL client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct SqlError {
    /// Five characters, PostgreSQL's.
    pub sqlstate: String,
    /// One sentence.
    pub message: String,
    /// More, when there is more.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where in the statement's text, in characters from 1.
    pub position: Option<u32>,
}

impl SqlError {
    /// An error with this SQLSTATE.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// The same with a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a position in the text, in characters from 1.
    pub fn at(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }

    /// The same with its position, if it has one, counted from so many characters earlier.
    pub fn shifted(mut self, characters: u32) -> Self {
        self.position = self.position.map(|position| position.saturating_add(characters));
        self
    }

    /// 0A000: not offered.
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new("0A000", format!("{what} is not supported"))
    }

    /// 57P03: this node, or the partition, can't serve now; nothing was done. Retrying is safe.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new("57P03", why)
    }

    /// 40003: the statement may or may not have happened (its node died or was deposed before it was committed).
    pub fn unknown_outcome(why: impl Into<String>) -> Self {
        Self::new("40003", why)
    }

    /// The same error of what comes after a change that was made: that nothing can be served now must not be taken for that nothing was done.
    #[must_use]
    pub fn after_change(mut self) -> Self {
        if self.sqlstate == "57P03" {
            self.sqlstate = "40003".to_owned();
        }
        self
    }

    /// 25006: this cluster follows the archive at this URL, and takes no writes.
    pub fn of_standby(url: &str) -> Self {
        Self::new("25006", format!("this cluster is a standby of {url}")).hint("PROMOTE makes it a primary of its own.")
    }

    /// True of `unknown_outcome`.
    pub fn is_unknown_outcome(&self) -> bool {
        self.sqlstate == "40003"
    }

    /// XX000: a defect of ours.
    pub fn internal(what: impl std::fmt::Display) -> Self {
        Self::new("XX000", format!("internal error: {what}"))
    }
}

impl From<StatementError> for SqlError {
    fn from(error: StatementError) -> Self {
        let mut told = Self::new(error.sqlstate(), error.to_string());
        match error {
            StatementError::DuplicateKey { detail, .. } | StatementError::CheckViolation { detail, .. } => {
                told.detail = Some(detail)
            }
            StatementError::Raised {
                sqlstate, detail, hint, ..
            } => {
                told = Self {
                    sqlstate,
                    detail,
                    hint,
                    ..told
                }
            }
            _ => {}
        }
        told
    }
}
