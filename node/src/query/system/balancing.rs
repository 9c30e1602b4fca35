//! Tables about where work goes: `system.peers`.

use std::time::Duration;

use volt_engine::NodeId;
use volt_engine::value::{DataType, Value};

use super::{BIGINT, INT, TEXT, bigint, int, text};
use crate::peers::{Line, LineFigures};

pub(super) const PEERS: &[(&str, DataType)] = &[
    ("node_id", INT),
    ("peer_id", INT),
    ("line", TEXT),
    ("breaker", TEXT),
    ("failures", INT),
    ("opened", BIGINT),
    ("in_flight", BIGINT),
    ("answered", BIGINT),
    ("not_sent", BIGINT),
    ("lost", BIGINT),
    ("refused", BIGINT),
    ("latency_micros", BIGINT),
];

/// This node's calls to the others, since its start; `latency_micros` is a moving average, NULL before the first answer.
pub(super) fn peers(node_id: NodeId, figures: &[(NodeId, Line, LineFigures)]) -> Vec<Vec<Value>> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).map_or(Value::Null, bigint);
    let row = |(peer, line, of): &(NodeId, Line, LineFigures)| {
        vec![
            int(node_id),
            int(*peer),
            text(line.name()),
            text(of.state.name()),
            int(of.failures),
            bigint(of.transitions.opened),
            bigint(of.in_flight),
            bigint(of.answered),
            bigint(of.not_sent),
            bigint(of.lost),
            bigint(of.refused),
            of.latency.map_or(Value::Null, micros),
        ]
    };
    figures.iter().map(row).collect()
}
