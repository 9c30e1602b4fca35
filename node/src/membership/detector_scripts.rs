//! Scripts over the detectors: each line is something that one observer sees, `verdicts` prints what follows.
//! `UPDATE_GOLDENFILES=1 cargo test -p volt-node membership` writes them anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use goldenscript::{Command as Line, Context};
use volt_engine::NodeId;

use super::interval::{DiskTrouble, DiskWatch, Mark};
use super::neighbours::Neighbours;
use super::verdict::{Ended, Judge, Sightings, revived, verdicts};
use crate::config::{Detection, HeartbeatDetection, IntervalDetection};
use crate::metadata::apply::apply;
use crate::metadata::command::{Command, Joining};
use crate::metadata::failure::{Finding, Medium, Strategy};
use crate::metadata::map::ClusterMap;

#[test]
fn scripts() {
    for name in ["interval", "liveness_file", "liveness_row", "disk"] {
        let path = format!("{}/src/membership/testscripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        goldenscript::run(&mut Observer::new(), path).unwrap();
    }
}

/// Node 1, which leads, of a cluster of three; the boot id of node n is 10 n. Time is in milliseconds.
struct Observer {
    map: ClusterMap,
    sightings: Sightings,
    detection: Detection,
    disk: DiskWatch,
    now: Duration,
}

impl Observer {
    fn new() -> Self {
        let mut map = ClusterMap::default();
        let node = |node_id: NodeId| Joining {
            node_id,
            boot_id: u64::from(node_id) * 10,
            ..Joining::default()
        };
        let first = Command::Initialise {
            cluster_uuid: "u".to_owned(),
            partitions: 1,
            node: node(1),
            awaits_restoration: false,
        };
        for command in [first, Command::Join(node(2)), Command::Join(node(3))] {
            apply(&mut map, command).expect("it can be made");
        }
        let mut sightings = Sightings::default();
        sightings.expect(&map, &Neighbours::new(&map, 1, &[1].into()), Duration::ZERO);
        Self {
            map,
            sightings,
            detection: Detection {
                heartbeat: None,
                interval: Some(IntervalDetection::default()),
                data_change: None,
                preempt: None,
            },
            disk: DiskWatch::default(),
            now: Duration::ZERO,
        }
    }

    fn settings(&self) -> IntervalDetection {
        self.detection.interval.clone().unwrap_or_default()
    }

    /// Prints the verdicts and who lives again, and has the map know of them.
    fn verdicts(&mut self) -> String {
        let judge = Judge {
            observer: 1,
            detection: &self.detection,
        };
        let found = verdicts(&self.map, judge, &self.sightings, self.now);
        let back = revived(&self.map, judge, &self.sightings, self.now);
        let mut output = String::new();
        for verdict in found {
            let Finding {
                strategy,
                medium,
                evidence,
                silence_micros,
                ..
            } = verdict.finding.clone();
            let millis = silence_micros / 1_000;
            let ended = if verdict.process_ended { ", has ended" } else { "" };
            let node = verdict.node_id;
            let _ = writeln!(
                output,
                "node {node}{ended}: {strategy}, {medium}, {millis} ms: {evidence}"
            );
            self.apply(Command::NodeDead {
                term: 1,
                node_id: verdict.node_id,
                boot_id: verdict.boot_id,
                process_ended: verdict.process_ended,
                finding: verdict.finding,
                at_micros: 0,
                changes: Vec::new(),
            });
        }
        for (node_id, boot_id) in back {
            let _ = writeln!(output, "node {node_id} lives again");
            self.apply(Command::NodeAlive { node_id, boot_id });
        }
        output
    }

    fn apply(&mut self, command: Command) {
        apply(&mut self.map, command).expect("a verdict on a node that is known");
    }
}

impl goldenscript::Runner for Observer {
    type Command = Line;

    fn run(&mut self, line: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = line.consume_args();
        let mut keys = BTreeMap::new();
        while let Some((key, value)) = args.next_key() {
            keys.insert(key, value.to_owned());
        }
        let mut words: Vec<String> = Vec::new();
        while let Some(word) = args.next_pos() {
            words.push(word.to_owned());
        }
        let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let key = |name: &str| keys.get(name).and_then(|value| value.parse::<u64>().ok());
        let node = NodeId::try_from(number(0))?;
        let boot_id = key("boot").unwrap_or(u64::from(node) * 10);
        let now = self.now;
        match line.name.as_str() {
            "at" => self.now = Duration::from_millis(number(0)),
            "heartbeats" => self.detection.heartbeat = Some(HeartbeatDetection::default()),
            "heard" => {
                self.sightings.heard(node, boot_id, now);
                self.sightings.reached(node, boot_id, now);
            }
            "answered" => self.sightings.probed(node, Some(boot_id), now),
            "missed" => (0..key("times").unwrap_or(1)).for_each(|_| self.sightings.probed(node, None, now)),
            "file" | "row" => {
                let sequence = key("sequence").unwrap_or(0);
                let mark = Mark { boot_id, sequence };
                self.sightings.saw_mark(node, medium(&line.name), Some(mark), now);
            }
            "no-file" | "no-row" => self.sightings.saw_mark(node, medium(&line.name), None, now),
            "no-directory" | "no-database" => self.sightings.could_not_look(medium(&line.name)),
            "ended" => {
                let ended = Ended {
                    strategy: Strategy::Connection,
                    evidence: "refused".to_owned(),
                };
                self.sightings.ended(node, boot_id, ended, now);
            }
            "stood-still" => {
                let pause = Duration::from_millis(number(0));
                self.sightings.forgive(pause, now);
                self.disk.forgive(pause, now);
            }
            // Of this node's own disk.
            "write" => {
                return Ok(format!(
                    "{}\n",
                    if self.disk.begin(now) {
                        "begun"
                    } else {
                        "one is under way"
                    }
                ));
            }
            "written" => self.disk.ended(Ok(()), now),
            "failed" => self.disk.ended(Err("no space left".to_owned()), now),
            "disk" => {
                let trouble = self.disk.trouble(&self.settings(), now);
                return Ok(trouble.map_or_else(
                    || "well\n".to_owned(),
                    |DiskTrouble { evidence, silence }| format!("{evidence}; well {} ms ago\n", silence.as_millis()),
                ));
            }
            // What another node's heartbeat says of its disk.
            "told" => {
                let trouble = DiskTrouble {
                    evidence: "its disk hangs".to_owned(),
                    silence: Duration::from_millis(number(1)),
                };
                self.sightings.told_of_disk(node, boot_id, Some(trouble));
            }
            "told-well" => self.sightings.told_of_disk(node, boot_id, None),
            "verdicts" => return Ok(self.verdicts()),
            other => return Err(format!("no command {other}").into()),
        }
        Ok(String::new())
    }
}

/// Of what a line speaks.
fn medium(line: &str) -> Medium {
    match line {
        "row" | "no-row" | "no-database" => Medium::Database,
        _ => Medium::FileSystem,
    }
}
