# Names, versions and paths that every script here shares. Sourced, never run.
# shellcheck shell=bash disable=SC2034  # the variables are for the scripts that source this file

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
PATH=$PATH:/usr/sbin:/sbin # runc, iptables and ip are not in every user's PATH

# Kubernetes' own version also stands in tools/go.mod, which pins every module that it is built from.
KUBERNETES_VERSION=v1.37.2
HELM_VERSION=v4.3.1
COREDNS_VERSION=v1.15.0
# Of our own images: the chart's appVersion, which is the tag that it asks for.
VERSION=$(awk '$1 == "appVersion:" { gsub(/"/, "", $2); print $2 }' "$REPOSITORY/charts/volt-operator/Chart.yaml")

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/voltcluster
BIN=$CACHE/kubernetes/$KUBERNETES_VERSION-helm-$HELM_VERSION-coredns-$COREDNS_VERSION

# Two clusters may live side by side: `make kube-up`'s, named dev, and the end-to-end test's, named e2e.
CLUSTER=${CLUSTER:-dev}
NODES=${NODES:-3}
VOLUMES=${VOLUMES:-6}
# Where the API server listens, in the cluster's own namespace and, through a relay, on this machine's loopback.
API_PORT=${API_PORT:-16443}

ROOT=/var/lib/voltcluster-tests
DIR=$ROOT/$CLUSTER               # all that the cluster writes; a socket's path must stay under 107 characters
NAMESPACE=voltcluster-$CLUSTER   # network namespace of the control plane; the nodes' are NAMESPACE-1, -2 ...
CGROUP=voltcluster-$CLUSTER      # holds every process of the cluster, and so tells which ones are ours to end
KUBECONFIG=$DIR/kubeconfig
export KUBECONFIG

# These networks exist only inside the cluster's own namespaces, so all clusters can use the same ones.
HUB=10.243.0.1
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.245.0.0/24
SERVICE_FIRST=10.245.0.1

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; says what it waited for when it never does.
wait_for() {
  local seconds=$1 what=$2 end
  shift 2
  end=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || die "$what: not within $seconds s"
    sleep 0.2
  done
}
