#!/usr/bin/env python3
"""What policies cost: 0, 1, 5 and 20 trivial ones a request, and an event hook a chunk, beside nginx's Lua module.

    policies.py [--seconds 2] [--rounds 5]

Each policy looks at one header in `admit`; nginx has as many functions in access_by_lua that look at the same one. The
event hook looks for a word in each event; nginx does in body_filter_by_lua. Printed is what each adds to its own server
without any, in microseconds of CPU: medians of interleaved rounds. Needs what bench.py needs, and its Lua module.
"""
import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile

import bench

HOME = bench.WORK / "policies"

COUNTS = [0, 1, 5, 20]
ADMIT = """local P = { name = "%(name)s", api = 1 }
function P.admit(req)
    if req.client.header("x-blocked-%(i)d") then return { deny = 403, code = "blocked", message = "This client is blocked." } end
end
return P
"""
EVENT = """local P = { name = "watch", api = 1 }
function P.event(req, ev)
    if ev.data:find("a word that never comes", 1, true) then return false end
end
return P
"""
NGINX_ADMIT = """access_by_lua_block {
    for i = 1, #checks do
        if checks[i]() then return ngx.exit(403) end
    end
}"""
NGINX_CHECKS = """init_by_lua_block {
    checks = {}
    for i = 1, %d do
        local name = "http_x_blocked_" .. i
        checks[i] = function() return ngx.var[name] end
    end
}"""
NGINX_EVENT = """body_filter_by_lua_block {
    if ngx.arg[1]:find("a word that never comes", 1, true) then ngx.arg[1] = nil end
}"""


def with_policies(mock_port, files):
    folder = pathlib.Path(tempfile.mkdtemp(dir=HOME))
    for name, text in files.items():
        (folder / f"{name}.lua").write_text(text)
    return bench.openclaw(mock_port, policies=folder)


def nginx_with(mock_port, init="", inside="", after=""):
    return bench.nginx(mock_port, lua={"log": "access_log off;", "extra": init, "inside": inside, "after": after, "balance": f"server 127.0.0.1:{mock_port};"})


def added(title, makers, workload, rounds, seconds):
    """makers: list of (label, start); the first is the one without. Prints what the others add to it."""
    servers = {label: start() for label, start in makers}
    runs = bench.interleaved(servers, workload, rounds, seconds)
    for server in servers.values():
        server.stop()
    base = runs[makers[0][0]]
    for label, _ in makers:
        more = statistics.median(a["cpu_us"] - b["cpu_us"] for a, b in zip(runs[label], base))
        bench.say(f"  {title + ' ' + label:44}{statistics.median(r['cpu_us'] for r in runs[label]):10.2f} us{more:+10.2f} us")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seconds", type=int, default=2)
    args.add_argument("--rounds", type=int, default=5)
    args = args.parse_args()
    bench.check_tools(["small", "stream"])
    if not all(pathlib.Path(m).exists() for m in bench.LUA_MODULES):
        sys.exit("policies: nginx's Lua module is missing (`make bench` fetches it)")
    bench.build()
    HOME.mkdir(exist_ok=True)
    port = bench.free_port()
    mock = bench.Mock(port)
    try:
        bench.say(f"{'CPU of a request or event, and what the policies add':47}{'all':>9}{'added':>13}")
        added("openclaw, policies:", [(str(n), lambda n=n: with_policies(port, {f"p{i:02}": ADMIT % {"name": f"p{i:02}", "i": i} for i in range(n)})) for n in COUNTS],
              "small", args.rounds, args.seconds)
        added("nginx + Lua, functions:", [("0", lambda: nginx_with(port))] + [(str(n), lambda n=n: nginx_with(port, NGINX_CHECKS % n, NGINX_ADMIT)) for n in COUNTS[1:]],
              "small", args.rounds, args.seconds)
        added("openclaw, a stream's event, hook:", [("none", lambda: with_policies(port, {})), ("event", lambda: with_policies(port, {"watch": EVENT}))],
              "stream", args.rounds, args.seconds)
        added("nginx + Lua, a stream's event, filter:", [("none", lambda: nginx_with(port)), ("body", lambda: nginx_with(port, "", "", NGINX_EVENT))],
              "stream", args.rounds, args.seconds)
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
        mock.stop(hard=True)


if __name__ == "__main__":
    main()
