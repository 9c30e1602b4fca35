//! Where the cluster is archived, and what it begins as.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where what every partition did is kept, so that another cluster can begin as this one was at a moment.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.claimName)").message("an archive has a url or a claimName, and not both")
)]
pub struct Archive {
    /// An object store: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH` or `https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = "^(s3a?|gs|az|adl|azure|abfss?|https)://")
    )]
    pub url: Option<String>,
    /// A PersistentVolumeClaim of the same namespace that all pods can write (`ReadWriteMany`): its root is the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// A Secret of the same namespace whose keys become variables of the nodes' environment: an object store's credentials and endpoint, as
    /// `AWS_ACCESS_KEY_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// Time within which a committed write is archived: 100 to 600,000; 10,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 600_000))]
    pub interval_milliseconds: Option<i32>,
    /// Time between two moments to which the cluster can be restored: 100 to 600,000; 1,000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 600_000))]
    pub moment_milliseconds: Option<i32>,
    /// Hours between two archived states of a partition: 1 to 8,760; 24 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8_760))]
    pub base_hours: Option<i32>,
    /// Hours for which the cluster can be restored to every moment: 0 to 876,000, 168 by default; 0: nothing is ever removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 876_000))]
    pub keep_hours: Option<i32>,
}

/// What a new cluster begins as.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.claimName)").message("what is restored has a url or a claimName, and not both")
)]
pub struct Restore {
    /// The archive's object store, as in `archive.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = "^(s3a?|gs|az|adl|azure|abfss?|https)://")
    )]
    pub url: Option<String>,
    /// A PersistentVolumeClaim of the same namespace that all pods can read, whose root is the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// The archived cluster's UUID, if there are archives of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub cluster_uuid: Option<String>,
    /// As it was at this moment; the newest in the archive by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<MicroTime>,
    /// A Secret of the same namespace, as in `archive.secretName`; the same one, or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// What a new cluster follows until it is promoted.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.url) != has(self.claimName)").message("what a standby follows has a url or a claimName, and not both"),
    validation = Rule::new("has(self.url) == has(oldSelf.url) && (!has(self.url) || self.url == oldSelf.url) && has(self.claimName) == has(oldSelf.claimName) && (!has(self.claimName) || self.claimName == oldSelf.claimName) && has(self.clusterUuid) == has(oldSelf.clusterUuid) && (!has(self.clusterUuid) || self.clusterUuid == oldSelf.clusterUuid)").message("a standby follows one archive: url, claimName and clusterUuid can't be changed"),
    validation = Rule::new("self.promote || !oldSelf.promote").message("a standby that was promoted is none again: promote can't be taken back"),
    validation = Rule::new("self.promote || !self.immediate").message("immediate says how a standby is promoted: it needs promote")
)]
pub struct Standby {
    /// The archive's object store, as in `archive.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = "^(s3a?|gs|az|adl|azure|abfss?|https)://")
    )]
    pub url: Option<String>,
    /// A PersistentVolumeClaim of the same namespace that all pods can read, whose root is the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// The archived cluster's UUID, if there are archives of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub cluster_uuid: Option<String>,
    /// A Secret of the same namespace, as in `archive.secretName`; the same one, or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// It is to become a cluster of its own, which takes writes, with all that is in the archive; false by default. Can't be taken back.
    #[serde(default)]
    pub promote: bool,
    /// It is promoted with what it has: the archive, which may be lost, is not asked for more; false by default. May be set later, when a
    /// promotion waits for the archive.
    #[serde(default)]
    pub immediate: bool,
}

impl Archive {
    /// As volt-node takes it from its environment; `mounted`: where its claim is.
    pub fn variables(&self, mounted: &str) -> Vec<(&'static str, String)> {
        let url = url_of(self.url.as_deref(), None, mounted);
        let numbers = [
            ("VOLT_ARCHIVE_INTERVAL_MS", self.interval_milliseconds),
            ("VOLT_ARCHIVE_MOMENT_MS", self.moment_milliseconds),
            ("VOLT_ARCHIVE_BASE_HOURS", self.base_hours),
            ("VOLT_ARCHIVE_KEEP_HOURS", self.keep_hours),
        ];
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name, number?.to_string())));
        [("VOLT_ARCHIVE", url)].into_iter().chain(numbers).collect()
    }
}

impl Restore {
    /// The archive's, as a node sees it; `mounted`: where its claim is.
    pub fn url(&self, mounted: &str) -> String {
        url_of(self.url.as_deref(), self.cluster_uuid.as_deref(), mounted)
    }

    /// In microseconds since 1970; 0: the newest moment.
    pub fn until_micros(&self) -> i64 {
        self.until.as_ref().map_or(0, |until| until.0.as_microsecond())
    }
}

impl Standby {
    /// As `Restore::url`.
    pub fn url(&self, mounted: &str) -> String {
        url_of(self.url.as_deref(), self.cluster_uuid.as_deref(), mounted)
    }
}

fn url_of(url: Option<&str>, cluster_uuid: Option<&str>, mounted: &str) -> String {
    let url = url.map_or_else(|| format!("file://{mounted}"), str::to_owned);
    match cluster_uuid {
        Some(uuid) => format!("{}/{}", url.trim_end_matches('/'), uuid.to_ascii_lowercase()),
        None => url,
    }
}
