//! How deep a statement's tree becomes, and how many tables it reads: bounded before anything walks the tree.
//!
//! Whatever walks a tree recurses: the planner, the optimiser, the evaluation, even the tree's end. The parser bounds its
//! own recursion, but it makes a chain (`a OR b OR c ...`, `1 + 1 + 1 ...`) in a loop, into a tree as deep as the chain is
//! long. So the depth is read off the tokens, before there is a tree. And where calls or queries lie in each other, the
//! planner's time doubles with each.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::SqlError;

/// Operators on a way from a statement's top to its bottom, at most. A worker thread's stack
/// (`crate::WORKER_STACK_BYTES`) carries twice as many through every layer.
pub(super) const MAX_DEPTH: usize = 400;
/// Function calls in each other, at most.
pub(super) const MAX_NESTED_CALLS: usize = 12;
/// Queries in each other, at most.
pub(super) const MAX_NESTED_QUERIES: usize = 10;
/// Tables in a statement, at most, each as often as it is read, also through a WITH; and set operations (UNION, EXCEPT,
/// INTERSECT), at most. The planner makes joins and unions into trees of that depth, whose every step takes more stack.
pub(super) const MAX_RELATIONS: u64 = 100;

/// Refuses a statement whose tree would be too deep.
pub(super) fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let tokens = || tokens.iter().map(|token| &token.token);
    let Shape { depth, calls, queries } = shape(tokens());
    if depth > MAX_DEPTH {
        return Err(
            too_complex(format_args!("more than {MAX_DEPTH} operators in one expression"))
                .hint("A list is no chain: write x IN (1, 2, ...) instead of x = 1 OR x = 2 OR ..."),
        );
    }
    if calls > MAX_NESTED_CALLS {
        let why = format_args!("more than {MAX_NESTED_CALLS} function calls in each other");
        return Err(too_complex(why));
    }
    if queries > MAX_NESTED_QUERIES {
        let why = format_args!("more than {MAX_NESTED_QUERIES} queries in each other");
        return Err(too_complex(why));
    }
    if tokens().filter(|token| is_set_operation(token)).count() as u64 > MAX_RELATIONS {
        return Err(too_complex(format_args!("more than {MAX_RELATIONS} set operations")));
    }
    Ok(())
}

/// How deep a text's expressions become, and how many queries lie in each other.
pub(super) fn depth_and_queries(tokens: &[TokenWithSpan]) -> (usize, usize) {
    let Shape { depth, queries, .. } = shape(tokens.iter().map(|token| &token.token));
    (depth, queries)
}

