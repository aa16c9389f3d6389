# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 20s
LINT     := go tool -modfile=tools/golangci-lint/go.mod golangci-lint

.PHONY: help build demo test race lint fuzz bench check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/longpole, one static binary
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/longpole ./cmd/longpole

demo: build ## run the whole loop on an embedded distributed system, about 4 minutes
	bin/longpole demo

test: ## install what the tests need, then run them all with the race detector
	scripts/setup-tests.sh
	go vet ./...
	go test -race -timeout 20m ./...
	go test ./balance # its largest simulations are too slow for the race detector

race: test ## the same as test: the race detector is always on

lint: ## run the linters of .golangci.yml
	$(LINT) run ./...
	$(LINT) fmt --diff ./...
	go mod tidy -diff

fuzz: ## fuzz every parser and the critical path, FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

bench: ## run the benchmarks and compare them with the last tag where there is one
	scripts/bench.sh

check: lint test ## all that must pass before a commit

clean: ## remove what make built
	rm -rf bin dist
