"""The tables of a run of measure.py."""
import statistics

BEGIN, END = "<!-- results: written by make bench-gateway -->", "<!-- end of results -->"
TITLES = {
    "h1": "HTTP/1.1, GET of 1 KiB, 64 connections, saturated",
    "tls1": "TLS 1.3 and HTTP/1.1, GET of 1 KiB, 64 connections, saturated",
    "h2c": "HTTP/2 in the clear, GET of 1 KiB, 16 connections of 10 streams, saturated",
    "tlsh2": "TLS 1.3 and HTTP/2, GET of 1 KiB, 16 connections of 10 streams, saturated",
}


def pick(results, peer, test):
    """The steady windows, or all if none is."""
    all_ = [r for r in results if r["peer"] == peer and r["test"] == test and r["n"] > 0]
    return [r for r in all_ if r.get("steady", True)] or all_


def middle(rows, key, digits=1):
    """Median (least-most)."""
    v = [r[key] for r in rows if key in r]
    if not v:
        return "-"
    return f"{statistics.median(v):.{digits}f} ({min(v):.{digits}f}-{max(v):.{digits}f})"


def ratio(results, peer, base, test, key="cpu_us"):
    """Median (lower-upper quartile) of the ratios of windows of the same round."""
    of = {r["round"]: r[key] for r in results if r["peer"] == base and r["test"] == test and r["n"] > 0 and r[key]}
    v = sorted(r[key] / of[r["round"]] for r in results if r["peer"] == peer and r["test"] == test and r["n"] > 0 and r["round"] in of)
    if not v:
        return "-"
    if peer == base or len(v) < 4:
        return f"{statistics.median(v):.2f}"
    return f"{statistics.median(v):.2f} ({v[len(v) // 4]:.2f}-{v[-1 - len(v) // 4]:.2f})"


def bad(rows):
    n = sum(r.get("bad", 0) for r in rows)
    return str(n) if n else "0"


def saturated(results, rows, test):
    out = [f"**{TITLES[test]}**", "", "| proxy | CPU us a call, normalised | of revproxy | of nginx | raw: user / system us | calls/s, normalised | allocations a call | errors | windows |", "|---|---|---|---|---|---|---|---|---|"]
    table = []
    for peer in rows:
        w = pick(results, peer, test)
        if not w:
            continue
        user, system = (statistics.median(r[k] for r in w) for k in ("user_us", "system_us"))
        table.append((statistics.median(r["cpu_norm"] for r in w), f"| {peer} | {middle(w, 'cpu_norm')} | {ratio(results, peer, 'revproxy', test)} | {ratio(results, peer, 'nginx', test)} | "
                      f"{user:.1f} / {system:.1f} | {middle(w, 'rps_norm', 0)} | {middle(w, 'allocs') if any('allocs' in r for r in w) else '-'} | {bad(w)} | {len(w)} |"))
    return out + [line for _, line in sorted(table)] + [""] if table else []


def latency(results, rows, rate):
    direct = [r for r in results if r["peer"] == "direct" and r["test"] == "lat"]
    out = [f"**Latency that the proxy adds, HTTP/1.1, open loop of {rate:.0f} calls/s (Poisson), us, from the scheduled time**", "",
           "| proxy | added p50 | added p99: least / median | added p99.9: least / median | CPU us a call, normalised | errors |", "|---|---|---|---|---|---|"]

    def base(key, of):
        return of(r[key] for r in direct) if direct else 0

    table = []
    for peer in rows:
        w = [r for r in results if r["peer"] == peer and r["test"] == "lat"]
        if not w:
            continue

        def cell(key, of, w=w):
            return of(r[key] for r in w) - base(key, of)

        p50 = cell("p50_us", statistics.median)
        table.append((p50, f"| {peer} | {p50:.0f} | {cell('p99_us', min):.0f} / {cell('p99_us', statistics.median):.0f} | {cell('p999_us', min):.0f} / {cell('p999_us', statistics.median):.0f} | "
                      f"{middle(pick(results, peer, 'lat'), 'cpu_norm')} | {bad(w)} |"))
    if direct:
        table.append((-1e9, f"| (no proxy: its own p50, p99, p99.9) | {base('p50_us', statistics.median):.0f} | {base('p99_us', min):.0f} / {base('p99_us', statistics.median):.0f} | "
                      f"{base('p999_us', min):.0f} / {base('p999_us', statistics.median):.0f} | | {bad(direct)} |"))
    return out + [line for _, line in sorted(table)] + [""] if table else []


def memory(results, rows, idle):
    table = [(r["loaded_mb"], f"| {r['peer']} | {r['loaded_mb']} | {r['idle_mb']} | {r['kb_per_conn']} |") for r in results if r["test"] == "mem" and r["peer"] in rows]
    return ["**Memory (PSS)**", "", f"| proxy | MiB after 64 connections' load | MiB with {idle} idle connections | KiB a connection |", "|---|---|---|---|"] + [line for _, line in sorted(table)] + [""] if table else []


def text(results, rows, o, seconds):
    """All tables, in Markdown."""
    out = [f"{o.windows} rounds of short windows, {o.rounds} of latency, {seconds / 60:.0f} minutes, {'nobody pinned' if o.free else 'each proxy pinned to one core'}. "
           "Median (least-most) of the windows; ratios: median (lower-upper quartile) of those of windows of one round.", ""]
    for test in TITLES:
        out += saturated(results, rows, test)
    out += latency(results, rows, o.rate)
    out += memory(results, rows, o.idle)
    notes = [f"{name}: {r['note']}" for name, r in rows.items() if r.get("note")]
    return "\n".join(out + (["; ".join(notes) + "."] if notes else []))


def write(page, tables):
    """Replaces what stands between the marks of the page."""
    with open(page) as f:
        head, rest = f.read().split(BEGIN)
    with open(page, "w") as f:
        f.write(head + BEGIN + "\n\n" + tables + "\n\n" + END + rest.split(END)[1])
