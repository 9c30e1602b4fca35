#!/usr/bin/env bash
# Holds VoltCluster against VoltDB 10.0 Community: the same work on the same tables, one node each, nothing on disk, both in turn in
# one run, because machines are noisy. Each runs alone; its client shares the machine with it.
#
#   tests/bench/peers.sh [SECONDS [ROUNDS]]      needs psql, a JDK and Maven; uses target/release/volt-node, or $VOLT_NODE
#
# What "in flight" means: VoltDB's client keeps so many calls open; ours sends so many in pipelines of 100 (or 1, when there are 32).
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-5}
rounds=${2:-3}
node=${VOLT_NODE:-${CARGO_TARGET_DIR:-target}/release/volt-node}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/voltcluster/voltdb
sql_port=25433
work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    pids=()
}
trap 'stop; rm -rf "$work"' EXIT

await() { # log, what it says when it is ready
    for _ in $(seq 600); do
        grep -aq "$2" "$1" && return
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    tail -20 "$1" >&2
    exit 1
}

# ---- VoltCluster

volt_start() {
    "$node" dev --nodes 1 --ephemeral --durability memory --sql-port $sql_port --peer-port 27433 --http-port 28433 >"$work/dev.txt" 2>&1 &
    pids+=($!)
    await "$work/dev.txt" '^ready'
    local psql=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p $sql_port -U volt volt)
    "${psql[@]}" -f tests/bench/volt/schema.sql
    tests/bench/volt/rows.sh | "${psql[@]}"
}
volt_rate() { # work, in flight
    local clients=$2 pipeline=1
    [ "$2" -lt 1000 ] || { clients=$(($2 / 100)); pipeline=100; }
    local calls=("$node" bench calls --quiet --port $sql_port --clients "$clients" --pipeline "$pipeline" --seconds "$seconds")
    case $1 in
    read) "${calls[@]}" --sql 'SELECT v FROM kv WHERE k = $1' --argument bigint:0..199999 ;;
    update) "${calls[@]}" --sql 'UPDATE kv SET v = $1 WHERE k = $2' --argument text:100 --argument bigint:0..199999 ;;
    voter) "${calls[@]}" --sql 'CALL vote($1, $2, 2, NULL)' --argument bigint:2000000000..9999999999 --argument int:1..6 ;;
    transfer) "${calls[@]}" --sql 'CALL transfer($1, $2, $3)' --argument bigint:0..99999 --argument bigint:0..99999 --argument bigint:1..10 ;;
    new-order) "${calls[@]}" --sql 'CALL place_order($1, $2, $3, $4, NULL)' --argument int:1..4 --argument int:1..10 \
        --argument int:1..3000 --argument lines:5..15:100000:10 ;;
    esac
}

# ---- VoltDB

java=(java -Xmx3g -Djava.awt.headless=true -Djava.net.preferIPv4Stack=true "-Dlog4j.configuration=file://$PWD/tests/bench/voltdb/log4j.properties")
for package in java.lang java.nio java.net java.util jdk.internal.ref sun.nio.ch; do
    java+=("--add-opens=java.base/$package=ALL-UNNAMED")
done
voltdb_build() {
    [ -d "$cache/lib" ] || mvn -q -f tests/bench/voltdb/pom.xml dependency:copy-dependencies "-DoutputDirectory=$cache/lib"
    mkdir -p "$work/client"
    javac -nowarn -proc:none -d "$work/client" -cp "$cache/lib/*" tests/bench/voltdb/*.java
    (cd "$work/client" && jar cf procedures.jar Vote.class Transfer.class NewOrder.class LoadItems.class)
    cp tests/bench/voltdb/schema.sql "$work/client"
}
voltdb_start() {
    local server=("${java[@]}" -cp "$cache/lib/*" org.voltdb.VoltDB)
    rm -rf "$work/root"
    mkdir "$work/root"
    "${server[@]}" initialize voltdbroot "$work/root" deployment "$PWD/tests/bench/voltdb/deployment.xml" >"$work/init.txt" 2>&1
    (cd "$work" && exec "${server[@]}" probe voltdbroot "$work/root" mesh 127.0.0.1 hostcount 1 internalinterface 127.0.0.1 \
        externalinterface 127.0.0.1) >"$work/server.txt" 2>&1 &
    pids+=($!)
    await "$work/server.txt" 'Server completed initialization'
    voltdb_client load
}
voltdb_client() { (cd "$work/client" && "${java[@]}" -cp ".:$cache/lib/*" Calls "$@"); }
voltdb_rate() { voltdb_client "$1" "$2" "$seconds"; }

# ---- Both

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }
works=('read 32' 'read 1000' 'update 32' 'update 1000' 'voter 32' 'voter 1000' 'transfer 32' 'transfer 1000' 'new-order 32' 'new-order 1000')
voltdb_build
for round in $(seq $rounds); do
    for peer in voltdb volt; do
        "${peer}_start"
        for one in "${works[@]}"; do
            # shellcheck disable=SC2086
            rate=$("${peer}_rate" $one)
            echo "$rate" >>"$work/$peer $one"
            echo "round $round, $peer, $one in flight: $rate" >&2
        done
        stop
    done
done
printf '%-14s %10s %14s %12s %7s\n' 'a second' 'in flight' 'VoltCluster' 'VoltDB 10.0' ratio
for one in "${works[@]}"; do
    read -r name in_flight <<<"$one"
    volt=$(median <"$work/volt $one") voltdb=$(median <"$work/voltdb $one")
    printf '%-14s %10s %14d %12d %7s\n' "$name" "$in_flight" "$volt" "$voltdb" "$(awk "BEGIN { printf \"%.1f\", $volt / $voltdb }")"
done
