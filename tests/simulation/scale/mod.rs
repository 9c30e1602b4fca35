//! The control plane alone, at sizes that no machine runs whole: what its messages and its failover cost, and how that grows.
//! docs/scale.md has the figures.

mod knowledge;
mod messages;
mod plane;
mod primaries;

use std::time::Duration;

use plane::{Death, Kinds, Plane};

/// Seconds that are counted at rest.
const REST_SECONDS: u64 = 2;
/// A node does no more than so much more in a cluster that is several times larger: where a few of its partitions have a primary in common it
/// talks with fewer nodes, and that is rarer there.
const MORE_A_NODE: f64 = 1.25;

/// What one size costs.
struct Cost {
    nodes: u32,
    partitions: u32,
    map_bytes: usize,
    neighbours: usize,
    rest: Kinds,
    leader: Duration,
    ends: (u64, Kinds),
    silent: u64,
    back: (u64, Kinds),
    change: Duration,
}

fn cost(nodes: u32, partitions: u32) -> Cost {
    let mut plane = Plane::new(nodes, partitions);
    plane.count_anew();
    plane.run(REST_SECONDS * 1_000);
    let (rest, leader) = (plane.traffic.clone(), plane.leader_took / REST_SECONDS as u32);
    let (map_bytes, neighbours) = (plane.map_bytes(), plane.most_neighbours());
    let victim = plane.victim();
    plane.count_anew();
    let ends = plane
        .fail_over(victim, Death::Ends)
        .expect("a living primary for each partition");
    let ends = (ends, plane.traffic.clone());
    plane.count_anew();
    let back = plane.come_back(victim).expect("all copies");
    let back = (back, plane.traffic.clone());
    let change = plane.change_took / plane.changes.max(1);
    plane.run(3_000);
    let silent = plane
        .fail_over(victim, Death::IsSilent)
        .expect("a living primary for each partition");
    Cost {
        nodes,
        partitions,
        map_bytes,
        neighbours,
        rest,
        leader,
        ends,
        silent,
        back,
        change,
    }
}

/// What is compared, and how it is read.
type Figure = (&'static str, fn(&Cost) -> f64);

/// Messages a second, and bytes.
fn at_rest(cost: &Cost) -> (f64, f64) {
    let (mut messages, mut bytes) = (0, 0);
    for traffic in cost.rest.values() {
        (messages, bytes) = (messages + traffic.messages, bytes + traffic.bytes);
    }
    (
        messages as f64 / REST_SECONDS as f64,
        bytes as f64 / REST_SECONDS as f64,
    )
}

fn entries(kinds: &Kinds) -> u64 {
    kinds.get("group, entries").map_or(0, |traffic| traffic.bytes)
}

fn tell(cost: &Cost) {
    let (messages, bytes) = at_rest(cost);
    println!(
        "{} nodes, {} partitions: map {} bytes, a node talks with at most {}; at rest {messages:.0} messages/s, {bytes:.0} bytes/s, the leader computes {:.1} ms a second; \
         ended: {} ms, entries {} bytes; silent: {} ms; back: {} ms, entries {} bytes; a node applies a change in {:.2} ms",
        cost.nodes,
        cost.partitions,
        cost.map_bytes,
        cost.neighbours,
        cost.leader.as_secs_f64() * 1_000.0,
        cost.ends.0,
        entries(&cost.ends.1),
        cost.silent,
        cost.back.0,
        entries(&cost.back.1),
        cost.change.as_secs_f64() * 1_000.0,
    );
    for (kind, traffic) in &cost.rest {
        let a_second = |number: u64| number / REST_SECONDS;
        println!(
            "    {kind}: {} messages/s, {} bytes/s",
            a_second(traffic.messages),
            a_second(traffic.bytes)
        );
    }
}

/// What grows is compared in messages, bytes and simulated time, never in what this machine took.
fn grows_no_worse_than_linearly(sizes: [(u32, u32); 3]) {
    let [small, medium, large] = sizes.map(|(nodes, partitions)| {
        let cost = cost(nodes, partitions);
        tell(&cost);
        cost
    });
    // A small cluster talks all with all: there is less of it for a node than in a larger one.
    let a_node = |cost: &Cost, number: f64| number / f64::from(cost.nodes);
    let rows: [Figure; 5] = [
        ("messages", |cost| at_rest(cost).0),
        ("bytes", |cost| at_rest(cost).1),
        ("the map", |cost| cost.map_bytes as f64),
        ("entries of a failover", |cost| entries(&cost.ends.1) as f64),
        ("entries of a return", |cost| entries(&cost.back.1) as f64),
    ];
    for (what, of) in rows {
        let (before, after) = (a_node(&medium, of(&medium)), a_node(&large, of(&large)));
        assert!(
            after <= before * MORE_A_NODE,
            "{what}, a node: {before:.1}, then {after:.1}"
        );
    }
    let (before, after) = (medium.neighbours, large.neighbours);
    assert!(after <= before * 3 / 2, "a node talks with {before}, then with {after}");
    // A failover is as many messages one after the other, however large the cluster is.
    for (one, other) in [(small.ends.0, large.ends.0), (small.silent, large.silent)] {
        assert!(other <= one + one / 4 + 50, "{one} ms, then {other} ms");
    }
}

#[test]
fn the_control_plane_grows_no_worse_than_linearly() {
    grows_no_worse_than_linearly([(10, 100), (60, 600), (180, 1_800)]);
}

/// The table of docs/scale.md; it is asked for by name.
#[test]
#[ignore = "takes minutes"]
fn the_sizes_of_the_table() {
    grows_no_worse_than_linearly([(10, 100), (100, 1_000), (1_000, 10_000)]);
}
