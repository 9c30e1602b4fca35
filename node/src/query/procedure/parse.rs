//! PL/pgSQL's block structure: from the text of a body to statements.

use volt_engine::procedure::Level;

use super::body::{Block, Declaration, IntoTargets, Kind, RaiseStmt, Stmt, Target, Text};
use super::tokens::Tokens;
use crate::error::SqlError;

/// Blocks, conditions and loops inside each other, at most.
const MAX_NESTING: usize = 64;

/// Parses `[DECLARE ...] BEGIN ... END [;]`.
pub(super) fn parse_body(text: &str) -> Result<Block, SqlError> {
    let mut parser = Parser {
        tokens: Tokens::of(text)?,
        nesting: 0,
    };
    let block = parser.block()?;
    parser.tokens.take(&[";"]);
    if !parser.tokens.is_at_end() {
        return Err(parser.tokens.unexpected());
    }
    Ok(block)
}

struct Parser<'s> {
    tokens: Tokens<'s>,
    nesting: usize,
}

type Parsed<T> = Result<T, SqlError>;

impl Parser<'_> {
    fn block(&mut self) -> Parsed<Block> {
        let mut declarations = Vec::new();
        if self.tokens.take(&["DECLARE"]) {
            while !self.tokens.is(&["BEGIN"]) {
                declarations.push(self.declaration()?);
            }
        }
        self.tokens.expect(&["BEGIN"])?;
        self.tokens.take(&["ATOMIC"]);
        let body = self.statements(&["END", "EXCEPTION"])?;
        if self.tokens.is(&["EXCEPTION"]) {
            return Err(SqlError::unsupported("EXCEPTION in a procedure"));
        }
        self.tokens.expect(&["END"])?;
        Ok(Block { declarations, body })
    }

    fn declaration(&mut self) -> Parsed<Declaration> {
        let line = self.tokens.line();
        let name = self.tokens.name()?;
        let is_constant = self.tokens.take(&["CONSTANT"]);
        if self.tokens.is(&["CURSOR"]) || self.tokens.is(&["ALIAS"]) || self.tokens.is(&["REFCURSOR"]) {
            return Err(SqlError::unsupported(format!("{} in a procedure", self.tokens.peek(0))));
        }
        let written = self.tokens.text_until(&[";", "NOT", ":=", "=", "DEFAULT"])?;
        let kind = kind(&written.sql)?;
        let not_null = self.tokens.take(&["NOT", "NULL"]);
        let has_value = [":=", "=", "DEFAULT"].iter().any(|word| self.tokens.take(&[word]));
        let value = has_value.then(|| self.tokens.text_until(&[";"])).transpose()?;
        self.tokens.expect(&[";"])?;
        Ok(Declaration {
            name,
            kind,
            is_constant,
            not_null,
            value,
            line,
        })
    }

    fn statements(&mut self, ends: &[&str]) -> Parsed<Vec<Stmt>> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            let message = format!("a procedure's statements can be at most {MAX_NESTING} deep inside each other");
            return Err(SqlError::new("54001", message));
        }
        let mut statements = Vec::new();
        while !ends.contains(&self.tokens.peek(0)) {
            statements.push(self.statement()?);
        }
        self.nesting -= 1;
        Ok(statements)
    }

    fn statement(&mut self) -> Parsed<Stmt> {
        let line = self.tokens.line();
        if self.tokens.is(&["BEGIN"]) || self.tokens.is(&["DECLARE"]) {
            let block = self.block()?;
            return self.ended(Stmt::Block(block));
        }
        match self.tokens.peek(0) {
            "IF" => self.if_statement(),
            "LOOP" => self.loop_of(None),
            "WHILE" => {
                self.tokens.skip();
                let condition = self.tokens.text_until(&["LOOP"])?;
                self.loop_of(Some(condition))
            }
            "FOR" => self.for_statement(),
            word @ ("EXIT" | "CONTINUE") => {
                let goes_on = word == "CONTINUE";
                self.tokens.skip();
                let when = self.tokens.take(&["WHEN"]).then(|| self.tokens.text_until(&[";"]));
                let when = when.transpose()?;
                self.ended(Stmt::Leave { goes_on, when, line })
            }
            "RETURN" => self.return_statement(line),
            "RAISE" => self.raise(line),
            "GET" => self.diagnostics(line),
            "NULL" => {
                self.tokens.skip();
                self.ended(Stmt::Nothing)
            }
            "PERFORM" => {
                self.tokens.skip();
                let mut text = self.tokens.text_until(&[";"])?;
                text.sql.insert_str(0, "SELECT ");
                self.ended(Stmt::Perform(text))
            }
            word @ ("CASE" | "FOREACH" | "EXECUTE" | "OPEN" | "FETCH" | "MOVE" | "CLOSE" | "ASSERT" | "CALL"
            | "COMMIT" | "ROLLBACK" | "<<" | "SAVEPOINT") => {
                Err(SqlError::unsupported(format!("{word} in a procedure")))
            }
            "SELECT" | "WITH" | "INSERT" | "UPDATE" | "DELETE" | "VALUES" => self.sql(),
            _ => self.assignment(),
        }
    }

    fn ended(&mut self, statement: Stmt) -> Parsed<Stmt> {
        self.tokens.expect(&[";"])?;
        Ok(statement)
    }

    fn if_statement(&mut self) -> Parsed<Stmt> {
        let (mut arms, mut otherwise) = (Vec::new(), Vec::new());
        let ends = ["ELSIF", "ELSEIF", "ELSE", "END"];
        // IF, ELSIF or ELSEIF.
        loop {
            self.tokens.skip();
            let condition = self.tokens.text_until(&["THEN"])?;
            self.tokens.skip();
            arms.push((condition, self.statements(&ends)?));
            if !self.tokens.is(&["ELSIF"]) && !self.tokens.is(&["ELSEIF"]) {
                break;
            }
        }
        if self.tokens.take(&["ELSE"]) {
            otherwise = self.statements(&["END"])?;
        }
        self.tokens.expect(&["END", "IF"])?;
        self.ended(Stmt::If { arms, otherwise })
    }

    fn loop_body(&mut self) -> Parsed<Vec<Stmt>> {
        self.tokens.expect(&["LOOP"])?;
        let body = self.statements(&["END"])?;
        self.tokens.expect(&["END", "LOOP", ";"])?;
        Ok(body)
    }

    fn loop_of(&mut self, condition: Option<Text>) -> Parsed<Stmt> {
        let body = self.loop_body()?;
        Ok(Stmt::Loop { condition, body })
    }

    fn for_statement(&mut self) -> Parsed<Stmt> {
        let line = self.tokens.line();
        self.tokens.skip();
        let targets = self.targets()?;
        self.tokens.expect(&["IN"])?;
        if self.tokens.is(&["EXECUTE"]) {
            return Err(SqlError::unsupported("EXECUTE in a procedure"));
        }
        let reverse = self.tokens.take(&["REVERSE"]);
        let text = self.tokens.text_until(&["LOOP"])?;
        let Some((from, to)) = range(&text.sql) else {
            if reverse {
                return Err(self.tokens.unexpected());
            }
            let body = self.loop_body()?;
            let query = text;
            return Ok(Stmt::ForRows { targets, query, body });
        };
        let [target] = targets.as_slice() else {
            return Err(self.tokens.unexpected());
        };
        let part = |sql: &str| Text {
            sql: sql.trim().to_owned(),
            line,
        };
        let (to, step) = match split_at_word(to, "BY")? {
            Some((to, step)) => (part(to), Some(part(step))),
            None => (part(to), None),
        };
        let (name, from) = (target.join("."), part(from));
        let body = self.loop_body()?;
        Ok(Stmt::ForRange {
            name,
            reverse,
            from,
            to,
            step,
            body,
            line,
        })
    }

    fn return_statement(&mut self, line: usize) -> Parsed<Stmt> {
        self.tokens.skip();
        let statement = if self.tokens.take(&["NEXT"]) {
            Stmt::ReturnNext { line }
        } else if self.tokens.take(&["QUERY"]) {
            if self.tokens.is(&["EXECUTE"]) {
                return Err(SqlError::unsupported("EXECUTE in a procedure"));
            }
            Stmt::ReturnQuery(self.tokens.text_until(&[";"])?)
        } else {
            Stmt::Return
        };
        self.ended(statement)
    }

    fn raise(&mut self, line: usize) -> Parsed<Stmt> {
        self.tokens.skip();
        let mut level = Some(Level::Exception);
        let levels = [
            ("DEBUG", None),
            ("LOG", None),
            ("INFO", Some(Level::Info)),
            ("NOTICE", Some(Level::Notice)),
            ("WARNING", Some(Level::Warning)),
            ("EXCEPTION", Some(Level::Exception)),
        ];
        if let Some((_, named)) = levels.iter().find(|(word, _)| self.tokens.take(&[word])) {
            level = *named;
        }
        let mut raise = RaiseStmt {
            level,
            format: self.tokens.string(),
            arguments: Vec::new(),
            sqlstate: None,
            using: Vec::new(),
            line,
        };
        if raise.format.is_some() {
            while self.tokens.take(&[","]) {
                raise.arguments.push(self.tokens.text_until(&[",", "USING", ";"])?);
            }
        } else if self.tokens.take(&["SQLSTATE"]) {
            raise.sqlstate = Some(self.tokens.string().ok_or_else(|| self.tokens.unexpected())?);
        } else if self.tokens.is(&[";"]) {
            return Err(SqlError::unsupported("RAISE without a message"));
        } else if !self.tokens.is(&["USING"]) {
            raise.sqlstate = Some(self.tokens.name()?);
        }
        if self.tokens.take(&["USING"]) {
            loop {
                let option = self.tokens.name()?.to_uppercase();
                if !self.tokens.take(&["="]) && !self.tokens.take(&[":="]) {
                    return Err(self.tokens.unexpected());
                }
                raise.using.push((option, self.tokens.text_until(&[",", ";"])?));
                if !self.tokens.take(&[","]) {
                    break;
                }
            }
        }
        self.ended(Stmt::Raise(raise))
    }

    fn diagnostics(&mut self, line: usize) -> Parsed<Stmt> {
        self.tokens.skip();
        self.tokens.take(&["CURRENT"]);
        self.tokens.expect(&["DIAGNOSTICS"])?;
        let target = self.target()?;
        if !self.tokens.take(&["="]) && !self.tokens.take(&[":="]) {
            return Err(self.tokens.unexpected());
        }
        self.tokens.expect(&["ROW_COUNT"])?;
        self.ended(Stmt::RowCount(target, line))
    }

    /// SELECT may have its INTO anywhere at its top level.
    fn sql(&mut self) -> Parsed<Stmt> {
        let begin = self.tokens.place();
        let mut text = match self.tokens.is(&["INSERT"]) {
            false => self.tokens.text_until(&["INTO", ";"])?,
            // It has an INTO of its own.
            true => {
                let mut text = self.tokens.text_until(&["RETURNING", ";"])?;
                if self.tokens.is(&["RETURNING"]) {
                    let returning = self.tokens.text_until(&["INTO", ";"])?;
                    text.sql = format!("{} {}", text.sql, returning.sql);
                }
                text
            }
        };
        if !self.tokens.is(&["INTO"]) {
            return self.ended(Stmt::Sql { text, into: None });
        }
        self.tokens.skip();
        let strict = self.tokens.take(&["STRICT"]);
        let targets = self.targets()?;
        if !self.tokens.is(&[";"]) {
            let rest = self.tokens.text_until(&[";"])?;
            text.sql = format!("{} {}", text.sql, rest.sql);
        }
        debug_assert!(self.tokens.place() > begin, "something was read");
        let into = Some(IntoTargets { targets, strict });
        self.ended(Stmt::Sql { text, into })
    }

    fn assignment(&mut self) -> Parsed<Stmt> {
        let place = self.tokens.place();
        let target = self.target()?;
        if !self.tokens.take(&[":="]) && !self.tokens.take(&["="]) {
            self.tokens.go_back_to(place);
            return Err(self.tokens.unexpected());
        }
        let value = self.tokens.text_until(&[";"])?;
        self.ended(Stmt::Assign { target, value })
    }

    fn target(&mut self) -> Parsed<Target> {
        let mut target = vec![self.tokens.name()?];
        while self.tokens.take(&["."]) {
            target.push(self.tokens.name()?);
        }
        Ok(target)
    }

    fn targets(&mut self) -> Parsed<Vec<Target>> {
        let mut targets = vec![self.target()?];
        while self.tokens.take(&[","]) {
            targets.push(self.target()?);
        }
        Ok(targets)
    }
}

