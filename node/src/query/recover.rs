//! `RECOVER NODE n [WITH (strategy = ..., source = ...)]` and `DRAIN NODE n`, read from their tokens.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use volt_engine::NodeId;

use super::syntax::{syntax_error, word};
use crate::config::{RecoveryOrder, RecoverySource, RecoveryStrategy};
use crate::error::SqlError;

/// What `RECOVER NODE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecoverNode {
    pub(super) node: NodeId,
    pub(super) order: RecoveryOrder,
}

/// The third token of a statement, which is its last.
pub(super) fn only_node(sql: &str, tokens: &[TokenWithSpan]) -> Result<NodeId, SqlError> {
    match tokens.get(3).filter(|token| token.token != Token::EOF) {
        Some(extra) => Err(syntax_error(sql, extra)),
        None => number(sql, tokens),
    }
}

fn number(sql: &str, tokens: &[TokenWithSpan]) -> Result<NodeId, SqlError> {
    let token = &tokens[2];
    word(token).parse().map_err(|_| syntax_error(sql, token))
}

/// The tokens of `RECOVER NODE`, three or more.
pub(super) fn recover_node(sql: &str, tokens: &[TokenWithSpan]) -> Result<RecoverNode, SqlError> {
    let mut recover = RecoverNode {
        node: number(sql, tokens)?,
        order: RecoveryOrder::default(),
    };
    let end = TokenWithSpan::wrap(Token::EOF);
    let mut rest = tokens[3..].iter();
    let mut take = || rest.next().unwrap_or(&end);
    let mut next = take();
    if next.token == Token::EOF {
        return Ok(recover);
    }
    let is = |token: &TokenWithSpan, wanted: &Token| match token.token == *wanted {
        true => Ok(()),
        false => Err(syntax_error(sql, token)),
    };
    if word(next) != "WITH" {
        return Err(syntax_error(sql, next));
    }
    is(take(), &Token::LParen)?;
    loop {
        let name = take();
        is(take(), &Token::Eq)?;
        let value = take();
        option(sql, &mut recover, name, value)?;
        next = take();
        if next.token == Token::RParen {
            break;
        }
        is(next, &Token::Comma)?;
    }
    is(take(), &Token::EOF)?;
    Ok(recover)
}

fn option(sql: &str, recover: &mut RecoverNode, name: &TokenWithSpan, value: &TokenWithSpan) -> Result<(), SqlError> {
    let text = match &value.token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) => text.clone(),
        _ => return Err(syntax_error(sql, value)),
    };
    let invalid = |hint: &str| {
        let message = format!("invalid value for option \"{}\": \"{text}\"", word(name).to_lowercase());
        Err(SqlError::new("22023", message).hint(hint))
    };
    match word(name).as_str() {
        "STRATEGY" => match RecoveryStrategy::of_name(&text) {
            Some(strategy) => recover.order.strategy = Some(strategy),
            None => return invalid("Strategies are automatic, one_shot and incremental."),
        },
        "SOURCE" => match RecoverySource::of_name(&text) {
            Some(source) => recover.order.source = Some(source),
            None => return invalid("Sources are network, file_system and database."),
        },
        _ => {
            let message = format!("unrecognized option \"{}\"", word(name).to_lowercase());
            return Err(SqlError::new("42601", message).hint("Options are strategy and source."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::syntax::{is_blank, tokenize};
    use super::*;

    fn read(sql: &str) -> Result<RecoverNode, (String, String)> {
        let mut tokens = tokenize(sql).expect("tokens");
        tokens.retain(|token| !is_blank(token) || token.token == Token::EOF);
        recover_node(sql, &tokens).map_err(|error| (error.sqlstate.to_string(), error.message))
    }

    fn refused(sql: &str) -> String {
        let (sqlstate, message) = read(sql).expect_err(sql);
        format!("{sqlstate} {message}")
    }

    #[test]
    fn options_are_read() {
        let strategy = |sql| read(sql).map(|recover| (recover.node, recover.order.strategy));
        assert_eq!(strategy("RECOVER NODE 2"), Ok((2, None)));
        assert_eq!(
            strategy("recover node 2 with (strategy = one_shot);"),
            Ok((2, Some(RecoveryStrategy::OneShot)))
        );
        assert_eq!(
            strategy("RECOVER NODE 3 WITH (source = 'network', strategy = 'incremental')"),
            Ok((3, Some(RecoveryStrategy::Incremental)))
        );
    }

    #[test]
    fn whatever_else_is_refused() {
        assert_eq!(refused("RECOVER NODE x"), "42601 syntax error at or near \"x\"");
        assert_eq!(refused("RECOVER NODE 2 NOW"), "42601 syntax error at or near \"NOW\"");
        assert_eq!(refused("RECOVER NODE 2 WITH"), "42601 syntax error at end of input");
        assert_eq!(refused("RECOVER NODE 2 WITH ()"), "42601 syntax error at end of input");
        assert_eq!(
            refused("RECOVER NODE 2 WITH (strategy = 'twice')"),
            "22023 invalid value for option \"strategy\": \"twice\""
        );
        assert_eq!(
            refused("RECOVER NODE 2 WITH (source = 'tape')"),
            "22023 invalid value for option \"source\": \"tape\""
        );
        assert_eq!(
            refused("RECOVER NODE 2 WITH (speed = fast)"),
            "42601 unrecognized option \"speed\""
        );
        assert_eq!(
            refused("RECOVER NODE 2 WITH (strategy = automatic) now"),
            "42601 syntax error at or near \"now\""
        );
    }
}
