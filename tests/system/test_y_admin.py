"""Y: the admin port: requests with how they were decided, what a reload changed, policies' errors with their places, who may ask;
and /openapi.json, which is held against what every page answers."""
import http.client
import json
import re
import socket
import threading

import pytest

from certs import Authority
from client import Raw, ask, chat, eventually, request
from proxy import ROOT

KEY = "sk-upstream-8c1b77aa9041"
TOKEN = "operators-only-5fd2a8e1"


def failing(ex):
    ex.reply({"error": {"message": "out of order"}}, 500)


def config(up, **more):
    return {"upstreams": {"u": {"type": "openai", "base_url": up.url(), "api_key": KEY}, "m": {"type": "mock"}},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u", "m"]}}], **more}


def of(p, path, **how):
    status, text, _ = p.admin(path, **how)
    assert status == 200, text
    return json.loads(text)


def kept(p, query="", n=None):
    """What /requests says, once there are n."""
    if n is not None:
        eventually(lambda: len(of(p, "/requests" + query)["requests"]) >= n)
    return of(p, "/requests" + query)["requests"]


# ---- what becomes of requests

def test_a_request_is_kept_with_how_it_was_decided(start, up, model):
    up.on(model, failing)
    p = start(config(up))
    assert ask(p, chat(model), path="/v1/chat/completions?key=abcdef").status == 200
    one = kept(p, n=1)[0]
    assert (one["route"], one["strategy"], one["upstream"], one["model"], one["status"]) == ("r", "failover", "m", model, 200)
    assert [c["upstream"] for c in one["candidates"]] == ["u", "m"] and not any(c["set_aside"] for c in one["candidates"])
    assert [(a["upstream"], a["status"], a.get("kind")) for a in one["attempts"]] == [("u", 500, "http_500"), ("m", 200, None)]
    assert one["cache"] == "bypass" and one["path"] == "/v1/chat/completions" and one["output_tokens"] > 0
    line = p.wait_log(lambda line: line["id"] == one["id"])
    assert line["status"] == 200 and abs(line["duration_ms"] - one["duration_ms"]) < 0.01
    assert KEY not in p.admin("/requests")[1] and "abcdef" not in p.admin("/requests")[1]


def test_who_is_set_aside_and_why(start, up, model):
    up.on(model, failing)
    p = start({**config(up), "upstreams": {"u": {"type": "openai", "base_url": up.url(), "cooling": True}, "m": {"type": "mock"}}})
    assert p.admin("/upstreams/u/cool?seconds=60", "POST")[0] == 200
    assert ask(p, chat(model)).status == 200
    one = kept(p, n=1)[0]
    assert [(c["upstream"], c["set_aside"]) for c in one["candidates"]] == [("m", False), ("u", True)]
    assert "admin" in one["candidates"][1]["why"] and [a["upstream"] for a in one["attempts"]] == ["m"]


def test_who_was_passed_over(start, up, model):
    p = start({**config(up), "rate_limits": [{"id": "u-a-day", "match": {"upstream_name": "u"}, "requests_per_day": 1, "burst": 0}]})
    for _ in range(2):
        assert ask(p, chat(model)).status == 200
    eventually(lambda: len(kept(p)) == 2)
    # Each worker notes the end of its own: which of the two ended first is not told by which was asked first.
    second = next(one for one in kept(p) if one["upstream"] == "m")
    assert [(c["upstream"], c.get("passed_over")) for c in second["candidates"]] == [("u", "limit"), ("m", None)]
    p = start({**config(up), "upstreams": {"claude": {"type": "anthropic", "api_key": "k" * 20, "base_url": up.url()}, "m": {"type": "mock"}},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["claude", "m"]}}]})
    spoken = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    assert ask(p, chat(model, messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}, spoken]}])).status == 200
    newest = kept(p, n=1)[0]
    assert [(c["upstream"], c.get("passed_over")) for c in newest["candidates"]] == [("claude", "untranslatable"), ("m", None)]


