//! What EXPLAIN says of a row program.

use volt_engine::plan::{Access, Action, KeyRange, OnConflict, Program, Stage};

use super::Route;

/// A line for where it runs, one for how it finds its rows, and one for each thing that it does to them, in order.
pub(in crate::query) fn explain(program: &Program, route: &Route) -> Vec<String> {
    let place = match route {
        Route::Single(_) => "one partition",
        Route::Any => "any partition",
        Route::Rows => "the partition of each row",
        Route::All => "every partition",
    };
    let what = match program.action {
        Action::Select { .. } => "Select",
        Action::Insert { .. } => "Insert",
        Action::Update { .. } => "Update",
        Action::Delete { .. } => "Delete",
        Action::Truncate { .. } => "Truncate",
    };
    let mut lines = vec![format!(
        "{what} by a row program in {place}: table {}",
        program.table_name
    )];
    let (access, filter) = match &program.action {
        Action::Select { access, filter, .. }
        | Action::Update { access, filter, .. }
        | Action::Delete { access, filter } => (access, filter),
        Action::Insert { .. } | Action::Truncate { .. } => {
            let done = program.on_conflict.as_ref().map(|on_conflict| match on_conflict {
                OnConflict::Nothing => "nothing",
                OnConflict::Update { .. } => "update",
            });
            lines.extend(done.map(|done| format!("  on conflict {done}")));
            return lines;
        }
    };
    lines.push(format!("  {}", found(program, access)));
    if filter.is_some() {
        lines.push("  filter".to_owned());
    }
    if let Action::Select {
        stages, limit, offset, ..
    } = &program.action
    {
        lines.extend(stages.iter().map(|stage| format!("  {}", done(stage))));
        if *offset > 0 {
            lines.push(format!("  offset {offset}"));
        }
        lines.extend(limit.map(|limit| format!("  limit {limit}")));
    }
    lines
}

fn found(program: &Program, access: &Access) -> String {
    let names = |count: usize| {
        let columns = program.primary_key.iter().take(count);
        let names = columns.filter_map(|&column| Some(program.columns.get(column)?.name.as_str()));
        names.collect::<Vec<_>>().join(", ")
    };
    match access {
        Access::Point(values) => format!("one row by its primary key ({})", names(values.len())),
        Access::Prefix(values) => format!("range of the primary key by ({})", names(values.len())),
        Access::Range(KeyRange {
            prefix,
            from,
            to,
            backward,
        }) => {
            let bounded = from.is_some() || to.is_some();
            let by = match prefix.len() + usize::from(bounded) {
                0 => "all rows in the order of the primary key".to_owned(),
                count => format!("range of the primary key by ({})", names(count)),
            };
            by + if *backward { ", backwards" } else { "" }
        }
        Access::Scan => "all rows".to_owned(),
        Access::Index(index) => {
            let range = &index.range;
            let bounded = range.from.is_some() || range.to.is_some();
            let count = range.prefix.len() + usize::from(bounded);
            let columns = index.shape.columns.iter().take(count);
            let names = columns.filter_map(|column| Some(program.columns.get(column.place)?.name.as_str()));
            let by = match count {
                0 => "all rows in the order of a secondary index".to_owned(),
                _ => format!(
                    "range of a secondary index by ({})",
                    names.collect::<Vec<_>>().join(", ")
                ),
            };
            by + if range.backward { ", backwards" } else { "" }
        }
    }
}

fn done(stage: &Stage) -> &'static str {
    match stage {
        Stage::Filter(_) => "filter",
        Stage::Project(_) => "project",
        Stage::Limit { .. } => "limit",
        Stage::Sort(_) => "sort",
        Stage::Aggregate { .. } => "aggregate",
    }
}
