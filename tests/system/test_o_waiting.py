"""O: policies that wait: sleep, fetch, tasks, background work; clients that leave meanwhile, and reloads."""
import asyncio
import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from certs import Authority, server_context
from client import Raw, ask, chat, in_parallel, request
from conftest import UPSTREAM_KEY
from hostile import within
from proxy import Proxy
from upstream import CHAT, Upstream

pytestmark = pytest.mark.alone


class At200:
    """Answers each request after 200 ms, hundreds at the same time."""

    def __init__(self):
        self.loop, self.port, began = asyncio.new_event_loop(), 0, threading.Event()

        async def serve():
            server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            began.set()
            await asyncio.Event().wait()

        def run():
            self.main = self.loop.create_task(serve())
            try:
                self.loop.run_until_complete(self.main)
            except asyncio.CancelledError:
                pass
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        began.wait()

    async def answer(self, reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.2)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def stop(self):
        self.loop.call_soon_threadsafe(self.main.cancel)
        self.thread.join(10)


POLICIES = {
    # Every waiting hook sleeps for as long as the client asks.
    "sleepy.lua": """
local function nap(req, hook)
    local ms = tonumber(req.client.headers["x-sleep-" .. hook])
    if ms then claw.time.sleep(ms) end
    local seen = claw.state(req)
    seen[#seen + 1] = hook .. ":" .. (req.client.headers["x-name"] or "")
end
return { name = "sleepy", api = 1,
    admit = function(req) nap(req, "admit") end,
    route = function(req, candidates)
        local before = candidates[1].name
        nap(req, "route")
        assert(candidates[1].name == before)
        return req.client.headers["x-wanted"]
    end,
    request = function(req, body)
        req.upstream.headers["x-before"] = req.client.headers["x-name"]
        nap(req, "request")
        body.name = req.client.headers["x-name"]
        req.upstream.headers["x-after"] = req.client.headers["x-name"]
    end,
    retry = function(req, attempt) nap(req, "retry") end,
    response = function(req, body)
        nap(req, "response")
        body.name = req.client.headers["x-name"]
        return body
    end,
    log = function(req) return { hooks = table.concat(claw.state(req), " ") } end }
""",
    "hasty.lua": """
return { name = "hasty", api = 1, event = function(req, ev) claw.time.sleep(1) end }
""",
    "caught.lua": """
return { name = "caught", api = 1, admit = function(req)
    local ok, a, b = pcall(function()
        local inner = { xpcall(function() claw.time.sleep(20) return "slept" end, function() return "handled" end) }
        error({ inner = inner[2] })
    end)
    return { deny = 418, message = tostring(ok) .. " " .. tostring(a.inner) }
end }
""",
    "spawning.lua": """
local function after(ms, value) claw.time.sleep(ms) return value, ms end
return { name = "spawning", api = 1, admit = function(req)
    local from = claw.time.now_ms()
    local a, b, c = claw.task.spawn(after, 300, "a"), claw.task.spawn(after, 300, "b"), claw.task.spawn(error, "broken")
    local x, ms = claw.task.wait(a)
    local y, z = claw.task.wait(b, c)
    local nothing, message, code = claw.task.wait(c)
    local took = claw.time.now_ms() - from
    return { deny = 418, message = ("%s %d %s %s %s %s %d"):format(x, ms, y, tostring(z), message, code, took) }
end }
""",
    "hoarding.lua": """
return { name = "hoarding", api = 1, admit = function(req)
    local n, code = 0, nil
    for i = 1, 100 do
        local task, _, why = claw.task.spawn(claw.time.sleep, 600000)
        if task then n = n + 1 else code = why end
    end
    return { deny = 418, message = n .. " " .. code }
end }
""",
    "keeping.lua": """
local kept
return { name = "keeping", api = 1, admit = function(req)
    if req.model == "first" then
        kept = req
        claw.task.background(function()
            claw.time.sleep(150)
            local ok, message = pcall(function() return req.id end)
            claw.log("info", "kept", { ok = ok, why = tostring(message) })
        end)
    end
end }
""",
}

