# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 20s
LINT     := go tool -modfile=tools/golangci-lint/go.mod golangci-lint

.PHONY: help build demo test race lint fuzz bench bench-gateway bench-adversity bench-ingest bench-judge bench-rollout bench-whatif conformance chaos check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/longpole, one static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/longpole ./cmd/longpole

demo: build ## run the whole loop on an embedded distributed system, about 4 minutes
	bin/longpole demo

test: ## install what the tests need, then run them all with the race detector
	scripts/setup-tests.sh
	go vet ./...
	go test -race -timeout 20m ./...
	go test ./balance ./internal/judge ./internal/diagnose # their largest simulations are too slow for the race detector

race: test ## the same as test: the race detector is always on

lint: ## run the linters of .golangci.yml
	$(LINT) run ./...
	$(LINT) fmt --diff ./...
	go mod tidy -diff

fuzz: ## fuzz every parser and the critical path, FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

bench: ## run the benchmarks and compare them with the last tag where there is one
	scripts/bench.sh

bench-gateway: build ## measure CPU, throughput, added latency and memory beside Caddy, Traefik, nginx and HAProxy
	scripts/bench-gateway.sh

bench-adversity: build ## the same beside them with a bad replica and under twice the load
	scripts/bench-adversity.sh

bench-ingest: ## measure spans per second of processor time, from bytes to a verdict
	scripts/bench-ingest.sh

bench-judge: ## simulate the judge's error rates, power and time to a verdict beside two rules that others use
	scripts/bench-judge.sh

bench-rollout: ## roll harmful, helpful and idle changes out on a loaded gateway, about an hour
	scripts/bench-rollout.sh

bench-whatif: ## cure systems of the lab and compare with the forecasts, about 8 minutes
	scripts/bench-whatif.sh

conformance: build ## run the public suites for HTTP caches, HTTP/2, gRPC, smuggling, slow clients and WebSocket
	scripts/conformance.sh

chaos: ## break everything around the gateway for 10 minutes and check every answer; kill it under 10,000 jobs
	scripts/setup-tests.sh
	LONGPOLE_CHAOS=10m go test -count=1 -timeout 20m -run 'TestChaos$$' -v ./cmd/longpole
	OFFLOAD_TEST_JOBS=10000 go test -count=1 -timeout 20m -run Killed -v ./internal/offload ./internal/gateway

check: lint test ## all that must pass before a commit

clean: ## remove what make built
	rm -rf bin dist
