//! The extended protocol: Parse, Bind, Describe, Execute, Close.
//!
//! Bind and an Execute that the database runs inline are the hot path: they neither allocate nor wait, except for what
//! a parameter itself owns.

use std::sync::Arc;

use volt_engine::value::Value;

use super::command::SessionCommand;
use super::messages::{self, Malformed, Reader};
use super::session::{Body, Failure, Portal, Progress, RunPortal, Session, Statement, no_statement};
use super::sink::{Rest, Rows};
use super::{MAX_PORTALS, MAX_STATEMENTS, codec};
use crate::error::SqlError;
use crate::statement::{Completion, Prepared};
use crate::world::Stream;

/// What became of an Execute that was tried inline.
#[derive(PartialEq, Eq)]
pub(crate) enum Inline {
    /// It is done.
    Done,
    /// It has to wait for something: `execute` does it.
    Waits,
}

impl Session {
    /// Parse.
    pub(crate) async fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let name = reader.zero_terminated()?;
        let sql = reader.text()?;
        let count = reader.count()?;
        let mut declared = Vec::new();
        for _ in 0..count {
            declared.push(reader.i32()? as u32);
        }
        if name.is_empty() {
            self.unnamed = None;
        } else if self.statements.contains_key(name) {
            let name = String::from_utf8_lossy(name);
            return Err(SqlError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        } else if self.statements.len() >= MAX_STATEMENTS {
            return Err(SqlError::new("53400", "too many prepared statements in this session").into());
        }
        let statement = match self.prepare(sql, declared).await {
            Ok(statement) => Arc::new(statement),
            Err(error) => {
                self.check_block(None)?;
                return Err(error.into());
            }
        };
        if name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.statements.insert(name.into(), statement);
        }
        self.output.bytes.extend_from_slice(messages::PARSE_COMPLETE);
        Ok(())
    }

    async fn prepare(&self, sql: &str, declared: Vec<u32>) -> Result<Statement, SqlError> {
        let nothing = |body| Statement {
            body,
            oids: Vec::new(),
            targets: Vec::new(),
            description: messages::NO_DATA.to_vec(),
        };
        if let Some(command) = SessionCommand::parse(sql) {
            return Ok(nothing(Body::Command(command)));
        }
        let parts = self.database.split(sql)?;
        let (text, offset) = match parts.as_slice() {
            [] => return Ok(nothing(Body::Empty)),
            [(text, offset)] => (text, *offset),
            _ => {
                return Err(SqlError::new(
                    "42601",
                    "cannot insert multiple commands into a prepared statement",
                ));
            }
        };
        let types = declared
            .iter()
            .map(|oid| codec::declared_type(*oid))
            .collect::<Result<Vec<_>, _>>()?;
        let prepared = self
            .database
            .prepare(text, &types)
            .await
            .map_err(|error| error.shifted(offset))?;
        let targets = prepared.parameters().to_vec();
        let oid_of = |(place, target)| match declared.get(place) {
            Some(oid) if *oid != 0 && *oid != codec::UNKNOWN => *oid,
            _ => codec::oid(target),
        };
        let oids = targets.iter().copied().enumerate().map(oid_of).collect();
        let mut description = Vec::new();
        describe(&mut description, &*prepared, &[]);
        Ok(Statement {
            body: Body::Database(prepared),
            oids,
            targets,
            description,
        })
    }

    fn statement(&self, name: &[u8]) -> Result<&Arc<Statement>, SqlError> {
        let found = if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.statements.get(name)
        };
        found.ok_or_else(|| no_statement(name))
    }

    fn portal(&mut self, name: &[u8]) -> Result<&mut Portal, SqlError> {
        let found = if name.is_empty() {
            Some(&mut self.unnamed_portal)
        } else {
            self.portals.get_mut(name)
        };
        found
            .filter(|portal| portal.statement.is_some())
            .ok_or_else(|| no_portal(name))
    }

    /// Bind.
    pub(crate) fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let portal_name = reader.zero_terminated()?;
        let statement = Arc::clone(self.statement(reader.zero_terminated()?)?);
        if portal_name.is_empty() {
            bind_portal(&mut self.unnamed_portal, statement, reader)?;
        } else {
            if self.portals.contains_key(portal_name) {
                let name = String::from_utf8_lossy(portal_name);
                return Err(SqlError::new("42P03", format!("portal \"{name}\" already exists")).into());
            }
            if self.portals.len() >= MAX_PORTALS {
                return Err(SqlError::new("53400", "too many portals in this session").into());
            }
            let mut portal = Portal::default();
            bind_portal(&mut portal, statement, reader)?;
            self.portals.insert(portal_name.into(), portal);
        }
        self.output.bytes.extend_from_slice(messages::BIND_COMPLETE);
        Ok(())
    }

    /// Describe.
    pub(crate) fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let kind = reader.byte()?;
        let name = reader.zero_terminated()?;
        match kind {
            b'S' => {
                let statement = Arc::clone(self.statement(name)?);
                messages::parameter_description(&mut self.output.bytes, &statement.oids);
                self.output.bytes.extend_from_slice(&statement.description);
            }
            b'P' => self.describe_portal(name)?,
            _ => return Err(Malformed("invalid DESCRIBE message subtype").into()),
        }
        Ok(())
    }

    fn describe_portal(&mut self, name: &[u8]) -> Result<(), SqlError> {
        let found = if name.is_empty() {
            Some(&self.unnamed_portal)
        } else {
            self.portals.get(name)
        };
        let portal = found.ok_or_else(|| no_portal(name))?;
        let statement = portal.statement.as_ref().ok_or_else(|| no_portal(name))?;
        match &statement.body {
            Body::Database(prepared) if portal.formats.iter().any(|format| *format != 0) => {
                describe(&mut self.output.bytes, &**prepared, &portal.formats);
            }
            _ => self.output.bytes.extend_from_slice(&statement.description),
        }
        Ok(())
    }

    /// Execute, as far as it needn't wait.
    pub(crate) fn execute_inline(&mut self, body: &[u8]) -> Result<Inline, Failure> {
        let (name, limit) = read_execute(body)?;
        if !name.is_empty() || self.unnamed_portal.progress != Progress::Bound || !self.runs_inline() {
            return Ok(Inline::Waits);
        }
        let portal = &mut self.unnamed_portal;
        let statement = portal.statement.as_ref().ok_or_else(|| no_portal(name))?;
        let Body::Database(prepared) = &statement.body else {
            return Ok(Inline::Waits);
        };
        if prepared.idempotency_key().is_some() {
            return Ok(Inline::Waits);
        }
        let start = self.output.bytes.len();
        let mut rows = Rows::new(&mut self.output, &mut portal.rest, &portal.formats, limit);
        let executed = self
            .database
            .try_execute(&**prepared, &portal.parameters, &self.values, &mut rows);
        let Some(result) = executed else {
            self.output.bytes.truncate(start);
            portal.rest = Rest::default();
            return Ok(Inline::Waits);
        };
        match result.and_then(|completion| Ok((completion, rows.finish()?))) {
            Ok((completion, count)) => {
                portal.progress = self.output.finish_execute(&completion, count, limit, start);
                self.tally.succeeded += 1;
                Ok(Inline::Done)
            }
            Err(error) => {
                self.output.bytes.truncate(start);
                Err(error.into())
            }
        }
    }

    /// Execute, whatever it takes.
    pub(crate) async fn execute(&mut self, body: &[u8], stream: &mut dyn Stream) -> Result<(), Failure> {
        let (name, limit) = read_execute(body)?;
        let portal = self.portal(name)?;
        let statement = portal.statement.clone().ok_or_else(|| no_portal(name))?;
        match portal.progress {
            Progress::Bound => {}
            Progress::Suspended { tag } => {
                self.resume(name, limit, tag)?;
                return Ok(());
            }
            Progress::Done => return self.execute_again(&statement),
        }
        match &statement.body {
            Body::Empty => self.output.bytes.extend_from_slice(messages::EMPTY_QUERY),
            Body::Command(command) => self.command(command)?,
            Body::Database(prepared) => match prepared.control() {
                Some(control) => {
                    let formats = self.portal(name)?.formats.clone();
                    self.control(control, prepared.idempotency_key(), &formats).await?;
                    self.tally.succeeded += 1;
                }
                None => {
                    self.check_block(None)?;
                    return self.execute_database(name, prepared, limit, stream).await;
                }
            },
        }
        self.portal(name)?.progress = Progress::Done;
        Ok(())
    }

    async fn execute_database(
        &mut self,
        name: &[u8],
        prepared: &Arc<dyn Prepared>,
        limit: u64,
        stream: &mut dyn Stream,
    ) -> Result<(), Failure> {
        let portal = self.portal(name)?;
        let parameters = std::mem::take(&mut portal.parameters);
        let formats = std::mem::take(&mut portal.formats);
        portal.progress = Progress::Done;
        let mut rest = Rest::default();
        let asked = RunPortal {
            parameters,
            formats: &formats,
            limit,
            rest: &mut rest,
        };
        let (completion, count, start) = self.run(prepared, asked, stream).await?;
        let progress = self.output.finish_execute(&completion, count, limit, start);
        self.tally.succeeded += 1;
        let portal = self.portal(name)?;
        portal.formats = formats;
        portal.progress = progress;
        portal.rest = rest;
        Ok(())
    }

    /// More rows of a suspended portal.
    fn resume(&mut self, name: &[u8], limit: u64, tag: &'static str) -> Result<(), SqlError> {
        // Both are fields of the session; one is taken out while the other grows.
        let mut rest = std::mem::take(&mut self.portal(name)?.rest);
        let mut count = 0;
        while count < limit {
            let Ok(Some((_, length))) = messages::frame(&rest.bytes[rest.at..]) else {
                break;
            };
            self.output
                .bytes
                .extend_from_slice(&rest.bytes[rest.at..rest.at + length]);
            rest.at += length;
            count += 1;
        }
        let progress = if rest.at < rest.bytes.len() {
            self.output.bytes.extend_from_slice(messages::PORTAL_SUSPENDED);
            Progress::Suspended { tag }
        } else {
            messages::command_complete(&mut self.output.bytes, tag, Some(count));
            rest = Rest::default();
            Progress::Done
        };
        let portal = self.portal(name)?;
        portal.rest = rest;
        portal.progress = progress;
        Ok(())
    }

    /// A portal that has run gives no more rows, and can't write twice.
    fn execute_again(&mut self, statement: &Statement) -> Result<(), Failure> {
        match &statement.body {
            Body::Database(prepared) if prepared.returns_rows() => {
                messages::command_complete(&mut self.output.bytes, "SELECT", Some(0));
                Ok(())
            }
            _ => Err(SqlError::new("55000", "portal cannot be run anymore").into()),
        }
    }

    /// Close.
    pub(crate) fn close(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = Reader::new(body);
        let kind = reader.byte()?;
        let name = reader.zero_terminated()?;
        match (kind, name) {
            (b'S', b"") => self.unnamed = None,
            (b'S', name) => drop(self.statements.remove(name)),
            (b'P', b"") => self.unnamed_portal.clear(),
            (b'P', name) => drop(self.portals.remove(name)),
            _ => return Err(Malformed("invalid CLOSE message subtype").into()),
        }
        self.output.bytes.extend_from_slice(messages::CLOSE_COMPLETE);
        Ok(())
    }

    /// Sync: the group of messages ends, and with it what ran in it.
    pub(crate) fn sync(&mut self) {
        self.discarding = false;
        // Portals live as long as their transaction.
        if self.block.is_none() {
            if self.unnamed_portal.statement.is_some() {
                self.unnamed_portal.clear();
            }
            if !self.portals.is_empty() {
                self.portals.clear();
            }
        }
        self.output.ready(self.status());
    }
}

