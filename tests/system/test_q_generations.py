"""Q: generations at run time: the list of those alive, the return to the last good one, the end of those that drain too long,
and a thousand of them one after the other."""
import os
import threading
import time

import pytest

from client import Raw, ask, chat, data_of, eventually, request
from proxy import INSTRUMENTED
from upstream import stream_events
from wire import Cut

pytestmark = pytest.mark.alone


def config(up, **policies):
    return {"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}],
            "policies": policies}


GOOD = """
return { name = "half", api = 1, request = function(req, body) body.version = "good" end }
"""
BAD = """
local n = 0
return { name = "half", api = 1,
    request = function(req, body)
        n = n + 1
        if n % 2 == 0 then error("boom number " .. n) end
        body.version = "bad"
    end }
"""
FIXED = GOOD.replace('"good"', '"fixed"')


class Load:
    """Requests one after the other in some threads, until it is told to stop; (when, status) of each."""

    def __init__(self, p, threads=4):
        self.p, self.seen, self.failed, self.end = p, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.one, daemon=True) for _ in range(threads)]
        for t in self.threads:
            t.start()

    def one(self):
        try:
            with Raw(self.p.port, timeout=20 * self.p.slow) as c:
                while not self.end.is_set():
                    status = c.send(request(body=chat("m"))).response().status
                    self.seen.append((time.monotonic(), status))
        except BaseException as e:
            self.failed.append(e)

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join(30 * self.p.slow)
        assert self.failed == []
        return self.seen


def by_id(p):
    return {g["id"]: g for g in p.generations()["generations"]}


def rolled_back(p, n=1):
    p.wait_metric("openclaw_generation_rollbacks_total", lambda v: v == n)


@pytest.mark.timeout(60)
def test_a_policy_that_fails_half_is_taken_back(start, upstreams):
    up = upstreams()
    p = start(config(up), policies={"half.lua": GOOD})
    load = Load(p)
    try:
        assert eventually(lambda: len(load.seen) > 50, 10 * p.slow)
        only = by_id(p)[1]
        assert only["state"] == "current" and only["reason"] == "start" and only["policy_errors"] == 0 and only["requests"] > 50
        assert len(only["in_flight_by_worker"]) == 2 and sum(only["in_flight_by_worker"]) == only["in_flight"] <= 4
        p.drop_policy("half.lua", BAD)
        line = p.wait_log(lambda l: (l["msg"] or "").startswith("generation rolled back"))
        rolled_back(p)
        assert line["level"] == "error" and line["from"] == 2 and line["generation"] == 1
        assert line["policy"] == "half" and line["hook"] == "request" and "policies/half.lua:6: boom number" in line["error"]
        assert line["policy_errors"] >= 10 and line["policy_errors"] * 5 >= line["requests"]
        p.wait_metric("openclaw_generation", lambda v: v == 1)
        # 200s again, all of them: what was under way on the other one is over first
        assert eventually(lambda: by_id(p).keys() == {1}, 5 * p.slow)
        back = time.monotonic()
        assert eventually(lambda: len([1 for at, _ in load.seen if at > back]) > 100, 10 * p.slow)
        told = p.generations()
        assert told["current"]["id"] == 1 and told["generations"][0]["reason"] == "rollback" and not told["generations"][0]["on_probation"]
        last = told["last_rollback"]
        assert (last["from"], last["to"], last["policy"], last["hook"]) == (2, 1, "half", "request") and "boom number" in last["message"]
        assert p.admin("/readyz")[0] == 200
    finally:
        seen = load.stop()
    assert {status for _, status in seen} == {200, 500}
    assert {status for _, status in seen[-100:]} == {200}
    bad = [at for at, status in seen if status == 500]
    assert max(bad) - min(bad) < 2 * p.slow
    # touched, it is the same: it stays where it is; a broken edit is refused; asked for, it comes again and goes again
    unchanged = p.metric("openclaw_reloads_total", result="unchanged")
    p.drop_policy("half.lua", BAD)
    p.wait_metric("openclaw_reloads_total", lambda v: v > unchanged, result="unchanged")
    assert p.generation() == 1
    p.drop_policy("half.lua", BAD.replace("then", ""))
    p.wait_metric("openclaw_reloads_total", lambda v: v == 1, result="refused")
    assert p.generation() == 1 and "half.lua:6" in p.generations()["last_error"]["report"]
    refused = p.metric("openclaw_reloads_total", result="unchanged")
    p.drop_policy("half.lua", BAD)
    p.wait_metric("openclaw_reloads_total", lambda v: v > refused, result="unchanged")
    assert ask(p, chat()).status == 200 and p.generations()["last_error"] is None
    assert p.admin("/reload", "POST")[1].startswith('{"result":"published"')
    assert by_id(p)[3]["on_probation"] and by_id(p)[1]["kept"]
    for _ in range(100):
        ask(p, chat())
        if p.metric("openclaw_generation_rollbacks_total") == 2:
            break
    rolled_back(p, 2)
    before = p.generations()["current"]["id"]
    assert before == 1
    # mended, it is the current one
    p.drop_policy("half.lua", FIXED)
    p.wait_generation(3)
    mark = up.mark()
    assert ask(p, chat()).status == 200
    assert up.since(mark)[0].body["version"] == "fixed"
    assert p.generations()["last_rollback"]["from"] == 3


