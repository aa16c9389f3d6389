#!/usr/bin/env bash
# Runs each fuzz target of the module for the given time, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
each=${1:-20s}
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | grep -v node_modules | xargs -n1 dirname | sort -u); do
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | awk '{print $2}' | sort); do
    echo "fuzz: $dir $target $each"
    go test "$dir" -run "^$" -fuzz "^$target\$" -fuzztime "$each" -fuzzminimizetime 10x
  done
done
