#!/usr/bin/env bash
# Simulates the judge beside a Flagger-style and a Kayenta-style rule on the same data, and measures what a look costs.
# RUNS scales the number of runs (default 1: 2000 of each comparison of equals, some minutes on one core).
set -euo pipefail
cd "$(dirname "$0")/.."
LONGPOLE_JUDGE_RUNS="${RUNS:-1}" go test -count=1 -timeout 60m -run 'TestFullGrid$' -v ./internal/judge | grep '^|\|^$\|^--- '
go test -count=1 -run 'TestThePlanIsWhat|TestSwitchback|TestAFaultySplit' -v ./internal/judge | grep 'plan_test\|switchback_test\|split:'
go test -count=1 -run '^$' -bench 'Look$' -benchtime 2000x ./internal/judge | grep Benchmark
