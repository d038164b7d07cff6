"""Q: policies in shadow: they decide, are told of and counted where they differ, and change nothing."""
import pytest

from client import ask, chat, eventually
from conftest import UPSTREAM_KEY
from proxy import Proxy, run
from upstream import Upstream

SHADOWS = {
    "s_admit": """admit = function(req)
        if req.client.headers["x-tier"] == "banned" then return { deny = 403, code = "banned", message = "no" } end
    end""",
    "s_route": 'route = function(req, candidates) if req.model ~= "leave" then return "b" end end',
    "s_choose": "choose = function(candidates) return { candidates[2], candidates[1] } end",
    "s_request": """request = function(req, body)
        if req.model == "look" then return end
        body.temperature = 0.5
        body.messages[1].content = "replaced"
        req.upstream.headers["x-shadow"] = "1"
        req.upstream.headers["x-real"] = "spoilt"
        req.upstream.path = "/elsewhere"
        req.ctx.note = "spoilt"
        return { gone = true }
    end""",
    "s_retry": "retry = function(req, attempt) return { stop = true } end",
    "s_broken": """admit = function(req) error("a mistake of the shadow") end,
    route = function() return "nobody" end, request = function(req, body) return body.x.y end, retry = function() return 42 end""",
    "s_waits": """admit = function(req) claw.time.sleep(20) return { deny = 418 } end,
    request = function(req, body) body.slow = true claw.time.sleep(20) body.slow = 2 end""",
}
REAL = """return { name = "real", api = 1,
    request = function(req, body) req.upstream.headers["x-real"] = "kept" req.ctx.note = "mine" body.real = true end,
    log = function(req) return { note = req.ctx.note } end }"""


@pytest.fixture(scope="module")
def shadows():
    up = Upstream()
    p = Proxy({
        "upstreams": {n: {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(f"/{n}/v1")} for n in ("a", "b")},
        "routes": [{"id": n, "match": {"path": "/v1/*", "headers": {"x-route": n}}, "policies": ["real", n],
                    "strategy": {"type": "failover", "upstreams": ["a", "b"]}} for n in SHADOWS],
        "policies": {"always": [], "shadow": ["s_*"]},
        "retry": {"backoff_ms": 10, "jitter": 0},
    }, policies={**{f"{n}.lua": f'return {{ name = "{n}", api = 1, {text} }}' for n, text in SHADOWS.items()}, "real.lua": REAL})
    p.up = up
    yield p
    p.stop()
    up.stop()


def go(p, name, model="m", headers=()):
    return ask(p, chat(model), headers=[("x-route", name), *headers])


def told(p, answer, hook):
    """The shadow decisions of one request at a hook; its access line is written behind them."""
    assert p.request_line(answer)
    rid = answer.get("x-openclaw-request-id")
    return [l for l in p.lines if l["msg"] == "shadow decision" and l["request_id"] == rid and l["hook"] == hook]


def test_admit(shadows):
    answer = go(shadows, "s_admit", headers=[("x-tier", "banned")])
    assert answer.status == 200
    line, = told(shadows, answer, "admit")
    assert (line["policy"], line["real"], line["shadow"], line["level"]) == ("s_admit", "pass", "deny 403 banned", "info")
    answer = go(shadows, "s_admit")
    assert answer.status == 200 and told(shadows, answer, "admit") == []
    for differs in ("true", "false"):
        assert eventually(lambda: shadows.metric("openclaw_policy_shadow_total", policy="s_admit", hook="admit", differs=differs) == 1)


@pytest.mark.parametrize("name,hook", [("s_route", "route"), ("s_choose", "choose")])
def test_order(shadows, name, hook):
    answer = go(shadows, name)
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "a"
    line, = told(shadows, answer, hook)
    assert (line["policy"], line["real"], line["shadow"]) == (name, "a, b", "b, a")


def test_a_verdict_that_leaves_things_does_not_differ(shadows):
    assert told(shadows, go(shadows, "s_route", "leave"), "route") == []
    assert told(shadows, go(shadows, "s_request", "look"), "request") == []


