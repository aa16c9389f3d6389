#!/usr/bin/env bash
# Installs what the tests need on a Debian machine: a C compiler for the race detector, and Chromium with the driver's
# Node.js packages for the page tests. Does nothing that is done already, and needs no network then.
set -euo pipefail
cd "$(dirname "$0")/.."

node_major=20 # the least that the browser's driver runs on

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null; then
    echo "setup-tests: please install: ${missing[*]}" >&2
    exit 1
  fi
  sudo=()
  ((EUID == 0)) || sudo=(sudo)
  echo "setup-tests: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! node -e "process.exit(parseInt(process.versions.node) >= $node_major ? 0 : 1)"; then
  echo "setup-tests: the page tests need Node.js $node_major or later, this is $(node --version); see https://nodejs.org" >&2
  exit 1
fi
if ! cmp -s ui/package-lock.json ui/node_modules/.installed-lock.json; then
  echo "setup-tests: installing the page tests' packages"
  npm ci --prefix ui --silent --no-audit --no-fund
  cp ui/package-lock.json ui/node_modules/.installed-lock.json
fi
