#!/usr/bin/env bash
# Measures the gateway beside Caddy, Traefik, nginx, HAProxy and a tuned httputil.ReverseProxy, in one run on one machine.
# About 8 minutes once the peers are there; the first run builds Caddy (5 minutes) and Traefik (8 minutes).
#
#   scripts/bench-gateway.sh                                        # writes docs/bench/gateway.md
#   scripts/bench-gateway.sh --rounds 1 --seconds 1 --tests h1,lat --peers longpole,nginx   # only prints
#   scripts/bench-gateway.sh --rounds 7 --latency 15 --page docs/bench/gateway.md           # longer
#
# Environment: PEERS_HOME, where programs, configurations and raw results are kept (the user's cache folder). LONGPOLE, a
# program built already. NO_BUILD=1: a peer that is not there is left out, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."
export PEERS_HOME=${PEERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/longpole/peers}
scripts/peers.sh tools revproxy nginx haproxy caddy traefik
if [[ -z ${LONGPOLE:-} ]]; then
  make --no-print-directory build >&2
  LONGPOLE=$PWD/bin/longpole
fi
export LONGPOLE PYTHONDONTWRITEBYTECODE=1
(($#)) || set -- --page docs/bench/gateway.md
# A session of its own: its autogroup is given priority over other work on the machine, where that is allowed.
exec setsid -w bash -c 'echo -20 2>/dev/null >/proc/self/autogroup || true; exec python3 bench/gateway/measure.py "$@"' _ "$@"