def test_request_reaches_no_upstream(shadows):
    mark = shadows.up.mark()
    answer = go(shadows, "s_request")
    assert answer.status == 200
    got = shadows.up.since(mark)[0]
    assert got.body == {**chat("m"), "real": True}
    assert got.request.get("x-real") == "kept" and got.request.get("x-shadow") is None
    assert got.request.target == "/a/v1/chat/completions"
    assert shadows.request_line(answer)["note"] == "mine"
    line, = told(shadows, answer, "request")
    assert line["real"] == "unchanged"
    for words in ("+ gone", "- messages", "header x-shadow", "header x-real", "path"):
        assert words in line["shadow"], line["shadow"]
    assert "replaced" not in str(line), "bodies hold what users wrote"


def test_retry(shadows):
    shadows.up.on("fails", lambda ex: ex.reply({"error": {"message": "x"}}, 503) if ex.request.target.startswith("/a/") else ex.reply())
    answer = go(shadows, "s_retry", "fails")
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "b"
    line, = told(shadows, answer, "retry")
    assert (line["real"], line["shadow"]) == ("next", "stop")


def test_errors_fail_nothing(shadows):
    shadows.up.on("fails-too", lambda ex: ex.reply({"error": {"message": "x"}}, 503) if ex.request.target.startswith("/a/") else ex.reply())
    answer = go(shadows, "s_broken", "fails-too")
    assert answer.status == 200
    assert shadows.request_line(answer)
    rid = answer.get("x-openclaw-request-id")
    lines = [l for l in shadows.lines if l["msg"] == "a policy failed in shadow" and l["request_id"] == rid]
    assert {l["hook"] for l in lines} == {"admit", "route", "request", "retry"}
    assert all(l["level"] == "error" and l["policy"] == "s_broken" for l in lines)
    assert "policies/s_broken.lua:1: a mistake of the shadow" in next(l["error"] for l in lines if l["hook"] == "admit")
    for hook in ("admit", "route", "retry"):
        assert shadows.metric("openclaw_policy_errors_total", policy="s_broken", hook=hook) >= 1
        assert shadows.metric("openclaw_policy_shadow_total", policy="s_broken", hook=hook, differs="error") >= 1


def test_one_that_waits(shadows):
    mark = shadows.up.mark()
    answer = go(shadows, "s_waits")
    assert answer.status == 200 and shadows.up.since(mark)[0].body == {**chat("m"), "real": True}
    assert told(shadows, answer, "admit")[0]["shadow"] == "deny 418 denied"
    assert told(shadows, answer, "request")[0]["shadow"] == "changes + slow"


def test_listed_nowhere_else_it_runs_on_every_request(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "policies": {"always": [], "shadow": ["closed"]},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["a"]}}]},
              policies={"closed.lua": 'return { name = "closed", api = 1, admit = function() return { deny = 403 } end }'})
    answer = ask(p, chat())
    assert answer.status == 200 and told(p, answer, "admit")[0]["shadow"] == "deny 403 denied"


@pytest.mark.parametrize("policies,route,where,words", [
    ("{shadow: [clsoed]}", "failover", "policies.shadow[0]", 'no policy "clsoed" (did you mean "closed"?)'),
    ("{shadow: [closed]}", "closed", "routes[0].strategy.type", "cannot be the strategy"),
])
def test_check(tmp_path, policies, route, where, words):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "closed.lua").write_text('return { name = "closed", api = 1, choose = function(list) return list end }')
    config = tmp_path / "openclaw.yaml"
    config.write_text(f"upstreams: {{a: {{type: mock}}}}\npolicies: {policies}\nroutes: [{{id: r, strategy: {{type: {route}, upstreams: [a]}}}}]\n")
    done = run("-check", "-config", config)
    assert done.returncode == 1 and where in done.stdout + done.stderr and words in done.stdout + done.stderr
