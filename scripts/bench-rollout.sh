#!/usr/bin/env bash
# Rolls changes out on a loaded gateway: those that harm must be rolled back, those that help promoted, those that do nothing left
# alone. Takes about an hour; arguments go to bench/experiment, as -runs 1 -equal 4 for a short one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go build -o "$out/experiment" ./bench/experiment
"$out/experiment" "$@"
