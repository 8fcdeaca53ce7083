# Dormouse: what a user or a developer types. `make demo` and `make test` start from a machine that has Rust only.
#
# Everything honours CARGO_TARGET_DIR.

SHELL := /bin/bash
export PATH := /opt/dormouse/criu/bin:$(PATH):/opt/dormouse/bin:$(HOME)/.cargo/bin:/usr/sbin:/sbin

target := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.PHONY: help demo build deps test test-deps programs test-long bench fuzz lint fmt

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: build ## Show a container that sleeps and wakes, through the docker CLI (installs what is missing)
	@scripts/demo "$(target)/release"

build: deps ## Build the programs, in release
	cargo build --release --locked --workspace --bins

deps:
	@scripts/install-deps demo

test: programs ## Run all tests (installs what is missing)
	cargo nextest run --locked --workspace $(TESTS)

# The end-to-end tests start the programs that lie beside them, so these are built first.
programs: test-deps
	cargo build --locked --workspace --bins

test-deps:
	@scripts/install-deps test

test-long: programs ## Also run the tests that take minutes (crashes, repetition)
	cargo nextest run --locked --workspace --profile long --run-ignored all $(TESTS)

bench: build ## Time the engine; DORMOUSE_BENCH_PEERS="name=socket …" runs the same against others
	@scripts/bench "$(target)/release"

fuzz: test-deps ## Run every fuzz target for two minutes (FUZZ_SECONDS), two at a time (FUZZ_JOBS)
	@scripts/fuzz

lint: ## What .ci/run checks before the tests
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all
