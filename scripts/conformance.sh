#!/usr/bin/env bash
# Runs public conformance suites against Longpole and, the same way, nginx, HAProxy, Varnish and Caddy; installs what it needs.
#
#   scripts/conformance.sh                                       # everything; docs/bench/conformance.md is written
#   scripts/conformance.sh --suite cache --subject longpole      # one suite, one subject; only printed
#   RUNS=5 scripts/conformance.sh --suite grpc,websocket         # suites: cache h2spec grpc smuggling slow websocket
#
# Environment: LONGPOLE, a program built already. RUNS of each gRPC case (100). CACHE_TESTS, a checkout of http-tests/cache-tests, whose edition is newer than the
# package's. SMUGGLER, a checkout of defparam/smuggler, run as well when given. NGINX, HAPROXY, VARNISH, CADDY, the program to
# use in place of the one in PATH, and CADDY_VERSION and so on for one that does not know its own. CONFORMANCE_HOME, where tools and results are kept (the user's cache folder).
# A peer or a suite that cannot be had is named and skipped. The exit code is 1 when Longpole misses a goal, 2 when something broke.
set -euo pipefail
cd "$(dirname "$0")/.."
home=${CONFORMANCE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/longpole/conformance}
mkdir -p "$home/bin"
say() { echo "conformance: $*" >&2; }

# install_debian PACKAGE PROGRAM ...: installs each package whose program is not there. Its service is not started.
install_debian() {
  local missing=()
  while (($#)); do
    command -v "$2" >/dev/null || missing+=("$1")
    shift 2
  done
  ((${#missing[@]})) || return 0
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  if ! hash apt-get "${as_root[@]}" 2>/dev/null; then
    say "please install ${missing[*]}; what is missing is skipped"
    return 0
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || true
  local package
  for package in "${missing[@]}"; do # one by one, so that one that is not to be had does not keep the others away
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
      say "$package cannot be installed; what needs it is skipped"
  done
}
export PATH=$PATH:/usr/sbin # where Debian puts servers
install_debian nginx-light nginx haproxy haproxy varnish varnishd gcc gcc slowhttptest slowhttptest nodejs node npm npm python3 python3
built=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/longpole/peers}/bin/caddy # by bench-gateway.sh, newer than Debian's
[[ -n ${CADDY:-} || ! -x $built ]] || export CADDY=$built
[[ -n ${CADDY:-} ]] || install_debian caddy caddy

# tool NAME MODULE PACKAGE: builds a program at the version that bench/conformance/tools/MODULE pins.
tool() {
  local pin=bench/conformance/tools/$2/go.mod
  [[ -x $home/bin/$1 && $home/bin/$1 -nt $pin ]] && return 0
  say "building $1"
  go build -modfile="$pin" -o "$home/bin/$1" "$3"
}
tool h2spec h2spec github.com/summerwind/h2spec/cmd/h2spec
tool interop_client interop google.golang.org/grpc/interop/client
tool interop_server interop google.golang.org/grpc/interop/server

# The HTTP cache tests: the checkout that is given, or the package.
cache_tests=${CACHE_TESTS:-}
if [[ -z $cache_tests ]]; then
  edition=0.4.5
  cache_tests=$home/npm/node_modules/http-cache-tests
  if [[ ! -d $cache_tests ]]; then
    say "installing http-cache-tests $edition"
    mkdir -p "$home/npm"
    npm install --prefix "$home/npm" --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error "http-cache-tests@$edition" >/dev/null || say "http-cache-tests cannot be installed; its suite is skipped"
  fi
  [[ -d $cache_tests ]] && echo "package $edition" >"$cache_tests/EDITION"
else
  cache_tests=$(cd "$cache_tests" && pwd)
  [[ -d $cache_tests/node_modules ]] || npm install --prefix "$cache_tests" --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
fi
[[ -d $cache_tests ]] || cache_tests=

smuggler=${SMUGGLER:+$(cd "$SMUGGLER" && pwd)}
if [[ -z ${LONGPOLE:-} ]]; then
  make --no-print-directory build >&2
  LONGPOLE=$PWD/bin/longpole
  LONGPOLE_VERSION=$(git describe --tags --always --dirty 2>/dev/null || true)
fi
LONGPOLE_VERSION=${LONGPOLE_VERSION:-of unknown version} # nothing tells which tree a given program was built from
export LONGPOLE_VERSION
(cd bench/conformance && go build -o "$home/bin/conformance" .)
exec "$home/bin/conformance" -home "$home" -longpole "$LONGPOLE" -cache-tests "$cache_tests" -runs "${RUNS:-100}" -smuggler "$smuggler" \
  -page docs/bench/conformance.md "$@"
