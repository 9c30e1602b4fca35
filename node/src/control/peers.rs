//! This node's calls to the others, as Prometheus reads them.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use volt_engine::NodeId;

use crate::peers::{BreakerState, Line, LineFigures, Peers};

type Figures = [(NodeId, Line, LineFigures)];

/// Reads the figures of the peers when somebody looks.
pub(super) struct PeerCalls(pub(super) Arc<Peers>);

impl std::fmt::Debug for PeerCalls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PeerCalls")
    }
}

impl Collector for PeerCalls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures = self.0.traffic.figures();
        calls(&mut encoder, &figures)?;
        breakers(&mut encoder, &figures)?;
        latencies(&mut encoder, &figures)?;
        let help = "Statements, parts of transactions and proposals that were tried again";
        let retries = encoder.encode_descriptor("peer_retries", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.traffic.retries()).encode(retries)
    }
}

fn calls(encoder: &mut DescriptorEncoder<'_>, figures: &Figures) -> Result<(), std::fmt::Error> {
    let help = "Calls to another node, by what became of them";
    let mut calls = encoder.encode_descriptor("peer_calls", help, None, MetricType::Counter)?;
    for (peer, line, of) in figures {
        let outcomes = [
            ("answered", of.answered),
            ("not_sent", of.not_sent),
            ("lost", of.lost),
            ("refused", of.refused),
        ];
        for (outcome, count) in outcomes {
            let labels = [
                ("peer", peer.to_string()),
                ("line", line.name().to_owned()),
                ("outcome", outcome.to_owned()),
            ];
            ConstCounter::new(count).encode(calls.encode_family(&labels)?)?;
        }
    }
    let help = "Calls to another node that are out";
    let mut out = encoder.encode_descriptor("peer_calls_in_flight", help, None, MetricType::Gauge)?;
    for (peer, line, of) in figures {
        let count = i64::try_from(of.in_flight).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(out.encode_family(&labels(*peer, *line))?)?;
    }
    Ok(())
}

fn breakers(encoder: &mut DescriptorEncoder<'_>, figures: &Figures) -> Result<(), std::fmt::Error> {
    let help = "Where the circuit breaker of calls to another node stands: 0 closed, 1 half-open, 2 open";
    let mut states = encoder.encode_descriptor("peer_breaker_state", help, None, MetricType::Gauge)?;
    for (peer, line, of) in figures {
        let state = match of.state {
            BreakerState::Closed => 0_i64,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        ConstGauge::new(state).encode(states.encode_family(&labels(*peer, *line))?)?;
    }
    let help = "Changes of that breaker, by the state that it came to";
    let mut changes = encoder.encode_descriptor("peer_breaker_transitions", help, None, MetricType::Counter)?;
    for (peer, line, of) in figures {
        let counts = [
            (BreakerState::Open, of.transitions.opened),
            (BreakerState::HalfOpen, of.transitions.half_opened),
            (BreakerState::Closed, of.transitions.closed),
        ];
        for (to, count) in counts {
            let [peer, line] = labels(*peer, *line);
            let labels = [peer, line, ("to", to.name().to_owned())];
            ConstCounter::new(count).encode(changes.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, figures: &Figures) -> Result<(), std::fmt::Error> {
    let help = "Moving average of how long another node's answers take";
    let unit = Unit::Seconds;
    let mut latency = encoder.encode_descriptor("peer_latency", help, Some(&unit), MetricType::Gauge)?;
    for (peer, line, of) in figures {
        if let Some(average) = of.latency {
            let labels = labels(*peer, *line);
            ConstGauge::new(average.as_secs_f64()).encode(latency.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn labels(peer: NodeId, line: Line) -> [(&'static str, String); 2] {
    [("peer", peer.to_string()), ("line", line.name().to_owned())]
}
