#!/usr/bin/env bash
# Brings the peers of the benches, and the benches' own tools, into $PEERS_HOME/bin; does nothing that is done already.
# usage: peers.sh tools|revproxy|nginx|haproxy|caddy|traefik ...
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PEERS_HOME/bin
mkdir -p "$bin"
say() { echo "peers: $*" >&2; }
export PATH=$PATH:/usr/sbin

debian() { # debian PACKAGE PROGRAM: installs it; its service is not started
  command -v "$2" >/dev/null && return 0
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  say "installing $1"
  { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$1" >/dev/null; } ||
    say "$1 cannot be installed; what needs it is left out"
}

caddy() {
  say "building Caddy, about 5 minutes"
  GOBIN=$bin go install -ldflags '-X github.com/caddyserver/caddy/v2.CustomVersion=v2.11.9' github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9
}

traefik() { # its module replaces others, so that go install refuses it; the page's files are a stub
  local dir src
  say "building Traefik, about 8 minutes"
  dir=$(mktemp -d)
  src=$(cd "$dir" && go mod download -json github.com/traefik/traefik/v3@v3.6.12 | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  cp -r "$src" "$dir/src"
  chmod -R u+w "$dir/src"
  mkdir -p "$dir/src/webui/static"
  echo stub >"$dir/src/webui/static/index.html"
  (cd "$dir/src" && go build -ldflags '-X github.com/traefik/traefik/v3/pkg/version.Version=3.6.12' -o "$bin/traefik" ./cmd/traefik)
  rm -rf "$dir"
}

for want in "$@"; do
  case $want in
  tools)
    debian wrk wrk
    debian nghttp2-client h2load
    debian openssl openssl
    debian python3 python3
    command -v gcc >/dev/null || { debian gcc gcc && debian libc6-dev gcc; }
    for t in backend relay olg; do
      src=bench/gateway/tools/$t.c
      [[ $bin/$t -nt $src ]] || gcc -O2 -Wall -Wextra -o "$bin/$t" "$src" -lm
    done
    ;;
  revproxy) (cd bench/gateway/revproxy && go build -o "$bin/revproxy" .) ;;
  nginx) debian nginx-light nginx ;;
  haproxy) debian haproxy haproxy ;;
  caddy | traefik)
    [[ -x $bin/$want || -n ${NO_BUILD:-} ]] || "$want" || say "$want cannot be built; it is left out"
    ;;
  *)
    echo "peers: unknown $want" >&2
    exit 2
    ;;
  esac
done
