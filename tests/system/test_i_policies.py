"""I: policies: every hook seen from outside, and files that come, change, break and go while requests run."""
import json
import re
import signal
import threading
import time

import pytest

from client import Raw, ask, chat, data_of, eventually, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from upstream import CHAT, Upstream, stream_events
from wire import Cut

HOOKS = {
    "admitting.lua": """
return { name = "admitting", api = 1,
    admit = function(req)
        if req.client.headers["x-tier"] == "banned" then
            return { deny = 403, code = "banned", message = "not today" }
        end
    end }
""",
    "routing.lua": """
return { name = "routing", api = 1,
    route = function(req, candidates)
        local wanted = req.client.headers["x-wanted"]
        if wanted == "reversed" then
            local out = {}
            for i = #candidates, 1, -1 do out[#out + 1] = candidates[i] end
            return out
        end
        return wanted
    end }
""",
    "requesting.lua": """
return { name = "requesting", api = 1,
    request = function(req, body)
        body.temperature = 0.5
        body.seen_upstream = req.upstream.name
        body.dropped = nil
        req.upstream.headers["x-policy"] = "was-here"
        return body
    end }
""",
    "pathing.lua": """
return { name = "pathing", api = 1,
    request = function(req, body)
        req.upstream.path = "/messages"
        return { model = body.model, converted = true }
    end }
""",
    "stubborn.lua": """
return { name = "stubborn", api = 1,
    retry = function(req, attempt)
        if req.model == "never" then return { stop = true } end
        if req.model == "patient" and attempt.n == 1 then return { after_ms = 300 } end
    end }
""",
    "shouting.lua": """
return { name = "shouting", api = 1,
    event = function(req, ev)
        if ev.data:find("tok1", 1, true) then return false end
        if ev.data:find("tok2", 1, true) then return { data = (ev.data:gsub("tok2", "TOK2")) } end
        if ev.data:find("tok3", 1, true) then return { { data = '{"extra":1}' }, { type = "named", data = ev.data } } end
    end }
""",
    "answering.lua": """
return { name = "answering", api = 1,
    response = function(req, body)
        body.policy = "saw " .. body.choices[1].message.content
        return body
    end }
""",
    "accounting.lua": """
return { name = "accounting", api = 1,
    cost = function(req, usage) return usage.input * 1000 + usage.output end,
    log = function(req) return { tier = req.client.headers["x-tier"], nested = { a = { 1, 2 } }, status = "mine", ratio = 0.5 } end }
""",
    "failing.lua": """
return { name = "failing", api = 1,
    request = function(req, body)
        local secret = "local-detail-" .. tostring(nil_global.field)
        return body
    end }
""",
    "skipping.lua": """
return { name = "skipping", api = 1, on_error = "skip", request = function(req, body) error("skipped-mistake") end }
""",
    "odd.lua": """
return { name = "odd", api = 1, admit = function(req) return 42 end }
""",
    "unknown.lua": """
return { name = "unknown", api = 1, route = function(req, candidates) return "no-such-upstream" end }
""",
    "carrying.lua": """
return { name = "carrying", api = 1,
    admit = function(req) req.ctx.note = "kept-" .. req.model end,
    log = function(req) return { note = req.ctx.note } end }
""",
    "adaptor.lua": "return function(req, body) body.adapted = true return body end\n",
    "adaptor_back.lua": "return function(req, body) body.adapted_back = true return body end\n",
}


def route(name, *policies, upstreams=("a", "b"), **more):
    return {"id": name, "match": {"path": "/v1/*", "headers": {"x-route": name}}, "policies": list(policies),
            "strategy": {"type": "failover", "upstreams": list(upstreams)}, **more}


@pytest.fixture(scope="module")
def hooks():
    up = Upstream()
    p = Proxy({
        "upstreams": {n: {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(f"/{n}/v1")} for n in ("a", "b", "t")},
        "routes": [route(n, n) for n in ("admitting", "routing", "requesting", "pathing", "stubborn", "shouting", "answering", "accounting",
                                         "failing", "skipping", "odd", "unknown", "carrying")]
        + [route("plain"), route("transformed", upstreams=["t"]), route("two", "requesting", "answering")],
        "policies": {"always": []},
        "retry": {"backoff_ms": 10, "jitter": 0},
        "transformations": [{"id": "x", "match": {"upstream_name": "t"}, "request": {"script": "adaptor.lua"}, "response": {"script": "adaptor_back.lua"}}],
    }, policies=HOOKS)
    p.up = up
    yield p
    p.stop()
    up.stop()


def go(p, name, model="m", headers=(), **more):
    return ask(p, chat(model, **more), headers=[("x-route", name), *headers])


