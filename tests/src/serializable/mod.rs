//! Is a history of transactions strictly serialisable? In the manner of Elle (Kingsbury and Alvaro, VLDB 2020): lists of
//! unique values, so that whoever reads a list tells the whole order of its writes. From that follow Adya's (1999)
//! dependencies between transactions: who wrote after whom, who read from whom, who did not see whom; and from the clock,
//! who had ended when another began. An order that explains all exists if none of them form a cycle. Sets with range scans
//! add predicates: a scan tells for every member of its range whether it was there.
//!
//! Two things are right without being serialisable. A transaction of unknown outcome counts if anybody saw what it wrote,
//! and then has no end in time. One under snapshot isolation is two moments instead of one: reads are at the first, writes
//! at the second, and whoever wrote the same object comes before the first or after the second.
//!
//! ```text
//! history -> readings: each read by itself (own writes, aborted, intermediate) -> order of each list
//!         -> edges -> graph: knots (Tarjan), the simplest cycle of each, its name
//! ```

mod graph;
mod history;
mod readings;

pub mod clients;

#[cfg(test)]
mod model;
#[cfg(test)]
mod planted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use graph::{Cycle, Edge, Phenomenon};
pub use history::{Level, Outcome, Step, Transaction};

use graph::Graph;
use readings::Readings;

/// What no serialisable database does. Transactions are named by their place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// It read what nobody ever wrote, or the same twice.
    Invented {
        /// Who read it.
        reader: usize,
        /// What.
        value: u64,
    },
    /// G1a, a dirty read: it read what a transaction wrote that has not happened, or that was undone.
    AbortedRead {
        /// Who read it.
        reader: usize,
        /// Who wrote it.
        writer: usize,
        /// What.
        value: u64,
    },
    /// G1b: it read a list as it was in the middle of another transaction.
    IntermediateRead {
        /// Who read it.
        reader: usize,
        /// Who wrote more.
        writer: usize,
        /// The last of what it read.
        value: u64,
    },
    /// It did not see its own writes, or two of its reads don't agree.
    Internal {
        /// Which.
        transaction: usize,
        /// Which of its steps.
        step: usize,
    },
    /// Two reads of one list, neither of which is the beginning of the other: an update was lost, or a history forked.
    IncompatibleOrder {
        /// Which list.
        list: u64,
        /// Who read it.
        readers: (usize, usize),
    },
    /// No order explains these.
    Cycle(Cycle),
}

impl fmt::Display for Anomaly {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AbortedRead { .. } => write!(to, "G1a (dirty read): {self:?}"),
            Self::IntermediateRead { .. } => write!(to, "G1b (intermediate read): {self:?}"),
            Self::Cycle(cycle) => cycle.fmt(to),
            other => write!(to, "{other:?}"),
        }
    }
}

/// What a good history consisted of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Transactions that have happened.
    pub happened: usize,
    /// Dependencies among them, the clock's included.
    pub edges: usize,
}

/// Checks a history.
pub fn check(history: &[Transaction]) -> Result<Checked, Vec<Anomaly>> {
    let mut readings = Readings::of(history);
    let orders = orders(&mut readings);
    let graph = build(history, &readings, &orders);
    let mut anomalies = readings.anomalies;
    anomalies.extend(graph.cycles().into_iter().map(Anomaly::Cycle));
    if !anomalies.is_empty() {
        return Err(anomalies);
    }
    Ok(Checked {
        happened: readings.happened.len(),
        edges: graph.size(),
    })
}

/// The anomalies, and the transactions that they name, for people.
pub fn explain(history: &[Transaction], anomalies: &[Anomaly]) -> String {
    /// More would not be read.
    const SHOWN: usize = 5;
    let mut text = format!("{} anomalies", anomalies.len());
    for anomaly in anomalies.iter().take(SHOWN) {
        text += &format!("\n  {anomaly}");
        let named: BTreeSet<usize> = match anomaly {
            Anomaly::Invented { reader, .. } => [*reader].into(),
            Anomaly::AbortedRead { reader, writer, .. } | Anomaly::IntermediateRead { reader, writer, .. } => {
                [*reader, *writer].into()
            }
            Anomaly::Internal { transaction, .. } => [*transaction].into(),
            Anomaly::IncompatibleOrder { readers, .. } => [readers.0, readers.1].into(),
            Anomaly::Cycle(cycle) => cycle.steps.iter().map(|(transaction, _)| *transaction).collect(),
        };
        for transaction in named {
            text += &format!("\n    T{transaction}: {:?}", history[transaction]);
        }
    }
    text
}

/// The longest that anybody read of each list: its order of writes. All others must be beginnings of it.
fn orders(readings: &mut Readings) -> BTreeMap<u64, Vec<u64>> {
    let mut longest: BTreeMap<u64, (usize, Vec<u64>)> = BTreeMap::new();
    for reading in &readings.lists {
        let known = longest
            .entry(reading.list)
            .or_insert_with(|| (reading.reader, Vec::new()));
        if reading.before.len() > known.1.len() {
            *known = (reading.reader, reading.before.clone());
        }
    }
    for reading in &readings.lists {
        let (reader, order) = &longest[&reading.list];
        if !order.starts_with(&reading.before) {
            readings.anomalies.push(Anomaly::IncompatibleOrder {
                list: reading.list,
                readers: (*reader, reading.reader),
            });
        }
    }
    longest.into_iter().map(|(list, (_, order))| (list, order)).collect()
}

