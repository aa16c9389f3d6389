#!/usr/bin/env bash
# Runs the benchmarks ten times and compares them with the last tag, when there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"; git worktree prune 2>/dev/null || true' EXIT
go test ./... -run '^$' -bench . -benchmem -count 10 | tee "$out/new.txt"
if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
  git worktree add --quiet --detach "$out/old" "$tag"
  (cd "$out/old" && go test ./... -run '^$' -bench . -benchmem -count 10) >"$out/old.txt"
  git worktree remove --force "$out/old"
  go tool -modfile=tools/benchstat/go.mod benchstat "$out/old.txt" "$out/new.txt"
else
  go tool -modfile=tools/benchstat/go.mod benchstat "$out/new.txt"
fi