def test_admit(hooks):
    mark = hooks.up.mark()
    answer = go(hooks, "admitting", headers=[("x-tier", "banned")])
    assert answer.status == 403 and answer.json()["error"]["code"] == "banned" and answer.json()["error"]["message"] == "not today"
    assert hooks.up.since(mark) == []
    assert hooks.request_line(answer)["status"] == 403
    assert go(hooks, "admitting").status == 200


def test_route(hooks):
    assert go(hooks, "routing").get("x-openclaw-upstream") == "a"
    assert go(hooks, "routing", headers=[("x-wanted", "b")]).get("x-openclaw-upstream") == "b"
    assert go(hooks, "routing", headers=[("x-wanted", "reversed")]).get("x-openclaw-upstream") == "b"


def test_request(hooks):
    mark = hooks.up.mark()
    assert ask(hooks, b'{"model":"m","big":9007199254740993,"empty":[],"none":{},"dropped":1,"messages":[]}', headers=[("x-route", "requesting")]).status == 200
    got = hooks.up.since(mark)[0]
    assert got.body["temperature"] == 0.5 and got.body["seen_upstream"] == "a" and "dropped" not in got.body
    assert b'"big":9007199254740993' in got.request.body and b'"empty":[]' in got.request.body and b'"none":{}' in got.request.body
    assert got.request.get("x-policy") == "was-here"
    assert got.request.get("authorization") == f"Bearer {UPSTREAM_KEY}"


def test_request_again_for_each_attempt(hooks):
    hooks.up.on("fo", lambda ex: ex.reply({"error": {"message": "x"}}, 500) if ex.request.target.startswith("/a/") else ex.reply())
    mark = hooks.up.mark()
    assert go(hooks, "requesting", "fo").status == 200
    assert [e.body["seen_upstream"] for e in hooks.up.since(mark)] == ["a", "b"]


def test_request_path_and_table_body(hooks):
    mark = hooks.up.mark()
    assert go(hooks, "pathing").status == 200
    got = hooks.up.since(mark)[0]
    assert got.request.target == "/a/v1/messages" and got.body == {"model": "m", "converted": True}


def test_retry(hooks):
    for name in ("never", "patient", "usual"):
        hooks.up.on(name, lambda ex: ex.reply({"error": {"message": "x"}}, 503) if ex.request.target.startswith("/a/") else ex.reply())
    mark = hooks.up.mark()
    assert go(hooks, "stubborn", "never").status == 503 and len(hooks.up.since(mark)) == 1
    assert go(hooks, "stubborn", "usual").get("x-openclaw-upstream") == "b"
    mark = hooks.up.mark()
    go(hooks, "stubborn", "patient")
    first, second = hooks.up.since(mark)[:2]
    assert second.request.at - first.request.at >= 0.28


def test_event(hooks):
    answer = go(hooks, "shouting", stream=True)
    text = answer.text
    assert answer.complete and "tok0" in text and "tok1" not in text and "TOK2" in text and '{"extra":1}' in text and "event: named\n" in text and "tok4" in text
    assert text.index('{"extra":1}') < text.index("event: named") < text.index("tok4")
    assert data_of(answer)[-1] == b"[DONE]"


def test_response(hooks):
    hooks.up.on("r", lambda ex: ex.reply(json.dumps(CHAT, indent=1).encode()))
    answer = go(hooks, "answering", "r")
    assert answer.status == 200 and answer.json() == {**CHAT, "policy": "saw Hello."}
    assert int(answer.get("content-length")) == len(answer.body)


def test_response_of_a_compressed_answer_is_not_garbled(hooks):
    """The policy sees JSON or nothing: the upstream is not offered a coding nobody reads here, or it is decoded."""
    import gzip

    def script(ex):
        codings = (ex.request.get("accept-encoding") or "").lower()
        if "gzip" in codings:
            return ex.reply(gzip.compress(json.dumps(CHAT).encode()), headers=[("content-encoding", "gzip")])
        ex.reply()
    hooks.up.on("gz", script)
    answer = go(hooks, "answering", "gz", headers=[("Accept-Encoding", "gzip")])
    body = gzip.decompress(answer.body) if answer.get("content-encoding") == "gzip" else answer.body
    assert answer.status == 200 and json.loads(body)["policy"] == "saw Hello."


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_what_comes_compressed_all_the_same_does_not_go_by_its_policies(hooks, model, stream):
    """Though asked for identity. Another candidate is asked; where no policy would read it, it is the client's."""
    import gzip
    packed = gzip.compress(b"".join(stream_events()) if stream else json.dumps(CHAT).encode())

    def script(ex, only="/"):
        if ex.request.target.startswith(only):
            return ex.reply(packed, headers=[("content-encoding", "gzip")], type="text/event-stream" if stream else "application/json")
        ex.stream() if stream else ex.reply()
    hooks.up.on(model, lambda ex: script(ex, "/a/"))
    name = "shouting" if stream else "answering"
    answer = go(hooks, name, model, stream=stream)
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "b" and ("TOK2" in answer.text if stream else answer.json()["policy"])
    hooks.up.on(model, script)
    answer = go(hooks, name, model, stream=stream)
    assert answer.status == 502 and [a["kind"] for a in hooks.request_line(answer)["attempts"]] == ["bad_response"] * 2
    answer = go(hooks, "plain", model, stream=stream)
    assert answer.status == 200 and answer.body == packed


