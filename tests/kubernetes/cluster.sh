#!/usr/bin/env bash
# A real Kubernetes of several nodes on one machine, without Docker and without a virtual machine.
#
#   cluster.sh up               start it (NODES=3), with volumes to claim
#   cluster.sh import TAR...    bring image archives to every node
#   cluster.sh exec COMMAND...  run a command inside its network, with its names: psql -h demo-sql
#   cluster.sh describe         how to reach it
#   cluster.sh down             end its processes, unmount, remove; also what an interrupted run left
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
source "$HERE/lib/processes.sh"
source "$HERE/lib/pki.sh"
source "$HERE/lib/control-plane.sh"
source "$HERE/lib/node.sh"
source "$HERE/lib/storage.sh"

# The kubelet sets these for the whole machine. They get their old values back when the last cluster goes.
SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

remember_machine() { [[ -e $ROOT/sysctls ]] || sysctl "${SYSCTLS[@]}" >"$ROOT/sysctls"; }
restore_machine() {
  [[ -e $ROOT/sysctls && -z $(find "$ROOT" -mindepth 1 -maxdepth 1 -type d) ]] || return 0
  sysctl -q -p "$ROOT/sysctls"
  rm "$ROOT/sysctls"
  # a path that is fixed in the kubelet, wherever else it was told to keep its files
  rm -f /var/lib/kubelet/device-plugins/kubelet.sock
  rmdir /var/lib/kubelet/device-plugins /var/lib/kubelet 2>/dev/null || true
}

make_pause_image() {
  gcc -O2 -static -s -o "$DIR/pause" "$HERE/images/pause.c"
  python3 "$HERE/images/image.py" docker.io/voltcluster/pause:dev "$DIR/pause.tar" "$DIR/pause"
}

nodes_ready() {
  local ready
  ready=$("$BIN/kubectl" get nodes --no-headers | awk '$2 == "Ready"' | wc -l)
  ((ready == NODES))
}

up() {
  local started=$SECONDS n starting=()
  [[ $(id -u) == 0 ]] || die "a cluster is made of network namespaces and cgroups, which needs root"
  [[ ! -e $DIR ]] || die "cluster $CLUSTER is already there: $0 down"
  ((NODES >= 1 && NODES <= 9)) || die "NODES is 1 to 9, not $NODES"
  mkdir -p "$DIR/log"
  chmod 711 "$ROOT" "$DIR"
  remember_machine
  make_cgroup
  make_pause_image
  make_pki
  start_control_plane
  # from this machine's own loopback, too; the port is one of the few things two clusters can't both have
  start "" relay python3 "$HERE/lib/relay.py" "$API_PORT" "$NAMESPACE"
  for n in $(seq "$NODES"); do
    start_node "$n" &
    starting+=($!)
  done
  for n in "${starting[@]}"; do wait "$n"; done
  wait_for 10 "port $API_PORT of 127.0.0.1 (see $DIR/log/relay.log)" "$BIN/kubectl" get --raw /readyz
  make_volumes
  wait_for 60 "$NODES nodes Ready (see $DIR/log/)" nodes_ready
  say "cluster $CLUSTER: $NODES nodes Ready after $((SECONDS - started)) s"
}

import() {
  local archive n
  for archive in "$@"; do
    for n in $(seq "$NODES"); do import_image "$n" "$archive"; done
  done
}

enter() {
  # It counts as the cluster's from here on: `down` ends it with the rest.
  echo $$ >"$(cgroup_home)/daemons/cgroup.procs"
  # shellcheck disable=SC2016
  exec nsenter --net="/run/netns/$NAMESPACE" unshare --mount --propagation private sh -c \
    'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$DIR/resolv.conf" "$@"
}

describe() {
  cat <<TEXT
export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH    # kubectl $KUBERNETES_VERSION, helm $HELM_VERSION
kubectl get nodes
$HERE/cluster.sh exec psql -h demo-sql -U volt volt    # any command, inside the cluster's network
kubectl port-forward svc/demo-sql 5432:5432             # or from this machine's own
TEXT
}

unmount() {
  # the kernel writes a space in a path as \040; no path of ours has one
  awk -v dir="$DIR/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mount; do
    umount --lazy "$mount" || true
  done
}

remove_namespaces() {
  local name
  for name in $(ip netns list | awk '{ print $1 }' | grep -xE "$NAMESPACE(-[0-9])?" || true); do ip netns delete "$name"; done
}

# What is left outside the cluster's own folder: the sockets of containerd's shims, the network plugins' notes about
# our pods, the kubelet's links to their logs.
remove_traces() {
  local file socket
  [[ -d $DIR ]] || return 0
  while read -r file; do
    socket=$(<"$file")
    [[ $socket != unix:///run/containerd/s/* ]] || rm -f "${socket#unix://}"
  done < <(find "$DIR" -path '*/io.containerd.runtime.v2.task/*' -name address)
  [[ ! -d /var/lib/cni/results ]] || { grep -rlF "$DIR/" /var/lib/cni/results || true; } | xargs -r rm -f
  [[ ! -d /var/log/containers ]] || find /var/log/containers -lname "$DIR/*" -delete
}

down() {
  end_processes
  unmount
  remove_traces
  remove_namespaces
  remove_cgroups
  rm -rf --one-file-system "$DIR"
  restore_machine
}

case ${1:-} in
  up | describe | down) "$1" ;;
  import) import "${@:2}" ;;
  exec) enter "${@:2}" ;;
  *) die "usage: cluster.sh up | import TAR... | exec COMMAND... | describe | down" ;;
esac
