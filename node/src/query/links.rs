//! `CREATE REPLICATION LINK name TO 'postgres://...' FOR TABLE a, b [WITH (conflict = ..., password_file = ...)]`, `ALTER REPLICATION LINK name
//! PAUSE | RESUME`, `DROP REPLICATION LINK [IF EXISTS] name`; and `APPLY REPLICATION CHANGES $1`, which other clusters send.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use volt_engine::changes::{Change, ConflictRule};
use volt_engine::value::{DataType, Value, ValueRef};
use volt_engine::{PartitionId, TableId};

use super::SqlEngine;
use super::execute::Notices;
use super::syntax::{syntax_error, word};
use crate::error::SqlError;
use crate::links::remote_database;
use crate::links::wire::{Reader, Told, ToldTable};
use crate::metadata::command::Command;
use crate::metadata::link::LinkTarget;
use crate::metadata::map::ClusterMap;
use crate::statement::{ResultColumn, RowSink};

/// What is to become of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkPlan {
    Create {
        name: String,
        if_not_exists: bool,
        target: LinkTarget,
        tables: Vec<String>,
        /// The column whose greatest value stays; None: the last writer's change does.
        greatest: Option<String>,
    },
    Drop {
        name: String,
        if_exists: bool,
    },
    Pause {
        name: String,
        is_paused: bool,
    },
}

impl LinkPlan {
    /// The command tag.
    pub(super) fn tag(&self) -> &'static str {
        match self {
            Self::Create { .. } => "CREATE REPLICATION LINK",
            Self::Drop { .. } => "DROP REPLICATION LINK",
            Self::Pause { .. } => "ALTER REPLICATION LINK",
        }
    }

    /// From the tokens of a statement that begins with `CREATE | ALTER | DROP REPLICATION LINK`.
    pub(super) fn parse(sql: &str, tokens: &[TokenWithSpan]) -> Result<Self, SqlError> {
        let mut words = Words {
            sql,
            tokens,
            at: 3,
            end: TokenWithSpan::wrap(Token::EOF),
        };
        let plan = match word(&tokens[0]).as_str() {
            "CREATE" => create(&mut words)?,
            "DROP" => {
                let if_exists = words.take_all(&["IF", "EXISTS"])?;
                let name = words.name()?;
                Self::Drop { name, if_exists }
            }
            _ => {
                let name = words.name()?;
                let is_paused = match words.next() {
                    token if word(token) == "PAUSE" => true,
                    token if word(token) == "RESUME" => false,
                    token => return Err(syntax_error(sql, token)),
                };
                Self::Pause { name, is_paused }
            }
        };
        match words.next() {
            token if token.token == Token::EOF => Ok(plan),
            token => Err(syntax_error(sql, token)),
        }
    }
}

/// Tokens, one after the other.
struct Words<'a> {
    sql: &'a str,
    tokens: &'a [TokenWithSpan],
    at: usize,
    /// Behind the last one.
    end: TokenWithSpan,
}

impl Words<'_> {
    fn peek(&self) -> &TokenWithSpan {
        self.tokens.get(self.at).unwrap_or(&self.end)
    }

    fn next(&mut self) -> &TokenWithSpan {
        self.at += 1;
        self.tokens.get(self.at - 1).unwrap_or(&self.end)
    }

    /// True: all of them are there and were taken; false: the first isn't.
    fn take_all(&mut self, words: &[&str]) -> Result<bool, SqlError> {
        if word(self.peek()) != words[0] {
            return Ok(false);
        }
        words.iter().try_for_each(|expected| self.expect(expected))?;
        Ok(true)
    }

    fn expect(&mut self, expected: &str) -> Result<(), SqlError> {
        let sql = self.sql;
        match self.next() {
            token if word(token) == expected => Ok(()),
            token => Err(syntax_error(sql, token)),
        }
    }

    fn name(&mut self) -> Result<String, SqlError> {
        let sql = self.sql;
        let token = self.next();
        match &token.token {
            Token::Word(word) if word.quote_style.is_some() => Ok(word.value.clone()),
            Token::Word(word) => Ok(word.value.to_lowercase()),
            _ => Err(syntax_error(sql, token)),
        }
    }

    fn text(&mut self) -> Result<String, SqlError> {
        let sql = self.sql;
        let token = self.next();
        match &token.token {
            Token::SingleQuotedString(text) => Ok(text.clone()),
            _ => Err(syntax_error(sql, token)),
        }
    }

    fn is(&mut self, wanted: &Token) -> bool {
        let is = self.peek().token == *wanted;
        self.at += usize::from(is);
        is
    }
}