def test_filters(start, up, model):
    up.on(model, failing)
    p = start({**config(up), "clients": [{"name": "ann", "key": "key-of-ann-123456"}, {"name": "bob", "key": "key-of-bob-123456"}],
               "routes": [{"id": "one", "match": {"path": "/one/*"}, "strategy": {"type": "failover", "upstreams": ["m"]}},
                          {"id": "two", "match": {"path": "/two/*"}, "strategy": {"type": "failover", "upstreams": ["u"]}}]})
    asked = 0
    for path, who in (("/one/chat/completions", "key-of-ann-123456"), ("/two/chat/completions", "key-of-ann-123456"),
                      ("/one/chat/completions", "key-of-bob-123456"), ("/one/x", "wrong")):
        ask(p, chat(model), path=path, headers=[("authorization", f"Bearer {who}")])
        asked += 1
        kept(p, n=asked)                # one after the other: an answer may be there before its request is over
    everything = kept(p, n=4)
    assert [r["status"] for r in everything] == [401, 200, 500, 200]
    assert [r["at"] for r in everything] == sorted((r["at"] for r in everything), reverse=True)
    for query, expected in (("?route=one", 2), ("?upstream=u", 1), ("?client=ann", 2), ("?client=bob&route=one", 1), ("?client=127.0.0.1", 1), ("?status=5xx", 1),
                            ("?status=401", 1), ("?status=error", 2), ("?model=" + model, 3), ("?limit=3", 3), ("?route=nowhere", 0)):
        assert len(kept(p, query)) == expected, query
    assert [r["id"] for r in kept(p, f"?since={everything[2]['at']:.6f}")] == [r["id"] for r in everything[:2]]
    for query in ("?status=999", "?since=now", "?limit=0", "?colour=red", "?route=%zz"):
        assert p.admin("/requests" + query)[0] == 400, query


def test_no_more_are_kept_than_configured(start, up):
    p = start(config(up, admin={"recent_requests": 3}, server={"workers": 1}))
    for i in range(5):
        ask(p, chat(f"mock-{i}"))
    eventually(lambda: [r["model"] for r in kept(p)] == ["mock-4", "mock-3", "mock-2"])
    p.write_config(config(up, admin={"recent_requests": 0}, server={"workers": 1}))
    p.wait_generation(1)
    eventually(lambda: kept(p) == [])
    ask(p, chat("m"))
    p.wait_log(lambda line: line["model"] == "m")
    assert kept(p) == []


def test_what_came_is_cut_and_quoted(start, up):
    p = start(config(up))
    odd = '<img src=x onerror="alert(1)">\u2028' + "é" * 500
    ask(p, chat(odd))
    shown = kept(p, n=1)[0]["model"]
    assert shown.startswith('<img src=x onerror="alert(1)">') and len(shown) < 120


def test_requests_in_flight(start, up, model):
    come, go = threading.Event(), threading.Event()

    def waits(ex):
        come.set()
        go.wait(20)
        ex.reply()
    up.on(model, waits)
    p = start(config(up))
    try:
        with Raw(p.port) as c:
            c.send(request(body=chat(model)))
            assert come.wait(10)
            shown = of(p, "/requests/inflight")
            assert shown["count"] == 1
            one = shown["requests"][0]
            assert (one["model"], one["step"], one["upstream"], one["attempts"][0]["upstream"]) == (model, "upstream", "u", "u")
            assert one["duration_ms"] > 0 and "status" not in one
            go.set()
            assert c.response().status == 200
    finally:
        go.set()
    eventually(lambda: of(p, "/requests/inflight") == {"count": 0, "requests": []})


