//! Statements that change what there is, and those about settings: which plan each has.

use datafusion::sql::sqlparser::ast::{ObjectType, Statement};

use super::copies::CopiesPlan;
use super::index::IndexPlan;
use super::planned::Plan;
use super::prepare::text_column;
use super::sequence::SequencePlan;
use super::views::ViewPlan;
use super::{SqlEngine, alter, ddl, truncate};
use crate::error::SqlError;
use crate::metadata::map::ClusterMap;
use crate::statement::ResultColumn;

impl SqlEngine {
    /// The plan of a statement that is neither a query nor a write of rows, and its columns.
    pub(super) async fn plan_definition(
        &self,
        statement: &Statement,
        sql: &str,
        map: &ClusterMap,
    ) -> Result<(Plan, Vec<ResultColumn>), SqlError> {
        match statement {
            Statement::Drop {
                object_type: ObjectType::Table,
                if_exists,
                names,
                ..
            } => {
                let names = names.iter().map(ddl::table_name).collect::<Result<Vec<_>, _>>()?;
                let if_exists = *if_exists;
                Ok((Plan::DropTable { names, if_exists }, Vec::new()))
            }
            Statement::AlterTable(alter) => {
                let plan = match CopiesPlan::of(alter)? {
                    Some(plan) => Plan::Copies(plan),
                    None => Plan::AlterTable(alter::plan(alter, sql)?),
                };
                Ok((plan, Vec::new()))
            }
            Statement::CreateIndex(create) => {
                let plan = Plan::Index(self.plan_index(create, sql, map).await?);
                Ok((plan, Vec::new()))
            }
            Statement::Drop {
                object_type: ObjectType::Index,
                if_exists,
                names,
                ..
            } => {
                let names = names.iter().map(ddl::table_name).collect::<Result<Vec<_>, _>>()?;
                let if_exists = *if_exists;
                Ok((Plan::Index(IndexPlan::Drop { names, if_exists }), Vec::new()))
            }
            Statement::CreateView(create) => {
                let plan = Plan::View(self.plan_view(create, sql, map).await?);
                Ok((plan, Vec::new()))
            }
            Statement::Drop {
                object_type: object_type @ (ObjectType::View | ObjectType::MaterializedView),
                if_exists,
                names,
                cascade,
                ..
            } => {
                if *cascade {
                    return Err(SqlError::unsupported("DROP VIEW ... CASCADE"));
                }
                let plan = ViewPlan::Drop {
                    names: names.iter().map(ddl::table_name).collect::<Result<Vec<_>, _>>()?,
                    if_exists: *if_exists,
                    materialized: *object_type == ObjectType::MaterializedView,
                };
                Ok((Plan::View(plan), Vec::new()))
            }
            Statement::Drop {
                object_type: ObjectType::Sequence,
                if_exists,
                names,
                ..
            } => {
                let names = names.iter().map(ddl::table_name).collect::<Result<Vec<_>, _>>()?;
                let if_exists = *if_exists;
                Ok((Plan::Sequence(SequencePlan::Drop { names, if_exists }), Vec::new()))
            }
            Statement::Truncate(truncate) => {
                let (names, restarts) = truncate::names(truncate)?;
                Ok((Plan::Truncate { names, restarts }, Vec::new()))
            }
            Statement::Set(_) | Statement::Reset(_) => Ok((Plan::Set, Vec::new())),
            Statement::ShowVariable { variable } => {
                let name = variable
                    .iter()
                    .map(|part| part.value.to_lowercase())
                    .collect::<Vec<_>>()
                    .join("_");
                let value = setting(&name).ok_or_else(|| {
                    SqlError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
                })?;
                Ok((Plan::Show(value.to_owned()), text_column(&name)))
            }
            other => {
                let text = other.to_string();
                let words = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
                Err(SqlError::unsupported(words))
            }
        }
    }
}

/// The settings that drivers ask for.
fn setting(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_version" => "15.0",
        "server_encoding" | "client_encoding" => "UTF8",
        "datestyle" => "ISO, MDY",
        "timezone" | "time_zone" => "UTC",
        "standard_conforming_strings" | "integer_datetimes" => "on",
        "search_path" => "public",
        "statement_timeout" | "lock_timeout" => "0",
        "application_name" => "",
        "extra_float_digits" => "1",
        "max_identifier_length" => "63",
        _ => return None,
    })
}
