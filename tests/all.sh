#!/usr/bin/env bash
# `make test`: every check there is, one stage after the other, with the time that each took. `cargo test` alone runs
# all but the Kubernetes stage.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One target folder for all clones on this machine: DataFusion is compiled once, not once a clone.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/voltcluster
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
# In CI nothing is compiled twice in the same clone, and incremental files would only fill the disk.
[[ -z ${CI:-} ]] || export CARGO_INCREMENTAL=0

# cargo goes by times: sources of this checkout that are older than what another one left there would pass as built.
own_sources() {
  local last=$CARGO_TARGET_DIR/checkout
  mkdir -p "$CARGO_TARGET_DIR"
  [[ -e $last && $(<"$last") == "$PWD" ]] || git ls-files -z -- '*.rs' '*.proto' | xargs -0 touch -c
  echo "$PWD" >"$last"
}

# Before the long work, what its last stage can't do without.
require() {
  [[ $(id -u) == 0 ]] || { echo "error: make test needs root for its Kubernetes; cargo test does not" >&2 && exit 1; }
  command -v go >/dev/null || { echo "error: make test needs Go to build its Kubernetes; cargo test does not" >&2 && exit 1; }
}

report=
stage() {
  local name=$1 started=$SECONDS
  shift
  echo "=== $name"
  "$@" || {
    echo "=== $name FAILED after $((SECONDS - started)) s" >&2
    exit 1
  }
  report+=$(printf '%5d s  %s' $((SECONDS - started)) "$name")$'\n'
}

# Kubernetes is built from source once a machine. It goes on beside cargo, at a lower priority.
start_tools() {
  mkdir -p "$CACHE"
  setsid nice -n 10 tests/kubernetes/tools.sh </dev/null >"$CACHE/tools.log" 2>&1 &
  tools=$!
}
finish_tools() {
  wait "$tools" || {
    cat "$CACHE/tools.log" >&2
    return 1
  }
}
# It has a session of its own, and with it every compiler that it started.
stop_tools() { kill -- "-$tools" 2>/dev/null || true; }

require
own_sources
stage "packages" tests/kubernetes/tools.sh packages
start_tools
trap stop_tools EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
stage lint make --no-print-directory lint
# Real clients are part of it here; elsewhere those that are missing are skipped.
stage "cargo test" env VOLT_REQUIRE_CLIENTS=1 cargo test --workspace --no-fail-fast
stage "release build of volt-node" cargo build --release -p volt-node # by itself, as make run builds it
stage "release build of volt-operator" cargo build --release -p volt-operator
stage "Kubernetes and helm, built" finish_tools
trap - EXIT
stage "Kubernetes end-to-end" tests/kubernetes/e2e.sh
printf '=== all passed in %d s\n%s' "$SECONDS" "$report"
