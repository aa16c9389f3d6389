"""The proxies of the bench: one row each. Their configurations stand in peers/; $words in them are filled in here.

home/ is the folder of programs (bin), configurations (conf) and what a run leaves (run); see scripts/bench-gateway.sh.
A proxy of one's own: a file home/peers.d/NAME.json with the keys of a row.
"""
import glob
import json
import os
import shutil
import string
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.environ["PEERS_HOME"]
BIN, CONF, RUN = (os.path.join(HOME, d) for d in ("bin", "conf", "run"))
BACKEND, RELAY = 9000, 9119  # ports


def row(command, base, h2c=None, metrics=False, env=None, note=""):
    """One proxy: its command line, the ports base (HTTP/1.1), base+300 (TLS), and h2c; {word}s are filled in at its start."""
    return {"cmd": command, "port": base, "tls": base + 300, "h2c": h2c or base, "metrics": base + 800 if metrics else None,
            "env": env or {}, "note": note}


GO = {"GOMAXPROCS": "{cores}"}
ROWS = {
    "longpole": row("{longpole} serve --config {conf}/longpole.yaml --log-level warn", 9110, metrics=True, env=GO, note="every default policy on"),
    "revproxy": row("{bin}/revproxy -listen 127.0.0.1:9111 -tls 127.0.0.1:9411 -metrics 127.0.0.1:9911 -cert {run}/cert.pem -key {run}/key.pem", 9111,
                    metrics=True, env=GO, note="tuned httputil.ReverseProxy, no policy"),
    "nginx": row("nginx -p {run} -e {run}/nginx.log -c {conf}/nginx.conf", 9101, h2c=9501),
    "haproxy": row("haproxy -db -f {conf}/haproxy.cfg", 9102, h2c=9502),
    "caddy": row("{bin}/caddy run --adapter caddyfile --config {conf}/Caddyfile", 9103, env=dict(GO, XDG_DATA_HOME="{run}", XDG_CONFIG_HOME="{run}")),
    "traefik": row("{bin}/traefik --configFile={conf}/traefik.yml", 9104, env=GO),
}
FILES = {"longpole": ["longpole.yaml"], "nginx": ["nginx.conf"], "haproxy": ["haproxy.cfg"], "caddy": ["Caddyfile"], "traefik": ["traefik.yml", "traefik-routes.yml"]}


def words(cores):
    """What {word}s in commands stand for."""
    return {"cores": str(cores), "conf": CONF, "run": RUN, "bin": BIN, "longpole": os.environ.get("LONGPOLE", os.path.join(HERE, "../../bin/longpole"))}


def load(cores):
    """Writes the configurations and returns (rows that can run, {name: why not})."""
    for d in (CONF, RUN, os.path.join(HOME, "peers.d")):
        os.makedirs(d, exist_ok=True)
    certificate()
    for name, files in FILES.items():
        r = ROWS[name]
        fill = dict(words(cores), backend=BACKEND, http=r["port"], tls=r["tls"], h2c=r["h2c"], admin=r["metrics"], cert=RUN + "/cert.pem", key=RUN + "/key.pem", both=RUN + "/both.pem")
        for f in files:
            with open(os.path.join(HERE, "peers", f)) as template, open(os.path.join(CONF, f), "w") as out:
                out.write(string.Template(template.read()).substitute(fill))
    rows, missing = dict(ROWS), {}
    for f in sorted(glob.glob(HOME + "/peers.d/*.json")):
        with open(f) as own:
            rows[os.path.basename(f)[:-5]] = dict({"tls": None, "h2c": None, "metrics": None, "env": {}, "note": ""}, **json.load(own))
    for name in list(rows):
        program = rows[name]["cmd"].split()[0].format(**words(cores))
        if not shutil.which(program):
            missing[name] = program + " is not there"
            del rows[name]
    return rows, missing


def certificate():
    """Makes a self-signed certificate for localhost, once."""
    if not os.path.exists(RUN + "/both.pem"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", RUN + "/key.pem", "-out", RUN + "/cert.pem"], check=True, stderr=subprocess.DEVNULL)
        with open(RUN + "/both.pem", "w") as both:
            for part in ("/cert.pem", "/key.pem"):
                with open(RUN + part) as f:
                    both.write(f.read())
