#!/usr/bin/env bash
# `make kube-up`: a Kubernetes that stays, with this source's images on every node.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

[[ $(id -u) == 0 ]] || die "a cluster is made of network namespaces and cgroups, which needs root"
[[ ! -e $DIR ]] || die "it is already up (make kube-down removes it):
$("$HERE/cluster.sh" describe)"

target=${CARGO_TARGET_DIR:-$REPOSITORY/target}
"$HERE/tools.sh"
(cd "$REPOSITORY" && cargo build --release -p volt-node && cargo build --release -p volt-operator)
"$HERE/cluster.sh" up
"$HERE/images/build.sh" "$target/release" "$target/images"
"$HERE/cluster.sh" import "$target"/images/*.tar
say "images voltcluster/volt-node:$VERSION and voltcluster/volt-operator:$VERSION are on every node"
cat <<TEXT
It is up. What comes next, from $REPOSITORY:

export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH
helm install volt-operator charts/volt-operator
kubectl apply -f examples.yaml
kubectl wait --for=condition=Ready voltcluster/demo --timeout=180s
kubectl get voltclusters
tests/kubernetes/cluster.sh exec psql -h demo-sql -U volt volt
kubectl scale voltcluster demo --replicas=4
make kube-down
TEXT