# What x-fetch says (a Lua table's text would be code: it is JSON) is fetched; what came of it is the denial's message.
FETCHING = """
return { name = "fetching", api = 1, admit = function(req)
    local asked = claw.json.decode(req.client.headers["x-fetch"])
    local answer, message, code = claw.http.fetch(asked)
    local out = answer and { status = answer.status, headers = answer.headers, body = answer.body:sub(1, 2000), bytes = #answer.body }
        or { message = message, code = code }
    return { deny = 418, message = claw.json.encode(out) }
end }
"""
GUARD = """
return { name = "guard", api = 1, admit = function(req)
    local answer, message, code = claw.http.fetch("%s", { headers = { authorization = req.client.headers["x-user"] }, timeout_ms = 2000 })
    if not answer then return { deny = 503, code = code, message = message } end
    if answer.status ~= 200 then return { deny = 403, code = "refused", message = answer.body } end
end }
"""


def route(name, *policies, upstreams=("a", "b"), **more):
    return {"id": name, "match": {"path": "/v1/*", "headers": {"x-route": name}}, "policies": list(policies),
            "strategy": {"type": "failover", "upstreams": list(upstreams)}, **more}


@pytest.fixture(scope="module")
def waiting():
    up = Upstream()
    p = Proxy({
        "server": {"workers": 1},
        "upstreams": {n: {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(f"/{n}/v1")} for n in ("a", "b")},
        "routes": [route(n, n) for n in ("sleepy", "hasty", "caught", "spawning", "hoarding", "keeping")] + [route("plain")],
        "policies": {"always": []},
        "retry": {"backoff_ms": 10, "jitter": 0},
    }, policies=POLICIES)
    p.up = up
    yield p
    p.stop()
    up.stop()


def go(p, name, model="m", headers=(), **more):
    return ask(p, chat(model, **more), headers=[("x-route", name), *headers])


def timed(work):
    start = time.monotonic()
    return work(), time.monotonic() - start


@pytest.mark.parametrize("hook", ["admit", "route", "request", "response"])
def test_a_hook_waits(waiting, hook):
    answer, took = timed(lambda: go(waiting, "sleepy", headers=[(f"x-sleep-{hook}", "300"), ("x-name", hook)]))
    assert answer.status == 200 and took >= 0.3
    line = waiting.request_line(answer)
    assert line["hooks"] == f"admit:{hook} route:{hook} request:{hook} response:{hook}"
    assert line["overhead_us"] < 250_000, "waiting is not the proxy's own time"


def test_the_retry_hook_waits(waiting):
    waiting.up.on("failing", lambda ex: ex.reply({"error": {"message": "x"}}, 503) if ex.request.target.startswith("/a/") else ex.reply())
    answer, took = timed(lambda: go(waiting, "sleepy", "failing", headers=[("x-sleep-retry", "300"), ("x-name", "r")]))
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "b" and took >= 0.3
    assert waiting.request_line(answer)["hooks"] == "admit:r route:r request:r retry:r request:r response:r"


def test_waiting_requests_do_not_mix(waiting):
    """Each sleeps for another time in each hook: whoever comes back finds its own request."""
    mark = waiting.up.mark()

    def one(i):
        sleeps = [(f"x-sleep-{hook}", str((i * k) % 7 * 10)) for k, hook in enumerate(("admit", "route", "request", "response"), 2)]
        return go(waiting, "sleepy", f"mix-{i}", headers=[*sleeps, ("x-name", f"n{i}"), ("x-wanted", "ab"[i % 2])])
    for i, answer in enumerate(in_parallel(40, one)):
        assert answer.status == 200 and answer.json()["name"] == f"n{i}" and answer.get("x-openclaw-upstream") == "ab"[i % 2]
    for ex in waiting.up.since(mark):
        name = "n" + ex.body["model"].split("-")[1]
        assert ex.body["name"] == name and ex.request.get("x-before") == name and ex.request.get("x-after") == name


def test_where_a_hook_may_not_wait(waiting):
    answer = go(waiting, "hasty", stream=True)
    assert answer.status == 500 and answer.json()["error"]["code"] == "policy_error"
    waiting.wait_log(lambda l: "policies/hasty.lua:2: claw.time.sleep may not be called in event (allowed in: admit, route, "
                               "request, retry, response)" in json.dumps(l))


def test_protected_calls_may_wait(waiting):
    assert go(waiting, "caught").json()["error"]["message"] == "false slept"


def test_tasks_run_side_by_side(waiting):
    words = go(waiting, "spawning").json()["error"]["message"].split()
    assert words[:6] == ["a", "300", "b", "nil", "broken", "EPOLICY"], words
    assert 300 <= int(words[6]) < 600, "the longest, not the sum"


