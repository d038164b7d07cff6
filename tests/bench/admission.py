#!/usr/bin/env python3
"""What admission costs: keys of 10,000 clients and 100 rate limits, beside neither.

    admission.py [--clients 10000] [--rules 100] [--seconds 3] [--rounds 5]

Each request carries the key of a client taken at random. Of the rules every second counts all requests, one by client, the
other by address; each is far from reached, so that all of them are asked every time. Printed are p50 and p99 of a request
(one connection, one at a time, so nothing waits but for the proxy), CPU, and user-space instructions (callgrind), without
clients and rules, with the clients, with one rule and with all. Needs what bench.py needs.
"""
import argparse
import json
import re
import statistics
import subprocess

import bench

WRK = """local keys = %d
math.randomseed(7)
wrk.method, wrk.body = "POST", [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
request = function()
    wrk.headers["Authorization"] = "Bearer sk-client-" .. math.random(keys)
    return wrk.format()
end
"""


def limits(n):
    return [{"id": f"limit_{i:03}", "per": "ip" if i % 2 else "client", "requests_per_second": 1e6, "burst": 1000000} for i in range(n)]


def ask(port, seconds):
    done = subprocess.run(bench.pinned(0, ["wrk", "-t1", "-c1", f"-d{seconds}s", "--latency", "-s", str(bench.WORK / "admission.lua"),
                                           f"http://127.0.0.1:{port}/v1/chat/completions"]), capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    at = {p: float(v) * {"us": 1, "ms": 1e3, "s": 1e6}[unit] for p, v, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s)", done.stdout)}
    return {"n": int(re.search(r"(\d+) requests in", done.stdout)[1]), "p50": at["50"], "p99": at["99"]}


def instructions(start):
    points = []
    for seconds in (2, 6):
        out = bench.WORK / "cg.admission"
        server = start(wrapper=["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"])
        n = ask(server.port, seconds)["n"]
        server.stop()
        points.append((n, int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(errors="replace"), re.M)[1])))
    return (points[1][1] - points[0][1]) / (points[1][0] - points[0][0])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--clients", type=int, default=10000)
    args.add_argument("--rules", type=int, default=100)
    args.add_argument("--seconds", type=int, default=3)
    args.add_argument("--rounds", type=int, default=5)
    args = args.parse_args()
    bench.check_tools(["small", "instructions"])
    bench.build()
    (bench.WORK / "admission.lua").write_text(WRK % (args.clients, bench.SMALL))
    port = bench.free_port()
    mock = bench.Mock(port)
    clients = {"clients": [{"name": f"client-{i}", "key": f"sk-client-{i}"} for i in range(1, args.clients + 1)]}
    kinds = {"neither": {}, f"{args.clients} clients": clients, "and 1 rule": {**clients, "rate_limits": limits(1)},
             f"and {args.rules} rules": {**clients, "rate_limits": limits(args.rules)}}
    makers = {name: lambda wrapper=(), more=more: bench.openclaw(port, wrapper, more=more) for name, more in kinds.items()}
    try:
        servers = {name: make() for name, make in makers.items()}
        runs = {name: [] for name in makers}
        for i in range(args.rounds):
            for name in (list(makers) if i % 2 == 0 else list(makers)[::-1]):
                before = servers[name].cpu()
                got = ask(servers[name].port, args.seconds)
                runs[name].append({**got, "cpu": (servers[name].cpu() - before) / got["n"] * 1e6})
        for server in servers.values():
            server.stop()
        bench.say(f"{'a request, microseconds':24}{'p50':>8}{'p99':>8}{'CPU':>8}{'instructions':>14}")
        for name, all_of in runs.items():
            mid = {k: statistics.median(r[k] for r in all_of) for k in ("p50", "p99", "cpu")}
            bench.say(f"{name:24}{mid['p50']:8.0f}{mid['p99']:8.0f}{mid['cpu']:8.1f}{instructions(makers[name]):14,.0f}")
    finally:
        mock.stop(hard=True)


if __name__ == "__main__":
    main()