fn create(words: &mut Words<'_>) -> Result<LinkPlan, SqlError> {
    let if_not_exists = words.take_all(&["IF", "NOT", "EXISTS"])?;
    let name = words.name()?;
    words.expect("TO")?;
    let url = words.text()?;
    words.expect("FOR")?;
    if !words.take_all(&["TABLES"])? {
        words.expect("TABLE")?;
    }
    let mut tables = vec![words.name()?];
    while words.is(&Token::Comma) {
        tables.push(words.name()?);
    }
    let (mut greatest, mut password_file) = (None, None);
    if words.take_all(&["WITH"])? {
        words.expect("(")?;
        loop {
            let option = words.name()?;
            words.expect("=")?;
            match option.as_str() {
                "conflict" => greatest = conflict(words)?,
                "password_file" => password_file = Some(words.text()?),
                _ => {
                    let message = format!("unrecognized option \"{option}\"");
                    return Err(SqlError::new("42601", message).hint("Options are conflict and password_file."));
                }
            }
            if !words.is(&Token::Comma) {
                break;
            }
        }
        words.expect(")")?;
    }
    let target = LinkTarget { url, password_file };
    remote_database(&target).map_err(|why| SqlError::new("22023", format!("the link's address: {why}")))?;
    if let Some(file) = target.password_file.as_ref().filter(|file| !file.starts_with('/')) {
        let message = format!("password_file: \"{file}\" is no absolute path");
        return Err(SqlError::new("22023", message));
    }
    Ok(LinkPlan::Create {
        name,
        if_not_exists,
        target,
        tables,
        greatest,
    })
}

/// `last_writer`, or `'column NAME'`.
fn conflict(words: &mut Words<'_>) -> Result<Option<String>, SqlError> {
    let sql = words.sql;
    let token = words.next();
    let text = match &token.token {
        Token::Word(word) => word.value.to_lowercase(),
        Token::SingleQuotedString(text) => text.clone(),
        _ => return Err(syntax_error(sql, token)),
    };
    match text.split_once(' ') {
        None if text == "last_writer" => Ok(None),
        Some(("column", name)) if !name.trim().is_empty() => Ok(Some(name.trim().to_owned())),
        _ => Err(
            SqlError::new("22023", format!("invalid value for option \"conflict\": \"{text}\""))
                .hint("It is last_writer, or 'column NAME'."),
        ),
    }
}

/// What `APPLY REPLICATION CHANGES` returns.
pub(super) fn applied_columns() -> Vec<ResultColumn> {
    let column = |name: &str| ResultColumn {
        name: name.to_owned(),
        data_type: DataType::BigInt,
    };
    vec![column("applied"), column("conflicts")]
}

impl SqlEngine {
    pub(super) async fn run_link_plan(&self, plan: &LinkPlan, sql: &str) -> Result<Notices, SqlError> {
        self.metadata.refresh().await?;
        let map = self.metadata.map();
        let skipped = |message: String| Ok(vec![("NOTICE", "00000", message + ", skipping")]);
        let named = |name: &String| {
            let link = map.link(name).map(|link| link.id);
            link.ok_or_else(|| SqlError::new("42704", format!("replication link \"{name}\" does not exist")))
        };
        let command = match plan {
            LinkPlan::Create {
                name,
                if_not_exists,
                target,
                tables,
                greatest,
            } => {
                if *if_not_exists && map.link(name).is_some() {
                    return skipped(format!("replication link \"{name}\" already exists"));
                }
                let (tables, _) = self.tables_named(tables, false, sql).await?;
                Command::CreateLink {
                    name: name.clone(),
                    target: target.clone(),
                    tables: rules(&self.metadata.map(), &tables, greatest.as_deref())?,
                }
            }
            LinkPlan::Drop { name, if_exists } => match named(name) {
                Err(error) if *if_exists => return skipped(error.message),
                link => Command::DropLink { link: link? },
            },
            LinkPlan::Pause { name, is_paused } => Command::PauseLink {
                link: named(name)?,
                is_paused: *is_paused,
            },
        };
        self.metadata.propose(command).await?;
        if matches!(plan, LinkPlan::Create { .. }) {
            // From then on every change is kept with its version.
            self.coordinator
                .wait_until_all_know(self.metadata.map().version)
                .await?;
        }
        Ok(Notices::new())
    }

