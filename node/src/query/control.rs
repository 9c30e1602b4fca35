//! Statements about the session's transaction: BEGIN, COMMIT, SAVEPOINT, SET TRANSACTION and the settings behind them.

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Reset, Set, Statement, TransactionAccessMode, TransactionIsolationLevel, TransactionMode, Value,
};

use volt_engine::idempotency::IdempotencyKey;

use super::ddl::name_of;
use super::hint;
use crate::error::SqlError;
use crate::statement::{Control, Isolation, ModeChange, ReadChange, ReadSetting};

/// What the statement does to the transaction; None: it is about something else.
pub(super) fn control(statement: &Statement) -> Result<Option<Control>, SqlError> {
    Ok(Some(match statement {
        Statement::StartTransaction {
            modes,
            begin,
            modifier: None,
            statements,
            exception: None,
            has_end_keyword: false,
            ..
        } if statements.is_empty() => Control::Begin {
            change: named(modes),
            tag: if *begin { "BEGIN" } else { "START TRANSACTION" },
        },
        Statement::StartTransaction { .. } => return Err(SqlError::unsupported("a block of statements")),
        Statement::Commit {
            chain, modifier: None, ..
        } => Control::Commit(*chain),
        Statement::Rollback { chain, savepoint: None } => Control::Rollback(*chain),
        Statement::Rollback {
            savepoint: Some(savepoint),
            ..
        } => Control::RollbackTo(name_of(savepoint)),
        Statement::Savepoint { name: savepoint } => Control::Savepoint(name_of(savepoint)),
        Statement::ReleaseSavepoint { name: savepoint } => Control::Release(name_of(savepoint)),
        Statement::Set(Set::SetTransaction { snapshot: Some(_), .. }) => {
            return Err(SqlError::unsupported("SET TRANSACTION SNAPSHOT"));
        }
        Statement::Set(Set::SetTransaction { modes, session, .. }) if *session => Control::SetDefault(named(modes)),
        Statement::Set(Set::SetTransaction { modes, .. }) => Control::SetTransaction(named(modes)),
        Statement::Set(Set::SingleAssignment { variable, values, .. }) if is_ours(variable) => {
            match reading(variable) {
                Some(setting) => {
                    let value = single_value(setting.name(), values)?;
                    Control::SetReading(ReadChange::parse(setting, value.as_deref())?, false)
                }
                None => Control::SetKey(key(variable, values)?),
            }
        }
        Statement::Set(Set::SingleAssignment { variable, values, .. }) => return set(variable, values),
        Statement::Reset(statement) => match &statement.reset {
            Reset::ALL => Control::ResetAll,
            Reset::ConfigurationParameter(variable) if is_ours(variable) => {
                if let Some(setting) = reading(variable) {
                    return Ok(Some(Control::SetReading(ReadChange::parse(setting, None)?, true)));
                }
                check_name(variable)?;
                Control::SetKey(None)
            }
            Reset::ConfigurationParameter(_) => return Ok(None),
        },
        Statement::ShowVariable { variable } => {
            let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
            let name = words.join("_");
            // The parser leaves the point out.
            let setting = name
                .strip_prefix("volt_")
                .and_then(|rest| ReadSetting::named(&format!("{}{rest}", hint::PREFIX)));
            return Ok(match setting {
                Some(setting) => Some(Control::ShowReading(setting)),
                None => shown(&name).map(Control::Show),
            });
        }
        _ => return Ok(None),
    }))
}

fn is_ours(variable: &ObjectName) -> bool {
    variable.to_string().to_lowercase().starts_with(hint::PREFIX)
}

fn check_name(variable: &ObjectName) -> Result<(), SqlError> {
    let name = variable.to_string().to_lowercase();
    match name == hint::IDEMPOTENCY_KEY {
        true => Ok(()),
        false => Err(hint::unknown(&name)),
    }
}

/// The key that a SET gives; None: DEFAULT.
fn key(variable: &ObjectName, values: &[Expr]) -> Result<Option<IdempotencyKey>, SqlError> {
    check_name(variable)?;
    let text = single_value(hint::IDEMPOTENCY_KEY, values)?;
    Ok(text.map(IdempotencyKey::try_from).transpose()?)
}

/// The setting about reading of this name.
fn reading(variable: &ObjectName) -> Option<ReadSetting> {
    ReadSetting::named(&variable.to_string().to_lowercase())
}

/// The one value that a SET gives; None: DEFAULT.
fn single_value(name: &str, values: &[Expr]) -> Result<Option<String>, SqlError> {
    Ok(Some(match values {
        [Expr::Value(value)] => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clone(),
            Value::Number(digits, _) => digits.clone(),
            other => other.to_string(),
        },
        [Expr::Identifier(word)] if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default") => {
            return Ok(None);
        }
        [Expr::Identifier(word)] => name_of(word),
        _ => return Err(SqlError::new("22023", format!("SET {name} takes only one text"))),
    }))
}

/// Later words win, as in PostgreSQL.
fn named(modes: &[TransactionMode]) -> ModeChange {
    let mut change = ModeChange::default();
    for mode in modes {
        match mode {
            TransactionMode::AccessMode(mode) => change.read_only = Some(*mode == TransactionAccessMode::ReadOnly),
            TransactionMode::IsolationLevel(
                TransactionIsolationLevel::RepeatableRead | TransactionIsolationLevel::Snapshot,
            ) => change.isolation = Some(Isolation::Snapshot),
            TransactionMode::IsolationLevel(_) => change.isolation = Some(Isolation::Serializable),
        }
    }
    change
}

/// The setting that a SHOW of a mode, or of the key, shows.
fn shown(name: &str) -> Option<&'static str> {
    Some(match name {
        "transaction_isolation" | "transaction_isolation_level" => "transaction_isolation",
        "default_transaction_isolation" => "default_transaction_isolation",
        "transaction_read_only" => "transaction_read_only",
        "default_transaction_read_only" => "default_transaction_read_only",
        // The parser leaves the point out.
        "volt_idempotency_key" => hint::IDEMPOTENCY_KEY,
        _ => return None,
    })
}

fn set(variable: &ObjectName, values: &[Expr]) -> Result<Option<Control>, SqlError> {
    let setting = variable.to_string().to_lowercase();
    let value = match values {
        [Expr::Value(value)] => match &value.value {
            Value::SingleQuotedString(text) => text.to_lowercase(),
            other => other.to_string().to_lowercase(),
        },
        [other] => other.to_string().to_lowercase(),
        _ => return Ok(None),
    };
    let invalid = || {
        let message = format!("invalid value for parameter \"{setting}\": \"{value}\"");
        SqlError::new("22023", message)
    };
    let isolation = || match value.as_str() {
        "serializable" | "read committed" | "read uncommitted" | "default" => Ok(Isolation::Serializable),
        "repeatable read" => Ok(Isolation::Snapshot),
        _ => Err(invalid()),
    };
    let read_only = || match value.as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" | "default" => Ok(false),
        _ => Err(invalid()),
    };
    let mut change = ModeChange::default();
    match setting.as_str() {
        "transaction_isolation" | "default_transaction_isolation" => change.isolation = Some(isolation()?),
        "transaction_read_only" | "default_transaction_read_only" => change.read_only = Some(read_only()?),
        _ => return Ok(None),
    }
    Ok(Some(if setting.starts_with("default") {
        Control::SetDefault(change)
    } else {
        Control::SetTransaction(change)
    }))
}
