//! The two Services: a name for each pod, and one address for SQL.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::{HTTP_PORT, PEER_PORT, SQL_PORT, headless_name, metadata, selector};
use crate::crd::VoltCluster;

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(port),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

/// Pods have their names before they are ready: they must find each other to become it.
pub(super) fn headless(cluster: &VoltCluster) -> Service {
    Service {
        metadata: metadata(cluster, headless_name(&cluster.name_any())),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(&cluster.name_any())),
            ports: Some(vec![
                port("peer", PEER_PORT),
                port("sql", SQL_PORT),
                port("http", HTTP_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Any ready node answers for the whole cluster.
pub(super) fn sql(cluster: &VoltCluster) -> Service {
    Service {
        metadata: metadata(cluster, format!("{}-sql", cluster.name_any())),
        spec: Some(ServiceSpec {
            selector: Some(selector(&cluster.name_any())),
            ports: Some(vec![port("sql", SQL_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