def test_tasks_are_bounded_and_end_with_their_request(waiting):
    assert go(waiting, "hoarding").json()["error"]["message"] == "64 EBUSY"
    assert go(waiting, "hoarding").json()["error"]["message"] == "64 EBUSY"


def test_a_client_that_leaves_ends_the_wait(waiting):
    with Raw(waiting.port) as c:
        c.send(request(headers=[("x-route", "sleepy"), ("x-sleep-admit", "60000")], body=chat("left")))
        waiting.wait_metric("openclaw_requests_in_flight", lambda v: v == 1)
    waiting.wait_metric("openclaw_requests_in_flight", lambda v: v == 0)
    assert waiting.up.seen("left") == []


def test_the_total_time_ends_the_wait(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "retry": {"total_timeout_seconds": 1},
               "routes": [route("sleepy", "sleepy", upstreams=["a"])], "policies": {"always": []}}, policies=POLICIES)
    answer, took = timed(lambda: go(p, "sleepy", headers=[("x-sleep-admit", "60000")]))
    assert answer.status == 504 and answer.json()["error"]["code"] == "deadline" and 0.95 <= took < 5
    assert p.request_line(answer)["overhead_us"] < 500_000 and up.exchanges == []


def test_a_kept_handle_says_that_its_request_is_over(waiting):
    assert go(waiting, "keeping", "first").status == 200
    line = waiting.wait_log(lambda l: l.get("msg") == "kept")
    assert "the request is over" in json.dumps(line)


# ---- fetch


@pytest.fixture(scope="module")
def fetching():
    up, other = Upstream(), Upstream()
    p = Proxy({
        "server": {"workers": 1},
        "upstreams": {"a": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url("/a/v1"), "headers": {"x-fixed": "yes"}}},
        "routes": [route(n, n, upstreams=["a"]) for n in ("fetching", "guard", "busy", "shadow", "many")] + [route("plain", upstreams=["a"])],
        "policies": {"always": [], "allow_private": ["127.0.0.1"], "max_fetches": 40},
    }, policies={
        "fetching.lua": FETCHING, "guard.lua": GUARD % other.url("/check"),
        "busy.lua": """
return { name = "busy", api = 1, admit = function(req)
    local tasks, ok, busy = {}, 0, 0
    for i = 1, 20 do tasks[i] = claw.task.spawn(claw.http.fetch, "%s", { body = { model = "slow" } }) end
    for i = 1, 20 do
        local answer, _, code = claw.task.wait(tasks[i])
        if answer then ok = ok + 1 elseif code == "EBUSY" then busy = busy + 1 end
    end
    return { deny = 418, message = ok .. " " .. busy }
end }
""" % other.url("/x"),
        "many.lua": """
return { name = "many", api = 1, admit = function(req)
    local answer, _, code = claw.http.fetch("%s", { body = { model = "held" }, timeout_ms = 20000 })
    return { deny = 418, message = code or tostring(answer.status) }
end }
""" % other.url("/x"),
        "shadow.lua": """
return { name = "shadow", api = 1, request = function(req, body)
    local copy, id = tostring(body), req.id
    claw.task.background(function()
        local answer = claw.http.fetch{ upstream = "a", path = "/shadow", body = copy, headers = { ["x-of"] = id } }
        claw.log("info", "shadowed", { status = answer.status })
    end)
end }
""",
    })
    p.up, p.other = up, other
    yield p
    p.stop()
    up.stop()
    other.stop()


def fetch(p, **what):
    answer = ask(p, chat("m"), headers=[("x-route", "fetching"), ("x-fetch", json.dumps(what))])
    assert answer.status == 418, answer.text
    return json.loads(answer.json()["error"]["message"])


def test_fetch(fetching):
    fetching.other.on("plain", lambda ex: ex.reply(b"made it", 201, headers=[("X-Two", "a"), ("x-two", "b")], type="text/plain"))
    mark = fetching.other.mark()
    out = fetch(fetching, url=fetching.other.url("/some/place/?q=1"), headers={"X-Mine": "yes"}, body={"model": "plain"})
    assert out["status"] == 201 and out["body"] == "made it" and out["headers"]["x-two"] == "a, b"
    got = fetching.other.since(mark)[0].request
    assert (got.method, got.target) == ("POST", "/some/place/?q=1") and got.get("x-mine") == "yes"
    assert got.get("content-type") == "application/json" and got.get("host") == f"127.0.0.1:{fetching.other.port}"


