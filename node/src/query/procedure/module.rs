//! CREATE PROCEDURE ... LANGUAGE wasm: the module is decoded and checked, and its SQL statements are planned, once, as
//! those of any other procedure.

use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::GeneralPurposeConfig;
use bytes::Bytes;
use volt_engine::procedure::{Body, MAX_MODULE_BYTES, Procedure};
use volt_engine::value::parse_bytea;
use volt_wasm::Refused;

use super::emit::Emitter;
use super::header::Header;
use super::{check_length, declare_parameters, declare_results};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::query::SqlEngine;

/// With or without the `=` at its end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

impl From<Refused> for SqlError {
    fn from(refused: Refused) -> Self {
        Self {
            detail: refused.detail,
            hint: refused.hint,
            ..Self::new(refused.sqlstate, refused.message)
        }
    }
}

impl SqlEngine {
    pub(super) async fn compile_module(
        &self,
        header: Header,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<Procedure, SqlError> {
        if header.quoted.is_empty() {
            return Err(SqlError::new(
                "42601",
                "a WebAssembly module is a string: base64, or \\x and hexadecimal digits",
            ));
        }
        check_length(sql.len() - header.quoted.len())?;
        let bytes = decoded(&header.body)?;
        let texts = self.coordinator.modules().check(&bytes)?;
        let mut emit = Emitter::new(self, map, &header.name);
        let parameters = declare_parameters(&mut emit, &header)?;
        let (_, columns) = declare_results(&mut emit, &header, &parameters)?;
        for (number, text) in texts.iter().enumerate() {
            let made = emit.own_statement(text).await;
            made.map_err(|error| in_statement(error, number, text))?;
            if emit.statements.last().is_some_and(|made| !made.sequences.is_empty()) {
                let error = SqlError::unsupported("nextval in a statement of a WebAssembly module")
                    .hint("Take the value in the statement that calls the procedure, and pass it as an argument.");
                return Err(in_statement(error, number, text));
            }
        }
        let (before, after) = (&sql[..header.quoted.start], &sql[header.quoted.end..]);
        let source = format!("{before}'({} bytes)'{after}", bytes.len());
        let procedure = Procedure {
            id: 0,
            name: header.name,
            language: "wasm".to_owned(),
            source: source.trim().trim_end_matches(';').to_owned(),
            parameters,
            columns,
            partition_by: emit.home.map(|home| home.by),
            body: Body::Module(Bytes::from(bytes)),
            statements: emit.statements,
        };
        procedure.validate()?;
        Ok(procedure)
    }
}

/// A module's bytes: `\x` and hexadecimal digits, as a bytea is written, or base64, in lines or not.
fn decoded(text: &str) -> Result<Vec<u8>, SqlError> {
    let too_long = || {
        let message = format!("a WebAssembly module can have at most {} KiB", MAX_MODULE_BYTES >> 10);
        SqlError::new("54000", message)
    };
    // Hexadecimal digits are the longer of the two.
    let mut text = text.to_owned();
    text.retain(|character| !character.is_ascii_whitespace());
    if text.len() > 2 * MAX_MODULE_BYTES + 2 {
        return Err(too_long());
    }
    let bytes = match text.starts_with("\\x") {
        true => parse_bytea(&text).ok_or_else(|| SqlError::new("22023", "invalid hexadecimal digits of a module"))?,
        false => BASE64
            .decode(&text)
            .map_err(|error| SqlError::new("22023", "invalid base64 of a module").detail(format!("{error}.")))?,
    };
    match bytes.len() > MAX_MODULE_BYTES {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}

/// An error with the statement that has it: places in it mean nothing to who sent the module.
fn in_statement(mut error: SqlError, number: usize, text: &str) -> SqlError {
    error.position = None;
    let place = format!("In statement {number} of the module, counted from 0: {text}");
    error.detail = Some(match error.detail {
        Some(detail) => format!("{detail} {place}"),
        None => place,
    });
    error
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn modules_are_written_in_two_ways() {
        let module = b"\0asm\x01\0\0\0".to_vec();
        for text in [
            "AGFzbQEAAAA=",
            "AGFzbQEAAAA",
            "AGFz\n bQEA\r\nAAA=\n",
            "\\x0061736d01000000",
            "\\x0061736D\n01000000",
        ] {
            assert_eq!(decoded(text), Ok(module.clone()), "{text}");
        }
        for text in ["AGFzbQEAA", "AGF!", "\\x0", "\\xgg", "0061736d01000000\\x"] {
            assert_eq!(decoded(text).unwrap_err().sqlstate, "22023", "{text}");
        }
        let digits = |bytes: usize| format!("\\x{}", "00".repeat(bytes));
        assert_eq!(
            decoded(&digits(MAX_MODULE_BYTES)).map(|bytes| bytes.len()),
            Ok(MAX_MODULE_BYTES)
        );
        assert_eq!(decoded(&digits(MAX_MODULE_BYTES + 1)).unwrap_err().sqlstate, "54000");
        let base64 = STANDARD.encode(vec![0; MAX_MODULE_BYTES + 1]);
        assert_eq!(decoded(&base64).unwrap_err().sqlstate, "54000");
    }
}
