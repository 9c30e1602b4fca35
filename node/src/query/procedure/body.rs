//! The statements of a procedure's body, parsed and not yet compiled. What is SQL is still text.

/// A piece of SQL text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text {
    /// The text.
    pub(super) sql: String,
    /// Its line in the body, from 1.
    pub(super) line: usize,
}

/// `[DECLARE ...] BEGIN ... END`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Block {
    pub(super) declarations: Vec<Declaration>,
    pub(super) body: Vec<Stmt>,
}

/// A variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) is_constant: bool,
    pub(super) not_null: bool,
    pub(super) value: Option<Text>,
    pub(super) line: usize,
}

/// What a variable holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A value of this type, as it was written.
    Scalar(String),
    /// `table.column%TYPE`, or `variable%TYPE`.
    Like(Vec<String>),
    /// `table%ROWTYPE`.
    RowOf(String),
    /// RECORD.
    Record,
}

/// Where a value goes: a variable, or a record's field.
pub(super) type Target = Vec<String>;

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stmt {
    /// NULL.
    Nothing,
    /// `target := value`.
    Assign { target: Target, value: Text },
    /// IF.
    If {
        arms: Vec<(Text, Vec<Stmt>)>,
        otherwise: Vec<Stmt>,
    },
    /// LOOP; with a condition, WHILE.
    Loop { condition: Option<Text>, body: Vec<Stmt> },
    /// `FOR name IN [REVERSE] from..to [BY step] LOOP`.
    ForRange {
        name: String,
        reverse: bool,
        from: Text,
        to: Text,
        step: Option<Text>,
        body: Vec<Stmt>,
        line: usize,
    },
    /// `FOR targets IN query LOOP`.
    ForRows {
        targets: Vec<Target>,
        query: Text,
        body: Vec<Stmt>,
    },
    /// EXIT, or CONTINUE.
    Leave {
        goes_on: bool,
        when: Option<Text>,
        line: usize,
    },
    /// A SQL statement.
    Sql { text: Text, into: Option<IntoTargets> },
    /// PERFORM.
    Perform(Text),
    /// RETURN.
    Return,
    /// RETURN NEXT.
    ReturnNext { line: usize },
    /// RETURN QUERY.
    ReturnQuery(Text),
    /// RAISE.
    Raise(RaiseStmt),
    /// `GET DIAGNOSTICS target = ROW_COUNT`.
    RowCount(Target, usize),
    /// A block inside.
    Block(Block),
}

/// INTO.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IntoTargets {
    pub(super) targets: Vec<Target>,
    pub(super) strict: bool,
}

/// RAISE.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RaiseStmt {
    /// None: DEBUG or LOG, which nobody hears.
    pub(super) level: Option<volt_engine::procedure::Level>,
    pub(super) format: Option<String>,
    pub(super) arguments: Vec<Text>,
    pub(super) sqlstate: Option<String>,
    /// (OPTION, value).
    pub(super) using: Vec<(String, Text)>,
    pub(super) line: usize,
}
