# What people do here. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help run test lint soak endure bench kube-up kube-down

ARGS ?= --nodes 3 --data ./data
NODES ?= 3
SEEDS ?= 1000
MINUTES ?= 10
FROM ?= 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build, then a cluster on this machine: make run ARGS="--nodes 3 --ephemeral"
	@cargo run --release -p volt-node -- dev $(ARGS)

test: ## everything: lints, cargo test, and the end-to-end test on a real Kubernetes (root, Go)
	@tests/all.sh

lint: ## formatting, clippy, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

soak: ## seeds of the simulation, any number: make soak SEEDS=10000 FROM=301
	@SIMULATION_PROFILE=soak SEEDS=$(SEEDS) FROM=$(FROM) cargo test --profile soak --workspace --test simulation many::soak -- --ignored --exact --nocapture

endure: ## real processes under faults for minutes, their histories checked: make endure MINUTES=10 FROM=7
	@VOLT_ENDURE_SECONDS=$$(( $(MINUTES) * 60 )) VOLT_ENDURE_SEED=$(FROM) cargo test --workspace --test cluster endurance -- --nocapture

bench: ## TPC-C and the log in process, the gateway against a bare loop and VoltDB, the pause of a failover, what a fill costs (psql, pgbench, a JDK, Maven)
	cargo bench -p volt-engine
	cargo build --release -p volt-node
	tests/bench/wire.sh
	tests/bench/peers.sh
	$${CARGO_TARGET_DIR:-target}/release/volt-node bench failover --limit-ms 500
	$${CARGO_TARGET_DIR:-target}/release/volt-node bench fill --limit-percent 70
	$${CARGO_TARGET_DIR:-target}/release/volt-node bench log
	$${CARGO_TARGET_DIR:-target}/release/volt-node bench replay

kube-up: ## a Kubernetes on this machine with this source's images in it: make kube-up NODES=3 (root, Go)
	@NODES=$(NODES) tests/kubernetes/up.sh

kube-down: ## end and remove that Kubernetes
	@tests/kubernetes/cluster.sh down