impl super::output::Output {
    /// Ends an Execute's responses, which begin at `start`; `count` rows came of it.
    fn finish_execute(&mut self, completion: &Completion, count: u64, limit: u64, start: usize) -> Progress {
        if let Some(wait) = completion.wait {
            self.wait_for(wait, start);
        }
        if count > limit {
            self.bytes.extend_from_slice(messages::PORTAL_SUSPENDED);
            return Progress::Suspended { tag: completion.tag };
        }
        messages::completion(&mut self.bytes, completion, completion.rows);
        Progress::Done
    }
}

fn describe(out: &mut Vec<u8>, prepared: &dyn Prepared, formats: &[i16]) {
    if prepared.returns_rows() {
        messages::row_description(out, prepared.columns(), formats);
    } else {
        out.extend_from_slice(messages::NO_DATA);
    }
}

/// The portal's name, and how many rows the client wants.
fn read_execute(body: &[u8]) -> Result<(&[u8], u64), Malformed> {
    let mut reader = Reader::new(body);
    let name = reader.zero_terminated()?;
    let limit = reader.i32()?;
    Ok((name, if limit <= 0 { u64::MAX } else { limit as u64 }))
}

fn bind_portal(portal: &mut Portal, statement: Arc<Statement>, mut reader: Reader<'_>) -> Result<(), Failure> {
    portal.clear();
    let Formats(parameter_formats) = read_formats(&mut reader)?;
    let count = reader.count()?;
    if count != statement.targets.len() {
        let wanted = statement.targets.len();
        let message = format!("bind message supplies {count} parameters, but prepared statement requires {wanted}");
        return Err(SqlError::new("08P01", message).into());
    }
    if parameter_formats.len() / 2 > 1 && parameter_formats.len() / 2 != count {
        let formats = parameter_formats.len() / 2;
        let message = format!("bind message has {formats} parameter formats but {count} parameters");
        return Err(SqlError::new("08P01", message).into());
    }
    for (place, (target, oid)) in statement.targets.iter().zip(&statement.oids).enumerate() {
        let length = reader.i32()?;
        let value = match usize::try_from(length) {
            Ok(length) => {
                let bytes = reader.bytes(length)?;
                codec::parameter(bytes, format_at(parameter_formats, place), *oid, *target)?
            }
            Err(_) => Value::Null,
        };
        portal.parameters.push(value);
    }
    let Formats(result_formats) = read_formats(&mut reader)?;
    let formats = result_formats
        .chunks_exact(2)
        .map(|pair| i16::from_be_bytes([pair[0], pair[1]]));
    portal.formats.extend(formats);
    let columns = statement.body.columns();
    if portal.formats.len() > 1 && portal.formats.len() != columns {
        let formats = portal.formats.len();
        let message = format!("bind message has {formats} result formats but query has {columns} columns");
        return Err(SqlError::new("08P01", message).into());
    }
    portal.statement = Some(statement);
    Ok(())
}

/// Format codes as they lie in the message, two bytes each.
struct Formats<'a>(&'a [u8]);

fn read_formats<'a>(reader: &mut Reader<'a>) -> Result<Formats<'a>, Failure> {
    let count = reader.count()?;
    let codes = reader.bytes(count * 2)?;
    match codes.chunks_exact(2).find(|pair| pair[0] != 0 || pair[1] > 1) {
        None => Ok(Formats(codes)),
        Some(pair) => {
            let code = i16::from_be_bytes([pair[0], pair[1]]);
            Err(SqlError::new("22023", format!("unsupported format code: {code}")).into())
        }
    }
}

fn format_at(codes: &[u8], place: usize) -> i16 {
    match codes {
        [] => 0,
        [_, all] => i16::from(*all),
        each => each.get(place * 2 + 1).map_or(0, |code| i16::from(*code)),
    }
}

fn no_portal(name: &[u8]) -> SqlError {
    let name = String::from_utf8_lossy(name);
    SqlError::new("34000", format!("portal \"{name}\" does not exist"))
}
