# make help lists the targets.
GO       ?= go
PKGS     := ./...
# Packages that start clusters or real engines need more than the default time
# under the race detector on two cores.
TIMEOUT  ?= 40m

.PHONY: help setup test race lint bench install selftest harness fuzz screenshots soak torture manifests

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## install what the tests need (Debian: chromium, strace, fio, e2fsprogs)
	@scripts/setup

test: setup lint manifests ## set up, then run every test under the race detector, and without, 30 power cuts per engine and mode and the faults of a disk
	$(GO) test -race -timeout $(TIMEOUT) $(PKGS)
	$(GO) test -count=1 -run '^TestEngines' ./backends/powercut

race: ## every test under the race detector, without the set-up
	$(GO) test -race -timeout $(TIMEOUT) $(PKGS)

manifests: ## the Kubernetes manifests, against the types of k8s.io/api (a module of its own)
	cd deploy/kubernetes/manifesttest && $(GO) test ./...

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)

bench: ## the micro-benchmarks and the runner's own, for benchstat
	$(GO) test -run - -bench . -benchtime 2000x ./bench
	$(GO) test -run - -bench . ./bench/load ./node/... ./backends/raw

install: ## a snapshot of 1 GiB between two processes: memory of each, and speed beside a plain copy with sync
	RAFTBENCH_INSTALL_MIB=1024 $(GO) test -count=1 -run 'TestInstallPair$$' -v -timeout 30m ./bench

selftest: ## a backend against itself, and one whose Save is slowed by 10 %, on this disk and in memory
	RAFTBENCH_SELFTEST=1 $(GO) test -run 'TestSelf' -count 1 -timeout 60m -v ./bench

harness: ## what recording costs on mem, and whether the generator keeps its schedule at 60 % of its most
	RAFTBENCH_SELFTEST=1 $(GO) test -run 'TestHarness' -count 1 -timeout 30m -v ./bench

fuzz: ## each fuzz target for a minute
	@scripts/fuzz 60s

torture: ## fifty rounds of partitions, kills and slow links for each loop and way to drive raft, judged by porcupine
	RAFTBENCH_TORTURE=50 $(GO) test -count=1 -parallel 6 -run 'TestTorture$$' -v -timeout 60m ./node/torture

soak: ## kill a cluster on every engine twenty times; shared stores; snapshots in the engine; a thousand power cuts
	RAFTBENCH_KILLS=20 $(GO) test -count=1 -run TestKill -v -timeout 60m ./bench
	RAFTBENCH_SHARED=1 $(GO) test -count=1 -run TestShared -timeout 60m ./backends/all
	RAFTBENCH_SNAPSHOT=1 $(GO) test -count=1 -run TestSnapshotInEngine -timeout 60m ./backends/all
	RAFTBENCH_POWERCUT_CUTS=200 $(GO) test -count=1 -run TestSnapshotsInEngine -timeout 60m ./backends/powercut
	$(GO) run ./cmd/raftbench powercut --cuts 1000

screenshots: ## a real run, and pictures of its report for the README
	$(GO) run ./cmd/raftbench run --out raftbench-out/screenshots
	$(GO) test -count=1 ./reports -run Screenshots -screenshots-of "$(CURDIR)/raftbench-out/screenshots/report.html" -screenshots-to "$(CURDIR)/raftbench-out/screenshots"
	cp raftbench-out/screenshots/report-light.png raftbench-out/screenshots/report-dark.png docs/
