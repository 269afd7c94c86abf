# `make demo` and `make test` need Rust and Go, and nothing else.
SHELL := /bin/bash
CARGO ?= cargo
DEMO_EXIT ?=
export DEMO_EXIT

.PHONY: demo test test-judges test-node test-oldest image docs bench mutants fuzz lint generate

## Rampart's main job on a real control plane, step by step. DEMO_EXIT=1 ends it by itself.
demo:
	$(CARGO) build --quiet --workspace
	$(CARGO) run --quiet -p rampart-e2e --bin demo

## Every test that needs no root.
# Where it is, what a healthy installation serves is judged too.
PROMTOOL ?= $(shell command -v promtool)
test:
	$(if $(PROMTOOL),RAMPART_PROMTOOL="$(PROMTOOL)") $(CARGO) test --workspace
	@echo "skipped: the tests that say so above (they turn the clock: make test-judges); make test-judges (judges from PyPI), make test-node (a real node with Calico: root), make bench (figures), make test-oldest (the oldest Kubernetes) are apart"

## Judges that need more than Rust and Go (Python, packages from PyPI, nginx, Chromium, promtool, libfaketime), or
## minutes to build (Argo CD).
FAKETIME ?= $(firstword $(wildcard /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/lib/faketime/libfaketimeMT.so.1))
# Tests of the real control plane in which one of these judges has a part.
JUDGED := calls::ten calls::jumps gitops:: retention::clock holds::a_clock
JUDGES := $(addprefix judge-,reach-policies reach-intents alerts verifier report reach-recipes junit book)
test-judges:
	$(CARGO) build --quiet --workspace
	@# Two at once, the longest first: each has one core's work.
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(JUDGES)
	@[[ -n "$(FAKETIME)" ]] || { echo "libfaketime is missing: apt-get install libfaketime" >&2; exit 2; }
	RAMPART_E2E_ONLY="$(JUDGED)" RAMPART_ENVOY="$$(e2e/judges/verifier/envoy)" RAMPART_GITOPS_JUDGES=1 RAMPART_FAKETIME="$(FAKETIME)" \
		$(CARGO) test -p rampart-e2e --test cluster -- --nocapture

.PHONY: $(JUDGES)
judge-reach-policies judge-reach-intents judge-reach-recipes: judge-reach-%:
	e2e/judges/reach/run target/debug/rampart $*
judge-junit judge-report judge-verifier: judge-%:
	e2e/judges/$*/run target/debug/rampart
judge-alerts judge-book: judge-%:
	CARGO="$(CARGO)" e2e/judges/$*/run

## Network intent on a real node, where Calico enforces: every dial against what `rampart reach` says; and Rampart's own
## image there, installed by Helm. Needs root, and Debian packages that it names if they are missing.
test-node:
	$(CARGO) test -p rampart-e2e --test node
	@if [[ $$EUID == 0 ]]; then $(MAKE) --no-print-directory test-installed; fi
.PHONY: test-installed
test-installed: image
	$(CARGO) test -p rampart-e2e --test installed

## The tests of the real control plane, on the oldest Kubernetes that Rampart supports.
test-oldest:
	RAMPART_E2E_KUBERNETES=$$($(CARGO) run --quiet -p rampart-e2e --bin versions -- oldest) $(CARGO) test -p rampart-e2e --test cluster

## The image, as target/image/image.tar and target/image/oci; its digest is printed. IMAGE_OF_TESTS=1 makes one of what the
## tests have compiled: minutes sooner, and nothing to ship.
IMAGE_OF_TESTS ?=
export IMAGE_OF_TESTS
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
# Else cargo builds whatever has C in it anew, since its date is another one, and all that depends on it.
unexport SOURCE_DATE_EPOCH
image:
	image/build target/image
	$(CARGO) run --quiet -p rampart-e2e --bin image -- target/image/rampart target/image $(SOURCE_DATE_EPOCH)

## The image twice, the second time elsewhere: both must be the same, byte for byte.
.PHONY: image-reproduced
image-reproduced: image
	image/reproduced

## The pages of docs/ as a book, target/book, with every link followed. Needs Python; mdBook is fetched from PyPI.
docs:
	e2e/judges/book/run

## Figures; see README.
bench:
	$(CARGO) run --quiet --release -p rampart-e2e --bin bench

## Changes the Pod Security Standards at some 300 places, and fails unless MUTANTS_LEAST percent of these mutants are
## caught by the crate's own tests. Needs cargo-mutants.
MUTANTS_LEAST ?= 97
MUTANTS_JOBS ?= 2
mutants:
	@# 2 and 3 say that some were missed, or ran on for too long.
	env -u CARGO_TARGET_DIR $(CARGO) mutants --package rampart-pss --jobs $(MUTANTS_JOBS) --output target || [[ $$? == [23] ]]
	@cd target/mutants.out && caught=$$(wc -l <caught.txt) missed=$$(cat missed.txt timeout.txt | wc -l) && \
	echo "$$caught of $$((caught + missed)) caught" && ((caught * 100 >= (caught + missed) * $(MUTANTS_LEAST)))

## The webhook and the names of images, with inputs that a fuzzer makes up. Needs a nightly compiler and cargo-fuzz.
FUZZ_SECONDS ?= 600
fuzz:
	@# No sanitizer: unsafe code is forbidden here.
	mkdir -p fuzz/corpus && tar -xzf fuzz/corpus.tar.gz -C fuzz/corpus
	set -e; for target in review image; do \
	$(CARGO) +nightly fuzz run --sanitizer none --codegen-units 16 $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	-max_total_time=$(FUZZ_SECONDS) -dict=fuzz/$$target.dict -max_len=16384 -timeout=10 -print_final_stats=1; done

# Test programs that neither `cargo test` nor --all-targets takes.
APART := --test node --test installed --test alerts

## Compiles all test programs.
.PHONY: test-programs
test-programs:
	$(CARGO) test --quiet --workspace --no-run
	$(CARGO) test --quiet -p rampart-e2e --no-run $(APART)

## Formatting, dependencies, lints, rooms (with generated files).
lint: lint-text
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p rampart-e2e $(APART) -- -D warnings
	@# Of the whole workspace, so that no dependency is compiled twice (rooms: dependencies_have_one_set_of_features).
	$(CARGO) test --quiet --workspace --test rooms
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

## What of it compiles nothing.
.PHONY: lint-text
lint-text:
	$(CARGO) fmt --all --check
	$(CARGO) deny check --hide-inclusion-graph bans licenses sources

generate:
	$(CARGO) build --quiet --workspace --bin rampart
	target/debug/rampart generate .
	@# From the chart, by Helm; that it is not stale is a test (chart::).
	$(CARGO) run --quiet -p rampart-e2e --bin install
