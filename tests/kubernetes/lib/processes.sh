# Starting and ending the cluster's processes. Sourced.
# shellcheck shell=bash

# Everything that a cluster starts, pods included, is in one cgroup: a process of ours can always be told from
# others, even when whoever started it was killed. This is the hierarchy in which we look (cgroup v1's pids, or v2).
cgroup_home() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo "/sys/fs/cgroup/$CGROUP"
  else
    echo "/sys/fs/cgroup/pids/$CGROUP"
  fi
}

# The same folder in every hierarchy that this machine has.
cgroup_homes() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    cgroup_home
    return
  fi
  local hierarchy
  for hierarchy in /sys/fs/cgroup/*/; do
    # /sys/fs/cgroup/cpu may be a link to cpu,cpuacct; the v2 mount beside v1 has no controllers
    [[ -L ${hierarchy%/} || ! -w ${hierarchy}cgroup.procs || -e ${hierarchy}cgroup.controllers ]] || echo "$hierarchy$CGROUP"
  done
}

# make_cgroup [NODE]: in every hierarchy; a new cpuset is empty and holds no process until it is told what it has.
make_cgroup() {
  local home folder file
  while read -r home; do
    for folder in "$home" "$home/daemons" ${1:+"$home/$1"}; do
      mkdir -p "$folder"
      for file in cpuset.cpus cpuset.mems; do
        [[ ! -e $folder/$file || -n $(<"$folder/$file") ]] || cat "$folder/../$file" >"$folder/$file"
      done
    done
  done < <(cgroup_homes)
}

in_namespace() { nsenter --net="/run/netns/$1" "${@:2}"; }

# start NAMESPACE NAME COMMAND...: in the background, in the cluster's cgroup, logging to its own file. An empty
# NAMESPACE is the machine's own. (nsenter, because `ip netns exec` hides the cgroups from the kubelet.)
start() {
  local namespace=$1 name=$2
  shift 2
  [[ -z $namespace ]] || set -- nsenter --net="/run/netns/$namespace" "$@"
  # shellcheck disable=SC2016
  setsid sh -c 'echo $$ >"$0" && exec "$@"' "$(cgroup_home)/daemons/cgroup.procs" "$@" \
    </dev/null >"$DIR/log/$name.log" 2>&1 9>&- &
}

processes() { find "$(cgroup_home)" -name cgroup.procs -exec cat {} + 2>/dev/null; }

# Ends all of the cluster's processes: asks first, so that containerd and etcd close their files, then insists.
end_processes() {
  local pid attempt signal=TERM
  [[ -d $(cgroup_home) ]] || return 0
  for attempt in {1..100}; do
    ((attempt < 8)) || signal=KILL
    for pid in $(processes); do
      kill "-$signal" "$pid" 2>/dev/null || true
    done
    [[ -n $(processes) ]] || return 0
    sleep 0.1
  done
  die "processes of cluster $CLUSTER do not end: $(processes | tr '\n' ' ')"
}

# Everywhere, also where only runc made it (the v2 hierarchy that some machines mount beside v1).
remove_cgroups() {
  local home
  for home in "/sys/fs/cgroup/$CGROUP" /sys/fs/cgroup/*/"$CGROUP"; do
    [[ ! -d $home ]] || find "$home" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
