#!/usr/bin/env bash
# Makes the test's image archives from built programs: build.sh FOLDER_WITH_PROGRAMS OUT_FOLDER
set -euo pipefail

# What a container runtime puts before an image's name that has no host, and so the name it looks for.
DEFAULT_DOMAIN=docker.io
programs=$1 out=$2
images=$(dirname "${BASH_SOURCE[0]}")

mkdir -p "$out"
for name in volt-node volt-operator; do
  python3 "$images/image.py" "$DEFAULT_DOMAIN/voltcluster/$name:dev" "$out/$name.tar" "$programs/$name"
done
