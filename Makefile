# Everything one does with this repository. `make` alone prints this list.

SHELL := /bin/bash
SCRIPTS := broker/testkit/scripts
export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help deps venv web peers build demo servers test interop conformance soak bench instructions check fmt clippy doc manifests clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing (Debian packages; needs root or sudo only if something is)
	@$(SCRIPTS)/deps.sh base

venv: deps ## make .venv with Python Celery and Flower, the peers of the tests
	@$(SCRIPTS)/venv.sh

web: venv ## build flower-lite's pages, if a source has changed
	@$(SCRIPTS)/web.sh

peers: venv ## install who judges and rivals the HTTP interface, and the tools of generated clients
	@$(SCRIPTS)/peers.sh

build: web ## build everything for debugging
	cargo build --workspace --all-targets

demo: ## start private servers and all programs, submit real work, stay up (ONCE=1: end when it is done)
	@$(SCRIPTS)/deps.sh demo
	@$(SCRIPTS)/venv.sh
	@$(SCRIPTS)/web.sh
	@manifests/demo/demo.sh

servers: deps ## start a private RabbitMQ and Redis, print their addresses, stay up
	@cargo run -q -p celery-testkit --example servers

test: web peers ## run all tests, against real servers, real Python peers and a real browser (T=name: only those)
	@$(SCRIPTS)/deps.sh browser manifests
	@$(SCRIPTS)/manifests.sh tools
	cargo build --workspace --bins --examples
	@$(SCRIPTS)/test.sh $(if $(T),--workspace $(T))

interop: web peers ## the end-to-end tests against Python Celery and Flower, and 500 random canvases on mixed workers (TREES=n)
	@$(SCRIPTS)/deps.sh manifests
	@$(SCRIPTS)/manifests.sh tools
	cargo build --workspace --bins
	@$(SCRIPTS)/test.sh --package celery-testkit --test e2e
	@$(SCRIPTS)/mixed_trees.sh $(or $(TREES),500)

conformance: venv ## run Celery's own integration suite against our example worker (ARGS='--tier A')
	@$(SCRIPTS)/conformance.sh $(ARGS)

soak: deps ## load with random trouble for MINUTES=2, then account for every accepted task (SEED=n: the same trouble again)
	cargo build -p celery-worker -p producer-api --bins
	@cargo run -q -p celery-testkit --example soak -- $(or $(MINUTES),2) $(SEED)

bench: venv web ## how fast everything is, beside its peers (ARGS='worker --case drain --tasks 100000', ARGS=--short: only whether it runs)
	@$(SCRIPTS)/deps.sh bench
	@$(SCRIPTS)/bench.sh $(ARGS)

instructions: web ## instructions of the hot paths, compared with what they were (UPDATE=1: keep what they are now)
	@$(SCRIPTS)/deps.sh bench
	cargo build --release -p celery-worker --bin celery-worker
	cargo bench -p celery-testkit --bench instructions

check: fmt clippy doc manifests ## formatting, lints, documentation and manifests, without a warning

fmt: ## formatting
	cargo fmt --all --check

clippy: web ## lints
	cargo clippy --workspace --all-targets -- -D warnings

doc: web ## documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

manifests: ## manifests: kustomize, strict schemas, alert rules, Dockerfile, systemd units
	@$(SCRIPTS)/deps.sh manifests
	@$(SCRIPTS)/manifests.sh check

clean: ## remove what was built; .venv and node_modules too
	cargo clean
	rm -rf .venv .run flower-lite/web/node_modules flower-lite/web/dist
