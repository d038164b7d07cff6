#!/usr/bin/env python3
"""OpenClaw beside nginx on the same machine, at the same upstream, in the same minutes.

    bench.py [--seconds 3] [--rounds 5] [--only small,large,stream,latency,memory,calls,instructions,cold,translate]

One worker against one nginx worker. OpenClaw does its whole work (route decided in Lua, key set, usage read, log line
written, metrics counted); nginx passes bytes (`proxy_pass`, `proxy_buffering off`), and as a third target does an
LLM proxy's work in its Lua module. Runs are interleaved A B B A, medians of the
rounds' ratios are printed. Times mean something only as ratios of one run; counts (calls, instructions) also alone.

Needs cc and wrk; nginx for ratios; strace and valgrind for counts. Installs nothing; says what is missing.
`cold` is about OpenClaw alone: 200 requests at once that each need a new TLS connection to an upstream, and what a small
request beside them feels of it. Its second figure, the CPU time of the event loop's longest turns, does not depend on
what else the machine does. It needs nginx (the upstream) and openssl.

`translate` is about OpenClaw alone, too: an OpenAI client's streams from an upstream that speaks as Anthropic does, beside the same from
one that speaks as OpenAI does.

CLAW_BINARY names the binary (default build/release/openclaw-proxy). Results also go to build/bench/results.json.
"""
import argparse
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = pathlib.Path(os.environ.get("CLAW_ROOT", HERE.parents[1]))
BINARY = os.environ.get("CLAW_BINARY", str(ROOT / "build/release/openclaw-proxy"))
WORK = ROOT / "build/bench"
TICK = os.sysconf("SC_CLK_TCK")
LUA_HOME = WORK / "nginx-lua" # `make bench` unpacks the module and its libraries there
LUA_MODULES = [str(LUA_HOME / "usr/lib/nginx/modules" / m) for m in ("ndk_http_module.so", "ngx_http_lua_module.so")]
SMALL = json.dumps({"model": "gpt-4", "temperature": 0.7, "messages": [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Say hello to the reader of this line, in a few words, and then stop. " * 2}]})
LARGE = json.dumps({"model": "gpt-4", "messages": [
    {"role": "user" if i % 2 else "assistant", "content": "The quick \"brown\" fox jumps over the lazy dog.\n" * 20} for i in range(100)]})

ALL = ["small", "large", "stream", "latency", "memory", "calls", "instructions", "cold", "translate"]
COLD_REQUESTS, COLD_BURSTS, COLD_BOUND_MS = 200, 5, 5.0
# workload -> (what is compared, the bound on our ratio to nginx)
BOUNDS = {"small": 1.1, "large": 1.1, "stream": 1.1, "calls": 1.0, "instructions": 1.0}


def say(text=""):
    print(text, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def pinned(core, command):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or not shutil.which("taskset"):
        return command
    return ["taskset", "-c", str(cores[core % len(cores)]), *command]


def wait_port(port, process):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with {process.returncode}: see {WORK}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on {port}: {process.args}")


class Server:
    def __init__(self, command, port, core, label, wrapper=()):
        self.port, self.label = port, label
        log = open(WORK / f"{label}.out", "ab")
        self.process = subprocess.Popen(pinned(core, [*wrapper, *command]), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_port(port, self.process)

    @property
    def pid(self):
        return self.process.pid

    def cpu(self):
        """Seconds of user and system time so far, all threads."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.pid}/status").read_text())[1])

    def stop(self, hard=False):
        self.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Mock(Server):
    def __init__(self, port, events=20, delay_us=20000):
        super().__init__([str(WORK / "mock"), "-p", str(port), "-e", str(events), "-d", str(delay_us)], port, 0, "mock")


NGINX = """
%(load)s
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
pid %(work)s/%(label)s.pid; error_log %(work)s/%(label)s.err warn;
events { worker_connections 16384; }
http {
    %(log)s tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300s;
    client_max_body_size 32m; client_body_buffer_size 256k;
    client_body_temp_path %(work)s/t1; proxy_temp_path %(work)s/t2; fastcgi_temp_path %(work)s/t3; uwsgi_temp_path %(work)s/t4; scgi_temp_path %(work)s/t5;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s;
    %(extra)s
    upstream mock { %(balance)s keepalive 1024; keepalive_requests 100000000; keepalive_timeout 300s; }
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        location / { %(inside)s proxy_pass http://mock; %(after)s }
    }
}
"""
# The same work done the way one writes it for nginx: know the client, decode, choose by model, set the key, read the
# usage, count by status and duration, write a JSON log line.
LUA = {
    "log": r"""log_format line escape=json '{"time":"$time_iso8601","level":"info","msg":"request","id":"$request_id","client":"$remote_addr",'
        '"method":"$request_method","path":"$uri","model":"$model","status":$status,"upstream":"$upstream_addr","upstream_status":"$upstream_status",'
        '"ttfb_ms":"$upstream_header_time","duration_ms":"$request_time","input_tokens":"$tokens_in","output_tokens":"$tokens_out",'
        '"bytes_in":$request_length,"bytes_out":$bytes_sent}';
    access_log %s line buffer=64k flush=1s;""",
    "extra": """lua_shared_dict usage 1m; lua_shared_dict counts 1m;
    init_by_lua_block {
        cjson = require "cjson"
        balancer = require "ngx.balancer"
        peers = { ["gpt-4"] = { port = %d, auth = "Bearer sk-bench-key" }, ["gpt-4o"] = { port = %d, auth = "Bearer sk-bench-key" } }
    }""",
    "balance": "server 0.0.0.1; balancer_by_lua_block { assert(balancer.set_current_peer('127.0.0.1', ngx.ctx.peer.port)) }",
    "inside": """set $model ""; set $tokens_in ""; set $tokens_out "";
        access_by_lua_block {
            ngx.req.read_body()
            local ok, req = pcall(cjson.decode, ngx.req.get_body_data() or "")
            if not ok or type(req) ~= "table" then return ngx.exit(400) end
            local peer = peers[req.model]
            if not peer then return ngx.exit(404) end
            ngx.ctx.peer, ngx.ctx.model, ngx.ctx.stream = peer, req.model, req.stream
            ngx.var.model = req.model
            ngx.req.set_header("Authorization", peer.auth)
        }""",
    "after": """body_filter_by_lua_block {
            local ctx, chunk = ngx.ctx, ngx.arg[1]
            if chunk == "" then return end
            if ctx.stream then
                if chunk:find('"usage"', 1, true) then ctx.last = chunk end
            else
                ctx.parts = ctx.parts or {}
                ctx.parts[#ctx.parts + 1] = chunk
            end
        }
        log_by_lua_block {
            local ctx = ngx.ctx
            local text = ctx.stream and ctx.last or ctx.parts and table.concat(ctx.parts)
            local ok, answer = pcall(cjson.decode, text or "")
            local seconds, counts = tonumber(ngx.var.request_time) or 0, ngx.shared.counts
            counts:incr("requests:" .. ngx.status, 1, 0)
            counts:incr("seconds", seconds, 0)
            counts:incr(seconds < 0.005 and "le_5ms" or seconds < 0.05 and "le_50ms" or "inf", 1, 0)
            if ok and answer.usage then
                ngx.var.tokens_in, ngx.var.tokens_out = answer.usage.prompt_tokens, answer.usage.completion_tokens
                ngx.shared.usage:incr(ctx.model .. ":in", answer.usage.prompt_tokens, 0)
                ngx.shared.usage:incr(ctx.model .. ":out", answer.usage.completion_tokens, 0)
            end
        }""",
}


def full_work(mock_port):
    return dict(LUA, log=LUA["log"] % (WORK / "nginx_lua.log"), extra=LUA["extra"] % (mock_port, mock_port))


def nginx(mock_port, lua=None, wrapper=(), cache=None):
    """lua: what its Lua module does, parts of the configuration as in LUA; cache: parts that need no module."""
    label, port = "nginx_lua" if lua else "nginx_cache" if cache else "nginx", free_port()
    parts = {"load": "", "log": "access_log off;", "extra": "", "inside": "", "after": "", "balance": f"server 127.0.0.1:{mock_port};"}
    parts.update(cache or {})
    if lua:
        cpath = os.path.dirname((glob.glob("/usr/lib/*/lua/5.1/cjson.so") + ["/"])[0])
        paths = f'lua_package_path "{LUA_HOME}/usr/share/lua/5.1/?.lua;;"; lua_package_cpath "{cpath}/?.so;;";\n'
        parts.update(lua, load="".join(f"load_module {m};\n" for m in LUA_MODULES), extra=paths + lua["extra"])
    path = WORK / f"{label}.conf"
    path.write_text(NGINX % dict(parts, work=WORK, label=label, port=port))
    own = ["env", "LD_LIBRARY_PATH=" + ":".join(glob.glob(str(LUA_HOME / "usr/lib/*-linux-*")) + glob.glob(str(LUA_HOME / "lib/*-linux-*")))] if lua else []
    return Server(["nginx", "-p", str(WORK), "-c", str(path), "-e", str(WORK / f"{label}.err")], port, 1, label, [*own, *wrapper])


def openclaw(mock_port, wrapper=(), policies=None, kind="openai", more=None):
    """policies: a folder; none by default. kind: the upstream's type. more: sections of the configuration."""
    port, admin = free_port(), free_port()
    config = {
        "server": {"listen_address": "127.0.0.1", "listen_port": port, "workers": 1, "max_connections": 20000, "drain_seconds": 1},
        "admin": {"listen_port": admin},
        "upstreams": {"openai-gpt4": {"type": kind, "api_key": "sk-bench-key", "base_url": f"http://127.0.0.1:{mock_port}/v1", "models": ["gpt-4", "gpt-4o"],
                                      "cost_per_million_input_tokens": 30.0, "cost_per_million_output_tokens": 60.0}},
        "routes": [{"id": "default_chat_route", "match": {"path": "/v1/chat/completions"}, "strategy": {"type": "round_robin", "upstreams": ["openai-gpt4"]}},
                   {"id": "specific_gpt4_route", "match": {"path": "/v1/chat/completions", "json_body": {"model": "gpt-4"}},
                    "strategy": {"type": "weighted_random", "upstreams": [{"name": "openai-gpt4", "weight": 100}]}}],
        "logging": {"output": "file", "path": str(WORK / "openclaw.log")},
    }
    if policies:
        config["policies"] = {"dir": str(policies)}
    config.update(more or {})
    path = WORK / f"openclaw{port}.yaml" if policies or more or kind != "openai" else WORK / "openclaw.yaml"
    path.write_text(json.dumps(config, indent=1))
    (WORK / "openclaw.log").unlink(missing_ok=True)
    return Server([BINARY, "-config", str(path)], port, 1, "openclaw", wrapper)


COLD = """
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
pid %(work)s/cold.pid; error_log %(work)s/cold.err warn;
events { worker_connections 4096; }
http {
    access_log off; keepalive_timeout 0;
    client_body_temp_path %(work)s/t1; proxy_temp_path %(work)s/t2; fastcgi_temp_path %(work)s/t3; uwsgi_temp_path %(work)s/t4; scgi_temp_path %(work)s/t5;
    server {
        listen 127.0.0.1:%(port)d ssl backlog=4096;
        ssl_certificate %(work)s/cold.crt; ssl_certificate_key %(work)s/cold.key;
        ssl_session_cache off; ssl_session_tickets off;
        location / { default_type application/json; return 200 '{"choices":[{"message":{"content":"hello"}}]}'; }
    }
}
"""


def cold_upstream():
    """A TLS server that resumes nothing and keeps no connection open. Of lower priority than the proxy."""
    port = free_port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(WORK / "cold.key"), "-out", str(WORK / "cold.crt"), "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    (WORK / "cold.conf").write_text(COLD % {"work": WORK, "port": port})
    return Server(["nginx", "-p", str(WORK), "-c", str(WORK / "cold.conf"), "-e", str(WORK / "cold.err")], port, 0, "cold", wrapper=["nice", "-n", "15"])


def cold(mock, rounds):
    """Each round: a new proxy, COLD_BURSTS bursts. -> a dict a round: the client's figures, and the longest turns."""
    cores = sorted(os.sched_getaffinity(0))
    upstream, out = cold_upstream(), []
    try:
        for _ in range(rounds):
            port, admin = free_port(), free_port()
            (WORK / "cold.yaml").write_text(json.dumps({
                "server": {"listen_address": "127.0.0.1", "listen_port": port, "workers": 1, "max_connections": 20000, "drain_seconds": 1},
                "admin": {"listen_port": admin},
                "upstreams": {"tls": {"type": "openai", "api_key": "sk-bench-key", "base_url": f"https://127.0.0.1:{upstream.port}/v1", "models": ["cold"],
                                      "connect_timeout_seconds": 60, "tls": {"ca": str(WORK / "cold.crt")}},
                              "plain": {"type": "openai", "base_url": f"http://127.0.0.1:{mock.port}/v1", "models": ["ping"]}},
                "routes": [{"id": "cold", "match": {"json_body": {"model": "cold"}}, "strategy": {"type": "failover", "upstreams": ["tls"]}},
                           {"id": "ping", "strategy": {"type": "failover", "upstreams": ["plain"]}}],
                "logging": {"output": "file", "path": str(WORK / "cold.log")}}))
            server = Server([BINARY, "-config", str(WORK / "cold.yaml")], port, 1, "cold-proxy",
                            wrapper=["env", f"LD_PRELOAD={WORK / 'turns.so'}", f"TURNS_FILE={WORK / 'turns'}"])
            done = subprocess.run(pinned(0, [str(WORK / "cold"), "-p", str(port), "-c", str(COLD_REQUESTS), "-n", str(COLD_BURSTS),
                                              "-m", str(mock.pid), *(["-k", str(cores[1])] if len(cores) > 1 else [])]), capture_output=True, text=True)
            server.stop()
            if done.returncode:
                sys.exit(f"cold: {done.stdout}{done.stderr}")
            got = json.loads(done.stdout)
            if got["errors"]:
                sys.exit(f"cold: {got}")
            got["turns_ms"] = [int(us) / 1000 for us in (WORK / "turns").read_text().split()]
            out.append(dict(got, delay=got["bursts"]["worst"] - got.get("control", got["calm"])["worst"], turn=got["turns_ms"][0]))
    finally:
        upstream.stop(hard=True)
    return out


def cold_report(runs):
    kinds = [k for k in ("calm", "bursts", "control") if k in runs[0]]
    table(f"{COLD_REQUESTS} cold TLS connections at once, {COLD_BURSTS} times: plain requests beside them (ms), those that took more than {COLD_BOUND_MS:g} ms,\n"
          "and the CPU of the loop's longest turn; calm: nothing is cold; control: nothing is cold, and strangers keep both CPUs as busy",
          {f"round {i + 1}": [cell for k in kinds for cell in (f"{r[k]['p50']:.2f} {r[k]['p99']:.2f}", f"{r[k]['worst']:.2f}", f"{r[k]['over']}/{r[k]['pings']}")] + [f"{r['turn']:.2f}"]
           for i, r in enumerate(runs)}, [c for k in kinds for c in (f"{k} p50 p99", "worst", f"> {COLD_BOUND_MS:g} ms")] + ["longest turn"], 17)
    if not all(r["ahead"] for r in runs):
        say("  the pinging client may not go ahead of the rest here (SCHED_FIFO): its own waits for a CPU are in the figures")
    for k in kinds:
        over, pings = sum(r[k]["over"] for r in runs), sum(r[k]["pings"] for r in runs)
        say(f"  {k}: {over} of {pings} took more than {COLD_BOUND_MS:g} ms; worst of a round: median {statistics.median(r[k]['worst'] for r in runs):.2f} ms, "
            f"least {min(r[k]['worst'] for r in runs):.2f}")
    mid = medians([{"delay": r["delay"], "turn": r["turn"]} for r in runs])
    say(f"  medians: the worst beside cold connections took {mid['delay']:.2f} ms more than the control's worst (bound {COLD_BOUND_MS:g}), longest turn {mid['turn']:.2f} ms of CPU")


def translate(rounds, seconds):
    """-> by what is done with events: {"runs": rounds of streams at a pace, "ttfb_us", "instructions": of an event}."""
    kinds = {"passed on": "openai", "translated": "anthropic"}
    out = {name: {} for name in kinds}
    for what, events, delay_us in (("runs", 20, 20000), ("ttfb_us", 1, 0), ("instructions", 400, 2000)):
        if what == "instructions" and not shutil.which("valgrind"):
            continue
        port = free_port()
        mock = Mock(port, events, delay_us)
        try:
            start = {name: lambda kind=kind, **how: openclaw(port, kind=kind, **how) for name, kind in kinds.items()}
            if what == "instructions":      # long streams: what a stream costs besides its events hardly counts
                for name in kinds:
                    out[name][what] = instructions(start[name], "stream", (4, 14))
                continue
            servers = {name: begin() for name, begin in start.items()}
            if what == "runs":
                for name, runs in interleaved(servers, "stream", rounds, seconds).items():
                    out[name][what] = runs
            else:                           # a stream of one event after another, on one connection
                got = {name: [] for name in kinds}
                for _ in range(rounds):
                    for name in [*kinds, *reversed(kinds)]:
                        got[name].append(streams(servers[name].port, seconds, 1)["ttfb_p50"])
                for name in kinds:
                    out[name][what] = statistics.median(got[name])
            for server in servers.values():
                server.stop()
        finally:
            mock.stop(hard=True)
    return out


def translate_report(got):
    rows = {}
    for name, r in got.items():
        mid = medians(r["runs"])
        rows[name] = [f"{mid['cpu_us']:.2f}", f"{r['instructions']:,.0f}" if "instructions" in r else "-", f"{mid['event_p50']:.0f}", f"{mid['event_p99']:.0f}", f"{r['ttfb_us']:.0f}"]
    table("an OpenAI client's streamed event, from an upstream like OpenAI and from one like Anthropic", rows,
          ["CPU, us", "instructions", "on its way p50, us", "p99", "first event p50, us"])


def targets(mock_port):
    made = {}
    if shutil.which("nginx"):
        made["nginx"] = lambda **how: nginx(mock_port, **how)
    made["openclaw"] = lambda **how: openclaw(mock_port, **how)
    if "nginx" in made and all(os.path.exists(m) for m in LUA_MODULES) and glob.glob("/usr/lib/*/lua/5.1/cjson.so"):
        made["nginx_lua"] = lambda **how: nginx(mock_port, lua=full_work(mock_port), **how)
    return made


# -- loads: each returns what was done -----------------------------------------------------------------------------

def wrk(port, body, seconds, connections=64):
    script = WORK / f"{body}.lua"
    done = subprocess.run(pinned(0, ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency", "-s", str(script),
                                     f"http://127.0.0.1:{port}/v1/chat/completions"]), capture_output=True, text=True)
    out = done.stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out) or re.search(r"Socket errors: .*[1-9]", out)
    if done.returncode or bad:
        sys.exit(f"wrk: {out}{done.stderr}")
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", out)
    return {"n": int(re.search(r"(\d+) requests in", out)[1]), "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),
            "p50_us": float(half[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[half[2]]}


def streams(port, seconds, connections=100, once=False):
    done = subprocess.run(pinned(0, [str(WORK / "load"), "-p", str(port), "-c", str(connections), "-s", str(seconds)] + (["-o"] if once else [])),
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"load: {done.stdout}{done.stderr}")
    got = json.loads(done.stdout)
    if got["errors"]:
        sys.exit(f"load: {got}")
    return dict(got, n=got["events"])


def burden(workload, port, seconds):
    if workload in ("small", "large"):
        return wrk(port, workload, seconds)
    if workload == "latency":
        return wrk(port, "small", seconds, connections=1)
    return streams(port, seconds)


# -- measurements --------------------------------------------------------------------------------------------------

def one_run(server, workload, seconds):
    for log in WORK.glob("*.log"): # as if rotated: who logs does not pay for an ever growing file's fresh pages
        os.truncate(log, 0)
    before, started = server.cpu(), time.monotonic()
    got = burden(workload, server.port, seconds)
    got["cpu_us"] = (server.cpu() - before) * 1e6 / max(got["n"], 1)
    got["busy"] = (server.cpu() - before) / (time.monotonic() - started)
    return got


def interleaved(servers, workload, rounds, seconds):
    """A B B A, `rounds` times: target -> list (a round each) of the mean of its two runs."""
    out = {name: [] for name in servers}
    for name, server in servers.items():
        burden(workload, server.port, 1)      # warm
    for r in range(rounds):
        got = {name: [] for name in servers}
        for name in [*servers, *reversed(servers)]:
            got[name].append(one_run(servers[name], workload, seconds))
        for name, runs in got.items():
            out[name].append({k: statistics.mean(run[k] for run in runs) for k in runs[0]})
    return out


def medians(runs):
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def table(title, rows, columns, width=20):
    say(f"\n{title}")
    say("  " + f"{'':12}" + "".join(f"{c:>{width}}" for c in columns))
    for name, values in rows.items():
        say("  " + f"{name:12}" + "".join(f"{v:>{width}}" for v in values))


def compare(title, results, columns, main_column):
    """Prints medians and, beside them, the median of the rounds' ratios to nginx. -> our ratio or None"""
    base, ratio, rows = results.get("nginx"), None, {}
    for name, runs in results.items():
        mid, cells = medians(runs), []
        for c in columns:
            cell = f"{mid[c]:,.1f}"
            if base and name != "nginx":
                ratios = [a[c] / b[c] for a, b in zip(runs, base) if b[c]]
                if ratios:
                    cell += f" ({statistics.median(ratios):.2f} x)"
                    if name == "openclaw" and c == main_column:
                        ratio = statistics.median(ratios)
            cells.append(cell)
        rows[name] = cells
    table(title, rows, columns)
    return ratio


def memory(make, mock_port):
    """Idle RSS, RSS with 1,000 open streams, and how late their events are: 20 events, one each 250 ms."""
    out = {"direct": None}
    direct = streams(mock_port, 6.5, 1000, once=True)
    out["direct"] = {"event_p50": direct["event_p50"], "event_p99": direct["event_p99"]}
    for name, start in make.items():
        server = start()
        wrk(server.port, "small", 1)
        idle = server.rss()
        client = subprocess.Popen(pinned(0, [str(WORK / "load"), "-p", str(server.port), "-c", "1000", "-s", "6.5", "-o"]), stdout=subprocess.PIPE, text=True)
        time.sleep(3)
        held = server.rss()
        got = json.loads(client.communicate()[0])
        out[name] = {"idle_kb": idle, "per_stream_kb": (held - idle) / 1000, "event_p50": got["event_p50"], "event_p99": got["event_p99"], "errors": got["errors"],
                     "events": got["events"]}
        server.stop()
    return out


CALLS = ("read write readv writev recvfrom recvmsg sendto sendmsg epoll_wait epoll_pwait epoll_ctl accept4 getsockopt setsockopt "
         "connect socket close futex openat inotify_add_watch").split()


def counts_by_perf():
    """Do the kernel's own counters work here? Under strace a call takes many times as long, and what depends on time is another."""
    return shutil.which("perf") and subprocess.run(["perf", "stat", "-e", "raw_syscalls:sys_enter,syscalls:sys_enter_read", "true"], capture_output=True).returncode == 0


def calls(server, workload, seconds):
    """System calls a request or event, all threads."""
    path, perf = WORK / f"calls.{server.label}.{workload}", counts_by_perf()
    if perf:
        events = ",".join(["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{c}" for c in CALLS])
        tracer = subprocess.Popen(["perf", "stat", "-x", ";", "-o", str(path), "-e", events, "-p", str(server.pid)], stderr=subprocess.DEVNULL)
    else:
        tracer = subprocess.Popen(["strace", "-f", "-q", "-c", "-o", str(path), "-p", str(server.pid)], stderr=subprocess.DEVNULL)
    time.sleep(1)
    n = burden(workload, server.port, seconds)["n"]
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    total, each = 0, {}
    for line in path.read_text().splitlines():
        f = line.split(";") if perf else line.split()
        if perf and len(f) > 2 and f[0].isdigit():
            if f[2] == "raw_syscalls:sys_enter":
                total = int(f[0])
            else:
                each[f[2].rpartition("sys_enter_")[2]] = int(f[0])
        elif not perf and len(f) >= 5 and re.fullmatch(r"[\d.]+", f[0]) and f[-1] != "total":
            total += int(f[3])
            each[f[-1]] = int(f[3])
    return total / n, ", ".join(f"{name} {k / n:.2f}" for name, k in sorted(each.items(), key=lambda e: -e[1]) if k > n * 0.05)


def instructions(start, workload, lengths=(2, 6)):
    """User-space instructions a request or event under callgrind: two loads of different length, subtracted."""
    points = []
    for seconds in lengths:
        for old in glob.glob(str(WORK / "cg.*")):
            os.unlink(old)
        server = start(wrapper=["valgrind", "--tool=callgrind", f"--callgrind-out-file={WORK}/cg.%p"])
        n = (wrk(server.port, "small", seconds, 8) if workload == "small" else streams(server.port, seconds, 8))["n"]
        server.stop()
        total = sum(int(m[1]) for f in glob.glob(str(WORK / "cg.*")) for m in [re.search(r"^(?:totals|summary): (\d+)", pathlib.Path(f).read_text(errors="replace"), re.M)] if m)
        points.append((n, total))
    (n1, t1), (n2, t2) = points
    return (t2 - t1) / max(n2 - n1, 1)


def build():
    WORK.mkdir(parents=True, exist_ok=True)
    for name, built, how in (("mock", "mock", []), ("load", "load", []), ("cold", "cold", []), ("turns", "turns.so", ["-shared", "-fPIC", "-ldl"])):
        source, binary = HERE / f"{name}.c", WORK / built
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-D_GNU_SOURCE", "-o", str(binary), str(source), *how], check=True)
    for name, body in (("small", SMALL), ("large", LARGE)):
        (WORK / f"{name}.lua").write_text('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[' + body + "]==]\n")


LEFT_OUT = {"strace": "calls", "valgrind": "instructions", "nginx": "cold", "openssl": "cold"}


def check_tools(only):
    missing = [t for t, for_what in (("wrk", ("small", "large", "latency", "memory", "calls", "instructions")), ("strace", ("calls",)), ("valgrind", ("instructions",)),
                                        ("nginx", ("cold",)), ("openssl", ("cold",)))
               if not shutil.which(t) and not (t == "strace" and counts_by_perf()) and set(for_what) & set(only)]
    if "wrk" in missing or not os.access(BINARY, os.X_OK):
        sys.exit("bench: missing " + ("wrk" if "wrk" in missing else BINARY))
    if not shutil.which("nginx"):
        say("bench: nginx is missing: no ratios, our figures only")
    elif not all(os.path.exists(m) for m in LUA_MODULES):
        say("bench: nginx's Lua module is missing (`make bench` fetches it): no comparison with nginx + Lua")
    for tool in missing:
        say(f"bench: {tool} is missing: {LEFT_OUT[tool]} is left out")
    return [w for w in only if w not in [LEFT_OUT[tool] for tool in missing]]


TITLES = {"small": f"plain, {len(SMALL)} B body, 64 connections", "large": f"plain, {len(LARGE) // 1000} KB body, 64 connections",
          "latency": "plain, one connection: time to the answer", "stream": "streams: 100 at once, 20 events 20 ms apart"}
COLUMNS = {"small": ["cpu_us", "rps", "p50_us"], "large": ["cpu_us", "rps", "p50_us"], "latency": ["p50_us", "cpu_us"],
           "stream": ["cpu_us", "ttfb_p50", "event_p50", "event_p99"]}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seconds", type=float, default=float(os.environ.get("BENCH_SECONDS", 3)))
    args.add_argument("--rounds", type=int, default=int(os.environ.get("BENCH_ROUNDS", 5)))
    args.add_argument("--only", default=os.environ.get("BENCH_ONLY", ",".join(ALL)))
    args = args.parse_args()
    only = check_tools(args.only.split(","))
    build()
    say(f"{os.cpu_count()} cores; proxy on one, mock upstream and client on another; {args.rounds} rounds of {args.seconds:g} s, A B B A")
    mock_port = free_port()
    mock = Mock(mock_port)
    make = targets(mock_port)
    results, verdicts = {}, []

    def verdict(name, ratio):
        if ratio is not None and name in BOUNDS:
            verdicts.append((name, ratio, BOUNDS[name]))
    seconds = int(args.seconds) if args.seconds >= 1 else 1
    try:
        timed = [w for w in ("small", "large", "stream", "latency") if w in only]
        if timed:
            servers = {name: start() for name, start in make.items()}
            for w in timed:
                results[w] = interleaved(servers, w, args.rounds, seconds)
                verdict(w, compare(TITLES[w], results[w], COLUMNS[w], COLUMNS[w][0]))
                if w == "stream":
                    say(f"  {'direct':12}" + " " * 20 + "".join(f"{streams(mock_port, 1)[c]:>20,.1f}" for c in COLUMNS[w][1:]))
            for server in servers.values():
                server.stop()
        if "calls" in only:
            rows = {}
            for name, start in make.items():
                server = start()
                got = [calls(server, w, 2) for w in ("small", "stream")]
                server.stop()
                rows[name] = [f"{got[0][0]:.2f}", f"{got[1][0]:.2f}"]
                results.setdefault("calls", {})[name] = [g[0] for g in got]
                say(f"\nsystem calls, {name}: a request: {got[0][1]}; an event: {got[1][1]}")
            table("system calls", rows, ["a request", "an event"])
            if "nginx" in rows:
                verdict("calls", results["calls"]["openclaw"][0] / results["calls"]["nginx"][0])
        if "instructions" in only:
            rows = {}
            for name, start in make.items():
                got = [instructions(start, "small")]
                for events, delay_us in ((20, 5000), (400, 2000)): # of the longer streams an event is nearly all that counts
                    mock.stop(hard=True)
                    mock = Mock(mock_port, events, delay_us)
                    got.append(instructions(start, "stream", (4, 14)))
                mock.stop(hard=True)
                mock = Mock(mock_port)
                rows[name] = [f"{g:,.0f}" for g in got]
                results.setdefault("instructions", {})[name] = got
            table("user-space instructions (callgrind)", rows, ["a request", "an event of 20", "an event of 400"])
            if "nginx" in rows:
                verdict("instructions", results["instructions"]["openclaw"][0] / results["instructions"]["nginx"][0])
        if "memory" in only:
            mock.stop()
            mock = Mock(mock_port, 20, 250000)
            got = results["memory"] = memory(make, mock_port)
            table("1,000 streams of 20 events, 250 ms apart",
                  {name: [f"{v['idle_kb']:,}" if "idle_kb" in v else "-", f"{v['per_stream_kb']:.1f}" if "idle_kb" in v else "-", f"{v['event_p50'] / 1000:.1f}", f"{v['event_p99'] / 1000:.1f}"] for name, v in got.items()},
                  ["RSS idle, KB", "KB a stream", "event p50, ms", "event p99, ms"])
        if "cold" in only:
            cold_report(results.setdefault("cold", cold(mock, args.rounds)))
        if "translate" in only:
            translate_report(results.setdefault("translate", translate(args.rounds, seconds)))
    finally:
        mock.stop(hard=True)
        (WORK / "results.json").write_text(json.dumps(results, indent=1))
    if verdicts:
        say("\nopenclaw / nginx (CPU of a request or event, or its count):")
        for name, ratio, bound in verdicts:
            say(f"  {name:14}{ratio:6.2f}   bound {bound:.2f}   {'ok' if ratio <= bound else 'ABOVE'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
