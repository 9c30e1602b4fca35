//! What a module must be to be a procedure, and the SQL statements in it.

use wasmparser::{Parser, Payload};
use wasmtime::{ExternType, Module};

use crate::limits::{MAX_STATEMENT_BYTES, MAX_STATEMENTS};
use crate::{ENTRY, HOST, MEMORY, STATEMENTS_SECTION};

/// Why a module is no procedure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Five characters.
    pub sqlstate: &'static str,
    /// One sentence.
    pub message: String,
    /// More, when there is more.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Refused {
    /// 42P13: no definition of a function.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("42P13", message)
    }

    fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The SQL statements that a module's section has.
pub(crate) fn statements(bytes: &[u8]) -> Result<Vec<String>, Refused> {
    let mut texts = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| no_module(&error))?;
        if let Payload::CustomSection(section) = payload
            && section.name() == STATEMENTS_SECTION
        {
            texts.extend_from_slice(section.data());
        }
    }
    if texts.len() > MAX_STATEMENT_BYTES {
        let message = format!(
            "a module's statements can have at most {} KiB",
            MAX_STATEMENT_BYTES >> 10
        );
        return Err(Refused::new("54000", message));
    }
    let Some((last, texts)) = texts.split_last() else {
        return Ok(Vec::new());
    };
    if *last != 0 {
        let message = format!("the section {STATEMENTS_SECTION} does not end with a zero byte");
        return Err(Refused::invalid(message).hint("Each statement has a zero byte behind it."));
    }
    let texts: Vec<&[u8]> = texts.split(|byte| *byte == 0).collect();
    if texts.len() > MAX_STATEMENTS {
        let message = format!("a module can have at most {MAX_STATEMENTS} statements");
        return Err(Refused::new("54000", message));
    }
    let text = |(number, text): (usize, &&[u8])| match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Refused::new(
            "22021",
            format!("statement {number} of the module is not UTF-8"),
        )),
    };
    texts.iter().enumerate().map(text).collect()
}

/// What is no module at all, or one with something in it that is not offered.
pub(crate) fn no_module(error: &impl std::fmt::Display) -> Refused {
    Refused::invalid("the procedure's body is not a WebAssembly module that can be run").detail(format!("{error:#}"))
}

/// Checks what a module wants and has.
pub(crate) fn check(module: &Module, offered: impl Fn(&str) -> bool) -> Result<(), Refused> {
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        if from != HOST || !offered(name) {
            return Err(
                Refused::new("0A000", format!("import \"{name}\" from \"{from}\" is not supported")).hint(format!(
                    "A procedure imports functions of \"{HOST}\" only; in Rust its target is wasm32-unknown-unknown."
                )),
            );
        }
    }
    match module.get_export(MEMORY) {
        Some(ExternType::Memory(_)) => {}
        _ => return Err(Refused::invalid(format!("the module exports no memory \"{MEMORY}\""))),
    }
    match module.get_export(ENTRY) {
        Some(ExternType::Func(entry)) if entry.params().len() == 0 && entry.results().len() == 0 => Ok(()),
        Some(ExternType::Func(_)) => Err(Refused::invalid(format!(
            "the module's function \"{ENTRY}\" has parameters or results"
        ))
        .hint("It asks its host for the arguments of the call.")),
        _ => Err(Refused::invalid(format!("the module exports no function \"{ENTRY}\""))),
    }
}
