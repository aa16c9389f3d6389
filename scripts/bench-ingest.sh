#!/usr/bin/env bash
# Measures spans per CPU-second from the bytes of OTLP to a verdict. The first argument may be a folder of trace files.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
go build -o "$out/ingest" ./bench/ingest
corpus=${1:-../shared/corpora/nezha}
[ -d "$corpus" ] || corpus=
"$out/ingest" ${corpus:+"$corpus"}
echo
echo "ten minutes at a million spans a minute, live:"
"$out/ingest" -minutes 10
if [ -n "${BENCH_INGEST_FILE_BYTES:-}" ]; then
  echo
  echo "a file of $BENCH_INGEST_FILE_BYTES bytes:"
  "$out/ingest" -file "$out/traces.bin" -size "$BENCH_INGEST_FILE_BYTES"
  "$out/ingest" -file "$out/traces.bin"
fi
