#!/usr/bin/env bash
# Installs what the tests need on a Debian machine: a C compiler for the race detector, and Chromium with the driver's
# Node.js packages for the page tests. Does nothing that is done already.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v chromium >/dev/null || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v redis-server >/dev/null || missing+=(redis-server)
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
if [[ -f ui/package-lock.json && ! ui/node_modules/.package-lock.json -nt ui/package-lock.json ]]; then
  echo "setup-tests: installing the page tests' packages"
  npm ci --prefix ui --silent --no-audit --no-fund
fi