def test_fetches_share_a_connection(fetching):
    mark = fetching.other.mark()
    for _ in range(3):
        assert fetch(fetching, url=fetching.other.url("/keep"), body={"model": "m"})["status"] == 200
    assert len({ex.conn.serial for ex in fetching.other.since(mark)}) == 1


def test_a_redirect_is_an_answer(fetching):
    fetching.other.on("moved", lambda ex: ex.reply(b"", 302, headers=[("location", "http://127.0.0.1:1/")]))
    out = fetch(fetching, url=fetching.other.url("/x"), body={"model": "moved"})
    assert out["status"] == 302 and out["headers"]["location"] == "http://127.0.0.1:1/"


def test_fetch_from_an_upstream(fetching):
    """The key is set by the proxy; a policy neither sees nor replaces it."""
    mark = fetching.up.mark()
    out = fetch(fetching, upstream="a", path="/v1/moderations", headers={"authorization": "Bearer mine"}, body={"model": "m", "input": "x"})
    assert out["status"] == 200 and UPSTREAM_KEY not in json.dumps(out)
    got = fetching.up.since(mark)[0].request
    assert got.target == "/a/v1/moderations" and got.all("authorization") == [f"Bearer {UPSTREAM_KEY}"] and got.get("x-fixed") == "yes"


def test_an_upstream_that_quotes_the_key(fetching):
    fetching.up.on("echo", lambda ex: ex.reply({"you": ex.request.get("authorization")}, headers=[("x-you", ex.request.get("authorization"))]))
    out = fetch(fetching, upstream="a", path="/v1/echo", body={"model": "echo"})
    assert out["headers"]["x-you"] == "Bearer ***" and json.loads(out["body"]) == {"you": "Bearer ***"}


@pytest.mark.parametrize("url", ["http://localhost:{port}/", "http://[::1]:{port}/", "http://169.254.169.254/latest/", "http://10.1.2.3/", "http://0.0.0.0:{port}/",
                                 "http://[::ffff:10.0.0.1]/", "http://[fd00::1]/", "http://100.64.0.1/", "http://2886729729/", "http://[64:ff9b::a00:1]/"])
def test_private_addresses_are_refused(fetching, url):
    mark = fetching.other.mark()
    out = fetch(fetching, url=url.format(port=fetching.other.port), timeout_ms=3000)
    if url.startswith("http://localhost"):  # ::1 is not allowed, 127.0.0.1 is
        assert out.get("status") == 200 and len(fetching.other.since(mark)) == 1
    else:
        assert out["code"] == "EDENIED", out


