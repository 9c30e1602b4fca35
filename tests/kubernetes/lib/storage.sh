# Persistent volumes, made ahead: folders of this machine, which every node sees, so that a pod that is scheduled
# on another node finds its data there. Sourced.
# shellcheck shell=bash

make_volumes() {
  local n
  for n in $(seq "$VOLUMES"); do
    install -d -o 10001 -g 10001 -m 700 "$DIR/volumes/$n"
  done
  {
    cat <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: local
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML
    for n in $(seq "$VOLUMES"); do
      cat <<YAML
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-$n}
spec:
  capacity: {storage: 100Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  hostPath: {path: "$DIR/volumes/$n", type: Directory}
YAML
    done
  } | "$BIN/kubectl" apply -f - >/dev/null
}