def test_nothing_to_return_to_is_told_once(start, upstreams):
    p = start(config(upstreams(), rollback={"errors": 3, "percent": 30}), policies={"half.lua": BAD})

    def told():
        return [l for l in p.lines if "no earlier generation" in (l["msg"] or "")]
    for _ in range(40):
        ask(p, chat())
    assert eventually(told, 5 * p.slow)
    for _ in range(10):
        ask(p, chat())
    assert p.metric("openclaw_generation_rollbacks_total") == 0 and len(told()) == 1
    assert p.generations()["last_rollback"] is None and p.generation() == 1
    assert not by_id(p)[1]["on_probation"]


def test_without_rollback_it_stays(start, upstreams):
    p = start(config(upstreams(), rollback=False), policies={"half.lua": GOOD})
    p.drop_policy("half.lua", BAD)
    p.wait_generation(1)
    statuses = [ask(p, chat()).status for _ in range(60)]
    failed = statuses.count(500)
    assert failed > 20          # each worker begins with one that it serves
    assert p.generation() == 2 and p.generations()["live"] == 1 and by_id(p)[2]["policy_errors"] == failed


def test_requests_of_an_old_generation_are_cut_in_the_end(start, upstreams):
    up = upstreams()
    up.on("endless", lambda ex: (ex.stream_head(), ex.chunk(stream_events()[0]), ex.until_gone()))
    up.on("silent", lambda ex: ex.until_gone())
    p = start(config(up, drain_max_seconds=1), policies={"half.lua": GOOD})
    with Raw(p.port, timeout=20 * p.slow) as c, Raw(p.port, timeout=20 * p.slow) as whole:
        c.send(request(body=chat("endless", stream=True)))
        m = c.head()
        c.chunk(m)
        whole.send(request(body=chat("silent")))
        up.wait_seen("silent", 1)
        started = time.monotonic()
        p.drop_policy("half.lua", FIXED)
        p.wait_generation(1)
        assert time.monotonic() - started < 1 * p.slow          # nobody waits for it
        old = by_id(p)[1]
        assert old["state"] == "draining" and old["in_flight"] == 2 == sum(old["in_flight_by_worker"]) and old["draining_ms"] < 1000 * p.slow
        with pytest.raises(Cut):
            c.reader.rest(m)
        assert time.monotonic() - started > 0.9
        error = data_of(m)[-1]["error"]
        assert error["code"] == "outlived" and error["type"] == "timeout_error" and "drain_max_seconds" in error["message"]
        answer = whole.response()
        assert answer.status == 504 and answer.json()["error"]["code"] == "outlived"
    line = p.wait_log(lambda l: "drain_max_seconds are over" in (l["msg"] or ""))
    assert line["level"] == "warn" and line["generation"] == 1 and line["requests"] == 2
    assert p.request_line(m)["error"] == "outlived"
    assert eventually(lambda: by_id(p)[1]["in_flight"] == 0, 5 * p.slow)
    assert ask(p, chat()).status == 200


RELOADS = int(os.environ.get("CLAW_RELOADS", "100" if INSTRUMENTED else "300"))


