//! What goes wrong, done to the simulated cluster, and put right again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use volt_node::world::simulated::{DiskFault, SimulatedDisk};

use crate::host::name;
use crate::plan::{self, AtPoint, Fault, FaultKind, OVERLAPPED, UPON_IT};
use crate::run::{CLIENT_HOST, Cluster, MAX_LATENCY, MET};
use crate::shared::{Armed, Ended};

impl Cluster {
    /// A process that has come to the point where it was to end is dead from now on, or cut off: what goes on is that.
    pub(crate) fn met(&mut self, fault: Fault, age: Duration) -> Fault {
        let FaultKind::At { point, how, .. } = fault.kind else {
            return fault;
        };
        let Some(node) = self.shared.run().met.take() else {
            return fault;
        };
        self.note(&format!("{MET}{point:?} by node {node}"));
        let kind = match how {
            AtPoint::WithoutPower => FaultKind::PowerCut,
            AtPoint::Killed => FaultKind::Kill,
            AtPoint::CutOff => FaultKind::CutOff {
                from_clients_too: false,
            },
        };
        let met = Fault {
            at: age,
            node,
            kind,
            ..fault
        };
        self.begin(met);
        met
    }

    fn note(&self, what: &str) {
        self.shared.trace.line(self.sim.elapsed().as_micros() as u64, what);
    }

    fn disk(&self, node: u32) -> &SimulatedDisk {
        &self.disks[node as usize - 1]
    }

    /// All nodes that there ever were.
    fn nodes(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.disks.len() as u32
    }

    fn others(&self, node: u32) -> Vec<String> {
        self.nodes().filter(|other| *other != node).map(name).collect()
    }

    /// Does it, to a node that belongs to the cluster and has nothing wrong with it yet; tells what was done, None if there is no such node.
    pub(crate) fn go_wrong(&mut self, mut fault: Fault, active: &[Fault]) -> Option<Fault> {
        let members = self.shared.members();
        let busy: BTreeSet<u32> = active.iter().flat_map(|fault| self.hit(*fault)).collect();
        let is_free = |node: &u32| members.contains(node) && !busy.contains(node);
        fault.node = [fault.node].into_iter().chain(members.iter().copied()).find(is_free)?;
        if !busy.is_empty() {
            let mut run = self.shared.run();
            run.happened.insert(OVERLAPPED.to_owned());
            if (busy.len() + 1) * 2 > members.len() {
                run.happened.insert(UPON_IT.to_owned());
            }
        }
        self.begin(fault);
        Some(fault)
    }

    /// The nodes that have something wrong with them because of this.
    fn hit(&self, fault: Fault) -> Vec<u32> {
        match fault.kind {
            FaultKind::PowerCutOfAll => self.shared.members(),
            FaultKind::ZoneLost => self.neighbours(fault.node),
            // Who comes to a point is known when that happens.
            FaultKind::At { .. } | FaultKind::SlowNetwork { .. } => Vec::new(),
            _ => vec![fault.node],
        }
    }

    /// The members of the node's zone, itself among them.
    fn neighbours(&self, node: u32) -> Vec<u32> {
        let of = |node| plan::zone(self.seed, node);
        let members = self.shared.members().into_iter();
        members.filter(|other| of(*other) == of(node)).collect()
    }

    fn begin(&mut self, fault: Fault) {
        self.note(&format!(
            "FAULT {:?} of node {} for {:?}",
            fault.kind, fault.node, fault.lasts
        ));
        self.shared.run().happened.insert(fault.kind.name());
        match fault.kind {
            FaultKind::Kill => self.kill(fault.node),
            FaultKind::Rot => {
                self.kill(fault.node);
                let rotten = self.disk(fault.node).rot();
                self.note(&format!("a bit changes in {rotten:?}"));
                self.shared.run().rotten = rotten.map(|file| (fault.node, file));
            }
            FaultKind::PowerCut => self.power_off(fault.node),
            FaultKind::PowerCutOfAll | FaultKind::ZoneLost => {
                self.hit(fault).into_iter().for_each(|node| self.power_off(node));
            }
            FaultKind::StandsStill => self.stand_still(fault.node, true),
            FaultKind::SlowDisk { longest_flush } => self.disk(fault.node).set_longest_flush(Some(longest_flush)),
            FaultKind::DiskFails { how } => {
                self.disk(fault.node).set_fault(how);
                self.shared.run().failing = Some(fault.node);
            }
            FaultKind::CalendarJump { by_seconds } => {
                if let Some(calendar) = self.shared.run().calendars.get(&fault.node) {
                    calendar.fetch_add(by_seconds * 1_000_000, Ordering::Relaxed);
                }
            }
            FaultKind::At {
                point,
                passes,
                how,
                only_here,
            } => {
                let node = only_here.then_some(fault.node);
                self.shared.run().armed = Some(Armed {
                    point,
                    passes,
                    how,
                    node,
                });
            }
            FaultKind::Broken => self.links.break_connections(&name(fault.node)),
            FaultKind::SlowNetwork { longest } => self.sim.set_max_message_latency(longest),
            // They begin at once, see `flap`.
            FaultKind::Flapping { .. } | FaultKind::Breaking { .. } => {}
            FaultKind::Apart | FaultKind::Deaf { .. } | FaultKind::CutOff { .. } => self.cut(fault, true),
            FaultKind::Joins => self.add_node(),
            FaultKind::Replaced => {
                self.add_node();
                self.shared.run().leaving = Some(fault.node);
            }
        }
    }

    /// The process does nothing more, or goes on.
    fn stand_still(&mut self, node: u32, is_still: bool) {
        match is_still {
            true => self.links.stand_still(&name(node)),
            false => self.links.go_on(&name(node)),
        }
        self.disk(node).set_still(is_still);
        let mut run = self.shared.run();
        run.still.entry(node).or_default().store(is_still, Ordering::Relaxed);
    }