def test_cost_and_log(hooks):
    answer = go(hooks, "accounting", headers=[("x-tier", "gold\u00e9")])
    line = hooks.request_line(answer)
    assert line["cost_usd"] == pytest.approx(11007e-6)
    assert line["tier"].startswith("gold") and line["nested"] == {"a": [1, 2]} and line["ratio"] == 0.5
    assert line["status"] == 200 and line["policy.status"] == "mine"
    assert hooks.metric("openclaw_estimated_cost_usd_total", upstream_name="a") >= 0.011


def test_state_of_a_request(hooks):
    assert hooks.request_line(go(hooks, "carrying", "abc"))["note"] == "kept-abc"
    assert hooks.request_line(go(hooks, "carrying", "def"))["note"] == "kept-def"


def test_several_policies(hooks):
    mark = hooks.up.mark()
    answer = go(hooks, "two")
    assert answer.json()["policy"] == "saw Hello." and hooks.up.since(mark)[0].body["temperature"] == 0.5


def test_transformation_scripts(hooks):
    mark = hooks.up.mark()
    answer = go(hooks, "transformed")
    assert hooks.up.since(mark)[0].body["adapted"] is True and answer.json()["adapted_back"] is True
    mark = hooks.up.mark()
    assert go(hooks, "plain").status == 200 and "adapted" not in hooks.up.since(mark)[0].body


def test_policy_error(hooks):
    mark = hooks.up.mark()
    answer = go(hooks, "failing")
    error = answer.json()["error"]
    assert answer.status == 500 and error["code"] == "policy_error"
    for inside in ("failing.lua", "nil_global", "traceback", "stack", "local-detail", "attempt to"):
        assert inside not in answer.text, "details of a policy are for the log"
    assert hooks.up.since(mark) == []
    line = hooks.wait_log(lambda l: "failing.lua:4" in json.dumps(l) and l.get("level") == "error")
    assert "traceback" in json.dumps(line).lower()
    assert hooks.metric("openclaw_policy_errors_total", policy="failing", hook="request") >= 1
    assert go(hooks, "plain").status == 200


def test_policy_error_that_is_skipped(hooks):
    assert go(hooks, "skipping").status == 200
    hooks.wait_log(lambda l: "skipped-mistake" in json.dumps(l))


@pytest.mark.parametrize("name,words", [("odd", ("odd", "admit", "42")), ("unknown", ("unknown", "route", "no-such-upstream"))])
def test_verdicts_of_the_wrong_kind(hooks, name, words):
    answer = go(hooks, name)
    assert answer.status == 500 and answer.json()["error"]["code"] == "policy_error"
    hooks.wait_log(lambda l: l.get("level") == "error" and all(w in json.dumps(l) for w in words))


def test_response_policy_does_not_touch_streams_or_errors_wrongly(hooks):
    assert go(hooks, "answering", stream=True).body == b"".join(stream_events())
    hooks.up.on("answer-400", lambda ex: ex.reply({"error": {"message": "no"}}, 400))
    answer = go(hooks, "answering", "answer-400")
    assert answer.status == 400


# -- files that change while the proxy runs ------------------------------------------------------------------------

def stamp(text):
    return f"""
return {{ name = "stamp", api = 1,
    request = function(req, body) body.stamp = "{text}" return body end }}
"""


@pytest.fixture
def live(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}],
               "policies": {"rollback": False}})      # none is kept to return to: what is alive is counted here
    p.up = up
    return p


def stamped(p):
    mark = p.up.mark()
    assert ask(p, chat()).status == 200
    return p.up.since(mark)[0].body.get("stamp")


def within_a_second(p, check):
    """1 s is the promise; the allowance is for a loaded machine's polling."""
    started = time.monotonic()
    assert eventually(check, 3 * p.slow)
    took = time.monotonic() - started
    assert took < 1.0 * p.slow, f"{took:.2f} s"