def test_looking_at_requests_while_they_come(start, up):
    """The worker writes where control reads; what is read is whole."""
    p = start(config(up, admin={"recent_requests": 8}))
    end = threading.Event()

    def asks():
        while not end.is_set():
            with Raw(p.port) as c:
                for i in range(40):
                    assert c.send(request(body=chat(f"mock-{i}"))).response().status == 200
    threads = [threading.Thread(target=asks) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        for _ in range(60):
            seen = kept(p)
            assert len({r["id"] for r in seen}) == len(seen) <= 16
            of(p, "/requests/inflight")
    finally:
        end.set()
        for t in threads:
            t.join()


# ---- generations, policies

def test_what_a_reload_changed(start, up):
    p = start(config(up), policies={"p.lua": "return { name = 'p', api = 1 }", "gone.lua": "return { name = 'gone', api = 1 }"})
    assert of(p, "/generations")["last_change"] is None
    (p.policies / "gone.lua").rename(p.policies / "other.lua")
    p.drop_policy("other.lua", "return { name = 'other', api = 1 }")
    p.drop_policy("p.lua", "return { name = 'p', api = 1, log = function() end }")
    changed = config(up)
    changed["upstreams"]["u"].update(api_key="sk-another-1234567890", timeout_seconds=7)
    changed["routes"].insert(0, {"id": "first", "match": {"path": "/first"}, "strategy": {"type": "failover", "upstreams": ["m"]}})
    changed["logging"] = {"level": "debug"}
    p.write_config(changed)
    eventually(lambda: (p.admin("/reload", "POST"), of(p, "/generations")["last_change"] and "first" in json.dumps(of(p, "/generations")["last_change"]))[1])
    told = of(p, "/generations")["last_change"]
    by_path = {c["path"]: c for c in told["changes"]}
    assert told["to"] > told["from"] >= 1 and told["changes_left_out"] == 0
    assert by_path["upstreams.u.api_key"] == {"path": "upstreams.u.api_key", "change": "changed", "before": "***", "after": "***"}
    assert by_path["upstreams.u.timeout_seconds"] == {"path": "upstreams.u.timeout_seconds", "change": "added", "after": "7"}
    assert by_path["logging.level"]["before"] == "info" and by_path["logging.level"]["after"] == "debug"
    assert by_path["routes[first].match.path"]["change"] == "added" and not any("routes[r]" in path for path in by_path)
    assert KEY not in json.dumps(told) and "sk-another" not in json.dumps(told)


def test_what_a_reload_changed_in_policies(start, up):
    p = start(config(up), policies={"p.lua": "return { name = 'p', api = 1 }"})
    p.drop_policy("p.lua", "return { name = 'p', api = 1, log = function() end }")
    p.wait_generation(1)
    assert of(p, "/generations")["last_change"]["changes"] == [{"path": "policies/p.lua", "change": "changed"}]


def test_policies_and_where_they_failed(start, up, model):
    text = "local P = { name = 'bad', api = 1 }\nfunction P.request(req, body)\n  error('no luck')\nend\nreturn P\n"
    p = start(config(up, policies={"rollback": False}), policies={"bad.lua": text})
    assert ask(p, chat(model)).status == 500
    told = of(p, "/policies")
    bad = next(x for x in told["policies"] if x["name"] == "bad")
    assert bad == {"name": "bad", "file": "policies/bad.lua", "builtin": False, "bytes": len(text)} and told["writable"] is False
    assert any(x["builtin"] for x in told["policies"])
    assert [(e["policy"], e["hook"], e["count"]) for e in told["errors"]] == [("bad", "request", 1)]
    assert "policies/bad.lua:3: no luck" in told["errors"][0]["last_message"]
    assert of(p, "/policies/bad") == {"name": "bad", "file": "policies/bad.lua", "builtin": False, "masked": False, "text": text}
    assert p.admin("/policies/nothing")[0] == p.admin("/policies/..%2fopenclaw")[0] == 404
    p.drop_policy("bad.lua", text.replace("end\n", ""))
    p.wait_log(lambda line: line["msg"] == "reload refused")
    assert "policies/bad.lua:" in of(p, "/generations")["last_error"]["report"]


def test_a_secret_in_a_policy_is_masked(start, up):
    p = start(config(up), policies={"p.lua": f"-- {KEY}\nreturn {{ name = 'p', api = 1 }}"})
    told = of(p, "/policies/p")
    assert told["masked"] is True and KEY not in told["text"] and "***" in told["text"]


GOOD = "return { name = 'new', api = 1, request = function(req, body) body.user = 'somebody' end }"


def put(p, name, text, headers=None):
    c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=10 * p.slow)
    try:
        c.request("PUT", f"/policies/{name}", body=text.encode(), headers=headers or {})
        r = c.getresponse()
        return r.status, r.read().decode(), {k.lower(): v for k, v in r.getheaders()}
    finally:
        c.close()


def test_a_policy_is_written_only_when_allowed(start, up):
    p = start(config(up))
    status, text, _ = put(p, "new", GOOD)
    assert status == 403 and "allow_policy_write" in text and list(p.policies.iterdir()) == []
    p = start(config(up, admin={"allow_policy_write": True, "token": TOKEN}))
    assert put(p, "new", GOOD)[0] == 401 and list(p.policies.iterdir()) == []