@pytest.mark.not_under("slowio", reason="hundreds of reloads")
@pytest.mark.skipif(INSTRUMENTED, reason="the instrumentation's own memory would be measured")
@pytest.mark.timeout(60 + RELOADS)
def test_reloads_under_load_keep_memory_flat(start, upstreams):
    """CLAW_RELOADS of them after a hundred that warm up."""
    up = upstreams()
    p = start(config(up), policies={"half.lua": GOOD})

    def go(first, n):
        for i in range(first, first + n):
            p.drop_policy("half.lua", GOOD.replace('"good"', f'"{i}"'))
            status, text, _ = p.admin("/reload", "POST")
            assert status == 200, text       # published here, or by the watch a moment ago
    def settled():
        """Resident, without generations that only wait for a turn of a busy machine to be freed."""
        eventually(lambda: p.generations()["live"] <= 2, 10 * p.slow)
        return p.rss()

    load = Load(p, threads=2)
    try:
        go(0, 100)
        before = settled()
        go(100, RELOADS)
        after = settled()
    finally:
        seen = load.stop()
    assert len(seen) > 100 and [s for _, s in seen if s != 200] == []
    assert p.metric("openclaw_reloads_total", result="published") == 101 + RELOADS
    assert p.metric("openclaw_reloads_total", result="refused") == 0
    assert eventually(lambda: p.generations()["live"] <= 2, 5 * p.slow)
    assert after - before <= 8 << 20, f"{(after - before) >> 10} KB"
    assert {g["state"] for g in p.generations()["generations"]} <= {"current", "draining"}
    mark = up.mark()
    assert ask(p, chat()).status == 200 and up.since(mark)[0].body["version"] == str(99 + RELOADS)


# Something of each kind that a generation owns: compiled patterns, series, keys, tasks, timers, notes, bytes of bodies.
RICH = """
local words = require("lib.words")
local P = { name = "half", api = 1 }
function P.init(conf) P.mine = { conf.policies.settings, claw.re.match("a1", "[0-9]") } end
function P.selftest() assert(claw.json.decode("[1]")[1] == 1) end
function P.admit(req) claw.state(req).seen = claw.store.incr("seen", 1, { ttl_ms = 60000 }) end
function P.route(req, candidates) return claw.route.round_robin(candidates, req) end
function P.request(req, body)
    body.version = VERSION
    body.words = claw.re.gsub("a b c", "[a-c]", words[1])
    req.upstream.headers["x-version"] = VERSION
    local task = claw.task.spawn(function() claw.time.sleep(1) return 1 end)
    claw.metrics.count("requests", 1, claw.task.wait(task))
    claw.task.background(function(text) claw.time.sleep(2) claw.hash(text) end, tostring(body))
end
function P.response(req, body) body.back = VERSION end
function P.log(req) return { seen = claw.state(req).seen } end
return P
"""
@pytest.mark.skipif(not INSTRUMENTED, reason="says something only where allocations are watched")
@pytest.mark.not_under("tsan", reason="looks at memory")
@pytest.mark.timeout(60 + 3 * RELOADS)
def test_reloads_under_load_leave_nothing_behind(start, upstreams):
    """CLAW_RELOADS of them, every tenth refused; the judge is valgrind or LeakSanitizer, when the process ends."""
    up = upstreams()
    up.default = lambda ex: ex.reply({"version": ex.body["version"]})
    p = start(config(up), policies={})
    (p.policies / "lib").mkdir()
    (p.policies / "lib" / "words.lua").write_text('return { "word" }')
    load = None
    try:
        for i in range(RELOADS):
            p.drop_policy("half.lua", (RICH if i % 10 != 9 else RICH.replace("return P", "return nil")).replace("VERSION", f'"{i}"'))
            status, text, _ = p.admin("/reload", "POST")
            assert status == (200 if i % 10 != 9 else 422), text
            load = load or Load(p, threads=2)
    finally:
        seen = load.stop()
    assert len(seen) > RELOADS and [s for _, s in seen if s != 200] == []
    assert p.metric("openclaw_reloads_total", result="published") == 1 + RELOADS - RELOADS // 10
    failed = [l for l in list(p.lines) if l.get("msg") == "a policy failed"]
    assert p.metric("openclaw_policy_errors_total") == 0, failed[:3]
    assert eventually(lambda: p.generations()["live"] <= 2, 10 * p.slow)
