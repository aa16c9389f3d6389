#!/usr/bin/env bash
# Measures Longpole, nginx, HAProxy, Caddy and Traefik, each at its best, with one of three replicas bad and under twice the
# load that they bear. About 7 minutes once the peers are there; two CPUs that nobody else uses are enough.
#
#   scripts/bench-adversity.sh                                              # writes docs/bench/adversity.md
#   scripts/bench-adversity.sh -peers longpole,nginx -scenarios slow,errors -for 5s -runs 1   # only prints
#   scripts/bench-adversity.sh -for 60s -page docs/bench/adversity.md       # longer
#
# Environment: PEERS_HOME, LONGPOLE and NO_BUILD as in scripts/bench-gateway.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export PEERS_HOME=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/longpole/peers}
scripts/peers.sh nginx haproxy caddy traefik
if [[ -z ${LONGPOLE:-} ]]; then
  make --no-print-directory build >&2
  LONGPOLE=$PWD/bin/longpole
fi
(cd bench/gateway/adversity && go build -o "$PEERS_HOME/bin/adversity" .)
(($#)) || set -- -page docs/bench/adversity.md
export PATH=$PATH:/usr/sbin
exec "$PEERS_HOME/bin/adversity" -longpole "$LONGPOLE" -bin "$PEERS_HOME/bin" "$@"
