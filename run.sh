cd /tmp/cache-tests
./longpole serve --help >/dev/null 2>&1
(cd repo && npm_config_port=8310 npm_config_protocol=http npm_config_pidfile=/tmp/cache-tests/server.pid exec node test-engine/server/server.mjs >/tmp/cache-tests/server.log 2>&1) & S=$!
./longpole serve ${1:-gw.yaml} >gw.log 2>&1 & G=$!
sleep 1.5
cd repo && npm_config_id= npm run --silent cli --base=http://127.0.0.1:8311 >../out.json 2>../err.txt
kill $S $G; kill $(cat /tmp/cache-tests/server.pid) 2>/dev/null
cd .. ; node score.mjs /tmp/cache-tests/repo out.json