def test_a_policy_is_written_and_live(start, up, model):
    p = start(config(up, admin={"allow_policy_write": True}))
    document = Document(of(p, "/openapi.json"))
    answer = put(p, "new", GOOD)
    document.judge("PUT", "/policies/{NAME}", answer, "PUT /policies/new")
    assert json.loads(answer[1]) == {"saved": True, "result": "published", "report": ""}
    assert [f.name for f in p.policies.iterdir()] == ["new.lua"] and (p.policies / "new.lua").read_text() == GOOD
    eventually(lambda: ask(p, chat(model)).status == 200 and up.seen(model)[-1].body.get("user") == "somebody")
    assert json.loads(put(p, "new", GOOD)[1])["result"] == "unchanged"
    p.wait_log(lambda line: line["msg"] == "policy written by admin" and line["policy"] == "new")
    broken = put(p, "new", GOOD + "\nend")
    document.judge("PUT", "/policies/{NAME}", broken, "PUT /policies/new")
    assert broken[0] == 422 and "policies/new.lua:2:" in json.loads(broken[1])["report"]
    assert (p.policies / "new.lua").read_text() == GOOD and of(p, "/generations")["last_error"] is None
    assert put(p, "new", "\x1bLJ")[0] == 422
    for name in ("New", "a.b", "..%2Fx", "../x", "a/b", "", "x" * 65):
        answer = put(p, name, GOOD)
        assert answer[0] == 400, name
        document.judge("PUT", "/policies/{NAME}", answer, f"PUT /policies/{name}")
    assert put(p, "new", "")[0] == 400 and put(p, "new", " " * (1 << 20) + GOOD)[0] == 400
    assert put(p, "new", GOOD + " ", {"Origin": "http://evil.example"})[0] == 403
    (p.policies / "linked.lua").symlink_to(p.dir / "elsewhere.lua")
    p.policies.chmod(0o755)
    assert put(p, "linked", GOOD.replace("new", "linked"))[0] in (200, 422) and not (p.dir / "elsewhere.lua").exists()
    assert [f.name for f in p.dir.glob("**/*") if f.name.endswith(".new")] == []


def test_a_canary_is_moved(start, up, model):
    def canary(percent):
        return {**config(up), "routes": [{"id": "c/1", "strategy": {"type": "canary", "upstreams": ["u", {"name": "m", "percentage": percent}]}},
                                         {"id": "r", "match": {"path": "/r"}, "strategy": {"type": "failover", "upstreams": ["u", "m"]}}]}

    def share():
        with Raw(p.port) as c:
            got = [c.send(request(body=chat(model))).response().get("x-openclaw-upstream") for _ in range(100)]
        return got.count("m")
    p = start(canary(10))
    assert 8 <= share() <= 12
    told = of(p, "/routes/c%2F1/canary?percent=62.5", method="POST")
    assert told["moved_percent"] == 62.5 and told["id"] == "c/1"
    assert 60 <= share() <= 65 and of(p, "/routes")["routes"][0]["moved_percent"] == 62.5
    p.wait_log(lambda line: line["msg"] == "canary moved by admin" and line["route"] == "c/1" and line["percent"] == "62.500")
    p.write_config({**canary(10), "server": {"timeout_seconds": 33}})     # something else changes: it stays
    p.wait_generation(1)
    assert 60 <= share() <= 65
    of(p, "/routes/c%2F1/canary?percent=file", method="POST")
    assert 8 <= share() <= 12 and "moved_percent" not in of(p, "/routes")["routes"][0]
    of(p, "/routes/c%2F1/canary?percent=100", method="POST")
    assert share() == 100
    p.write_config(canary(20))                                            # the strategy does: it goes
    p.wait_generation(2)
    eventually(lambda: 17 <= share() <= 23)
    assert "moved_percent" not in of(p, "/routes")["routes"][0]
    document = Document(of(p, "/openapi.json"))
    for where, expected in (("/routes/c%2F1/canary", 400), ("/routes/c%2F1/canary?percent=101", 400), ("/routes/c%2F1/canary?percent=nan", 400), ("/routes/c%2F1/canary?percent=-1", 400),
                            ("/routes/r/canary?percent=1", 404), ("/routes/none/canary?percent=1", 404), ("/routes/c%2F1?percent=1", 404), ("/routes/c%zz/canary?percent=1", 404)):
        answer = p.admin(where, "POST")
        assert answer[0] == expected, where
        document.judge("POST", "/routes/{NAME}/canary", answer, "POST " + where)


def test_drain(start, up, model):
    come, go = threading.Event(), threading.Event()

    def waits(ex):
        come.set()
        go.wait(20)
        ex.reply()
    up.on(model, waits)
    p = start(config(up))
    with Raw(p.port) as c:
        c.send(request(body=chat(model)))
        assert come.wait(10)
        assert of(p, "/drain", method="POST") == {"draining": True}
        p.asked_to_end = True
        assert p.admin("/readyz")[0] == 503 and of(p, "/live")["draining"] is True
        assert of(p, "/drain", method="POST") == {"draining": True}
        go.set()
        assert c.response().status == 200
    assert p.process.wait(10 * p.slow) == 0


# ---- trying things

def post(p, path, body, headers=None):
    """The answer to JSON, read to its end."""
    c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=10 * p.slow)
    try:
        c.request("POST", path, body=body if isinstance(body, (str, bytes)) else json.dumps(body), headers=headers or {})
        r = c.getresponse()
        return r.status, r.read().decode(), {k.lower(): v for k, v in r.getheaders()}
    finally:
        c.close()