/// Refuses a plan that reads too many tables, those of views among them.
pub(super) fn check_scans(plan: &LogicalPlan) -> Result<usize, SqlError> {
    let mut scans = 0;
    let _ = plan.apply_with_subqueries(|node| {
        scans += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    if scans as u64 > MAX_RELATIONS {
        return Err(too_complex(format_args!("it reads more than {MAX_RELATIONS} tables")));
    }
    Ok(scans)
}

/// Refuses a statement that reads too many tables.
pub(super) fn check_relations(statement: &Statement) -> Result<(), SqlError> {
    let mut count = Relations::default();
    match statement.visit(&mut count) {
        ControlFlow::Continue(()) if count.here <= MAX_RELATIONS => Ok(()),
        _ => Err(too_complex(format_args!("it reads more than {MAX_RELATIONS} tables"))),
    }
}

pub(super) fn too_complex(why: std::fmt::Arguments<'_>) -> SqlError {
    SqlError::new("54001", format!("statement too complex: {why}"))
}

/// What opened a level.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Opened {
    #[default]
    Parenthesis,
    Call,
    Query,
    Case,
}

/// What is between two parentheses, or CASE and END.
#[derive(Default)]
struct Level {
    by: Opened,
    /// AND and OR since the last comma.
    logical: usize,
    /// Other operators since the last AND or OR, and the depth of the deepest level among them.
    operators: usize,
    inside: usize,
    /// The deepest of the conditions before that AND or OR.
    condition: usize,
    /// The deepest of the runs before that comma.
    run: usize,
    /// UNION and the like: no comma ends their chain.
    set_operations: usize,
    /// BETWEENs whose AND is still to come.
    betweens: usize,
    /// An IS DISTINCT FROM came, whose right side reaches over AND and OR.
    reaches_over: bool,
}

impl Level {
    fn end_condition(&mut self) {
        self.condition = self.condition.max(self.operators + self.inside);
        (self.operators, self.inside) = (0, 0);
    }

    fn end_run(&mut self) {
        self.end_condition();
        self.run = self.run.max(self.logical + self.condition);
        (self.logical, self.condition, self.betweens) = (0, 0, 0);
        self.reaches_over = false;
    }

    fn depth(mut self) -> usize {
        self.end_run();
        self.run + self.set_operations
    }

    /// AND and OR bind least, so that operators of two conditions are never above each other.
    fn word(&mut self, keyword: Keyword, previous: Keyword) {
        match keyword {
            Keyword::AND if self.betweens > 0 => {
                self.betweens -= 1;
                self.operators += 1;
            }
            Keyword::AND | Keyword::OR if !self.reaches_over => {
                self.logical += 1;
                self.end_condition();
            }
            Keyword::DISTINCT if matches!(previous, Keyword::IS | Keyword::NOT) => self.reaches_over = true,
            Keyword::BETWEEN => {
                self.betweens += 1;
                self.operators += 1;
            }
            keyword => self.operators += usize::from(is_operator(keyword)),
        }
    }
}

/// The levels that are open, the innermost last, and the deepest that were.
#[derive(Default)]
struct Levels {
    outer: Vec<Level>,
    level: Level,
    calls: (usize, usize),
    queries: (usize, usize),
}

impl Levels {
    fn open(&mut self, by: Opened) {
        if let Some((now, most)) = self.nested(by) {
            *now += 1;
            *most = (*now).max(*most);
        }
        let level = Level { by, ..Level::default() };
        self.outer.push(std::mem::replace(&mut self.level, level));
    }

    /// One that closes nothing is the parser's to refuse.
    fn close(&mut self) {
        let Some(around) = self.outer.pop() else { return };
        let closed = std::mem::replace(&mut self.level, around);
        if let Some((now, _)) = self.nested(closed.by) {
            *now -= 1;
        }
        self.level.inside = self.level.inside.max(closed.depth() + 1);
    }

    /// A CASE without END, as an alias perhaps, ends with what is around it.
    fn close_parenthesis(&mut self) {
        while self.level.by == Opened::Case {
            self.close();
        }
        self.close();
    }

    fn nested(&mut self, by: Opened) -> Option<(&mut usize, &mut usize)> {
        let (now, most) = match by {
            Opened::Call => &mut self.calls,
            Opened::Query => &mut self.queries,
            Opened::Parenthesis | Opened::Case => return None,
        };
        Some((now, most))
    }
}

/// What the tokens say of the tree.
struct Shape {
    /// Never less than the tree's.
    depth: usize,
    calls: usize,
    queries: usize,
}

fn shape<'a>(tokens: impl Iterator<Item = &'a Token>) -> Shape {
    let mut levels = Levels::default();
    let mut previous = &Token::EOF;
    let mut tokens = tokens.filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    while let Some(token) = tokens.next() {
        match token {
            Token::LParen => levels.open(opened(previous, tokens.peek().copied())),
            Token::LBracket | Token::LBrace => {
                levels.level.operators += 1;
                levels.open(Opened::Parenthesis);
            }
            Token::RParen | Token::RBracket | Token::RBrace => levels.close_parenthesis(),
            Token::Comma => levels.level.end_run(),
            set_operation if is_set_operation(set_operation) => levels.level.set_operations += 1,
            Token::Word(word) if word.keyword == Keyword::CASE => levels.open(Opened::Case),
            Token::Word(word) if word.keyword == Keyword::END && levels.level.by == Opened::Case => levels.close(),
            // A quoted word is no keyword.
            Token::Word(word) => levels.level.word(word.keyword, keyword(previous)),
            other => levels.level.operators += usize::from(!is_operand(other)),
        }
        previous = token;
    }
    // Some may not be closed.
    while !levels.outer.is_empty() {
        levels.close();
    }
    Shape {
        depth: levels.level.depth(),
        calls: levels.calls.1,
        queries: levels.queries.1,
    }
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// What a parenthesis opens, by the tokens around it.
fn opened(before: &Token, behind: Option<&Token>) -> Opened {
    match (before, behind.map(keyword)) {
        (_, Some(Keyword::SELECT | Keyword::WITH | Keyword::VALUES)) => Opened::Query,
        (Token::Word(word), _) if !is_operator(word.keyword) && !begins_clause(word.keyword) => Opened::Call,
        _ => Opened::Parenthesis,
    }
}

/// Words before a parenthesis that are no function's name.
fn begins_clause(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::FROM
            | Keyword::JOIN
            | Keyword::ON
            | Keyword::USING
            | Keyword::WHERE
            | Keyword::BY
            | Keyword::HAVING
            | Keyword::AS
            | Keyword::VALUES
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
    )
}

fn is_set_operation(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    matches!(
        word.keyword,
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS
    )
}

/// Words that the parser takes for an operator, between two operands or behind one.
fn is_operator(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::OR
            | Keyword::AND
            | Keyword::XOR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::NOTNULL
            | Keyword::IN
            | Keyword::BETWEEN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::RLIKE
            | Keyword::REGEXP
            | Keyword::SIMILAR
            | Keyword::MATCH
            | Keyword::MEMBER
            | Keyword::OVERLAPS
            | Keyword::OPERATOR
            | Keyword::DIV
            | Keyword::AT
            | Keyword::COLLATE
    )
}

/// Tokens that make no tree deeper. What isn't named here counts as an operator.
fn is_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::EOF
            | Token::Whitespace(_)
            | Token::SemiColon
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::HexStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::Placeholder(_)
    )
}