/// The nodes at which a transaction reads and at which it writes: the same, but under snapshot isolation.
fn moments(history: &[Transaction], transaction: usize) -> (usize, usize) {
    let snapshot = 2 * transaction;
    match history[transaction].level {
        Level::Serializable => (snapshot, snapshot),
        Level::Snapshot => (snapshot, snapshot + 1),
    }
}

fn build(history: &[Transaction], readings: &Readings, orders: &BTreeMap<u64, Vec<u64>>) -> Graph {
    let mut ends: Vec<(u64, usize)> = readings
        .happened
        .iter()
        .filter(|transaction| history[**transaction].outcome == Outcome::Committed)
        .map(|transaction| (history[*transaction].ended, *transaction))
        .collect();
    ends.sort_unstable();
    let mut graph = Graph::new(history.len(), ends.len());
    add_real_time(&mut graph, history, readings, &ends);
    add_writes(&mut graph, history, readings, orders);
    add_reads(&mut graph, history, readings, orders);
    add_scans(&mut graph, history, readings);
    graph
}

/// A node for each end, in a chain: so there are as many edges as transactions, and not as pairs of them.
fn add_real_time(graph: &mut Graph, history: &[Transaction], readings: &Readings, ends: &[(u64, usize)]) {
    for (number, (_, transaction)) in ends.iter().enumerate() {
        let moment = graph.moment(number);
        graph.add(moments(history, *transaction).1, moment, Edge::RealTime);
        if number > 0 {
            graph.add(graph.moment(number - 1), moment, Edge::RealTime);
        }
    }
    for &transaction in &readings.happened {
        let (snapshot, commit) = moments(history, transaction);
        graph.add(snapshot, commit, Edge::Within);
        let ended_before = ends.partition_point(|(ended, _)| *ended < history[transaction].began);
        if let Some(last) = ended_before.checked_sub(1) {
            graph.add(graph.moment(last), snapshot, Edge::RealTime);
        }
    }
}

/// What nobody ever read of a list comes behind all that was read.
fn unread<'a>(
    readings: &'a Readings,
    orders: &'a BTreeMap<u64, Vec<u64>>,
    list: u64,
) -> impl Iterator<Item = usize> + 'a {
    let order = orders.get(&list).map_or(&[][..], Vec::as_slice);
    let appended = readings.appended.get(&list).into_iter().flatten();
    appended
        .filter(|(value, _)| !order.contains(value))
        .map(|(_, writer)| *writer)
}

fn add_writes(graph: &mut Graph, history: &[Transaction], readings: &Readings, orders: &BTreeMap<u64, Vec<u64>>) {
    for (list, order) in orders {
        let writers: Vec<usize> = order
            .iter()
            .filter_map(|value| readings.writer(*list, *value))
            .collect();
        for pair in writers.windows(2) {
            let (from, to) = (moments(history, pair[0]).1, moments(history, pair[1]).0);
            if pair[0] != pair[1] {
                graph.add(from, to, Edge::WriteWrite(*list));
            }
        }
        let Some(last) = writers.last() else { continue };
        for writer in unread(readings, orders, *list).filter(|writer| writer != last) {
            let (from, to) = (moments(history, *last).1, moments(history, writer).0);
            graph.add(from, to, Edge::WriteWrite(*list));
        }
    }
}

fn add_reads(graph: &mut Graph, history: &[Transaction], readings: &Readings, orders: &BTreeMap<u64, Vec<u64>>) {
    for reading in readings.lists.iter().filter(|reading| reading.counts) {
        let (reader, list) = (reading.reader, reading.list);
        let seen = reading.before.last().and_then(|value| readings.writer(list, *value));
        if let Some(writer) = seen.filter(|writer| *writer != reader) {
            let (from, to) = (moments(history, writer).1, moments(history, reader).0);
            graph.add(from, to, Edge::WriteRead(list));
        }
        let next = orders[&list].get(reading.before.len());
        let next = next.and_then(|value| readings.writer(list, *value));
        let behind = match next {
            Some(next) => vec![next],
            None => unread(readings, orders, list).collect(),
        };
        for writer in behind.into_iter().filter(|writer| *writer != reader) {
            let (from, to) = (moments(history, reader).0, moments(history, writer).1);
            graph.add(from, to, Edge::ReadWrite(list));
        }
    }
}

/// Nothing is ever removed from a set: who wrote what was there came before, who wrote what was not there comes after.
fn add_scans(graph: &mut Graph, history: &[Transaction], readings: &Readings) {
    for scan in readings.scans.iter().filter(|scan| scan.counts) {
        let inserted = readings.inserted.range(scan.values.clone());
        for (value, (set, writer)) in
            inserted.filter(|(_, (set, writer))| scan.sets.contains(set) && *writer != scan.reader)
        {
            let (reader, writer) = (moments(history, scan.reader).0, moments(history, *writer).1);
            match scan.found.contains(value) {
                true => graph.add(writer, reader, Edge::WriteRead(*set)),
                false => graph.add(reader, writer, Edge::ReadInsert(*set)),
            }
        }
    }
}
