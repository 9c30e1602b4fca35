//! Whatever text is sent as a procedure.

use super::{header, parse};

/// CREATE, DROP or ALTER PROCEDURE.
pub fn statement(text: &str) {
    if let Ok(header) = header::parse_create(text) {
        let _ = body(&header.body);
    }
    let _ = header::parse_drop(text);
    let _ = header::parse_alter(text);
}

/// What stands between the dollars.
pub fn body(text: &str) -> bool {
    parse::parse_body(text).is_ok()
}
