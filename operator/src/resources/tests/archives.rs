//! Archives: where they are mounted, and who reads which credentials.

use super::super::{RESTORE, children};
use super::{defaults, demo};

#[test]
fn an_archive_reaches_the_pods_and_what_is_restored_is_only_read() {
    let mut cluster = demo();
    let archive = "{claimName: backups, secretName: credentials, intervalMilliseconds: 500, keepHours: 0}";
    cluster.spec.archive = Some(serde_yaml::from_str(archive).expect("an archive"));
    cluster.spec.restore = Some(serde_yaml::from_str("{claimName: backups}").expect("an archive"));
    let set = children(&cluster, &defaults(), 3, true).stateful_set;
    let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
    let container = &pod.containers[0];
    let mounts = container.volume_mounts.iter().flatten();
    let mounts: Vec<(&str, &str, Option<bool>)> = mounts
        .map(|mount| (mount.name.as_str(), mount.mount_path.as_str(), mount.read_only))
        .collect();
    assert!(
        mounts.contains(&("archive", "/var/lib/volt-archive", None)),
        "{mounts:?}"
    );
    assert!(
        mounts.contains(&("restore", "/var/lib/volt-restore", Some(true))),
        "{mounts:?}"
    );
    let variables = container.env.iter().flatten();
    let variables = variables.filter(|one| one.name.starts_with("VOLT_ARCHIVE"));
    let variables: Vec<&str> = variables.filter_map(|one| one.value.as_deref()).collect();
    assert_eq!(variables, ["file:///var/lib/volt-archive", "500", "0"]);
    let secrets = container.env_from.iter().flatten();
    let secrets = secrets.filter_map(|from| Some(from.secret_ref.as_ref()?.name.as_str()));
    assert_eq!(secrets.collect::<Vec<_>>(), ["credentials"]);
    let restore = cluster.spec.restore.expect("an archive");
    assert_eq!(restore.url(RESTORE), "file:///var/lib/volt-restore");
}

#[test]
fn what_a_standby_follows_is_only_read() {
    let mut cluster = demo();
    let standby = "{claimName: backups, clusterUuid: 1C5F8C0E-4a0c-4f9b-9b46-8f0a9d2f5a11, secretName: credentials}";
    cluster.spec.standby = Some(serde_yaml::from_str(standby).expect("an archive"));
    let set = children(&cluster, &defaults(), 3, true).stateful_set;
    let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
    let volume = &pod.volumes.as_ref().expect("a volume")[0];
    let claim = volume.persistent_volume_claim.as_ref().expect("a claim");
    let mut mounts = pod.containers[0].volume_mounts.iter().flatten();
    let mount = mounts.find(|mount| mount.name == volume.name).expect("mounted");
    assert_eq!((claim.claim_name.as_str(), mount.read_only), ("backups", Some(true)));
    let url = cluster.spec.standby.expect("an archive").url(RESTORE);
    let expected = format!("file://{}/1c5f8c0e-4a0c-4f9b-9b46-8f0a9d2f5a11", mount.mount_path);
    assert_eq!(url, expected);
}

#[test]
fn secrets_of_two_archives_do_not_meet() {
    let environment = |spec: &str| {
        let mut cluster = demo();
        cluster.spec = serde_yaml::from_str(spec).expect("a spec");
        let set = children(&cluster, &defaults(), 3, true).stateful_set;
        let pod = set.spec.and_then(|spec| spec.template.spec).expect("a pod");
        let sources = pod.containers[0].env_from.iter().flatten();
        let sources = sources.map(|from| {
            let name = from.secret_ref.as_ref().expect("a Secret").name.as_str();
            format!("{}{name}", from.prefix.as_deref().unwrap_or_default())
        });
        sources.collect::<Vec<_>>()
    };
    let a = "url: 's3://b/a'";
    for begins in ["restore", "standby"] {
        let alone = format!("{{{begins}: {{{a}, secretName: x}}}}");
        assert_eq!(environment(&alone), ["x"]);
        let both = |own: &str| format!("{{archive: {{{a}{own}}}, {begins}: {{{a}, secretName: x}}}}");
        assert_eq!(environment(&both(", secretName: x")), ["x"], "one is enough");
        assert_eq!(environment(&both(", secretName: y")), ["y", "VOLT_RESTORE_x"]);
        assert_eq!(
            environment(&both("")),
            ["VOLT_RESTORE_x"],
            "it has an identity of its own"
        );
        let own = format!("{{archive: {{{a}, secretName: y}}, {begins}: {{{a}}}}}");
        assert_eq!(environment(&own), ["y"]);
    }
    assert!(environment("{}").is_empty());
}
