//! Replication links, and what they hold fast.

use std::collections::BTreeMap;

use volt_engine::TableId;
use volt_engine::changes::ConflictRule;

use super::super::apply;
use super::super::tests::{cluster, create};
use crate::metadata::command::{Applied, ColumnChange, Command, CommandResult, Refusal};
use crate::metadata::link::{LinkTarget, MAX_LINKS};
use crate::metadata::map::ClusterMap;

fn link(map: &mut ClusterMap, name: &str, tables: &[(TableId, ConflictRule)]) -> CommandResult {
    let target = LinkTarget {
        url: "postgres://volt@there/volt".to_owned(),
        password_file: None,
    };
    let tables: BTreeMap<TableId, ConflictRule> = tables.iter().copied().collect();
    apply(
        map,
        Command::CreateLink {
            name: name.to_owned(),
            target,
            tables,
        },
    )
}

fn tracking(map: &ClusterMap, table: TableId) -> Option<ConflictRule> {
    map.tables[&table].tracking
}

const LAST: ConflictRule = ConflictRule::LastWriter;

#[test]
fn a_link_has_its_tables_tracked_and_holds_them() {
    let mut map = cluster();
    let table = create(&mut map, "orders", 1);
    let before = map.catalog_version;
    assert_eq!(link(&mut map, "there", &[(table, LAST)]), Ok(Applied::Done));
    assert_eq!(tracking(&map, table), Some(LAST));
    assert!(map.catalog_version > before, "plans and replicas hear of it");
    let exists = Refusal::LinkExists("there".to_owned());
    assert_eq!(link(&mut map, "there", &[(table, LAST)]), Err(exists));
    let tables = [table].into();
    let needed = apply(&mut map, Command::DropTables { tables });
    assert!(matches!(needed, Err(Refusal::NeededByLink { link, .. }) if link == "there"));
    let untrack = Command::TrackTable { table, rule: None };
    assert!(matches!(
        apply(&mut map, untrack.clone()),
        Err(Refusal::NeededByLink { .. })
    ));
    let id = map.link("there").expect("it was made").id;
    assert_eq!(apply(&mut map, Command::DropLink { link: id }), Ok(Applied::Done));
    assert_eq!(tracking(&map, table), Some(LAST), "others may send changes to it");
    assert_eq!(apply(&mut map, untrack), Ok(Applied::Done));
    assert_eq!(tracking(&map, table), None);
    let gone = apply(&mut map, Command::DropLink { link: id });
    assert_eq!(gone, Err(Refusal::NoSuchLink(id)));
}

#[test]
fn numbers_are_not_used_again() {
    let mut map = cluster();
    let table = create(&mut map, "orders", 1);
    for expected in 1..=3 {
        link(&mut map, "there", &[(table, LAST)]).expect("it is free");
        let id = map.link("there").expect("it was made").id;
        assert_eq!(id, expected);
        apply(&mut map, Command::DropLink { link: id }).expect("it is there");
    }
}

#[test]
fn a_table_has_one_rule() {
    let mut map = cluster();
    let (table, other) = (create(&mut map, "orders", 1), create(&mut map, "bids", 1));
    link(&mut map, "one", &[(table, LAST)]).expect("it is free");
    let unlike = [(other, LAST), (table, ConflictRule::Greatest(0))];
    assert!(matches!(link(&mut map, "two", &unlike), Err(Refusal::NotAllowed(_))));
    assert_eq!(tracking(&map, other), None, "all of them or none");
    let no_column = [(other, ConflictRule::Greatest(7))];
    assert!(matches!(link(&mut map, "three", &no_column), Err(Refusal::Invalid(_))));
    assert!(matches!(link(&mut map, "four", &[]), Err(Refusal::Invalid(_))));
    let nowhere = [(99, LAST)];
    assert_eq!(link(&mut map, "five", &nowhere), Err(Refusal::NoSuchTable(99)));
}

#[test]
fn the_column_that_decides_stays() {
    let mut map = cluster();
    let table = create(&mut map, "bids", 1);
    let mut column = map.tables[&table].columns[0].clone();
    (column.name, column.nullable) = ("price".to_owned(), true);
    let alter = |map: &mut ClusterMap, change| {
        let catalog_version = map.catalog_version;
        let changes = vec![change];
        apply(
            map,
            Command::AlterColumns {
                table,
                changes,
                catalog_version,
            },
        )
    };
    alter(&mut map, ColumnChange::Add(column)).expect("it is new");
    link(&mut map, "there", &[(table, ConflictRule::Greatest(1))]).expect("it is free");
    let dropped = alter(&mut map, ColumnChange::Drop("price".to_owned()));
    assert!(matches!(dropped, Err(Refusal::NotAllowed(_))), "{dropped:?}");
}

#[test]
fn there_are_so_many_links() {
    let mut map = cluster();
    let table = create(&mut map, "orders", 1);
    for number in 0..MAX_LINKS {
        link(&mut map, &format!("link {number}"), &[(table, LAST)]).expect("there is room");
    }
    let full = link(&mut map, "one more", &[(table, LAST)]);
    assert!(matches!(full, Err(Refusal::NotAllowed(_))));
}
