#!/usr/bin/env python3
"""What a cached answer costs: a hit and a miss, beside nginx's proxy_cache.

    caching.py [--seconds 2] [--rounds 5]

One worker each, 64 connections. A hit is the bench's small request again and again. A miss asks something new each time, so
that the answer is looked for in vain, fetched and kept (of nginx: on a memory disk where there is one). nginx's key is the
path and the bytes of the body; ours the client, the route and what the body says. CPU is a request's, in microseconds,
medians of interleaved rounds. Needs what bench.py needs.
"""
import argparse
import os
import re
import statistics
import subprocess

import bench

STORE = "/dev/shm/openclaw-bench-cache" if os.access("/dev/shm", os.W_OK) else str(bench.WORK / "cache")
ZONE = f"proxy_cache_path {STORE} levels=1:2 keys_zone=answers:64m max_size=256m use_temp_path=off;"
INSIDE = """proxy_buffering on; proxy_cache answers; proxy_cache_methods POST; proxy_cache_key "$request_uri|$request_body"; proxy_cache_valid 200 1h;
 proxy_ignore_headers Cache-Control Expires;"""
NEW = """local n = 0
wrk.method, wrk.body = "POST", ""
wrk.headers["Content-Type"] = "application/json"
request = function()
    n = n + 1
    return wrk.format(nil, nil, nil, ([==[%s]==]):gsub("Say hello", "Say " .. os.time() .. "-" .. n, 1))
end
"""


def ask(port, script, seconds):
    done = subprocess.run(bench.pinned(0, ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(bench.WORK / script), f"http://127.0.0.1:{port}/v1/chat/completions"]),
                          capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return int(re.search(r"(\d+) requests in", done.stdout)[1])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seconds", type=int, default=2)
    args.add_argument("--rounds", type=int, default=5)
    args = args.parse_args()
    bench.check_tools(["small"])
    bench.build()
    (bench.WORK / "new.lua").write_text(NEW % bench.SMALL)
    port = bench.free_port()
    mock = bench.Mock(port)
    caching = {"caching": {"enabled": True, "default_ttl_seconds": 3600, "max_size_mb": 256}}
    servers = {"nginx": bench.nginx(port, cache={"extra": ZONE, "inside": INSIDE}), "openclaw": bench.openclaw(port, more=caching)}
    try:
        bench.say(f"{'CPU of a request, us':24}{'nginx':>10}{'openclaw':>10}{'ratio':>8}")
        for kind, script in (("hit", "small.lua"), ("miss, then kept", "new.lua")):
            cost = {name: [] for name in servers}
            for i in range(args.rounds):
                for name in (list(servers) if i % 2 == 0 else list(servers)[::-1]):
                    before = servers[name].cpu()
                    n = ask(servers[name].port, script, args.seconds)
                    cost[name].append((servers[name].cpu() - before) / n * 1e6)
            mid = {name: statistics.median(c) for name, c in cost.items()}
            bench.say(f"{kind:24}{mid['nginx']:10.1f}{mid['openclaw']:10.1f}{mid['openclaw'] / mid['nginx']:7.2f}x")
    finally:
        for server in servers.values():
            server.stop()
        mock.stop(hard=True)
        subprocess.run(["rm", "-rf", STORE], check=False)


if __name__ == "__main__":
    main()