/// What kind of variable a type names.
fn kind(written: &str) -> Parsed<Kind> {
    let Some((of, what)) = written.rsplit_once('%') else {
        return Ok(match written.trim().to_ascii_uppercase().as_str() {
            "RECORD" => Kind::Record,
            _ => Kind::Scalar(written.trim().to_owned()),
        });
    };
    let mut tokens = Tokens::of(of)?;
    let mut names = vec![tokens.name()?];
    while tokens.take(&["."]) {
        names.push(tokens.name()?);
    }
    match (what.trim().to_ascii_uppercase().as_str(), names.as_slice()) {
        ("TYPE", _) => Ok(Kind::Like(names)),
        ("ROWTYPE", [table]) => Ok(Kind::RowOf(table.clone())),
        _ => Err(SqlError::new("42601", format!("syntax error at or near \"{written}\""))),
    }
}

/// `from..to`, if the dots are outside of quotes and parentheses.
fn range(text: &str) -> Option<(&str, &str)> {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.saturating_sub(1),
            (None, '.') if depth == 0 && text[at..].starts_with("..") => return Some((&text[..at], &text[at + 2..])),
            _ => {}
        }
    }
    None
}

fn split_at_word<'t>(text: &'t str, word: &str) -> Parsed<Option<(&'t str, &'t str)>> {
    let mut tokens = Tokens::of(text)?;
    while !tokens.is_at_end() {
        if tokens.is(&[word]) {
            let before = &text[..tokens.begin()];
            tokens.skip();
            return Ok(Some((before, &text[tokens.begin()..])));
        }
        tokens.skip();
    }
    Ok(None)
}
