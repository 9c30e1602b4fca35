# Keys and certificates of a cluster that lives for an hour, and the kubeconfig files that carry them. Sourced.
# shellcheck shell=bash

new_key() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@" 2>/dev/null; }

# certificate NAME SUBJECT EXTENSIONS
certificate() {
  new_key -keyout "$1.key" -out "$1.csr" -subj "$2"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    -extfile <(printf '%s\n' "$3") 2>/dev/null
}

# kubeconfig FILE SERVER USER
kubeconfig() {
  cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: $CLUSTER, cluster: {server: "$2", certificate-authority: $DIR/pki/ca.crt}}]
users: [{name: $3, user: {client-certificate: $DIR/pki/$3.crt, client-key: $DIR/pki/$3.key}}]
contexts: [{name: $CLUSTER, context: {cluster: $CLUSTER, user: $3}}]
current-context: $CLUSTER
YAML
}

make_pki() {
  mkdir -p "$DIR/pki"
  (
    cd "$DIR/pki"
    umask 077
    openssl ecparam -name prime256v1 -genkey -noout -out service-accounts.key
    new_key -x509 -keyout ca.key -out ca.crt -days 30 -subj "/CN=$CLUSTER"
    local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
    certificate apiserver /CN=kube-apiserver "subjectAltName=$names,IP:127.0.0.1,IP:$HUB,IP:$SERVICE_FIRST"
    certificate admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
  )
  # One for people, which works in the cluster's namespace and outside it alike; one for the cluster's own parts.
  kubeconfig "$KUBECONFIG" "https://127.0.0.1:$API_PORT" admin
  kubeconfig "$DIR/kubeconfig.inside" "https://$HUB:$API_PORT" admin
}
