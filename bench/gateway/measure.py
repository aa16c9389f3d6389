#!/usr/bin/env python3
"""Measures reverse proxies side by side on the loopback interface; scripts/bench-gateway.sh brings what it needs.

Method. The proxies share core 0, the backend and the generator have core 1 (--free: nobody is pinned). A virtual machine
has fast and slow phases of seconds. So for the saturated tests all proxies run, and short windows go round: each proxy
has one, one after the other, in an order that is rotated. A ratio is that of two windows of the same round, and what is
stated is the median of all rounds' ratios: a phase that slows one window down spoils one ratio. What a proxy does
while others have their window is counted as its own. Latency and memory are taken with one proxy at a time.
Each window is also bracketed by the same closed loop through a byte relay in C: the normalised figures are scaled to a
relay cost of 9 us a call, and windows whose two brackets differ by more than 12 % are left out of their medians where
steady ones are there. Compare figures of one run only. CPU is that of the proxy's whole process tree. Every loop is
bounded in count and time; every process that is started here is ended here, by its id.
"""
import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import peers
import report

TICK = os.sysconf("SC_CLK_TCK")
RELAY_COST = 9.0  # us of CPU a call through the relay in a fast phase of the machine the figures were first taken on
SATURATED = ("h1", "tls1", "h2c", "tlsh2")
TESTS = SATURATED + ("lat", "mem")


def spawn(command, core=None, env=None, log=os.devnull):
    """Starts a process in a group of its own, on one core if core is given."""
    if core is not None:
        command = ["taskset", "-c", str(core)] + command

    def settle():
        os.setpgid(0, 0)
        try:
            os.nice(-20)
        except OSError:
            pass  # not root: as it is

    with open(log, "wb") as out:
        return subprocess.Popen(command, env=dict(os.environ, **(env or {})), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, preexec_fn=settle)


def tree(pid):
    """The ids of a process and of all below it."""
    ids = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    ids += tree(int(child))
    except FileNotFoundError:
        pass
    return ids


def stop(p):
    """Ends a process and what it started."""
    if p is None or p.poll() is not None:
        return
    ids = tree(p.pid)
    p.terminate()
    try:
        p.wait(3)
    except subprocess.TimeoutExpired:
        for i in ids:
            try:
                os.kill(i, signal.SIGKILL)
            except ProcessLookupError:
                pass
        p.wait()


