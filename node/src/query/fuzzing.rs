//! Whatever text is sent as SQL: as far as it goes without a catalog. True: it was understood.

use super::procedure;
use super::{control, hint, syntax};

/// Statements: taken apart, parsed, and what they say about the session.
pub fn sql(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let _ = hint::take(text);
    let Ok(statements) = syntax::split(text) else {
        return false;
    };
    let mut is_understood = true;
    for (statement, _) in statements {
        let _ = hint::take(&statement);
        match syntax::parse(&statement) {
            Ok(syntax::Parsed::Sql(parsed)) => drop(control::control(&parsed)),
            Ok(syntax::Parsed::Procedure) => procedure::fuzzing::statement(&statement),
            Ok(_) => {}
            Err(_) => is_understood = false,
        }
    }
    is_understood
}

/// A procedure's body.
pub fn procedure(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(procedure::fuzzing::body)
}
