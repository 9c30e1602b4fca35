//! The chart itself: what it takes, what it allows, what it brings besides the operator.

use anyhow::{Result, bail, ensure};

use crate::command::{NAMESPACE, get, kubectl, run, wait_until};

/// From the repository's root.
pub const CHART: &str = "charts/volt-operator";
/// What it is installed as.
pub const RELEASE: &str = "volt-operator";

/// A namespace with an operator of its own.
const SHOP: &str = "shop";

/// `helm lint --strict`.
pub async fn lint() -> Result<String> {
    run("helm", &["lint", "--strict", CHART], None).await?;
    Ok(String::new())
}

/// Values that its schema refuses, with the word that the refusal names.
pub async fn bad_values() -> Result<String> {
    for (value, word) in [("replicaCount=0", "/replicaCount"), ("replicas=2", "'replicas'")] {
        let Err(error) = run("helm", &["template", RELEASE, CHART, "--set", value], None).await else {
            bail!("the chart takes {value}")
        };
        let error = format!("{error:#}");
        ensure!(
            error.contains(word),
            "{value} is refused without naming {word}: {error}"
        );
    }
    Ok(String::new())
}

/// Whether the ServiceAccount of the operator in `home` may do this in `namespace`.
async fn may(home: &str, action: &str, namespace: &str) -> Result<bool> {
    let account = format!("--as=system:serviceaccount:{home}:{RELEASE}");
    let question = ["--namespace", namespace, "auth", "can-i", &account];
    let action: Vec<&str> = action.split_whitespace().collect();
    match run("kubectl", &[&question[..], &action[..]].concat(), None).await {
        Ok(answer) => Ok(answer.trim() == "yes"),
        // No is also an exit code.
        Err(error) if error.to_string().split_whitespace().last() == Some("no") => Ok(false),
        Err(error) => Err(error),
    }
}

async fn ensure_may(home: &str, namespace: &str, actions: &[(&str, bool)]) -> Result<()> {
    for (action, allowed) in actions {
        let answer = may(home, action, namespace).await?;
        ensure!(
            answer == *allowed,
            "the operator of namespace {home} may {}{action} in {namespace}",
            if answer { "" } else { "not " }
        );
    }
    Ok(())
}

/// The operator may do what it does, and nothing that would make it worth stealing.
pub async fn rights() -> Result<String> {
    let actions = [
        ("delete pods", true),
        ("patch statefulsets.apps", true),
        ("get secrets", false),
        ("list secrets", false),
        ("create pods", false),
        ("create pods --subresource=exec", false),
        ("delete voltclusters.voltcluster.dev", false),
        ("delete persistentvolumeclaims", false),
        ("create clusterrolebindings.rbac.authorization.k8s.io", false),
    ];
    ensure_may(NAMESPACE, NAMESPACE, &actions).await?;
    Ok(String::new())
}

/// `helm test`.
pub async fn its_test() -> Result<String> {
    let arguments = ["test", RELEASE, "--namespace", NAMESPACE, "--timeout=90s"];
    run("helm", &arguments, None).await?;
    Ok(String::new())
}

fn one_node(name: &str) -> String {
    format!(
        "{{apiVersion: voltcluster.dev/v1alpha1, kind: VoltCluster, metadata: {{name: {name}}}, \
         spec: {{replicas: 1, storage: {{whenDeleted: Delete}}}}}}"
    )
}

async fn kubectl_in_shop(arguments: &[&str], input: Option<&str>) -> Result<String> {
    run("kubectl", &[&["--namespace", SHOP], arguments].concat(), input).await
}

/// With `watchNamespace` the operator looks after that namespace, and has no rights in any other.
pub async fn one_namespace() -> Result<String> {
    let install = ["install", RELEASE, CHART, "--namespace", SHOP, "--create-namespace"];
    let settings = ["--set=watchNamespace=shop", "--wait", "--timeout=90s"];
    run("helm", &[&install[..], &settings[..]].concat(), None).await?;
    ensure_may(SHOP, SHOP, &[("delete pods", true), ("get secrets", false)]).await?;
    ensure_may(SHOP, NAMESPACE, &[("delete pods", false), ("list pods", false)]).await?;

    let not_ours = one_node("elsewhere");
    run(
        "kubectl",
        &["--namespace", NAMESPACE, "apply", "-f", "-"],
        Some(&not_ours),
    )
    .await?;
    kubectl_in_shop(&["apply", "-f", "-"], Some(&one_node("one"))).await?;
    kubectl_in_shop(
        &["wait", "voltcluster/one", "--for=condition=Ready", "--timeout=90s"],
        None,
    )
    .await?;
    let elsewhere = get(&["voltcluster", "elsewhere"]).await?;
    ensure!(
        elsewhere["status"].is_null(),
        "it looks after another namespace: {}",
        elsewhere["status"]
    );

    kubectl(&["delete", "voltcluster", "elsewhere", "--timeout=30s"]).await?;
    kubectl_in_shop(&["delete", "voltcluster", "one", "--timeout=60s"], None).await?;
    wait_until(
        60,
        "pods and volumes of a cluster with whenDeleted: Delete are gone",
        async || {
            let left = kubectl_in_shop(
                &[
                    "get",
                    "pods,persistentvolumeclaims",
                    "-l",
                    "app.kubernetes.io/instance=one",
                    "-o",
                    "name",
                ],
                None,
            );
            let left = left.await?;
            ensure!(left.is_empty(), "there is still {left}");
            Ok(true)
        },
    )
    .await?;
    run(
        "helm",
        &["uninstall", RELEASE, "--namespace", SHOP, "--wait", "--timeout=60s"],
        None,
    )
    .await?;
    Ok(String::new())
}