    pub(crate) fn put_right(&mut self, fault: Fault) {
        self.note(&format!("OVER {:?} of node {}", fault.kind, fault.node));
        match fault.kind {
            FaultKind::Kill | FaultKind::PowerCut | FaultKind::Rot => self.start(fault.node),
            FaultKind::PowerCutOfAll | FaultKind::ZoneLost => {
                self.hit(fault).into_iter().for_each(|node| self.start(node));
            }
            FaultKind::StandsStill => self.stand_still(fault.node, false),
            FaultKind::SlowDisk { .. } => self.disk(fault.node).set_longest_flush(None),
            FaultKind::DiskFails { .. } => {
                self.disk(fault.node).set_fault(DiskFault::None);
                if !self.sim.is_host_running(name(fault.node)) {
                    self.start(fault.node);
                }
            }
            // Nobody sets it right.
            FaultKind::CalendarJump { .. } => {}
            // They have happened, or go on by themselves.
            FaultKind::Broken | FaultKind::Breaking { .. } | FaultKind::Joins | FaultKind::Replaced => {}
            // Nobody came there.
            FaultKind::At { .. } => self.shared.run().armed = None,
            FaultKind::SlowNetwork { .. } => self.sim.set_max_message_latency(MAX_LATENCY),
            FaultKind::Apart | FaultKind::Deaf { .. } | FaultKind::CutOff { .. } | FaultKind::Flapping { .. } => {
                self.cut(fault, false);
            }
        }
    }

    /// Nodes hear each other no more, or again.
    fn cut(&mut self, fault: Fault, is_cut: bool) {
        let node = name(fault.node);
        let next = name(fault.next_node(self.disks.len() as u32));
        let both_ways = match fault.kind {
            FaultKind::Apart => vec![next],
            FaultKind::CutOff { from_clients_too: true } => {
                let all = self.others(fault.node).into_iter();
                all.chain([CLIENT_HOST.to_owned()]).collect()
            }
            FaultKind::Deaf { to_all } => {
                let speakers = if to_all { self.others(fault.node) } else { vec![next] };
                for speaker in speakers {
                    match is_cut {
                        true => self.links.deafen(&node, &speaker),
                        false => self.links.hear(&node, &speaker),
                    }
                }
                return;
            }
            _ => self.others(fault.node),
        };
        for other in both_ways {
            self.hold(fault.node, &node, &other, is_cut);
        }
    }

    /// Two hosts' messages are held for as long as any node's fault wants that.
    fn hold(&mut self, wants: u32, one: &str, other: &str, is_cut: bool) {
        let (low, high) = if one < other { (one, other) } else { (other, one) };
        let held = self.held.entry((low.to_owned(), high.to_owned())).or_default();
        let was_held = !held.is_empty();
        match is_cut {
            true => _ = held.insert(wants),
            false => _ = held.remove(&wants),
        }
        match (was_held, held.is_empty()) {
            (false, false) => self.sim.hold(one, other),
            (true, true) => self.sim.release(one, other),
            _ => {}
        }
    }

    /// A cut that comes and goes is there in every other period; connections that break again and again do at the end of each.
    pub(crate) fn flap(&mut self, fault: Fault, age: Duration) {
        let passed = (age - fault.at).as_millis();
        match fault.kind {
            FaultKind::Flapping { period } if passed.is_multiple_of(period.as_millis()) => {
                self.cut(fault, (passed / period.as_millis()).is_multiple_of(2));
            }
            FaultKind::Breaking { period } if passed.is_multiple_of(period.as_millis()) => {
                self.links.break_connections(&name(fault.node));
            }
            _ => {}
        }
    }

    /// Processes that have ended by themselves are dead from now on, and so is that of a node that has left.
    pub(crate) fn bury(&mut self) {
        let ended = std::mem::take(&mut self.shared.run().ended);
        for (node, why) in ended {
            self.kill(node);
            if why == Ended::Rot {
                self.note(&format!("node {node} loses its volume"));
                self.shared.run().rotten = None;
                self.disk(node).lose();
            }
            // Else it starts when its disk is well.
            if self.disk(node).fault() == DiskFault::None {
                self.start(node);
            }
        }
        let members = self.shared.members();
        for node in self.nodes().filter(|node| !members.contains(node)) {
            if self.sim.is_host_running(name(node)) {
                self.kill(node);
            }
        }
    }

    fn kill(&mut self, node: u32) {
        self.links.killed(&name(node));
        self.sim.crash(name(node));
        self.disk(node).kill();
    }

    /// Nothing that the machine says while it dies is heard.
    fn power_off(&mut self, node: u32) {
        self.links.lost(&name(node));
        let others = self.others(node).into_iter();
        let peers: Vec<String> = others.chain([CLIENT_HOST.to_owned()]).collect();
        for peer in &peers {
            self.sim.partition(name(node), peer.as_str());
        }
        self.sim.crash(name(node));
        for peer in &peers {
            self.sim.repair(name(node), peer.as_str());
        }
        // What turmoil has repaired is cut all the same where others want that.
        let is_held = |(pair, wants): &(&(String, String), &BTreeSet<u32>)| {
            !wants.is_empty() && (pair.0 == name(node) || pair.1 == name(node))
        };
        for (pair, _) in self.held.iter().filter(is_held) {
            self.sim.hold(pair.0.as_str(), pair.1.as_str());
        }
        self.disk(node).crash();
    }

    /// One that has left stays away.
    fn start(&mut self, node: u32) {
        if !self.shared.run().members.contains(&node) {
            return;
        }
        self.links.is_back(&name(node));
        self.sim.bounce(name(node));
    }
}