def test_drop_edit_delete(live):
    assert stamped(live) is None
    live.drop_policy("stamp.lua", stamp("one"))
    within_a_second(live, lambda: stamped(live) == "one")
    (live.policies / "stamp.lua").write_text(stamp("two"))     # in place, as some editors do
    within_a_second(live, lambda: stamped(live) == "two")
    (live.policies / "stamp.lua").unlink()
    within_a_second(live, lambda: stamped(live) is None)
    assert eventually(lambda: live.generations()["live"] == 1)
    assert live.metric("openclaw_reloads_total", result="published") >= 3


def test_changes_that_no_event_tells(live):
    """Links to what lies elsewhere, and a folder that took another's place: as with mounts that events do not cross. The second
    change follows the look that found the first, and waits longest for the next."""
    elsewhere = live.dir / "elsewhere.lua"
    elsewhere.write_text(stamp("linked"))
    (live.policies / "stamp.lua").symlink_to(elsewhere)
    within_a_second(live, lambda: stamped(live) == "linked")
    for text in ("one", "two"):
        elsewhere.write_text(stamp(text))
        within_a_second(live, lambda: stamped(live) == text)
    live.policies.rename(live.dir / "before")
    live.policies.mkdir()
    within_a_second(live, lambda: stamped(live) is None)
    for text in ("three", "four"):
        live.drop_policy("stamp.lua", stamp(text))
        within_a_second(live, lambda: stamped(live) == text)


def test_many_edits_end_at_the_last(live):
    for i in range(30):
        live.drop_policy("stamp.lua", stamp(f"n{i}"))
    within_a_second(live, lambda: stamped(live) == "n29")


def test_sighup(live):
    before = live.generation()
    config = json.loads(live.config_path.read_text())
    config["upstreams"]["u"]["headers"] = {"x-new": "1"}
    live.config_path.write_text(json.dumps(config))
    live.signal(signal.SIGHUP)
    live.wait_generation(before)
    mark = live.up.mark()
    ask(live, chat())
    assert live.up.since(mark)[0].request.get("x-new") == "1"


def test_sighup_without_a_change(live):
    before = live.generation()
    live.signal(signal.SIGHUP)
    live.wait_metric("openclaw_reloads_total", lambda v: v >= 1, result="unchanged")
    assert live.generation() == before


BROKEN = {
    "syntax": ("return {\n  name = 'stamp', api = 1,\n  admit = function(req) if end,\n}\n", "policies/stamp.lua:3"),
    "unknown hook": ("return { name = 'stamp', api = 1, requets = function() end }\n", "requets"),
    "no table": ("return 7\n", "policies/stamp.lua"),
    "selftest": ("return { name = 'stamp', api = 1,\n  selftest = function() error('not fit') end }\n", "policies/stamp.lua:2"),
    "runtime": ("local x = nil\nlocal y = x.z\nreturn { name = 'stamp', api = 1 }\n", "policies/stamp.lua:2"),
    "bytecode": ("\x1bLJ\x02junk", "stamp.lua"),
    "api": ("return { name = 'stamp', api = 99 }\n", "policies/stamp.lua"),
    "empty": ("", "policies/stamp.lua"),
}


@pytest.mark.parametrize("label", BROKEN)
def test_broken_file_keeps_the_old_generation(live, label):
    text, where = BROKEN[label]
    live.drop_policy("stamp.lua", stamp("good"))
    within_a_second(live, lambda: stamped(live) == "good")
    generation, refused = live.generation(), live.metric("openclaw_reloads_total", result="refused")
    live.drop_policy("stamp.lua", text)
    live.wait_metric("openclaw_reloads_total", lambda v: v > refused, result="refused")
    live.wait_log(lambda l: l.get("level") in ("error", "warn") and where in json.dumps(l))
    assert stamped(live) == "good" and live.generation() == generation
    live.drop_policy("stamp.lua", stamp("mended"))
    within_a_second(live, lambda: stamped(live) == "mended")


def test_broken_yaml_keeps_the_old_generation(live):
    before = live.generation()
    good = live.config_path.read_text()
    for text in (good.replace('"type": "openai"', '"type": "openia"'), "server: [", ""):
        refused = live.metric("openclaw_reloads_total", result="refused")
        live.config_path.write_text(text)
        live.signal(signal.SIGHUP)
        live.wait_metric("openclaw_reloads_total", lambda v: v > refused, result="refused")
        assert live.generation() == before and ask(live, chat()).status == 200
    live.wait_log(lambda l: "openia" in json.dumps(l) and re.search(r"openclaw\.yaml:\d+", json.dumps(l)))
    live.config_path.write_text(good)


