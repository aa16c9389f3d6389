#!/usr/bin/env bash
# Forecasts what cures would do to systems of the lab, cures them, and compares. Takes about 8 minutes on two quiet cores; arguments
# go to bench/whatif, as -only index.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go build -o "$out/whatif" ./bench/whatif
"$out/whatif" "$@"
