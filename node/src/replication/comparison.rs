//! Who is in doubt when replicas of a partition differ at the same LSN: a function of their checksums.

use std::collections::{BTreeMap, BTreeSet};

use volt_engine::partition::TableSum;
use volt_engine::{Lsn, NodeId, TableId};

/// The checksums of one replica's tables, those without rows left out.
pub(crate) type Sums = BTreeMap<TableId, TableSum>;

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Replicas that can't be trusted, the primary among them perhaps, and what speaks against each.
    pub(crate) in_doubt: BTreeMap<NodeId, String>,
    /// Replicas that agree with each other, and that the others are held to.
    pub(crate) trusted: BTreeSet<NodeId>,
}

/// Compares replicas at `lsn`, the primary's among them. None: they are the same. The largest set of replicas that agree
/// is believed; between sets of the same size, the primary's, or else nobody's but the primary.
pub(crate) fn compare(lsn: Lsn, primary: NodeId, replicas: &BTreeMap<NodeId, Sums>) -> Option<Difference> {
    let own = replicas.get(&primary)?;
    let agreeing = |sums: &Sums| -> BTreeSet<NodeId> {
        let same = replicas.iter().filter(|(_, other)| *other == sums);
        same.map(|(node, _)| *node).collect()
    };
    let with_primary = agreeing(own);
    if with_primary.len() == replicas.len() {
        return None;
    }
    let sets: BTreeSet<BTreeSet<NodeId>> = replicas.values().map(agreeing).collect();
    let largest = sets.iter().map(BTreeSet::len).max().unwrap_or(0);
    let mut of_that_size = sets.iter().filter(|set| set.len() == largest);
    let (first, more) = (of_that_size.next()?, of_that_size.next().is_some());
    let is_sure = !more;
    let trusted = if is_sure { first.clone() } else { with_primary };
    let believed = replicas.get(trusted.first()?)?;
    let why = match (is_sure, trusted.contains(&primary), replicas.len()) {
        (true, true, _) => format!("{} of {} copies agree with the primary", trusted.len(), replicas.len()),
        (true, false, _) => format!(
            "{} of {} copies agree, and it was the primary",
            trusted.len(),
            replicas.len()
        ),
        (false, _, 2) => {
            "there are two copies, so that nobody can know which is right: the primary's counts".to_owned()
        }
        (false, _, copies) => format!("the {copies} copies don't say which is right: the primary's counts"),
    };
    let accused = replicas.iter().filter(|(node, _)| !trusted.contains(node));
    let in_doubt = accused
        .map(|(node, sums)| (*node, format!("{}; {why}", difference(lsn, believed, sums))))
        .collect();
    Some(Difference { in_doubt, trusted })
}

/// The first table that differs, with its figures.
fn difference(lsn: Lsn, believed: &Sums, sums: &Sums) -> String {
    let tables: BTreeSet<&TableId> = believed.keys().chain(sums.keys()).collect();
    let differs = |table: &&&TableId| believed.get(**table) != sums.get(**table);
    let count = tables.iter().filter(differs).count();
    let first = tables.iter().find(differs).map_or(0, |table| **table);
    let figures = |sums: &Sums| match sums.get(&first) {
        None => "no rows".to_owned(),
        Some(TableSum { rows, checksum }) => format!("checksum {checksum:016x} of {rows} rows"),
    };
    let (theirs, right) = (figures(sums), figures(believed));
    let more = if count > 1 {
        format!(", and {} more tables", count - 1)
    } else {
        String::new()
    };
    format!("at LSN {lsn}, table {first}: {theirs}, not {right}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(checksum: u64) -> Sums {
        BTreeMap::from([
            (1, TableSum { rows: 9, checksum: 7 }),
            (2, TableSum { rows: 3, checksum }),
        ])
    }

    fn compared(checksums: &[(NodeId, u64)]) -> Option<Difference> {
        let replicas = checksums
            .iter()
            .map(|(node, checksum)| (*node, sums(*checksum)))
            .collect();
        compare(40, 1, &replicas)
    }

    fn in_doubt(checksums: &[(NodeId, u64)]) -> Vec<NodeId> {
        compared(checksums).unwrap().in_doubt.into_keys().collect()
    }

    #[test]
    fn the_same_are_the_same() {
        assert_eq!(compared(&[(1, 5)]), None);
        assert_eq!(compared(&[(1, 5), (2, 5), (3, 5)]), None);
    }

    #[test]
    fn the_most_are_believed_and_the_primary_when_nobody_can_know() {
        assert_eq!(in_doubt(&[(1, 5), (2, 5), (3, 6)]), [3]);
        assert_eq!(in_doubt(&[(1, 5), (2, 6), (3, 6)]), [1]);
        assert_eq!(in_doubt(&[(1, 5), (2, 6), (3, 7)]), [2, 3]);
        assert_eq!(in_doubt(&[(1, 5), (2, 6)]), [2]);
        assert_eq!(in_doubt(&[(1, 5), (2, 5), (3, 6), (4, 6)]), [3, 4]);
        assert_eq!(in_doubt(&[(1, 5), (2, 6), (3, 6), (4, 7)]), [1, 4]);
        let two = compared(&[(1, 5), (2, 6)]).unwrap();
        let evidence = &two.in_doubt[&2];
        assert!(
            evidence.contains("table 2: checksum 0000000000000006 of 3 rows, not"),
            "{evidence}"
        );
        assert!(evidence.contains("two copies, so that nobody can know"), "{evidence}");
    }

    #[test]
    fn a_table_that_one_lacks_is_a_difference() {
        let mut lacking = sums(5);
        lacking.remove(&2);
        let replicas = BTreeMap::from([(1, sums(5)), (2, sums(5)), (3, lacking)]);
        let found = compare(40, 1, &replicas).unwrap();
        assert!(
            found.in_doubt[&3].contains("table 2: no rows, not checksum"),
            "{found:?}"
        );
        assert_eq!(found.trusted, BTreeSet::from([1, 2]));
    }
}