def test_a_host_may_be_allowed_by_name(start, upstreams):
    up = upstreams()
    config = {"upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "routes": [route("fetching", "fetching", upstreams=["a"])]}
    p = start({**config, "policies": {"always": [], "allow_private": ["localhost"]}}, policies={"fetching.lua": FETCHING})
    assert fetch(p, url=f"http://localhost:{up.port}/")["status"] == 200
    assert fetch(p, url=f"http://127.0.0.1:{up.port}/")["code"] == "EDENIED"
    q = start({**config, "policies": {"always": []}}, policies={"fetching.lua": FETCHING})
    assert fetch(q, url=f"http://localhost:{up.port}/")["code"] == "EDENIED"


def test_how_a_fetch_fails(fetching):
    fetching.other.on("mute", lambda ex: ex.until_gone())
    fetching.other.on("large", lambda ex: ex.reply(b"x" * 5000))

    def chunked(ex):
        ex.head(200, [("transfer-encoding", "chunked")])
        for _ in range(8):
            ex.chunk(b"y" * 1000)
        ex.end()
    fetching.other.on("chunked", chunked)
    out, took = timed(lambda: fetch(fetching, url=fetching.other.url("/"), body={"model": "mute"}, timeout_ms=200))
    assert out["code"] == "ETIMEOUT" and 0.19 <= took < 2
    assert fetch(fetching, url=fetching.other.url("/"), body={"model": "large"}, max_body_kb=4)["code"] == "ETOO_LARGE"
    assert fetch(fetching, url=fetching.other.url("/"), body={"model": "chunked"}, max_body_kb=4)["code"] == "ETOO_LARGE"
    assert fetch(fetching, url=fetching.other.url("/"), body={"model": "chunked"}, max_body_kb=8)["bytes"] == 8000
    assert fetch(fetching, url="http://127.0.0.1:1/")["code"] == "ECONNECT"
    assert fetch(fetching, url="http://no-such-host.invalid/", timeout_ms=4000)["code"] in ("EDNS", "ETIMEOUT")
    assert fetching.metric("openclaw_policy_fetches_total", outcome="200") >= 1


@pytest.mark.parametrize("what, says", [
    ({"url": "ftp://x/"}, "must begin with http"), ({"url": "http://x/a b"}, "no spaces"), ({"upstream": "zz"}, "there is no upstream zz"),
    ({"url": "http://x/", "headers": {"x": "a\r\nb: c"}}, "no valid field name or value"), ({"url": "http://x/", "headers": {"Host": "y"}}, "writes itself"),
    ({"upstream": "a", "path": "/../x"}, "dot segments"), ({"url": "http://x/", "tiemout_ms": 5}, 'did you mean \\"timeout_ms\\"')])
def test_mistakes_in_a_fetch_are_told(fetching, what, says):
    answer = ask(fetching, chat("m"), headers=[("x-route", "fetching"), ("x-fetch", json.dumps(what))])
    assert answer.status == 500
    fetching.wait_log(lambda l: "policies/fetching.lua:4: claw.http.fetch: " in json.dumps(l) and json.loads(f'"{says}"') in l.get("error", ""))


def test_a_certificate_nobody_vouches_for(start, upstreams, tmp_path):
    """A URL's certificate is verified by the system's roots, an upstream's as its tls section says."""
    ca = Authority(tmp_path)
    up = upstreams(tls=server_context(ca.issue("service", ips=("127.0.0.1",))))
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url(), "tls": {"ca": str(ca.path)}}},
               "routes": [route("fetching", "fetching", upstreams=["a"])], "policies": {"always": [], "allow_private": ["127.0.0.1"]}},
              policies={"fetching.lua": FETCHING})
    assert fetch(p, upstream="a", path="/x")["status"] == 200
    assert fetch(p, url=up.url("/x"))["code"] == "ETLS_VERIFY"


def test_an_auth_service_admits(fetching):
    def check(ex):
        good = ex.request.get("authorization") == "ann"
        ex.reply(b"fine" if good else b"who are you?", 200 if good else 403)
    fetching.other.on(None, check)
    assert ask(fetching, chat("m"), headers=[("x-route", "guard"), ("x-user", "ann")]).status == 200
    answer = ask(fetching, chat("m"), headers=[("x-route", "guard"), ("x-user", "bob")])
    assert answer.status == 403 and answer.json()["error"]["message"] == "who are you?" and answer.json()["error"]["code"] == "refused"


def test_a_client_that_leaves_cancels_its_fetch(fetching):
    fetching.other.on(None, lambda ex: ex.until_gone())
    with Raw(fetching.port) as c:
        c.send(request(headers=[("x-route", "guard"), ("x-user", "gone")], body=chat("m")))
        fetching.other.wait(lambda up: any(ex.request.get("authorization") == "gone" for ex in up.exchanges))
    ex = next(ex for ex in fetching.other.exchanges if ex.request.get("authorization") == "gone")
    assert ex.left.wait(2), "the fetched service sees that nobody waits any more"
    fetching.wait_metric("openclaw_policy_fetches_total", lambda v: v >= 1, outcome="canceled")


def test_sixteen_fetches_of_a_request(fetching):
    fetching.other.on("slow", lambda ex: (time.sleep(0.2), ex.reply()))
    answer, took = timed(lambda: ask(fetching, chat("m"), headers=[("x-route", "busy")]))
    assert answer.json()["error"]["message"] == "16 4" and took < 2


def test_fetches_of_a_worker_are_bounded(fetching):
    """Nobody is answered before the last one was refused."""
    go_on, refused = threading.Event(), threading.Semaphore(0)
    fetching.other.on("held", lambda ex: (go_on.wait(15), ex.reply()))

    def one(i):
        said = ask(fetching, chat("m"), headers=[("x-route", "many")]).json()["error"]["message"]
        if said == "EBUSY":
            refused.release()
        return said

    def release():
        for _ in range(8):
            refused.acquire(timeout=10)
        go_on.set()
    threading.Thread(target=release, daemon=True).start()
    assert sorted(in_parallel(48, one)) == ["200"] * 40 + ["EBUSY"] * 8