COUNTS = """
local P = { name = "counts", api = 1 }
function P.request(req, body)
    body.user = "n" .. claw.store.incr("n", 1)
    claw.metrics.count("tries", 1)
    if body.fail then error("no luck today") end
end
return P
"""


def test_a_request_is_explained_and_leaves_no_trace(start, up, model):
    p = start(config(up), policies={"counts.lua": COUNTS})
    document = Document(of(p, "/openapi.json"))
    for asked in ({"request": chat(model)}, {"request": {"method": "POST", "path": "/v1/chat/completions?x=1", "headers": {"x-a": "b"}, "body": chat(model)}}):
        answer = post(p, "/explain", asked)
        document.judge("POST", "/explain", answer, "POST /explain")
        told = json.loads(answer[1])
        assert told["result"] == "decided" and "decision: goes to u first" in told["report"] and "counts" in told["report"]
    failed = post(p, "/explain", {"request": chat(model, fail=True)})
    document.judge("POST", "/explain", failed, "POST /explain")
    assert json.loads(failed[1])["result"] == "failed" and "policies/counts.lua:6: no luck today" in json.loads(failed[1])["report"]
    for asked in ("", "[]", {"request": 7}, {"policy": {"name": "x", "text": ""}}, {"request": {}, "policy": {"name": "x"}}):
        answer = post(p, "/explain", asked)
        document.judge("POST", "/explain", answer, f"POST /explain {asked}")
        assert answer[0] == 400, asked
    assert up.seen(model) == [] and p.metric("openclaw_policy_counts_tries") == 0 and "openclaw_policy_counts_tries" not in p.admin("/metrics")[1]
    assert ask(p, chat(model)).status == 200 and up.seen(model)[-1].body["user"] == "n1"
    assert of(p, "/policies")["errors"] == []


def test_a_policy_is_tried_before_it_is_saved(start, up, model):
    p = start(config(up, rate_limits=[]), policies={"counts.lua": COUNTS})
    document = Document(of(p, "/openapi.json"))
    draft = "return { name = 'guard', api = 1, admit = function(req, body) return { deny = 403, code = 'no_guests' } end }"
    answer = post(p, "/explain", {"request": chat(model), "policy": {"name": "guard", "text": draft}})
    document.judge("POST", "/explain", answer, "POST /explain")
    assert "denied by guard with status 403" in json.loads(answer[1])["report"]
    answer = post(p, "/explain", {"request": chat(model), "policy": {"name": "counts", "text": COUNTS.replace("claw.store", "claw.stor")}})
    assert json.loads(answer[1])["result"] == "failed" and "policies/counts.lua:4:" in json.loads(answer[1])["report"]
    answer = post(p, "/explain", {"request": chat(model), "policy": {"name": "counts", "text": COUNTS.replace("local P =", "local P")}})
    document.judge("POST", "/explain", answer, "POST /explain")
    assert answer[0] == 422 and json.loads(answer[1])["result"] == "refused" and "policies/counts.lua:" in json.loads(answer[1])["report"]
    assert ask(p, chat(model)).status == 200 and of(p, "/generations")["current"]["id"] == 1
    assert sorted(f.name for f in p.policies.iterdir()) == ["counts.lua"]


def test_a_policy_that_loops_is_stopped_here_too(start, up, model):
    p = start(config(up))
    draft = "return { name = 'l', api = 1, request = function() while true do end end }"
    told = json.loads(post(p, "/explain", {"request": chat(model), "policy": {"name": "l", "text": draft}})[1])
    assert told["result"] == "failed" and told["took_ms"] < 2000 * p.slow


def tried(p, body, **more):
    status, text, headers = post(p, "/try", {"body": body, **more})
    assert status == 200, text
    first, _, rest = text.partition("\n")
    return json.loads(first), rest