    /// Does what another cluster tells.
    pub(super) async fn apply_changes(
        &self,
        parameter: Option<&Value>,
        sink: &mut dyn RowSink,
    ) -> Result<(), SqlError> {
        let Some(Value::Bytea(bytes)) = parameter else {
            return Err(SqlError::new("22004", "there are no replication changes"));
        };
        let told = Told::decode(bytes)?;
        let map = self.metadata.map();
        if told.cluster_uuid == map.cluster_uuid {
            return Err(SqlError::new("22023", "these are the cluster's own changes"));
        }
        let map = self.track_told(&told.tables).await?;
        let link = format!("{} of {}", told.link, told.cluster_uuid);
        let (mut applied, mut conflicts) = (0, 0);
        for (partition, changes) in by_partition(&map, told)? {
            let taken = self.coordinator.take_changes(partition, link.clone(), changes).await?;
            applied += taken.applied;
            conflicts += taken.conflicts;
        }
        let number = |number: u64| ValueRef::BigInt(number.cast_signed());
        sink.row(&[number(applied), number(conflicts)]);
        Ok(())
    }

    /// Tables to which another cluster's changes come are tracked, under the rule that it goes by.
    async fn track_told(&self, told: &[ToldTable]) -> Result<std::sync::Arc<ClusterMap>, SqlError> {
        let names: Vec<String> = told.iter().map(|table| table.name.clone()).collect();
        self.tables_named(&names, false, "").await?;
        let map = self.metadata.map();
        let mut is_tracked = true;
        for told in told {
            let Some(table) = map.table(&told.name) else { continue };
            let rule = Reader::rule(table, told)?;
            if table.tracking != Some(rule) {
                is_tracked = false;
                let command = Command::TrackTable {
                    table: table.id,
                    rule: Some(rule),
                };
                self.metadata.propose(command).await?;
            }
        }
        if !is_tracked {
            self.coordinator
                .wait_until_all_know(self.metadata.map().version)
                .await?;
        }
        Ok(self.metadata.map())
    }
}

/// The rule of each table.
fn rules(
    map: &ClusterMap,
    tables: &BTreeSet<TableId>,
    greatest: Option<&str>,
) -> Result<BTreeMap<TableId, ConflictRule>, SqlError> {
    let rule = |id: &TableId| {
        let Some(name) = greatest else {
            return Ok((*id, ConflictRule::LastWriter));
        };
        let table = map.tables.get(id);
        let table = table.ok_or_else(|| SqlError::new("42P01", "a relation was dropped meanwhile"))?;
        let place = table.place_of(name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
            SqlError::new("42703", message)
        })?;
        Ok((*id, ConflictRule::Greatest(place)))
    };
    tables.iter().map(rule).collect()
}

/// The changes of each partition here, in their order.
fn by_partition(map: &ClusterMap, told: Told) -> Result<BTreeMap<PartitionId, Vec<Change>>, SqlError> {
    let mut readers = Vec::with_capacity(told.tables.len());
    for of in &told.tables {
        let table = map.table(&of.name);
        let table = table.ok_or_else(|| SqlError::new("42P01", format!("table \"{}\" does not exist", of.name)))?;
        let group = map.groups.get(&table.group);
        let group = group.ok_or_else(|| SqlError::internal("a table without partitions"))?;
        readers.push((Reader::new(table, of)?, &group.partitions));
    }
    let mut changes: BTreeMap<PartitionId, Vec<Change>> = BTreeMap::new();
    for change in told.changes {
        let of = readers.get(change.table as usize);
        let (reader, partitions) = of.ok_or_else(|| SqlError::new("22023", "a change of a table that is not named"))?;
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        let (index, change) = reader.read(change, count)?;
        let partition = partitions.get(index as usize);
        let partition = partition.ok_or_else(|| SqlError::internal("a partition that there is not"))?;
        changes.entry(*partition).or_default().push(change);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests;
