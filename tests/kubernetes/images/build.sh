#!/usr/bin/env bash
# Makes the image archives from built programs, under the names that the chart asks for when nobody says otherwise:
# build.sh FOLDER_WITH_PROGRAMS OUT_FOLDER
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../settings.sh"

# What a container runtime puts before an image's name that has no host, and so the name it looks for.
DEFAULT_DOMAIN=docker.io
programs=$1 out=$2

mkdir -p "$out"
for name in volt-node volt-operator; do
  said=$("$programs/$name" --version)
  [[ $said == "$name $VERSION" ]] || die "$programs/$name is $said, and the chart's appVersion is $VERSION"
  python3 "$HERE/images/image.py" "$DEFAULT_DOMAIN/voltcluster/$name:$VERSION" "$out/$name.tar" "$programs/$name"
done