def test_a_request_is_tried(start, up, model):
    p = start({**config(up), "clients": [{"name": "ann", "key": "key-of-ann-123456"}]})
    document = Document(of(p, "/openapi.json"))
    head, body = tried(p, chat(model))
    assert head["status"] == 401
    head, body = tried(p, chat(model), headers={"Authorization": "Bearer key-of-ann-123456", "X-Mine": "1"})
    assert head["status"] == 200 and head["headers"]["x-openclaw-upstream"] == "u" and json.loads(body)["choices"]
    assert up.seen(model)[-1].body == chat(model)
    assert kept(p, "?status=200", n=1)[0]["client"] == "ann"
    head, body = tried(p, "no json", path="/v1/chat/completions", headers={"Authorization": "Bearer key-of-ann-123456"})
    assert head["status"] == 400
    status, text, _ = post(p, "/try", {"method": "GET", "path": "/v1/models", "headers": {"x-api-key": "key-of-ann-123456"}})
    assert status == 200 and json.loads(text.partition("\n")[0])["status"] == 200
    for wrong in ({"path": "x"}, {"path": "/a b"}, {"path": "/a\r\nx: y"}, {"method": "A B"}, {"headers": {"a": "b\r\nc: d"}}, {"headers": {"Content-Length": "3"}}, {"headers": {"a b": "c"}},
                  {"headers": {"a": 7}}, {"method": 7}, []):
        answer = post(p, "/try", wrong)
        assert answer[0] == 400, wrong
        document.judge("POST", "/try", answer, f"POST /try {wrong}")


def test_what_is_tried_streams_and_is_left(start, up, model):
    go = threading.Event()
    done = threading.Event()

    def slow(ex):
        ex.stream_head()
        ex.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\n\n')
        go.wait(20)
        ex.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"second"}}]}\n\n')
        if ex.body.get("user") == "leaves":
            done.wait(20)
            ex.until_gone(10)
        ex.chunk(b"data: [DONE]\n\n")
        ex.end()
    up.on(model, slow)
    p = start(config(up))
    c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=10 * p.slow)
    c.request("POST", "/try", body=json.dumps({"body": chat(model, stream=True)}))
    r = c.getresponse()
    assert json.loads(r.readline())["headers"]["content-type"].startswith("text/event-stream")
    assert b"first" in r.readline() and not go.is_set()
    go.set()
    rest = r.read()
    assert b"second" in rest and rest.endswith(b"data: [DONE]\n\n")
    c.close()
    c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=10 * p.slow)
    c.request("POST", "/try", body=json.dumps({"body": chat(model, stream=True, user="leaves")}))
    r = c.getresponse()
    r.readline()
    c.sock.close() if c.sock else None
    r.close()
    c.close()
    done.set()
    assert up.wait_seen(model, 2)[-1].left.wait(10), "the upstream was not left"


def test_what_is_tried_over_tls(start, up, model, tmp_path):
    cert, key = Authority(tmp_path).issue("front")
    p = start(config(up, server={"tls": {"cert": str(cert), "key": str(key)}}))
    assert of(p, "/routes")["tls"] is True
    head, body = tried(p, chat(model))
    assert head["status"] == 200 and json.loads(body)["choices"]


def test_what_is_tried_is_cut_where_the_answer_is(start, up, model):
    def cut(ex):
        ex.head(200, [("content-type", "application/octet-stream"), ("content-length", "1000")])
        ex.send(b"x" * 100)
        ex.reset()
    up.on(model, cut)
    p = start({**config(up), "retry": {"attempts": 1}})
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        post(p, "/try", {"path": "/v1/audio/speech", "body": chat(model)})
    eventually(lambda: of(p, "/requests/inflight")["count"] == 0)


# ---- who may ask

def raw(p, method="GET", path="/live", **headers):
    c = http.client.HTTPConnection("127.0.0.1", p.admin_port, timeout=5 * p.slow)
    try:
        c.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in {"Content-Length": "0", **headers}.items():
            c.putheader(name.replace("_", "-"), value)
        c.endheaders()
        answer = c.getresponse()
        answer.read()
        return answer
    finally:
        c.close()


def unfinished(p, head, n, size=2 << 20):
    """n connections of questions whose last byte is missing."""
    all_of = [socket.create_connection(("127.0.0.1", p.admin_port), timeout=10 * p.slow) for _ in range(n)]
    for c in all_of:
        c.sendall(f"{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n".encode() + b" " * (size - 1))
    for _ in range(80):  # each is a turn of the loop, which reads 64 KB of everyone
        raw(p, path="/healthz")
    return all_of


def test_who_has_no_token_cannot_have_bodies_kept(start, up):
    p = start(config(up, admin={"token": TOKEN}))
    before = p.rss()
    held = unfinished(p, "GET /healthz", 24)
    try:
        assert p.rss() - before < 24 << 20
        for c in held:
            c.sendall(b" ")
            assert c.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
    finally:
        for c in held:
            c.close()


def test_bodies_of_all_questions_together_are_bounded(start, up):
    p = start(config(up))
    held = unfinished(p, "POST /explain", 20)
    try:
        said = []
        for c in held:
            c.sendall(b" ")
        for c in held:
            said.append(int(c.makefile("rb").readline().split()[1]))
        assert 503 in said and 400 in said, said
    finally:
        for c in held:
            c.close()
    assert raw(p, "POST", "/explain").status == 400


