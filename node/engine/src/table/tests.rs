use super::*;

fn key() -> Key {
    Key::new(b"k")
}

fn write(table: &mut Table, lsn: Lsn, row: Option<&[u8]>) {
    table.write(&key(), lsn, row);
}

fn seen(table: &Table, snapshot: Lsn) -> Option<(Lsn, &[u8])> {
    table.get(&key()).and_then(|version| version.at(snapshot))
}

#[test]
fn a_pin_keeps_only_the_version_that_it_sees() {
    let mut table = Table::default();
    for lsn in 1..=9 {
        write(&mut table, lsn, Some(&[lsn as u8]));
    }
    let mut kept_by = Vec::new();
    table.prune(&key(), 9, &Pins::from([(4, 1)]), &mut kept_by);
    assert_eq!(kept_by, [4]);
    assert_eq!(table.stats().versions, 2);
    assert_eq!(seen(&table, 4), Some((4, &[4][..])));
    assert_eq!(seen(&table, 9), Some((9, &[9][..])));
}

#[test]
fn what_may_be_undone_stays() {
    let mut table = Table::default();
    for lsn in 1..=4 {
        write(&mut table, lsn, Some(&[lsn as u8]));
    }
    table.prune(&key(), 2, &Pins::new(), &mut Vec::new());
    assert_eq!(
        table.stats().versions,
        3,
        "1 is behind a committed version, 2 and 3 are not"
    );
    table.undo_after(&key(), 2);
    assert_eq!(seen(&table, Lsn::MAX), Some((2, &[2][..])));
    assert_eq!(table.stats().versions, 1);
}

#[test]
fn a_tombstone_goes_when_it_is_committed_and_hides_nothing() {
    let mut table = Table::default();
    write(&mut table, 1, Some(b"row"));
    write(&mut table, 2, None);
    let mut kept_by = Vec::new();
    table.prune(&key(), 1, &Pins::new(), &mut kept_by);
    assert_eq!(table.get(&key()).map(Version::lsn), Some(2), "not committed");
    table.prune(&key(), 2, &Pins::from([(1, 1)]), &mut kept_by);
    assert_eq!(seen(&table, 1), Some((1, &b"row"[..])));
    assert_eq!(kept_by, [1]);
    table.prune(&key(), 2, &Pins::new(), &mut kept_by);
    assert!(table.get(&key()).is_none());
    assert_eq!(table.stats(), Stats::default());
}

#[test]
fn removing_what_is_not_there_leaves_nothing() {
    let mut table = Table::default();
    assert_eq!(table.write(&key(), 1, None), None);
    assert_eq!(table.stats(), Stats::default());
}

#[test]
fn a_long_chain_is_dropped_without_recursion() {
    let mut table = Table::default();
    for lsn in 1..=300_000 {
        write(&mut table, lsn, Some(b""));
    }
    drop(table);
}

#[test]
fn undoing_an_insert_and_its_removal_leaves_nothing() {
    let mut table = Table::default();
    write(&mut table, 1, Some(b"row"));
    write(&mut table, 2, None);
    table.undo_after(&key(), 0);
    assert_eq!(table.stats(), Stats::default());
}
