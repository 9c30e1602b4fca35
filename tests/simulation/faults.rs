//! What goes wrong, done to the simulated cluster, and put right again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use volt_node::world::simulated::{DiskFault, SimulatedDisk};

use crate::host::name;
use crate::plan::{AtPoint, Fault, FaultKind};
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
        self.go_wrong(met)
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

    /// Does it, to a node that belongs to the cluster; tells what was done.
    pub(crate) fn go_wrong(&mut self, mut fault: Fault) -> Fault {
        let members = self.shared.members();
        if !members.contains(&fault.node) {
            fault.node = members[0];
        }
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
            FaultKind::PowerCutOfAll => members.into_iter().for_each(|node| self.power_off(node)),
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
            FaultKind::At { point, passes, how } => {
                self.shared.run().armed = Some(Armed { point, passes, how });
            }
            FaultKind::Broken => self.links.break_connections(&name(fault.node)),
            FaultKind::SlowNetwork { longest } => self.sim.set_max_message_latency(longest),
            // Begins at once, see `flap`.
            FaultKind::Flapping { .. } => {}
            FaultKind::Apart | FaultKind::Deaf { .. } | FaultKind::CutOff { .. } => self.cut(fault, true),
            FaultKind::Joins => self.add_node(),
            FaultKind::Replaced => {
                self.add_node();
                self.shared.run().leaving = Some(fault.node);
            }
        }
        fault
    }

    pub(crate) fn put_right(&mut self, fault: Fault) {
        self.note(&format!("OVER {:?} of node {}", fault.kind, fault.node));
        match fault.kind {
            FaultKind::Kill | FaultKind::PowerCut | FaultKind::Rot => self.start(fault.node),
            FaultKind::PowerCutOfAll => self.shared.members().into_iter().for_each(|node| self.start(node)),
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
            FaultKind::Broken | FaultKind::Joins | FaultKind::Replaced => {}
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
            match is_cut {
                true => self.sim.hold(node.as_str(), other),
                false => self.sim.release(node.as_str(), other),
            }
        }
    }

    /// A cut that comes and goes is there in every other period.
    pub(crate) fn flap(&mut self, fault: Fault, age: Duration) {
        let FaultKind::Flapping { period } = fault.kind else {
            return;
        };
        let passed = (age - fault.at).as_millis();
        if passed.is_multiple_of(period.as_millis()) {
            self.cut(fault, (passed / period.as_millis()).is_multiple_of(2));
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
