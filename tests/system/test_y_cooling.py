"""Y: upstreams, models and keys that are set aside while they fail, and found again; tries beyond the first have a budget."""
import json
import os
import pathlib
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from client import ask, chat, eventually, in_parallel
from proxy import free_port

ERROR = {"error": {"message": "it broke", "type": "server_error", "param": None, "code": None}}
KEYS = ["sk-first-0000000001aaaa", "sk-second-000000002bbbb", "sk-third-0000000003cccc"]
# One answer for each request it reads, on the port it is told.
SERVER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"object":"chat.completion","choices":[]}'
        self.send_response(200); self.send_header("content-type", "application/json"); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H)
print("up", flush=True)
s.serve_forever()
"""


def config(upstreams, **more):
    return {"upstreams": {n: {"type": "openai", "cooling": True, "base_url": u if isinstance(u, str) else u.url(), **more.pop(n, {})} for n, u in upstreams.items()},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": list(upstreams)}}], "retry": {"budget": 0.2, "backoff_ms": 1, "attempts": 3}, **more}


def fails(status=500, headers=()):
    return lambda ex: ex.reply(ERROR, status=status, headers=headers)


def served_by(p):
    a = ask(p, chat("m"))
    assert a.status == 200, a.text
    return a.get("x-openclaw-upstream")


def key_of(ex):
    return KEYS.index(ex.request.get("authorization").removeprefix("Bearer "))


def attempts_of(up, *others):
    return sum(len(u.exchanges) for u in (up, *others))


SECONDS = float(os.environ.get("CLAW_COOLING_SECONDS", "0"))


@pytest.mark.timeout(60 + 2 * SECONDS)
def test_three_in_ten_fail(start, upstreams):
    """CLAW_COOLING_SECONDS says for how long; 2,400 requests are the least."""
    a, b = upstreams(), upstreams()
    chance, lock = random.Random(4), threading.Lock()

    def script(ex):
        with lock:
            bad = chance.random() < 0.3
        ex.reply(ERROR, status=500) if bad else ex.reply()
    a.default = script
    p = start(config({"a": a, "b": b}))
    end = time.monotonic() + SECONDS

    def some(_):
        got = []
        while len(got) < 300 or time.monotonic() < end:
            got.append(ask(p, chat("m")).status)
        return got
    statuses = [s for got in in_parallel(8, some) for s in got]
    n, wrong, attempts = len(statuses), sum(s != 200 for s in statuses), attempts_of(a, b)
    print(f"{n} asked, {wrong} errors, {attempts / n:.3f} attempts each")
    assert wrong <= n // 1000, f"{wrong} of {n}"
    assert attempts <= 1.2 * n
    assert p.metric("openclaw_breaker_opened_total", upstream_name="a", of="upstream") >= 1
    assert not p.metric("openclaw_breaker_opened_total", upstream_name="b")


class Process:
    def __init__(self):
        self.port = free_port()
        self.start()

    def start(self):
        self.p = subprocess.Popen([sys.executable, "-c", SERVER, str(self.port)], stdout=subprocess.PIPE)
        assert self.p.stdout.readline() == b"up\n"

    def signal(self, n):
        os.kill(self.p.pid, n)
        if n == signal.SIGSTOP:     # one thread is told, which stops the others when it gets to it
            tasks = pathlib.Path(f"/proc/{self.p.pid}/task")
            eventually(lambda: all((t / "stat").read_text().rpartition(")")[2].split()[0] == "T" for t in tasks.iterdir()))

    def kill(self):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_one_that_dies(start, upstreams, how):
    a, b = Process(), upstreams()
    p = start(config({"a": f"http://127.0.0.1:{a.port}/v1", "b": b}, a={"first_byte_timeout_seconds": 0.5}))
    try:
        assert served_by(p) == "a"
        a.kill() if how == "killed" else a.signal(signal.SIGSTOP)
        for _ in range(3):
            assert served_by(p) == "b"
        lines = [p.request_line(ask(p, chat("m"))) for _ in range(5)]
        assert all(len(l["attempts"]) == 1 and l["upstream"] == "b" for l in lines), "the third failure sets it aside"
        p.wait_log(lambda l: l["msg"] == "set aside" and l["upstream"] == "a")
        probing = time.monotonic() + 3
        while time.monotonic() < probing:
            assert served_by(p) == "b"
        a.start() if how == "killed" else a.signal(signal.SIGCONT)
        back = time.monotonic()
        eventually(lambda: served_by(p) == "a", timeout=5)
        assert time.monotonic() - back < 5
        p.wait_log(lambda l: l["msg"] == "no longer set aside" and l["upstream"] == "a")
        eventually(lambda: all(served_by(p) == "a" for _ in range(20)), timeout=10)   # and at the end of its ramp it has all again
    finally:
        if how == "stopped":
            a.signal(signal.SIGCONT)
        a.kill()


def test_a_recovered_one_is_not_flooded(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = fails()
    p = start(config({"a": a, "b": b}))
    for _ in range(3):
        served_by(p)
    a.default = lambda ex: ex.reply()
    eventually(lambda: served_by(p) == "a", timeout=5)
    by = [served_by(p) for _ in range(60)]
    assert 1 <= by.count("b"), "all went to it at once"


def test_flapping(start, upstreams):
    a, b = upstreams(), upstreams()
    began = time.monotonic()
    a.default = lambda ex: ex.reply(ERROR, status=503) if int((time.monotonic() - began) * 2) % 2 else ex.reply()
    p = start(config({"a": a, "b": b}))
    n, wrong = 0, 0
    while time.monotonic() - began < 5 or n < 200:
        wrong += ask(p, chat("m")).status != 200
        n += 1
    assert wrong == 0 and attempts_of(a, b) <= 1.2 * n


def test_retry_after_of_one_key(start, upstreams):
    a = upstreams()
    asked = {"until": 0.0}

    def script(ex):
        if key_of(ex) == 1 and time.monotonic() < asked["until"]:
            ex.reply(ERROR, status=429, headers=[("retry-after", "2")])
        else:
            ex.reply()
    a.default = script
    p = start(config({"a": a}, a={"api_keys": KEYS}, server={"workers": 1}))
    for _ in range(9):
        served_by(p)
    assert [sum(key_of(e) == k for e in a.exchanges) for k in range(3)] == [3, 3, 3]
    asked["until"] = time.monotonic() + 1.5
    mark, began = a.mark(), time.monotonic()
    lines = [p.request_line(ask(p, chat("m"))) for _ in range(12)]
    assert all(l["status"] == 200 for l in lines)
    retried, = [l for l in lines if len(l["attempts"]) > 1]
    assert [x["kind"] for x in retried["attempts"]] == ["http_429", None] and retried["attempts"][0]["key"] == 1 and retried["attempts"][1]["key"] != 1
    assert retried["duration_ms"] < 1000 and time.monotonic() - began < 2
    assert sum(key_of(e) == 1 for e in a.since(mark)) == 1
    assert p.metric("openclaw_breaker_opened_total", upstream_name="a", of="key", why="rate_limited") == 1
    eventually(lambda: served_by(p) and key_of(a.exchanges[-1]) == 1, timeout=5)
    assert time.monotonic() - began >= 1.9


def test_401_retires_a_key(start, upstreams):
    a, b = upstreams(), upstreams()
    good = {"keys": {0, 2}}
    a.default = lambda ex: ex.reply() if key_of(ex) in good["keys"] else ex.reply(ERROR, status=401)
    base = config({"a": a, "b": b}, a={"api_keys": KEYS})
    p = start(base)
    for _ in range(12):
        assert served_by(p) == "a"
    assert sum(key_of(e) == 1 for e in a.exchanges) == 1
    line = p.wait_log(lambda l: l["msg"] == "a key is retired")
    assert line["upstream"] == "a" and line["key"] == "1 …bbbb" and line["why"] == "http_401"
    assert p.metric("openclaw_upstream_keys_retired_total", upstream_name="a") == 1
    good["keys"] = set()
    assert [served_by(p) for _ in range(4)] == ["b"] * 4       # the others, then the next candidate
    assert sum(key_of(e) == 0 for e in a.exchanges) <= 7
    mark = a.mark()
    served_by(p)
    assert a.mark() == mark, "all its keys are retired"
    assert not any(k in p.everything_told() for k in KEYS)
    good["keys"] = {0}
    before = p.generation()
    p.write_config({**base, "upstreams": {**base["upstreams"], "a": {**base["upstreams"]["a"], "api_keys": [KEYS[1], KEYS[0] + "x"]}}})
    p.wait_generation(before)
    assert served_by(p) == "b", "a reload alone brings no retired key back; and the new one is refused"


def test_an_upstream_without_cooling_keeps_its_place(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = fails(401)
    p = start(config({"a": a, "b": b}, a={"api_key": KEYS[0], "cooling": False}))
    assert [served_by(p) for _ in range(3)] == ["b"] * 3
    a.default = lambda ex: ex.reply()
    assert served_by(p) == "a", "its only key was refused, which sets no upstream aside"


def test_the_only_key_serves_again(start, upstreams):
    a = upstreams()
    a.default = fails(401)
    p = start(config({"a": a}, a={"api_key": KEYS[0]}))
    assert [ask(p, chat("m")).status for _ in range(3)] == [401] * 3      # what the upstream says is passed on
    a.default = lambda ex: ex.reply()
    assert served_by(p) == "a"


def test_weights_and_models(start, upstreams):
    a = upstreams()
    p = start(config({"a": a}, a={"api_keys": [{"key": KEYS[0], "weight": 3}, KEYS[1], {"key": KEYS[2], "weight": 100, "models": ["special-*"]}]},
                     server={"workers": 1}))
    for _ in range(40):
        served_by(p)
    assert [sum(key_of(e) == k for e in a.exchanges) for k in range(3)] == [30, 10, 0]
    mark = a.mark()
    for _ in range(104):
        assert ask(p, chat("special-1")).status == 200
    assert [sum(key_of(e) == k for e in a.since(mark)) for k in range(3)] == [3, 1, 100]


def test_the_budget(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = b.default = fails()
    p = start(config({"a": a, "b": b}, a={"cooling": False}, b={"cooling": False}))
    statuses = [ask(p, chat("m")).status for _ in range(100)]
    assert statuses == [500] * 100
    assert 110 <= attempts_of(a, b) <= 120
    denied = p.metric("openclaw_retries_denied_total", route_id="r")
    assert denied >= 80
    p.wait_request_lines(100)
    assert sum(l.get("retry_budget") == "exhausted" for l in p.request_lines()) == denied


def test_a_lone_request_tries_again(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = fails()
    p = start(config({"a": a, "b": b}, a={"cooling": False}))
    assert served_by(p) == "b"


def test_all_are_set_aside(start, upstreams):
    """The soonest ready one is asked, and the answer says of the others why they were not."""
    a, b = upstreams(), upstreams()
    a.default, b.default = fails(503, [("retry-after", "60")]), fails(503, [("retry-after", "30")])
    p = start(config({"a": a, "b": b}, retry={"attempts": 2, "backoff_ms": 1}))
    assert ask(p, chat("m")).status == 503
    mark = b.mark()
    b.default = lambda ex: ex.close()
    before = p.generation()
    p.write_config({**p.config, "retry": {"attempts": 1}})
    p.wait_generation(before)
    answer = ask(p, chat("m"))
    assert answer.status == 502 and b.mark() > mark
    said = answer.json()["error"]["message"]
    assert 'The upstream "b" failed' in said and "Set aside: a (http_503, asked again in 5" in said
    b.default = lambda ex: ex.reply()
    assert served_by(p) == "b" and served_by(p) == "b"


def test_a_model_that_is_not_there(start, upstreams):
    a, b = upstreams(), upstreams()
    a.on("gone", lambda ex: ex.reply({"error": {"message": "The model `gone` does not exist", "code": "model_not_found"}}, status=404))
    p = start(config({"a": a, "b": b}))
    assert [ask(p, chat("gone")).status for _ in range(3)] == [404] * 3
    assert ask(p, chat("gone")).get("x-openclaw-upstream") == "b"
    assert served_by(p) == "a"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_clients_own_errors_say_nothing(start, upstreams, status):
    a, b = upstreams(), upstreams()
    a.default = fails(status)
    p = start(config({"a": a, "b": b}))
    assert [ask(p, chat("m")).status for _ in range(12)] == [status] * 12
    assert not b.exchanges


@pytest.mark.parametrize("status", [401, 403])
def test_paths_that_are_passed_on_say_nothing_of_the_key(start, upstreams, status):
    a, b = upstreams(), upstreams()
    a.on("/v1/files/of-others", fails(status))
    p = start(config({"a": a, "b": b}, a={"api_key": KEYS[0]}, b={"api_key": KEYS[1]}, retry={"budget": 0.2, "attempts": 1}))
    assert [ask(p, b"", method="GET", path="/v1/files/of-others").status for _ in range(4)] == [status] * 4
    assert served_by(p) == "a"
    assert p.metric("openclaw_upstream_keys_retired_total") == 0


def test_policies_see_it(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = fails()
    told = """
    local P = { name = "told", api = 1 }
    function P.choose(candidates, facts)
        local a = candidates[1].name == "a" and candidates[1] or candidates[2]
        local b = candidates[1].name == "a" and candidates[2] or candidates[1]
        claw.log("info", "seen", { state = facts.state(a), ms = facts.cooling_until(a), b = facts.state(b) })
        return { a, b, as_is = facts.model == "anyway" }
    end
    function P.retry(req, attempt)
        claw.log("info", "failed", { state = attempt.state, key = attempt.key })
    end
    return P
    """
    p = start({**config({"a": a, "b": b}, a={"api_key": KEYS[0]}, server={"workers": 1}), "policies": {"always": ["told"]},
               "routes": [{"id": "r", "strategy": {"type": "told", "upstreams": ["a", "b"]}}]}, policies={"told.lua": told})
    for _ in range(4):
        assert served_by(p) == "b"
    p.wait_log(lambda l: l["msg"] == "seen" and l["state"] == "open" and 0 < l["ms"] <= 1000 and l["b"] == "closed")
    assert [l["state"] for l in p.lines if l["msg"] == "seen"] == ["closed"] * 3 + ["open"]
    p.wait_log(lambda l: l["msg"] == "failed" and l["state"] == "open" and l["key"] == 1)
    assert [l["state"] for l in p.lines if l["msg"] == "failed"] == ["closed", "closed", "open"]
    mark = a.mark()
    assert ask(p, chat("anyway")).status == 200 and a.mark() == mark + 1


def test_a_reload_forgets_nothing(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = fails(503, [("retry-after", "60")])
    p = start(config({"a": a, "b": b}))
    assert served_by(p) == "b"
    before = p.generation()
    p.write_config({**p.config, "retry": {"attempts": 2}})
    p.wait_generation(before)
    mark = a.mark()
    assert [served_by(p) for _ in range(5)] == ["b"] * 5 and a.mark() == mark


def upstream_shown(p, name):
    return next(u for u in json.loads(p.admin("/upstreams")[1])["upstreams"] if u["name"] == name)


def test_operators_see_and_change_it(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = lambda ex: ex.reply() if key_of(ex) else ex.reply(ERROR, status=401)
    p = start(config({"a": a, "b": b}, a={"api_keys": KEYS[:2]}))
    assert served_by(p) == "a"
    eventually(lambda: upstream_shown(p, "a")["outstanding"] == 0)
    shown = upstream_shown(p, "a")
    assert shown["state"] == "closed" and shown["outstanding"] == 0 and shown["ttfb_ms"] > 0 and shown["models"] == []
    assert shown["keys"][0] == {"key": 0, "masked": "…aaaa", "state": "retired", "why": "http_401"} and shown["keys"][1]["state"] == "closed"
    assert p.metric("openclaw_upstream_key_state", upstream_name="a", key="0", state="retired") == 1
    a.default = fails()
    for _ in range(3):
        assert served_by(p) == "b"
    shown = upstream_shown(p, "a")
    assert shown["state"] in ("open", "half_open") and shown["why"] == "http_5xx" and shown["for_ms"] <= 1000
    assert p.metric("openclaw_breaker_state", upstream_name="a", state="closed") == 0
    a.default = lambda ex: ex.reply()
    assert p.admin("/upstreams/a/restore", "POST")[0] == 200
    assert [served_by(p) for _ in range(4)] == ["a"] * 4 and {key_of(e) for e in a.exchanges[-4:]} == {0, 1}
    status, text, _ = p.admin("/upstreams/a/cool?seconds=2", "POST")
    assert status == 200 and json.loads(text) == {"upstream": "a", "state": "open"}
    assert [served_by(p) for _ in range(4)] == ["b"] * 4 and upstream_shown(p, "a")["why"] == "admin"
    assert p.metric("openclaw_breaker_state", upstream_name="a", state="open") == 1
    p.admin("/upstreams/b/cool", "POST")
    assert served_by(p) == "a" and upstream_shown(p, "a")["state"] == "open", "a success does not end it"
    eventually(lambda: served_by(p) == "a" and upstream_shown(p, "a")["state"] == "closed", timeout=5)
    for path, expected in (("/upstreams/c/cool", 404), ("/upstreams/a/kill", 404), ("/upstreams/a/cool?seconds=0", 400), ("/upstreams/a/cool?seconds=x", 400), ("/upstreams/", 404)):
        assert p.admin(path, "POST")[0] == expected
    assert not any(k in p.admin("/upstreams")[1] for k in KEYS)


def test_the_admin_token_guards_it(start, upstreams):
    a = upstreams()
    p = start({**config({"a": a}), "admin": {"token": "let-me-in-0123456789"}})
    assert p.admin("/upstreams")[0] == p.admin("/upstreams/a/cool", "POST")[0] == 401
    assert p.admin("/upstreams/a/cool", "POST", {"authorization": "Bearer let-me-in-0123456789"})[0] == 200


def test_a_key_in_a_file_is_replaced_without_a_restart(start, upstreams, tmp_path):
    a, b = upstreams(), upstreams()
    secret = tmp_path / "key"
    secret.write_text(KEYS[0] + "\n")
    a.default = lambda ex: ex.reply() if key_of(ex) == 2 else ex.reply(ERROR, status=401)
    p = start(config({"a": a, "b": b}, a={"api_key": "${file:%s}" % secret}))
    assert served_by(p) == "b"
    before = p.generation()
    other = tmp_path / "new"
    other.write_text(KEYS[2] + "\n")
    other.rename(secret)
    p.wait_generation(before, timeout=10)
    assert served_by(p) == "a" and upstream_shown(p, "a")["keys"] == [{"key": 0, "masked": "…cccc", "state": "closed"}]


def test_health_checks(start, upstreams):
    """Nobody asks it, and it is known to be ill; and well again."""
    a, b = upstreams(), upstreams()
    ill, under_way, most = threading.Event(), [], [0]
    lock = threading.Lock()

    def left(ex):
        """Its time was over before it was answered (this machine is busy), and the next was due."""
        try:
            return bool(select.select([ex.conn.sock], [], [], 0)[0]) and ex.conn.sock.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True

    def health(ex):
        with lock:
            most[0] = max(most[0], 1 + sum(not left(other) for other in under_way))
            under_way.append(ex)
        ill.wait(0.03) if not ill.is_set() else None
        with lock:
            under_way.remove(ex)
        ex.reply({}, status=500 if ill.is_set() else 200)
    a.on("/healthz", health)
    p = start(config({"a": a, "b": b}, a={"api_key": KEYS[0], "health": {"path": "/healthz", "interval_seconds": 0.1}}))
    a.wait(lambda u: len(u.exchanges) >= 5)
    first = a.exchanges[0].request
    assert first.method == "GET" and first.target == "/healthz" and first.get("authorization") == "Bearer " + KEYS[0]
    assert served_by(p) == "a"
    ill.set()
    p.wait_log(lambda l: l["msg"] == "health checks set it aside" and l["upstream"] == "a" and l["why"] == "http_500")
    assert upstream_shown(p, "a")["why"] == "health"
    line = p.request_line(ask(p, chat("m")))
    assert [x["upstream"] for x in line["attempts"]] == ["b"]
    ill.clear()
    p.wait_log(lambda l: l["msg"] == "a health check found it well" and l["upstream"] == "a")
    eventually(lambda: all(served_by(p) == "a" for _ in range(10)), timeout=10)
    assert most[0] == 1, "never two at a time"
    before = p.generation()
    p.write_config({**p.config, "upstreams": {**p.config["upstreams"], "a": {**p.config["upstreams"]["a"], "health": None}}})
    p.wait_generation(before)
    mark = a.mark()
    for _ in range(20):
        served_by(p)
    assert sum(e.request.target == "/healthz" for e in a.since(mark)) <= 1, "at most the one that was under way"


def test_a_check_that_hangs(start, upstreams):
    a, b = upstreams(), upstreams()
    a.on("/healthz", lambda ex: ex.until_gone())
    p = start(config({"a": a, "b": b}, a={"health": {"path": "/healthz", "interval_seconds": 0.2}}))
    p.wait_log(lambda l: l["msg"] == "health checks set it aside" and l["why"] == "deadline")
    assert served_by(p) == "b"