/// Counts relations, those of a WITH's query at each place where its name stands: the planner puts the query there.
#[derive(Default)]
struct Relations {
    /// In the query that is being visited, so far.
    here: u64,
    /// In the queries around it.
    around: Vec<u64>,
    /// The queries of WITHs, by their place in memory, and their names.
    named: BTreeMap<usize, String>,
    /// How many relations a name of a WITH stands for. One that hides another may count like it.
    stands_for: BTreeMap<String, u64>,
}

fn place(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.named
            .extend(tables.map(|table| (place(&table.query), table.alias.name.value.to_lowercase())));
        self.around.push(std::mem::take(&mut self.here));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let count = std::mem::replace(&mut self.here, self.around.pop().unwrap_or(0));
        match self.named.remove(&place(query)) {
            Some(name) => {
                let known = self.stands_for.entry(name).or_default();
                *known = count.max(*known);
            }
            None => self.here = self.here.saturating_add(count),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.to_string().trim_matches('"').to_lowercase();
        let count = self.stands_for.get(&name).copied().unwrap_or(0).max(1);
        self.here = self.here.saturating_add(count);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn shape_of(sql: &str) -> Shape {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap();
        shape(tokens.iter())
    }

    fn relations_of(sql: &str) -> u64 {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        let mut count = Relations::default();
        let _ = statements[0].visit(&mut count);
        count.here
    }

    #[test]
    fn a_chain_is_as_deep_as_it_is_long() {
        for (sql, expected) in [
            ("SELECT 1", 0),
            ("SELECT 1 + 1, 2 + 2 + 2, 3", 2),
            ("SELECT a OR b OR c", 2),
            ("SELECT ((1))", 2),
            ("SELECT (1 + 1) + (1 + 1 + 1) + 1", 2 + 1 + 2),
            ("SELECT (1 + 1", 2),
            ("SELECT 1) + 1", 1),
            ("SELECT x IN (1, 2, 3, 4, 5)", 2),
            ("SELECT 1 UNION SELECT 1, 2 UNION SELECT 1, 2", 2),
            ("SELECT x::INT::INT IS NULL IS NULL", 4),
            ("SELECT a[1][2]", 2 + 1),
            ("SELECT x AT TIME ZONE 'a' COLLATE c", 2),
            ("SELECT a = 1 OR b = 2 AND c + 1 = 3 OR d = 4", 3 + 2),
            ("SELECT a BETWEEN 1 AND 2 BETWEEN 3 AND 4 AND b", 4 + 1),
            ("SELECT a IS DISTINCT FROM b = 1 OR c = 2 AND d = 3", 6),
            (
                "SELECT CASE WHEN a = 1 AND b = 2 THEN c + 1 ELSE d = 1 END = 1 AND e",
                1 + 1 + 1 + 4,
            ),
            ("SELECT (1 + 1 AS case) + 1, 1 + 1", 2 + 1 + 1),
            ("SELECT end + end", 1),
            ("SELECT \"or\" OR \"and\" -- OR OR\n", 1),
            ("INSERT INTO t VALUES (1, -1), (2, -2), (3, -3)", 1 + 1),
        ] {
            assert_eq!(shape_of(sql).depth, expected, "{sql}");
        }
    }

    #[test]
    fn calls_and_queries_count_in_each_other() {
        for (sql, calls, queries) in [
            ("SELECT f(1), f(2)", 1, 0),
            ("SELECT f(g(1) + ((2))), h(f(g(3)))", 3, 0),
            (
                "SELECT * FROM (SELECT 1) a, (VALUES (1)) b WHERE (x IN (SELECT (1)))",
                0,
                1,
            ),
            ("SELECT (SELECT (WITH a AS (SELECT 1) SELECT f(1) FROM a))", 1, 3),
            ("SELECT f( /* nothing */ SELECT 1)", 0, 1),
        ] {
            let shape = shape_of(sql);
            assert_eq!((shape.calls, shape.queries), (calls, queries), "{sql}");
        }
    }

    #[test]
    fn a_with_counts_where_it_is_read() {
        for (sql, expected) in [
            ("SELECT 1", 0),
            ("SELECT * FROM a, b JOIN c ON true", 3),
            ("SELECT * FROM a WHERE x IN (SELECT y FROM b)", 2),
            ("WITH a AS (SELECT * FROM t, t) SELECT * FROM a, a", 4),
            (
                "WITH a AS (SELECT * FROM t, t), b AS (SELECT * FROM a, a), c AS (SELECT * FROM b, B) SELECT * FROM c, \"c\"",
                16,
            ),
            ("WITH RECURSIVE a AS (SELECT * FROM a) SELECT * FROM a", 1),
            ("UPDATE t SET x = 1 WHERE y IN (SELECT z FROM u)", 2),
        ] {
            assert_eq!(relations_of(sql), expected, "{sql}");
        }
    }
}
