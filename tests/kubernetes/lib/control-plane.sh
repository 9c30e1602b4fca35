# The hub: a network namespace with the control plane, DNS, and the bridge that the nodes' cables end in. Sourced.
# shellcheck shell=bash

hub_network() {
  ip netns add "$NAMESPACE"
  in_namespace "$NAMESPACE" sh -e <<SH
    ip link set lo up
    ip link add br0 type bridge
    ip addr add $HUB/24 dev br0
    ip link set br0 up
    sysctl -qw net.ipv4.ip_forward=1
SH
}

start_etcd() {
  local client=http://127.0.0.1:2379 peer=http://127.0.0.1:2380
  # Nobody misses this cluster after a power cut, and two cores have better things to do than fsync.
  start "$NAMESPACE" etcd etcd --unsafe-no-fsync --data-dir "$DIR/etcd" --listen-client-urls "$client" \
    --advertise-client-urls "$client" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "default=$peer"
}

start_apiserver() {
  local pki=$DIR/pki
  local flags=(
    --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 "--secure-port=$API_PORT" "--advertise-address=$HUB"
    "--tls-cert-file=$pki/apiserver.crt" "--tls-private-key-file=$pki/apiserver.key" "--client-ca-file=$pki/ca.crt"
    "--service-account-key-file=$pki/service-accounts.key" "--service-account-signing-key-file=$pki/service-accounts.key"
    --service-account-issuer=https://kubernetes.default.svc "--service-cluster-ip-range=$SERVICE_CIDR"
    --authorization-mode=Node,RBAC --allow-privileged=true
    "--kubelet-client-certificate=$pki/admin.crt" "--kubelet-client-key=$pki/admin.key"
    # or `kubectl logs` and `exec` look the node's name up, and nothing knows it
    --kubelet-preferred-address-types=InternalIP
  )
  start "$NAMESPACE" apiserver "$BIN/kube-apiserver" "${flags[@]}"
}

start_controllers() {
  # A lost node is known after 8 s instead of 50 s.
  start "$NAMESPACE" controller-manager "$BIN/kube-controller-manager" "--kubeconfig=$DIR/kubeconfig.inside" \
    --use-service-account-credentials "--service-account-private-key-file=$DIR/pki/service-accounts.key" \
    "--root-ca-file=$DIR/pki/ca.crt" "--cluster-signing-cert-file=$DIR/pki/ca.crt" \
    "--cluster-signing-key-file=$DIR/pki/ca.key" --leader-elect=false --node-monitor-grace-period=8s --node-monitor-period=1s
  start "$NAMESPACE" scheduler "$BIN/kube-scheduler" "--kubeconfig=$DIR/kubeconfig.inside" --leader-elect=false
}

start_dns() {
  cat >"$DIR/Corefile" <<CONF
.:53 {
  bind $HUB
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $DIR/kubeconfig.inside $CLUSTER
    pods insecure
    ttl 1
  }
}
CONF
  # What a process in the hub's namespace is given as /etc/resolv.conf, so that names work as they do in a pod.
  printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n' "$HUB" \
    >"$DIR/resolv.conf"
  start "$NAMESPACE" coredns "$BIN/coredns" -conf "$DIR/Corefile"
}

start_control_plane() {
  hub_network
  start_etcd
  start_apiserver
  wait_for 60 "API server ready (see $DIR/log/apiserver.log)" in_namespace "$NAMESPACE" "$BIN/kubectl" get --raw /readyz
  start_controllers
  start_dns
}