def test_pages_of_other_sites_are_refused(start, up):
    p = start(config(up, admin={"hosts": ["openclaw.internal"]}))
    here = f"127.0.0.1:{p.admin_port}"
    for origin, expected in (("http://evil.example", 403), ("null", 403), (f"http://localhost:{p.admin_port}", 403), (f"http://{here}.evil.example", 403),
                             (f"http://{here}", 200), (f"https://{here}", 200)):
        assert raw(p, "POST", "/reload", Origin=origin).status == expected, origin
        assert raw(p, "GET", "/live", Origin=origin).status == expected, origin
    for site, expected in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert raw(p, "POST", "/reload", Sec_Fetch_Site=site).status == expected, site
    for host, expected in ((here, 200), ("localhost:1", 200), ("LOCALHOST", 200), ("[::1]:9090", 200), ("10.1.2.3", 200), ("OpenClaw.internal:9090", 200),
                           ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost.evil.example:80", 403)):
        assert raw(p, Host=host).status == expected, host
        assert raw(p, path="/healthz", Host=host).status == 200, host
    assert of(p, "/generations")["live"] == 1


def test_the_token_covers_all_but_what_tells_nothing(start, up):
    p = start(config(up, admin={"token": TOKEN, "hosts": []}))
    document = json.loads(p.admin("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})[1])
    for path, methods in document["paths"].items():
        for method, page in methods.items():
            status = raw(p, method.upper(), path.replace("{NAME}", "u")).status
            assert status == (200 if page.get("security") == [] else 401), path
    assert raw(p, Authorization="Bearer " + TOKEN[:-1] + "x").status == raw(p, Authorization=f"Basic {TOKEN}").status == 401
    assert raw(p, Authorization=f"Bearer {TOKEN}", Host="proxy.example").status == 200     # whoever has the token is no page of another site
    assert raw(p, "POST", "/reload", Authorization=f"Bearer {TOKEN}", Origin="http://evil.example").status == 403


def test_answers_say_what_browsers_may_do_with_them(start, up):
    p = start(config(up))
    for path in ("/live", "/healthz", "/nothing"):
        h = raw(p, path=path).headers
        assert "frame-ancestors 'none'" in h["content-security-policy"] and "default-src 'none'" in h["content-security-policy"]
        assert (h["x-content-type-options"], h["cache-control"], h["referrer-policy"]) == ("nosniff", "no-store", "no-referrer")
        assert "access-control-allow-origin" not in h


def test_bodies_have_a_bound(start, up):
    p = start(config(up))
    assert raw(p, "POST", "/reload", **{"Content-Length": str(3 << 20)}).status == 413


# ---- /openapi.json

class Document:
    def __init__(self, document):
        self.all = document

    def resolve(self, schema):
        while "$ref" in schema:
            at = self.all
            for part in schema["$ref"].removeprefix("#/").split("/"):
                at = at[part]
            schema = at
        return schema

    def problems(self, value, schema, where):
        """What does not fit, a sentence each. Stricter than JSON Schema: a member that is not named is a problem."""
        schema = self.resolve(schema)
        if "anyOf" in schema:
            tries = [self.problems(value, s, where) for s in schema["anyOf"]]
            return [] if [] in tries else max(tries, key=len)
        kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list, "null": type(None)}
        wanted = schema.get("type")
        if wanted and (not isinstance(value, kinds[wanted]) or (isinstance(value, bool) and wanted != "boolean")):
            return [f"{where} is {value!r}, and not of type {wanted}"]
        if "enum" in schema and value not in schema["enum"]:
            return [f"{where} is {value!r}, which is none of {schema['enum']}"]
        out = []
        if isinstance(value, dict) and "properties" in schema:
            out += [f"{where} lacks {k}, which the document requires" for k in schema.get("required", []) if k not in value]
            for k, v in value.items():
                if k not in schema["properties"]:
                    out.append(f"{where} has the member {k!r}, which core/app/pages/openapi.json does not name: add it there")
                else:
                    out += self.problems(v, schema["properties"][k], f"{where}.{k}")
        if isinstance(value, list) and "items" in schema:
            for i, v in enumerate(value):
                out += self.problems(v, schema["items"], f"{where}[{i}]")
        return out

    def judge(self, method, path, answer, where):
        status, text, headers = answer
        responses = self.all["paths"][path][method.lower()]["responses"]
        assert str(status) in responses, f"{where} answers {status}, of which openapi.json says nothing: {text[:300]}"
        content = self.resolve(responses[str(status)])["content"]
        kind = headers["content-type"].partition(";")[0]
        assert kind in content, f"{where} answers {kind}; openapi.json says {list(content)}"
        if kind == "application/json":
            found = self.problems(json.loads(text), content[kind]["schema"], where)
            assert not found, "\n".join(found[:20])


@pytest.fixture
def busy(start, up, model):
    """A proxy about which there is something to tell."""
    p = start(config(up, admin={"allow_policy_write": True}, state={"path": "ledger.db"}, caching={"enabled": True}, policies={"rollback": False},
                     clients=[{"name": "ann", "key": "key-of-ann-123456", "tier": "gold", "budget": {"usd": 5, "per": "day"}, "limits": {"requests_per_minute": 1000}}],
                     rate_limits=[{"id": "all", "requests_per_minute": 1000, "burst": 1000}]),
              policies={"bad.lua": "return { name = 'bad', api = 1, request = function(req) if req.client.headers['x-fail'] then error('no') end end }"})
    up.on(model, failing)
    who = ("authorization", "Bearer key-of-ann-123456")
    ask(p, chat(model), headers=[who])
    ask(p, chat("mock-1"), headers=[who])
    ask(p, chat("mock-1"), headers=[who])
    ask(p, chat(model), headers=[who, ("x-fail", "1")])
    ask(p, chat(model))
    p.write_config(merge_timeout(p.config))
    p.wait_generation(1)
    p.admin("/upstreams/u/cool?seconds=50", "POST")
    (p.policies / "bad.lua").write_text("return {")
    p.wait_log(lambda line: line["msg"] == "reload refused")
    return p


def merge_timeout(config):
    return {**config, "server": {"timeout_seconds": 33}}


def test_every_page_answers_as_the_document_says(busy, model):
    document = Document(of(busy, "/openapi.json"))
    rows = re.findall(r'\{"(GET|POST|PUT)", "([^"]+)", ([A-Z0]+),', (ROOT / "core/app/admin.c").read_text())
    told = {(m.upper(), path) for path, methods in document.all["paths"].items() for m in methods}
    for method, path, flags in rows:
        there = [p for m, p in told if m == method and (p.startswith(path) if flags == "BELOW" else p == path)]
        assert there, f"{method} {path} is not in core/app/pages/openapi.json"
    for method, path in told:
        assert any(m == method and (path.startswith(p) if flags == "BELOW" else p == path) for m, p, flags in rows), f"{method} {path} is in openapi.json, and not in admin.c"
    names = {"/routes/{NAME}/canary": "r", "/policies/{NAME}": "bad", "/upstreams/{NAME}/cool": "u", "/upstreams/{NAME}/restore": "u"}
    queries = {"/spend": "?by=client,route,upstream,model&per=hour"}
    eventually(lambda: len(kept(busy)) == 5 and of(busy, "/spend?by=client")["rows"])
    for method, path in sorted(told, key=lambda x: (x[1] == "/drain", x)):
        if method == "PUT":             # judged in a test of its own
            continue
        where = path.replace("{NAME}", names.get(path, "")) + queries.get(path, "")
        document.judge(method, path, busy.admin(where, method), f"{method} {where}")
    busy.asked_to_end = True            # the last one was /drain
    busy.process.wait(10 * busy.slow)


def test_wrong_questions_are_answered_as_the_document_says(busy):
    document = Document(of(busy, "/openapi.json"))
    for method, path, where in (("GET", "/requests", "/requests?limit=0"), ("GET", "/spend", "/spend?by=colour"), ("GET", "/policies/{NAME}", "/policies/none"),
                                ("POST", "/upstreams/{NAME}/cool", "/upstreams/u/cool?seconds=0"), ("POST", "/upstreams/{NAME}/restore", "/upstreams/x/restore"),
                                ("POST", "/cache/purge", "/cache/purge?colour=red")):
        status, text, headers = busy.admin(where, method)
        assert status in (400, 404), where
        document.judge(method, path, (status, text, headers), f"{method} {where}")


def test_the_document_notices(busy):
    document = Document(of(busy, "/openapi.json"))
    answer = of(busy, "/upstreams")
    answer["upstreams"][0]["colour"] = "red"
    del answer["upstreams"][1]["keys"]
    schema = document.all["paths"]["/upstreams"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert document.problems(answer, schema, "GET /upstreams") == [
        "GET /upstreams.upstreams[0] has the member 'colour', which core/app/pages/openapi.json does not name: add it there",
        "GET /upstreams.upstreams[1] lacks keys, which the document requires"]
