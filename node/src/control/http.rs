//! `/metrics`, `/livez` and `/readyz`.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::metrics::Metrics;
use super::server::{Accepted, accept};
use super::{DataPlane, health};
use crate::metadata::Metadata;
use crate::world::Listener;

/// OpenMetrics text, which Prometheus reads.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Site {
    metrics: Arc<Metrics>,
    metadata: Arc<Metadata>,
    data: Arc<dyn DataPlane>,
}

/// Serves until the listener's world ends, or the future is dropped.
pub async fn serve_http(
    listener: Box<dyn Listener>,
    metrics: Arc<Metrics>,
    metadata: Arc<Metadata>,
    data: Arc<dyn DataPlane>,
) -> io::Result<()> {
    let site = Site {
        metrics,
        metadata,
        data,
    };
    let router = Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(serve_readiness))
        .with_state(site);
    axum::serve(Door(listener), router).await
}

async fn serve_metrics(State(site): State<Site>) -> impl IntoResponse {
    site.metrics.refresh(&site.metadata, &*site.data);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], site.metrics.text())
}

async fn serve_readiness(State(site): State<Site>) -> (StatusCode, String) {
    match health::unready(&site.metadata, &*site.data) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

struct Door(Box<dyn Listener>);

impl axum::serve::Listener for Door {
    type Io = Accepted;
    type Addr = String;

    async fn accept(&mut self) -> (Accepted, String) {
        (accept(&*self.0).await, String::new())
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.0.local_address())
    }
}
