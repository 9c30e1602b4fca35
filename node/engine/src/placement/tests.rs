use super::*;

fn nodes(count: NodeId) -> Vec<(NodeId, &'static str, u32)> {
    (1..=count).map(|node| (node, "", 100)).collect()
}

fn firsts(nodes: &[(NodeId, &str, u32)], partitions: u32) -> BTreeMap<NodeId, u32> {
    let mut count = BTreeMap::new();
    for partition in 1..=partitions {
        *count.entry(place(partition, nodes, 1)[0]).or_default() += 1;
    }
    count
}

#[test]
fn rows_are_where_they_were_with_the_first_release() {
    let places: Vec<u32> = (0..8).map(|key| partition_index(ValueRef::BigInt(key), 12)).collect();
    assert_eq!(places, PINNED, "changing this loses every row of every cluster");
    assert_eq!(partition_index(ValueRef::Text("volt"), 1_000), PINNED_TEXT);
}

#[test]
fn integer_types_agree_and_keys_spread() {
    let mut count = [0u32; 12];
    for key in -6_000..6_000 {
        let place = partition_index(ValueRef::Int(key), 12);
        assert_eq!(place, partition_index(ValueRef::BigInt(i64::from(key)), 12));
        count[place as usize] += 1;
    }
    assert!(count.iter().all(|count| (850..1_150).contains(count)), "{count:?}");
}

#[test]
fn the_logarithm_is_right() {
    for value in [1, 3, 1 << 40, u64::MAX / 3, u64::MAX / 2 + 1, u64::MAX] {
        let expected = 64.0 - (value as f64).log2();
        let found = minus_log2(value) as f64 / (1u64 << FRACTION_BITS) as f64;
        assert!((found - expected).abs() < 1e-6, "{value}: {found} {expected}");
    }
}

#[test]
fn shares_follow_weights() {
    let weighted = [(1, "", 100), (2, "", 100), (3, "", 200)];
    let count = firsts(&weighted, 8_000);
    assert!((1_850..2_150).contains(&count[&1]), "{count:?}");
    assert!((3_800..4_200).contains(&count[&3]), "{count:?}");
    assert!(!firsts(&[(1, "", 100), (2, "", 0)], 100).contains_key(&2));
}

#[test]
fn a_new_node_takes_its_share_and_nothing_else_moves() {
    let (four, five) = (nodes(4), nodes(5));
    let mut moved = 0;
    for partition in 1..=5_000 {
        let (before, after) = (place(partition, &four, 2), place(partition, &five, 2));
        let gone = before.iter().filter(|node| !after.contains(node)).count();
        let came: Vec<_> = after.iter().filter(|node| !before.contains(node)).collect();
        assert!(came.iter().all(|node| **node == 5), "{before:?} {after:?}");
        moved += gone;
    }
    // A fifth of 10,000 replicas.
    assert!((1_850..2_150).contains(&moved), "{moved}");
}

#[test]
fn copies_spread_over_zones() {
    let zoned = [
        (1, "a", 100),
        (2, "a", 100),
        (3, "b", 100),
        (4, "b", 100),
        (5, "c", 100),
        (6, "c", 100),
    ];
    let zone_of = |node: &NodeId| zoned.iter().find(|(of, _, _)| of == node).unwrap().1;
    for partition in 1..=500 {
        let mut zones: Vec<_> = place(partition, &zoned, 3).iter().map(zone_of).collect();
        zones.sort_unstable();
        assert_eq!(zones, ["a", "b", "c"]);
        let five: Vec<_> = place(partition, &zoned, 5).iter().map(zone_of).collect();
        assert!(
            ["a", "b", "c"]
                .iter()
                .all(|zone| five.iter().filter(|of| of == &zone).count() <= 2)
        );
    }
    assert_eq!(place(1, &zoned, 9).len(), 6);
    assert!(place(1, &[], 3).is_empty());
}

fn balanced(partitions: u32, node_count: NodeId, copies: usize) -> (u32, u32) {
    let nodes = nodes(node_count);
    let candidates: BTreeMap<_, _> = (1..=partitions)
        .map(|partition| (partition, place(partition, &nodes, copies)))
        .collect();
    let weights = nodes.iter().map(|&(node, _, weight)| (node, weight)).collect();
    let mut count: BTreeMap<NodeId, u32> = nodes.iter().map(|&(node, _, _)| (node, 0)).collect();
    for (partition, node) in assign_primaries(&candidates, &weights) {
        assert!(candidates[&partition].contains(&node));
        *count.entry(node).or_default() += 1;
    }
    (*count.values().min().unwrap(), *count.values().max().unwrap())
}

#[test]
fn primaries_are_even() {
    assert_eq!(balanced(12, 3, 3), (4, 4));
    assert_eq!(balanced(12, 3, 2), (4, 4));
    assert_eq!(balanced(12, 4, 3), (3, 3));
    assert_eq!(balanced(12, 5, 3), (2, 3));
    assert_eq!(balanced(64, 6, 2), (10, 11));
}

#[test]
fn primaries_follow_weights_and_leave_the_weightless() {
    let candidates = (1..=30).map(|partition| (partition, vec![1, 2, 3])).collect();
    let primaries = assign_primaries(&candidates, &BTreeMap::from([(1, 100), (2, 200), (3, 0)]));
    let count = |node| primaries.values().filter(|primary| **primary == node).count();
    assert_eq!((count(1), count(2), count(3)), (10, 20, 0));
    let only = BTreeMap::from([(1, vec![3])]);
    assert_eq!(
        assign_primaries(&only, &BTreeMap::from([(1, 100)])),
        BTreeMap::from([(1, 3)])
    );
    assert!(assign_primaries(&BTreeMap::from([(1, vec![])]), &BTreeMap::new()).is_empty());
}

const PINNED: [u32; 8] = [3, 5, 6, 5, 11, 9, 8, 7];
const PINNED_TEXT: u32 = 242;