def test_bodies_made_of_tables_are_whole(start, upstreams):
    """Compiled loops over pairs() may take a table for empty (script/vm.c): 1,000 bodies, made while others wait."""
    up = upstreams()
    p = start({"server": {"workers": 1}, "upstreams": {"a": {"type": "openai", "base_url": up.url("/v1")}},
               "routes": [{"match": {"path": "/v1/chat/completions"}, "strategy": {"type": "failover", "upstreams": ["a"]}}],
               "policies": {"allow_private": ["127.0.0.1"]}}, policies={"many.lua": """
return { name = "many", api = 1, admit = function(req)
    local answer, _, code = claw.http.fetch("%s", { body = { model = "held", n = req.client.headers["x-n"], deep = { { a = 1 } } }, timeout_ms = 20000 })
    return { deny = 418, message = code or tostring(answer.status) }
end }
""" % up.url("/x")})
    want = {b'{"deep":[{"a":1}],"model":"held","n":"%d"}' % i for i in range(48)}
    for _ in range(21):
        mark = up.mark()
        in_parallel(48, lambda i: ask(p, chat("m"), headers=[("x-n", str(i))]))
        assert {ex.request.body for ex in up.since(mark)} == want


def test_shadow_traffic(fetching):
    fetching.up.on("shadowed", lambda ex: (time.sleep(0.3), ex.reply()) if ex.request.target.endswith("/shadow") else ex.reply())
    mark = fetching.up.mark()
    answer, took = timed(lambda: ask(fetching, chat("shadowed"), headers=[("x-route", "shadow")]))
    assert answer.status == 200 and took < 0.3
    assert fetching.wait_log(lambda l: l.get("msg") == "shadowed")["status"]
    copy = [ex for ex in fetching.up.since(mark) if ex.request.target.endswith("/shadow")]
    assert len(copy) == 1 and copy[0].request.get("x-of") == answer.get("x-openclaw-request-id") and copy[0].body["model"] == "shadowed"


# ---- every service in every hook

MATRIX = """
local names = { "claw.time.sleep", "claw.http.fetch", "claw.task.spawn", "claw.task.wait", "claw.task.background", "claw.time.now_ms", "claw.hash", "claw.log",
    "claw.store.get", "claw.store.set", "claw.store.add", "claw.store.incr", "claw.store.cas", "claw.store.delete" }
local function at(name)
    local v = { claw = claw }
    for word in name:gmatch("[^.]+") do v = v[word] end
    return v
end
local arguments = {
    ["claw.time.sleep"] = { 1 }, ["claw.http.fetch"] = { "http://10.0.0.1/" }, ["claw.task.spawn"] = { function() return 1 end },
    ["claw.task.background"] = { function() end }, ["claw.hash"] = { "x" }, ["claw.log"] = { "debug", "x" },
    ["claw.store.get"] = { "k" }, ["claw.store.set"] = { "k", 1 }, ["claw.store.add"] = { "k", 1 }, ["claw.store.incr"] = { "n" },
    ["claw.store.cas"] = { "k", 1, 2 }, ["claw.store.delete"] = { "k" },
}
local function try(hook)
    local out = {}
    for _, name in ipairs(names) do
        local given = arguments[name] or {}
        local ok, message = pcall(function()
            if name == "claw.task.wait" then
                local made, task = pcall(claw.task.spawn, function() return 1 end)
                if made then given = { task } end
            end
            return at(name)(unpack(given))
        end)
        out[name] = ok and "yes" or message:find("may not be called", 1, true) and "no" or message
    end
    claw.log("info", "matrix", { hook = hook, says = claw.json.encode(out) })
end
return { name = "matrix", api = 1,
    init = function() try("init") end, selftest = function() try("selftest") end, admit = function() try("admit") end,
    route = function() try("route") end, choose = function(candidates) try("choose") return candidates end,
    request = function() try("request") end, retry = function() try("retry") end, event = function() try("event") end,
    response = function() try("response") end, cost = function() try("cost") end,
    log = function() try("log") claw.task.background(function() try("background") end) end }
"""