def cpu(pid):
    """Microseconds of CPU of a process tree so far: in all, to the nanosecond, and (user, system) to the clock tick."""
    total = user = system = 0
    for i in tree(pid):
        try:
            with open(f"/proc/{i}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            user, system = user + int(fields[11]), system + int(fields[12])
            for task in os.listdir(f"/proc/{i}/task"):
                with open(f"/proc/{i}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e3, user * 1e6 / TICK, system * 1e6 / TICK


def memory(pid):
    """Proportional resident memory of a process tree in KiB."""
    total = 0
    for i in tree(pid):
        try:
            with open(f"/proc/{i}/smaps_rollup") as f:
                total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        except (FileNotFoundError, ProcessLookupError, AttributeError):
            continue
    return total


def allocations(port):
    """Objects that a Go program has allocated so far, or None."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=3) as answer:
            found = re.search(r"^go_memstats_mallocs_total (\S+)", answer.read().decode(), re.M)
            return float(found.group(1)) if found else None
    except OSError:
        return None


def wait_for(port, seconds=20):
    """Waits for an answer 200 at the port."""
    end = time.time() + seconds
    while time.time() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.5) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if s.recv(100).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


class Bench:
    """One run: the backend, the relay, and where everything is pinned."""

    def __init__(self, options):
        self.options = options
        self.proxy_core, self.load_core = (None, None) if options.free else (0, 1)
        self.cores = 2 if options.free else 1
        self.rows, self.missing = peers.load(self.cores)
        self.backend = spawn([peers.BIN + "/backend", str(peers.BACKEND)], self.load_core)
        self.relay = spawn([peers.BIN + "/relay", str(peers.RELAY), str(peers.BACKEND)], self.proxy_core)
        self.last = (0.0, 0.0)  # when the relay was measured, and what it cost

    def close(self):
        stop(self.relay)
        stop(self.backend)

    def start(self, name):
        row, fill = self.rows[name], peers.words(self.cores)
        log = f"{peers.RUN}/{name}.out"
        p = spawn(row["cmd"].format(**fill).split(), self.proxy_core, {k: v.format(**fill) for k, v in row["env"].items()}, log)
        if not wait_for(row["port"]):
            stop(p)
            with open(log) as f:
                raise RuntimeError(f"{name} did not start: " + " ".join(f.read().split())[-300:])
        return p

    def generate(self, command):
        out = subprocess.run((["taskset", "-c", str(self.load_core)] if self.load_core is not None else []) + command, capture_output=True, text=True, timeout=120, check=False)
        return out.stdout

    def loop(self, port, *arguments_):
        """Runs the generator olg; returns what it says."""
        out = self.generate([peers.BIN + "/olg", "-p", str(port)] + [str(a) for a in arguments_])
        return json.loads(out.strip().splitlines()[-1])

    def reference(self):
        """What a call through the relay costs right now."""
        when, cost = self.last
        if time.time() - when < 0.4:
            return cost

        def ran():
            with open(f"/proc/{self.relay.pid}/schedstat") as f:
                return int(f.read().split()[0])

        before = ran()
        n = self.loop(peers.RELAY, "-c", 64, "-n", 25000, "-d", 3)["n"]
        self.last = (time.time(), (ran() - before) / 1e3 / max(n, 1))
        return self.last[1]

    def window(self, p, row, work):
        """Runs work() -> {"n": calls, ...} and adds what it cost the proxy."""
        before = self.reference()
        a0 = allocations(row["metrics"]) if row.get("metrics") else None
        c0, u0, s0 = cpu(p.pid) if p else (0, 0, 0)
        begin = time.time()
        r = work()
        seconds = time.time() - begin
        c1, u1, s1 = cpu(p.pid) if p else (0, 0, 0)
        a1 = allocations(row["metrics"]) if a0 is not None else None
        self.last = (0.0, 0.0)
        after = self.reference()
        scale, n = RELAY_COST / ((before + after) / 2), max(r["n"], 1)
        r.update(seconds=round(seconds, 2), cpu_us=round((c1 - c0) / n, 2), user_us=round((u1 - u0) / n, 2), system_us=round((s1 - s0) / n, 2),
                 ref=[round(before, 2), round(after, 2)], steady=abs(before - after) <= 0.12 * (before + after) / 2)
        r["cpu_norm"] = round(r["cpu_us"] * scale, 2)
        if "rps" in r:
            r["rps_norm"] = round(r["rps"] / scale)
        if a1 is not None:
            r["allocs"] = round((a1 - a0) / n, 1)
        return r

    def wrk(self, url):
        out = self.generate(["wrk", "-t1", "-c64", f"-d{self.options.seconds}", url])
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        return {"n": int(re.search(r"(\d+) requests in", out).group(1)), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
                "bad": (int(bad.group(1)) if bad else 0) + (sum(map(int, errors.groups())) if errors else 0)}

    def h2load(self, url):
        out = self.generate(["h2load", f"-n{self.options.h2}", "-c16", "-m10", "-t1", url])
        done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
        protocol = re.search(r"Application protocol: (\S+)", out)
        return {"n": int(done.group(1)), "bad": int(done.group(2)) + int(done.group(3)), "rps": float(re.search(r"([\d.]+) req/s", out).group(1)),
                "protocol": protocol.group(1) if protocol else "?"}

    def latency(self, port):
        """An open loop of Poisson arrivals; latency counts from the scheduled time."""
        j = self.loop(port, "-c", 128, "-r", self.options.rate, "-d", self.options.latency)
        return {"n": j["n"], "bad": j["err"] + j["non200"], "p50_us": j["p50_us"], "p99_us": j["p99_us"], "p999_us": j["p999_us"]}

    def memory(self, p, port):
        """Memory after a load, and what thousands of idle connections add."""
        self.loop(port, "-c", 64, "-n", 50000, "-d", 5)
        loaded, out = memory(p.pid), peers.RUN + "/idle.out"
        idle = spawn([peers.BIN + "/olg", "-p", str(port), "-i", str(self.options.idle), "-w", "4"], self.load_core, log=out)
        end, said = time.time() + 60, ""
        while time.time() < end and not said:
            time.sleep(0.2)
            with open(out) as f:
                said = f.read()
        time.sleep(1)
        full = memory(p.pid)
        idle.wait(30)
        j = json.loads(said)
        return {"n": j["ok"], "bad": j["err"], "loaded_mb": round(loaded / 1024, 1), "idle_mb": round(full / 1024, 1), "kb_per_conn": round((full - loaded) / self.options.idle, 2)}

    def test(self, test, p, row):
        """One window of one test, or None if the proxy does not offer it."""
        port = row["port"]
        if test == "h1":
            return self.window(p, row, lambda: self.wrk(f"http://127.0.0.1:{port}/"))
        if test == "tls1" and row["tls"]:
            return self.window(p, row, lambda: self.wrk(f"https://127.0.0.1:{row['tls']}/"))
        if test == "tlsh2" and row["tls"]:
            return self.window(p, row, lambda: self.h2load(f"https://127.0.0.1:{row['tls']}/"))
        if test == "h2c" and row["h2c"]:
            return self.window(p, row, lambda: self.h2load(f"http://127.0.0.1:{row['h2c']}/"))
        if test == "lat":
            return self.window(p, row, lambda: self.latency(port))
        if test == "mem" and p:
            return self.memory(p, port)
        return None

    def measured(self, name, test, number, p, row, out):
        """One window, noted in out; None if there is none."""
        try:
            r = self.test(test, p, row)
        except (AttributeError, ValueError, IndexError, KeyError, subprocess.TimeoutExpired) as e:
            print(f"bench-gateway: {name} {test}: not measured: {e!r}", file=sys.stderr)
            return None
        if r is not None:
            r.update(peer=name, test=test, round=number)
            out.append(r)
        return r

    def saturate(self, names, out):
        """The saturated tests: all proxies run, and their windows go round."""
        running = {}
        try:
            for name in names:
                try:
                    running[name] = self.start(name)
                except RuntimeError as e:
                    print(f"bench-gateway: {e}", file=sys.stderr)
            for name in running:
                self.loop(self.rows[name]["port"], "-c", 64, "-n", 20000, "-d", 1)  # warm-up
            for test in [t for t in SATURATED if t in self.options.tests]:
                for number in range(self.options.windows):
                    k = number % max(1, len(running))
                    order = (list(running) * 2)[k : k + len(running)]
                    before = {name: cpu(running[name].pid)[0] for name in order}
                    rows = {name: self.measured(name, test, number, running[name], self.rows[name], out) for name in order}
                    for name, r in rows.items():
                        if r and r["cpu_us"]:
                            total = (cpu(running[name].pid)[0] - before[name]) / max(r["n"], 1)
                            r["cpu_norm"], r["cpu_us"] = round(r["cpu_norm"] * total / r["cpu_us"], 2), round(total, 2)
                            print(f"{number} {name:10s} {test:6s} " + " ".join(f"{k}={v}" for k, v in r.items() if k not in ("peer", "test", "round")), file=sys.stderr, flush=True)
        finally:
            for p in running.values():
                stop(p)

    def one(self, name, number, out):
        """Latency and memory of one proxy in one round."""
        direct = name == "direct"
        row = {"port": peers.BACKEND, "tls": None, "h2c": None} if direct else self.rows[name]
        p = None if direct else self.start(name)
        try:
            self.loop(row["port"], "-c", 64, "-n", 20000, "-d", 1)  # warm-up
            for test in self.options.tests:
                if test in SATURATED or direct and test != "lat" or test == "mem" and number > 0:
                    continue
                for _ in range(self.options.tries):
                    r = self.measured(name, test, number, p, row, out)
                    if r is None:
                        break
                    print(f"{number} {name:10s} {test:6s} " + " ".join(f"{k}={v}" for k, v in r.items() if k not in ("peer", "test", "round")), file=sys.stderr, flush=True)
                    if r.get("steady", True):
                        break
        finally:
            stop(p)


def arguments():
    a = argparse.ArgumentParser(description="Measures reverse proxies side by side.")
    a.add_argument("--peers", default="", help="comma-separated; default all that are there")
    a.add_argument("--tests", default=",".join(TESTS), help="comma-separated; default all: %(default)s")
    a.add_argument("--rounds", type=int, default=3, help="of latency and memory")
    a.add_argument("--windows", type=int, default=9, help="rounds of short windows, for each saturated test")
    a.add_argument("--tries", type=int, default=2, help="of a window of latency that was not steady")
    a.add_argument("--seconds", type=int, default=1, help="of a closed-loop window")
    a.add_argument("--h2", type=int, default=10000, help="calls of an HTTP/2 window")
    a.add_argument("--latency", type=float, default=5, help="seconds of an open-loop window")
    a.add_argument("--rate", type=float, default=3000, help="calls a second of the open loop")
    a.add_argument("--idle", type=int, default=5000, help="idle connections")
    a.add_argument("--free", action="store_true", help="pin nobody; proxies may use 2 cores")
    a.add_argument("--page", default="", help="Markdown page between whose marks the tables are written")
    o = a.parse_args()
    o.tests = o.tests.split(",")
    if not (1 <= o.rounds <= 20 and 1 <= o.windows <= 100) or set(o.tests) - set(TESTS):
        a.error("rounds are 1..20, windows 1..100, tests some of " + ", ".join(TESTS))
    return o


def main():
    def end(*_):
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, end)
    o, begin = arguments(), time.time()
    bench = Bench(o)
    names, out = o.peers.split(",") if o.peers else list(bench.rows), []
    for name in list(names):
        if name not in bench.rows:
            print(f"bench-gateway: {name} is left out: {bench.missing.get(name, 'unknown')}", file=sys.stderr)
            names.remove(name)
    try:
        if not wait_for(peers.BACKEND) or not wait_for(peers.RELAY):
            raise SystemExit("bench-gateway: backend or relay did not start")
        if set(o.tests) & set(SATURATED):
            bench.saturate(names, out)
        for number in range(o.rounds if set(o.tests) - set(SATURATED) else 0):
            k = number % max(1, len(names))
            for name in ["direct"] + names[k:] + names[:k]:
                try:
                    bench.one(name, number, out)
                except RuntimeError as e:
                    print(f"bench-gateway: {e}", file=sys.stderr)
    finally:
        bench.close()
    with open(peers.HOME + "/results.jsonl", "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in out)
    text = report.text(out, bench.rows, o, time.time() - begin)
    print(text)
    if o.page:
        report.write(o.page, text)


if __name__ == "__main__":
    main()
