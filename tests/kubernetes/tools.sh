#!/usr/bin/env bash
# Installs what `make test` needs and this machine lacks: Debian's packages, and the programs that Debian does not have,
# built from source once and kept under ~/.cache/voltcluster. About ten minutes cold on two cores, then nothing.
# `tools.sh packages` does the first half only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

# program it brings -> package
declare -A PACKAGES=(
  [containerd]=containerd [runc]=runc [etcd]=etcd-server [/usr/lib/cni/bridge]=containernetworking-plugins
  [iptables]=iptables [ip]=iproute2 [nsenter]=util-linux [psql]=postgresql-client [openssl]=openssl [gcc]=gcc
  [python3]=python3
)

has_wasm() {
  local folder
  folder=$("$1" --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) && [[ -d $folder ]]
}

install_packages() {
  local program missing=()
  for program in "${!PACKAGES[@]}"; do
    command -v "$program" >/dev/null || missing+=("${PACKAGES[$program]}")
  done
  # Debian has a wrapper of that name without the program, and a Python without its virtual environments.
  pgbench --version >/dev/null 2>&1 || missing+=(postgresql)
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  # For procedures in WebAssembly: a compiler that has the target, rustup's or Debian's.
  has_wasm rustc || has_wasm /usr/bin/rustc || missing+=(rustc libstd-rust-dev-wasm32 lld)
  ((${#missing[@]} == 0)) && return
  [[ $(id -u) == 0 ]] || die "as root, please: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  # The cluster runs its own etcd and containerd, and nobody here needs a PostgreSQL: no service of a package starts.
  local policy=/usr/sbin/policy-rc.d ours=
  if [[ ! -e $policy ]]; then
    ours=1
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || {
    [[ -z $ours ]] || rm -f "$policy"
    die "apt-get could not install ${missing[*]}"
  }
  [[ -z $ours ]] || rm -f "$policy"
}

# Each group is built into a folder beside its place and moved there whole: an interrupted build leaves nothing behind
# that looks finished.
build() {
  local name=$1 started=$SECONDS
  shift
  [[ -e $BIN/.$name ]] && return
  say "building $name (once; kept in $BIN)"
  rm -rf "$BIN/building" && mkdir -p "$BIN/building"
  "$@"
  mv "$BIN/building"/* "$BIN/"
  rmdir "$BIN/building"
  touch "$BIN/.$name"
  say "built $name in $((SECONDS - started)) s"
}

build_kubernetes() {
  # Without these flags the programs call themselves v0.0.0 and refuse each other.
  local version=${KUBERNETES_VERSION#v} flags="-s -w" package
  local minor=${version#*.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$KUBERNETES_VERSION -X $package.gitMajor=${version%%.*} -X $package.gitMinor=${minor%%.*}"
  done
  (cd "$HERE/tools" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "$flags" -o "$BIN/building/" tool)
}
build_helm() { CGO_ENABLED=0 GOBIN=$BIN/building go install -trimpath -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$HELM_VERSION"; }
build_coredns() { CGO_ENABLED=0 GOBIN=$BIN/building go install -trimpath -ldflags '-s -w' "github.com/coredns/coredns@$COREDNS_VERSION"; }

main() {
  grep -q "k8s.io/kubernetes $KUBERNETES_VERSION\b" "$HERE/tools/go.mod" || die "settings.sh and tools/go.mod name different Kubernetes versions"
  install_packages
  [[ ${1:-} != packages ]] || return 0
  mkdir -p "$BIN"
  # `make test` starts this in the background and its Kubernetes stage calls it again: the second waits for the first.
  exec 9>"$BIN/.lock"
  flock 9
  [[ -e $BIN/.kubernetes && -e $BIN/.helm && -e $BIN/.coredns ]] && return
  command -v go >/dev/null || die "building Kubernetes needs Go (https://go.dev)"
  build helm build_helm
  build coredns build_coredns
  build kubernetes build_kubernetes
}
main "$@"
