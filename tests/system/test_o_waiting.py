"""O: policies that wait: sleep, fetch, tasks, background work; clients that leave meanwhile, and reloads."""
import json
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, in_parallel, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from upstream import CHAT, Upstream

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


def test_a_kept_handle_says_that_its_request_is_over(waiting):
    assert go(waiting, "keeping", "first").status == 200
    line = waiting.wait_log(lambda l: l.get("msg") == "kept")
    assert "the request is over" in json.dumps(line)