def test_every_service_in_every_hook(start, upstreams):
    """What lua/claw/phases.lua says, asked of the real thing."""
    root = os.environ.get("CLAW_ROOT") or os.path.join(os.path.dirname(__file__), "..", "..")
    table = subprocess.run(["luajit", "-e", """
        package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
        local phases = require("claw.phases")
        for _, s in ipairs(phases.services) do
            for _, hook in ipairs(phases.names) do print(s.name, hook, (not s.allowed or s.allowed[hook]) and "yes" or "no") end
            print(s.name, "background", (not s.allowed or s.allowed.background) and "yes" or "no")
        end"""], cwd=root, capture_output=True, text=True, check=True).stdout
    said = {tuple(line.split("\t")[:2]): line.split("\t")[2] for line in table.splitlines()}
    hooks = list(dict.fromkeys(hook for _, hook in said))
    assert len(hooks) == 12
    up = upstreams()
    up.on("bad", lambda ex: ex.reply({"error": {"message": "x"}}, 503))
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "retry": {"attempts": 2, "backoff_ms": 1},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"type": "matrix", "upstreams": ["a"]}, "policies": ["matrix"]}],
               "policies": {"always": ["matrix"]}}, policies={"matrix.lua": MATRIX})
    ask(p, chat("m", stream=True))
    ask(p, chat("m"))
    ask(p, chat("bad"))
    was = p.generation()
    p.drop_policy("matrix.lua", MATRIX + "-- again: what init and selftest say at the start is said before there is a log")
    p.wait_generation(was)
    for hook in hooks:
        line = p.wait_log(lambda l, hook=hook: l.get("msg") == "matrix" and l.get("hook") == hook)
        for name, what in json.loads(line["says"]).items():
            assert what == said[name, hook], f"{name} in {hook}: {what}"


# ---- many, and reloads


@pytest.mark.not_under("gcstress", "valgrind", "tsan", reason="times the loop")
def test_500_requests_wait_at_the_same_time(waiting):
    """They wait side by side, and the loop turns freely meanwhile."""
    def late(le):
        return waiting.metric("openclaw_loop_lag_seconds_bucket", le=le)
    all_before, good_before = late("+Inf"), late("0.005")
    conns = [Raw(waiting.port, timeout=60) for _ in range(500)]
    start = time.monotonic()
    try:
        for _ in range(4):
            for c in conns:
                c.send(request(headers=[("x-route", "sleepy"), ("x-sleep-admit", "200")], body=chat("m500")))
            assert all(c.response().status == 200 for c in conns)
    finally:
        for c in conns:
            c.close()
    assert time.monotonic() - start < 30, "one after the other they wait for 400 s"
    looked = late("+Inf") - all_before
    assert looked >= 3 and late("0.005") - good_before >= looked / 2 # the rest may meet the machine's neighbours


@pytest.mark.not_under("asan", "gcstress", "valgrind", "tsan", "slowio", reason="times the loop")
@pytest.mark.skipif(not shutil.which("cc"), reason="there is no cc")
@pytest.mark.parametrize("how", ["sleep", "fetch"])
def test_no_turn_is_long_while_500_wait(start, upstreams, turns, tmp_path, how):
    """What comes at once, what one tick of the clock wakes, and what answers at once, goes on over many turns: in CPU time, which
    is the turn's own; neighbours on the same core and its caches can still add to it. A turn ends its work by the clock, at
    1.5 ms (net/lane), so that a slow machine has more turns and not longer ones."""
    up = upstreams()

    def longest():
        slow, noted = At200(), tmp_path / "turns"
        waits = "claw.time.sleep(200)" if how == "sleep" else f'assert(claw.http.fetch("http://127.0.0.1:{slow.port}/", {{ timeout_ms = 60000 }}))'
        p = start({"server": {"workers": 1}, "upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "routes": [route("plain", upstreams=["a"])],
                   "policies": {"allow_private": ["127.0.0.0/8"], "max_fetches": 1000}},
                  policies={"waits.lua": "return { name = 'waits', api = 1, admit = function(req) %s return { deny = 418 } end }" % waits},
                  env={"LD_PRELOAD": str(turns), "TURNS_FILE": str(noted)})
        conns = [Raw(p.port, timeout=60) for _ in range(500)]
        try:
            for _ in range(4):
                for c in conns:
                    c.send(request(body=chat("m")))
                assert all(c.response().status == 418 for c in conns)
        finally:
            for c in conns:
                c.close()
            p.stop()
            slow.stop()
        return int(noted.read_text().split()[0]) / 1000
    within(5, longest)


