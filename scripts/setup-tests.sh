#!/usr/bin/env bash
# Installs what the tests need on a Debian machine with Go: a C compiler for the race detector, Redis, NATS and PostgreSQL with
# its extensions, Prometheus, nginx and HAProxy for what is generated for them, and Chromium with the driver's Node.js packages for the page tests. The tests start servers of their
# own; what Debian starts of what it installs is not used. Does nothing that is done already, and needs no network then.
set -euo pipefail
cd "$(dirname "$0")/.."

postgres=15 # Debian 12's
node_major=18 # Debian 12's, and the least that the browser's driver of ui/package.json runs on

missing=()
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates) # for npm, and for go to fetch modules
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
[[ -x ${CHROMIUM:-/usr/bin/chromium} ]] || missing+=(chromium fonts-dejavu-core)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v redis-server >/dev/null || missing+=(redis-server)
PATH=$PATH:/usr/sbin command -v nats-server >/dev/null || missing+=(nats-server)
[[ -x /usr/lib/postgresql/$postgres/bin/initdb && -e /usr/share/postgresql/$postgres/extension/pg_stat_statements.control ]] ||
  missing+=("postgresql-$postgres" postgresql-contrib)
[[ -e /usr/share/postgresql/$postgres/extension/hypopg.control ]] || missing+=("postgresql-$postgres-hypopg")
for tool in nginx haproxy; do # they check the settings that the adviser writes for them
  PATH=$PATH:/usr/sbin command -v $tool >/dev/null || missing+=($tool)
done
command -v promtool >/dev/null || missing+=(prometheus) # and promtool, for the rules and dashboards
if ((${#missing[@]})); then
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  if ! hash apt-get "${as_root[@]}" 2>/dev/null; then
    echo "setup-tests: please install as root: ${missing[*]}" >&2
    exit 1
  fi
  echo "setup-tests: installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! node -e "process.exit(parseInt(process.versions.node) >= $node_major ? 0 : 1)"; then
  echo "setup-tests: the page tests need Node.js $node_major or later, this is $(node --version); see https://nodejs.org" >&2
  exit 1
fi
if ! cmp -s ui/package-lock.json ui/node_modules/.installed-lock.json; then
  echo "setup-tests: installing the page tests' packages"
  npm ci --prefix ui --loglevel=error --no-audit --no-fund >/dev/null
  cp ui/package-lock.json ui/node_modules/.installed-lock.json
fi
