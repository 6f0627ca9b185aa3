# Thin by design: each recipe is one command that a person could type. CI calls `make test`, the same as you.
.PHONY: help run test verify fix bench bench-lb bench-registry bench-telemetry bench-tickets setup

help: ## Says what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Builds and brings up the demo cluster; Ctrl-C drains and stops it
	cargo run --release -- up

test: setup verify ## Installs what the checks need (on Debian), then runs all of them

setup: ## Installs what the checks need on Debian; elsewhere says what is missing
	@tools/setup.sh

verify: ## Format, lints, licences, buf, all tests, doctests, docs; never writes to the tree
	@tools/verify.sh

fix: ## The writing twin of verify: formats, and applies what clippy can
	cargo fmt --all
	cargo clippy --workspace --all-targets --all-features --fix --allow-dirty --allow-staged

bench: bench-lb bench-registry bench-telemetry bench-tickets ## All of the following (about 45 minutes, leave the machine alone)

bench-lb: ## What a pick costs, and lb beside the balancers of tonic and tower: costs, and fleets that misbehave (about 25 minutes)
	cargo bench -p lb --features bench --bench pick --bench compare --bench fleet
	cargo bench -p e2e --bench away

bench-registry: ## The registry beside etcd and ZooKeeper where installed, as ratios (about 6 minutes)
	cargo bench -p e2e --bench registry

bench-telemetry: ## What traces and statistics cost a call, at client and server (about 3 minutes)
	cargo bench -p telemetry --bench spans --bench stats
	cargo bench -p e2e --bench telemetry

bench-tickets: ## Purchases on SQLite and PostgreSQL beside the bare statements that they come down to (about 5 minutes)
	cargo bench -p e2e --bench tickets
