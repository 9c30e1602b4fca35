# One Kubernetes node: a network namespace with its own containerd, kubelet, kube-proxy and pod subnet. Sourced.
# shellcheck shell=bash

node_network() {
  local n=$1 namespace=$NAMESPACE-$1 address=10.243.0.1$1
  ip netns add "$namespace"
  # The cable. Pull it with: nsenter --net=/run/netns/NAMESPACE ip link set node-N down
  ip link add "node-$n" netns "$NAMESPACE" type veth peer name eth0 netns "$namespace"
  in_namespace "$NAMESPACE" ip link set "node-$n" master br0 up
  in_namespace "$NAMESPACE" ip route add "10.244.$n.0/24" via "$address"
  in_namespace "$namespace" sh -e <<SH
    ip link set lo up
    ip addr add $address/24 dev eth0
    ip link set eth0 up
    ip route add default via $HUB
    sysctl -qw net.ipv4.ip_forward=1
SH
  # Services are translated on nodes only; the first node does it for the hub.
  ((n > 1)) || in_namespace "$NAMESPACE" ip route add "$SERVICE_CIDR" via "$address"
}

write_containerd_settings() {
  local n=$1 dir=$DIR/node-$1
  cat >"$dir/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "$CLUSTER-$n", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$n.0/24"}]],
           "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$dir/cni-addresses"}}]}
JSON
  # The pods' network namespaces go under `state`, where `down` finds them without touching anybody else's.
  cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd"
state = "$dir/state"
[grpc]
address = "$dir/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "voltcluster/pause:dev"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "$dir/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$dir/cni"
[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"
TOML
}

write_kubelet_settings() {
  local n=$1 dir=$DIR/node-$1
  echo "nameserver $HUB" >"$dir/resolv.conf"
  cat >"$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/node-$n
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$dir/containerd.sock
clusterDNS: [$HUB]
clusterDomain: cluster.local
resolvConf: $dir/resolv.conf
podLogsDir: $dir/pods
volumePluginDir: $dir/plugins
nodeStatusUpdateFrequency: 2s
syncFrequency: 5s
# The machine's disk and memory are shared: do not evict pods for what others use.
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
YAML
}

start_containerd() {
  local n=$1 dir=$DIR/node-$1
  mkdir -p "$dir/cni"
  write_containerd_settings "$n"
  start "$NAMESPACE-$n" "containerd-$n" containerd -c "$dir/containerd.toml"
  wait_for 20 "containerd of node $n (see $DIR/log/containerd-$n.log)" ctr -a "$dir/containerd.sock" version
}

start_node() {
  local n=$1 dir=$DIR/node-$1
  make_cgroup "node-$n"
  node_network "$n"
  start_containerd "$n"
  import_image "$n" "$DIR/pause.tar"
  write_kubelet_settings "$n"
  start "$NAMESPACE-$n" "kubelet-$n" "$BIN/kubelet" "--config=$dir/kubelet.yaml" "--kubeconfig=$DIR/kubeconfig.inside" \
    "--root-dir=$dir/kubelet" "--cert-dir=$dir/pki" "--hostname-override=node-$n" "--node-ip=10.243.0.1$n" \
    "--node-labels=topology.kubernetes.io/region=here,topology.kubernetes.io/zone=zone-$n"
  start "$NAMESPACE-$n" "proxy-$n" "$BIN/kube-proxy" "--kubeconfig=$DIR/kubeconfig.inside" "--hostname-override=node-$n" \
    --proxy-mode=iptables "--cluster-cidr=$POD_CIDR" --conntrack-max-per-core=0
}

# import_image NODE ARCHIVE
import_image() { ctr -a "$DIR/node-$1/containerd.sock" -n k8s.io images import "$2" >/dev/null; }
