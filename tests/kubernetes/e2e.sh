#!/usr/bin/env bash
# The end-to-end test: starts a Kubernetes of its own, brings the images of this source to it, runs the test program
# inside its network, and removes everything again, whatever happened. KEEP=1 leaves a failed cluster for a look.
set -euo pipefail
export CLUSTER=e2e API_PORT=${E2E_API_PORT:-16444} VOLUMES=8
source "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

TARGET=${CARGO_TARGET_DIR:-$REPOSITORY/target}
IMAGES=$TARGET/images

clean() {
  local status=$?
  trap '' INT TERM
  if ((status != 0)) && [[ -n ${KEEP:-} ]]; then
    say "cluster kept: CLUSTER=e2e API_PORT=$API_PORT $HERE/cluster.sh describe | down"
  else
    "$HERE/cluster.sh" down || say "error: not everything was removed; see $DIR"
  fi
  exit "$status"
}

build() {
  cd "$REPOSITORY"
  export CARGO_TARGET_DIR=$TARGET
  cargo build --quiet --release -p volt-node # one after the other, so that neither changes the features of the other's
  cargo build --quiet --release -p volt-operator
  cargo build --quiet --workspace --bins --tests # as cargo test does, so that nothing is compiled twice
  "$HERE/images/build.sh" "$TARGET/release" "$IMAGES"
}

[[ $(id -u) == 0 ]] || die "the Kubernetes test makes network namespaces and cgroups, which needs root; cargo test does not"
# Only one at a time on a machine: the next one would take the running one's cluster for a leftover.
mkdir -p "$ROOT"
exec 9>"$ROOT/e2e.lock"
flock --nonblock 9 || { say "another end-to-end test is running; waiting for it" && flock 9; }
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$HERE/tools.sh" 9>&-
build 9>&-
"$HERE/cluster.sh" down 9>&- # what an aborted run left
"$HERE/cluster.sh" up 9>&-
"$HERE/cluster.sh" import "$IMAGES"/*.tar 9>&-
cd "$REPOSITORY"
# In the background, so that a signal to this script ends the wait at once; `down` ends the program with the rest.
"$HERE/cluster.sh" exec env "PATH=$BIN:$PATH" "CLUSTER_DIR=$DIR" "HELM_CONFIG_HOME=$DIR/helm" "HELM_CACHE_HOME=$DIR/helm" "HELM_DATA_HOME=$DIR/helm" \
  "$TARGET/debug/kubernetes-e2e" </dev/null 9>&- &
wait $!