def test_listen_address_change_is_only_said(live):
    config = json.loads(live.config_path.read_text())
    config["server"]["listen_port"] += 1
    config["server"]["timeout_seconds"] = 33
    live.config_path.write_text(json.dumps(config))
    live.signal(signal.SIGHUP)
    live.wait_log(lambda l: l.get("level") in ("warn", "info") and "listen_port" in json.dumps(l))
    assert ask(live, chat()).status == 200


def test_pinned_generation_and_a_stream_across_a_reload(live):
    """A stream begun before a reload ends with the policies it began with; the old generation lives as long as it."""
    go_on = threading.Event()

    def script(ex):
        ex.stream_head()
        events = stream_events()
        for one in events[:2]:
            ex.chunk(one)
        assert go_on.wait(15)
        for one in events[2:]:
            ex.chunk(one)
        ex.end()
    live.up.on("long", script)
    mark_events = """
return { name = "mark", api = 1, event = function(req, ev) return { data = (ev.data:gsub("tok", "%s")) } end }
"""
    live.drop_policy("mark.lua", mark_events % "OLD")
    live.wait_generation(1)
    with Raw(live.port, timeout=20) as c:
        c.send(request(body=chat("long", stream=True)))
        m = c.head()
        got = c.chunk(m)
        before = live.generation()
        live.drop_policy("mark.lua", mark_events % "NEW")
        live.wait_generation(before)
        assert b"NEW0" in ask(live, chat(stream=True)).body
        assert live.generations()["live"] == 2
        live.wait_metric("openclaw_generations_live", lambda v: v == 2)
        go_on.set()
        c.reader.rest(m)
    assert m.complete and b"NEW" not in m.body and m.body.count(b"OLD") >= 5 and got
    assert eventually(lambda: live.generations()["live"] == 1)


def test_policy_of_a_gone_request_cannot_be_used(start, upstreams):
    """A policy that keeps req beyond its request gets an error, not freed memory."""
    up = upstreams()
    p = start({"server": {"workers": 1}, "upstreams": {"u": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]},
              policies={"keeps.lua": "local kept\nreturn { name = 'keeps', api = 1, admit = function(req)\n  local old = kept\n  kept = req\n"
                                     "  if old then local _ = old.model .. tostring(old.body) end\nend }\n"})
    assert ask(p, chat()).status == 200
    answer = ask(p, chat())
    assert answer.status == 500 and answer.json()["error"]["code"] == "policy_error"
    p.wait_log(lambda l: "request is over" in json.dumps(l))


def test_policies_have_no_io(start, upstreams):
    up = upstreams()
    names = ("io", "os.execute", "os.getenv", "os.remove", "loadstring", "load", "dofile", "loadfile", "ffi", "debug", "package", "string.dump", "getfenv", "setfenv",
             "collectgarbage", "rawset", "newproxy", "jit")
    found = " .. ".join(f"(({n.split('.')[0]} ~= nil and {n} ~= nil) and '{n} ' or '')" for n in names)
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]},
              policies={"looks.lua": "return { name = 'looks', api = 1, log = function(req)\n  return { reachable = " + found + " }\nend }\n"})
    assert p.request_line(ask(p, chat()))["reachable"].split() == []


def test_injection_through_a_policy_is_refused(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]},
              policies={"inject.lua": "return { name = 'inject', api = 1, request = function(req, body)\n  req.upstream.headers[body.name] = body.value\nend }\n"})
    for name, value in (("x-a", "b\r\nx-evil: 1"), ("x-a\r\nx-evil", "b"), ("x a", "b"), ("", "b"), ("x-a", "\0"), ("content-length", "5"), ("transfer-encoding", "chunked"),
                        ("host", "evil.test"), ("connection", "close")):
        answer = ask(p, chat(name=name, value=value))
        assert answer.status == 500 and answer.json()["error"]["code"] == "policy_error", (name, value)
    assert ask(p, chat(name="x-fine", value="yes")).status == 200
    assert [e.request.get("x-fine") for e in up.exchanges] == ["yes"] and up.malformed == []


def test_event_injection_through_a_policy(start, upstreams):
    """Line ends in an event's data become data lines, not new fields."""
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]},
              policies={"lines.lua": "return { name = 'lines', api = 1, event = function(req, ev)\n  if ev.data:find('tok0') then return { data = 'a\\nb\\n\\nevent: x' } end\nend }\n"})
    try:
        answer = ask(p, chat(stream=True))
    except Cut as cut:
        answer = cut.part
    assert b"\nevent: x" not in answer.body
