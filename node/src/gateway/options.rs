//! Settings in the startup message: `options=-c volt.read_from=backup`, as libpq and JDBC drivers send it, or a parameter of that name.
//! What is not ours is passed over, as all other settings are.

use crate::error::SqlError;
use crate::statement::{ReadChange, ReadSetting};

/// What begins the name of every setting of ours.
pub(super) const OURS: &str = "volt.";

/// The settings of ours in the text of `options`, in their order.
pub(super) fn reading(text: &str) -> Result<Vec<ReadChange>, SqlError> {
    let (mut changes, mut words) = (Vec::new(), words(text).into_iter());
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(long) => long.replace('-', "_"),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().unwrap_or_default(),
                Some(setting) => setting.to_owned(),
                None => continue,
            },
        };
        let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
        if name.to_lowercase().starts_with(OURS) {
            changes.push(change(name, value)?);
        }
    }
    Ok(changes)
}

/// The change that a setting of ours asks for.
pub(super) fn change(name: &str, value: &str) -> Result<ReadChange, SqlError> {
    let name = name.to_lowercase();
    match ReadSetting::named(&name) {
        Some(setting) => ReadChange::parse(setting, Some(value)),
        None => Err(SqlError::new(
            "42704",
            format!("unrecognized configuration parameter \"{name}\""),
        )),
    }
}

/// Words between blanks; a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut is_open) = (Vec::new(), String::new(), false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                word.extend(characters.next());
                is_open = true;
            }
            blank if blank.is_ascii_whitespace() => {
                if std::mem::take(&mut is_open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => {
                word.push(other);
                is_open = true;
            }
        }
    }
    if is_open {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancing::Strategy;
    use crate::statement::ReadFrom;

    #[test]
    fn ours_are_taken_and_others_passed_over() {
        let text = "-c geqo=off -c volt.read_from=backup --volt.balance=random --volt.max-staleness=2\\ s -B 5 -c";
        let expected = [
            ReadChange::From(Some(ReadFrom::Backup)),
            ReadChange::Balance(Some(Strategy::Random)),
            ReadChange::MaxStaleness(Some(2_000)),
        ];
        assert_eq!(reading(text).unwrap(), expected);
        assert_eq!(reading("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let code = |text| reading(text).unwrap_err().sqlstate;
        assert_eq!(code("-c volt.read_from=standby"), "22023");
        assert_eq!(code("-c volt.read_form=backup"), "42704");
        assert_eq!(code("-cvolt.max-staleness=1"), "42704");
        assert_eq!(code("-c volt.last_staleness=1"), "55P02");
        assert_eq!(code("-c volt.read_from"), "22023");
    }
}