def test_a_reload_while_tasks_wait(start, upstreams):
    up = upstreams()
    slow = """
return { name = "slow", api = 1, admit = function(req)
    claw.time.sleep(600)
    if req.client.headers["x-background"] then claw.task.background(function() claw.time.sleep(500) claw.log("info", "background of %s") end) end
end,
    response = function(req, body) body.by = "%s" return body end }
"""
    p = start({"server": {"workers": 1}, "upstreams": {"a": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"upstream": "a"}}],
               "policies": {"rollback": False}}, policies={"slow.lua": slow % ("old", "old")})     # nothing is kept to return to
    was = p.generation()
    with Raw(p.port) as c:
        c.send(request(headers=[("x-background", "yes")], body=chat("m")))
        p.wait_metric("openclaw_requests_in_flight", lambda v: v == 1)
        p.drop_policy("slow.lua", slow % ("new", "new"))
        p.wait_generation(was)
        assert c.response().json()["by"] == "old"
    assert ask(p, chat("m")).json()["by"] == "new"
    p.wait_log(lambda l: l.get("msg") == "background of old")
    p.wait_metric("openclaw_generations_live", lambda v: v == 1)


def test_a_drain_ends_what_waits_too_long(start, upstreams):
    up = upstreams()
    p = start({"server": {"workers": 1, "drain_seconds": 1}, "upstreams": {"a": {"type": "openai", "base_url": up.url()}},
               "routes": [route("sleepy", "sleepy", upstreams=["a"])], "policies": {"always": []}}, policies=POLICIES)
    with Raw(p.port) as c:
        c.send(request(headers=[("x-route", "sleepy"), ("x-sleep-request", "60000")], body=chat("m")))
        p.wait_metric("openclaw_requests_in_flight", lambda v: v == 1)
        _, took = timed(p.stop)
        assert took < 6 and up.exchanges == []


def test_the_drain_does_not_wait_for_the_background(start, upstreams):
    up = upstreams()
    p = start({"server": {"workers": 1, "drain_seconds": 20}, "upstreams": {"a": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"upstream": "a"}}], "policies": {"allow_private": ["127.0.0.0/8"]}},
              policies={"later.lua": """
return { name = "later", api = 1, log = function(req)
    claw.task.background(function() claw.http.fetch("%s", { body = { model = "never" }, timeout_ms = 60000 }) end)
    claw.task.background(function() claw.time.sleep(600000) end)
end }
""" % up.url("/x")})
    up.on("never", lambda ex: ex.until_gone(60))
    assert ask(p, chat("m")).status == 200
    up.wait_seen("never")
    _, took = timed(p.stop)
    assert took < 5


def test_the_shipped_shadow_traffic(start, upstreams):
    up, other = upstreams(), upstreams()
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}, "b": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": other.url()}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"upstream": "a"}}],
               "policies": {"always": ["shadow_traffic"], "settings": {"shadow_traffic": {"to": "b", "percent": 100, "model": "newer"}}}})
    assert ask(p, chat("m", stream=True)).status == 200
    line = p.wait_log(lambda l: l.get("msg") == "shadow")
    assert "200" in json.dumps(line)
    copy = other.exchanges[0]
    assert copy.request.target == "/v1/chat/completions" and copy.body["model"] == "newer" and "stream" not in copy.body
    assert copy.request.get("authorization") == f"Bearer {UPSTREAM_KEY}"


def test_the_shipped_json_schema_guard(start, upstreams):
    up = upstreams()

    def answers(ex):
        good = "Wrong: " in ex.request.body.decode()
        ex.reply({**CHAT, "choices": [{**CHAT["choices"][0], "message": {"role": "assistant", "content": '{"n":1}' if good else "one"}}]})
    up.on("m", answers)
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"upstream": "a"}, "policies": ["json_schema_guard"]}]})
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    answer = ask(p, chat("m", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}))
    assert answer.json()["choices"][0]["message"]["content"] == '{"n":1}' and len(up.exchanges) == 2
    assert p.request_line(answer)["schema"] == "repaired"
