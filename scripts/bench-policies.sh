#!/usr/bin/env bash
# Measures the policies beside their peers. COUNT runs of each (default 6), BENCH selects (default all); benchstat sums up.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp)
trap 'rm -f "$out"' EXIT
(cd bench/policies && go test -run '^$' -bench "${BENCH:-.}" -benchtime "${BENCHTIME:-200ms}" -count "${COUNT:-6}" .) | tee "$out"
go tool -modfile=tools/benchstat/go.mod benchstat "$out"
