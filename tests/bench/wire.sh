#!/usr/bin/env bash
# Holds the gateway, with the whole database under it, against the bare loop: pgbench's prepared point read, 32
# clients; plain, pipelined by 8 and by 100. Both sides in turn, in one run, because machines are noisy.
#
#   tests/bench/wire.sh [SECONDS]      needs pgbench and psql; uses target/release/volt-node, or $VOLT_NODE
#
# Fails when the gateway, pipelined by 8, does less than half of what the bare loop does.
#
# One node, so that every row is at the node that is asked; the numbers are about the gateway, not about the network.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-5}
clients=32
rounds=3
rows=100000
node=${VOLT_NODE:-${CARGO_TARGET_DIR:-target}/release/volt-node}
gateway_port=25433
bare_port=25534
work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT

"$node" dev --nodes 1 --ephemeral --sql-port $gateway_port --peer-port 27433 --http-port 28433 >"$work/dev.txt" 2>&1 &
pids+=($!)
"$node" bench bare-loop --port $bare_port &
pids+=($!)
for _ in $(seq 300); do
    grep -q '^ready' "$work/dev.txt" && break
    kill -0 "${pids[0]}" 2>/dev/null || { cat "$work/dev.txt"; exit 1; }
    sleep 0.1
done
grep -q '^ready' "$work/dev.txt" || { cat "$work/dev.txt"; exit 1; }

psql=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p $gateway_port -U volt volt)
"${psql[@]}" -c 'CREATE TABLE pgbench_accounts (aid INT PRIMARY KEY, bid INT, abalance INT) WITH REPLICATION = 0'
seq 0 500 $((rows - 500)) | awk '{
    printf "INSERT INTO pgbench_accounts (aid, bid, abalance) VALUES "
    for (i = $1; i < $1 + 500; i++) printf "%s(%d,1,%d)", (i > $1 ? "," : ""), i, i
    print ";"
}' | "${psql[@]}"

read='SELECT abalance FROM pgbench_accounts WHERE aid = :a;'
script() { # reads in one pipeline
    echo '\set a random(1, 99999)'
    if [ "$1" = 1 ]; then echo "$read"; return; fi
    echo '\startpipeline'
    for _ in $(seq "$1"); do echo "$read"; done
    echo '\endpipeline'
}
rate() { # port, reads in one pipeline: reads a second
    pgbench -n -M prepared -f "$work/$2.sql" -c $clients -j 1 -T "$seconds" -h 127.0.0.1 -p "$1" -U volt volt 2>/dev/null |
        awk -v reads="$2" '/^tps/ { printf "%d", $3 * reads }'
}
median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

printf '%-28s %14s %14s %8s\n' 'prepared point read, /s' gateway 'bare loop' ratio
least=0.5 # of the bare loop, pipelined by 8
for reads in 1 8 100; do
    script $reads >"$work/$reads.sql"
    : >"$work/gateway" && : >"$work/bare"
    for _ in $(seq $rounds); do
        echo "$(rate $gateway_port $reads)" >>"$work/gateway"
        echo "$(rate $bare_port $reads)" >>"$work/bare"
    done
    gateway=$(median <"$work/gateway") bare=$(median <"$work/bare")
    name="$clients clients"
    [ $reads = 1 ] || name="$name, pipelined by $reads"
    printf '%-28s %14d %14d %8s\n' "$name" "$gateway" "$bare" "$(awk "BEGIN { printf \"%.2f\", $gateway / $bare }")"
    [ $reads != 8 ] || slow=$(awk "BEGIN { print ($gateway < $least * $bare) }")
done
[ "$slow" = 0 ] || { echo "error: less than $least of the bare loop" >&2; exit 1; }
