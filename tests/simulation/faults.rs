//! What goes wrong, done to the simulated cluster, and put right again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use volt_node::world::simulated::SimulatedDisk;

use crate::host::name;
use crate::plan::{AtPoint, Fault, FaultKind, NODES};
use crate::run::{CLIENT_HOST, Cluster, MET};
use crate::shared::Armed;

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
        self.go_wrong(met);
        met
    }

    fn note(&self, what: &str) {
        self.shared.trace.line(self.sim.elapsed().as_micros() as u64, what);
    }

    fn disk(&self, node: u32) -> &SimulatedDisk {
        &self.disks[node as usize - 1]
    }

    fn others(node: u32) -> impl Iterator<Item = String> {
        (1..=NODES).filter(move |other| *other != node).map(name)
    }

    pub(crate) fn go_wrong(&mut self, fault: Fault) {
        self.note(&format!(
            "FAULT {:?} of node {} for {:?}",
            fault.kind, fault.node, fault.lasts
        ));
        match fault.kind {
            FaultKind::Kill => self.kill(fault.node),
            FaultKind::PowerCut => self.power_off(fault.node),
            FaultKind::PowerCutOfAll => (1..=NODES).for_each(|node| self.power_off(node)),
            FaultKind::SlowDisk { longest_flush } => self.disk(fault.node).set_longest_flush(Some(longest_flush)),
            FaultKind::CalendarJump { by_seconds } => {
                if let Some(calendar) = self.shared.run().calendars.get(&fault.node) {
                    calendar.fetch_add(by_seconds * 1_000_000, Ordering::Relaxed);
                }
            }
            FaultKind::Apart => self.sim.hold(name(fault.node), name(fault.next_node())),
            FaultKind::At { point, passes, how } => {
                self.shared.run().armed = Some(Armed { point, passes, how });
            }
            FaultKind::CutOff { from_clients_too } => {
                for other in Self::others(fault.node) {
                    self.sim.hold(name(fault.node), other);
                }
                if from_clients_too {
                    self.sim.hold(name(fault.node), CLIENT_HOST);
                }
            }
        }
    }

    pub(crate) fn put_right(&mut self, fault: Fault) {
        self.note(&format!("OVER {:?} of node {}", fault.kind, fault.node));
        match fault.kind {
            FaultKind::Kill | FaultKind::PowerCut => self.start(fault.node),
            FaultKind::PowerCutOfAll => (1..=NODES).for_each(|node| self.start(node)),
            FaultKind::SlowDisk { .. } => self.disk(fault.node).set_longest_flush(None),
            // Nobody sets it right.
            FaultKind::CalendarJump { .. } => {}
            FaultKind::Apart => self.sim.release(name(fault.node), name(fault.next_node())),
            // Nobody came there.
            FaultKind::At { .. } => self.shared.run().armed = None,
            FaultKind::CutOff { from_clients_too } => {
                for other in Self::others(fault.node) {
                    self.sim.release(name(fault.node), other);
                }
                if from_clients_too {
                    self.sim.release(name(fault.node), CLIENT_HOST);
                }
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
        let peers: Vec<String> = Self::others(node).chain([CLIENT_HOST.to_owned()]).collect();
        for peer in &peers {
            self.sim.partition(name(node), peer.as_str());
        }
        self.sim.crash(name(node));
        for peer in &peers {
            self.sim.repair(name(node), peer.as_str());
        }
        self.disk(node).crash();
    }

    fn start(&mut self, node: u32) {
        self.links.is_back(&name(node));
        self.sim.bounce(name(node));
    }
}
