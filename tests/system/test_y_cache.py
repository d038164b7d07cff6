"""Y: answers that are kept, and answers that are shared while they come: by whom, for how long, in both ways, under a bound."""
import json
import os
import random
import threading

import pytest

from client import Raw, ask, chat, data_of, eventually, in_parallel, request
from proxy import run
from upstream import CHAT, delta, event, stream_events
from wire import Cut

GUIDE = {"enabled": True, "default_ttl_seconds": 3600, "max_size_mb": 500,
         "strategies": [{"id": "common_questions_cache", "match": {"path": "/v1/chat/completions", "json_body": {"temperature": 0.0}},
                         "ttl_seconds": 86400}]}
ALL = {"enabled": True}
CLIENTS = [{"name": n, "key": f"key-of-{n}-0123456789"} for n in ("ann", "bob", "cid")]


def config(up, caching=ALL, **more):
    c = {"server": {"workers": 4},
         "upstreams": {"u": {"type": "openai", "api_key": "sk-up", "base_url": up.url(), "cost_per_million_input_tokens": 1000000,
                             "cost_per_million_output_tokens": 0}},
         "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}], "retry": {"attempts": 1}, "caching": caching, **more}
    return c


def words(p, *bodies, **how):
    return [ask(p, b, **how).get("x-openclaw-cache") for b in bodies]


def key_of(name):
    return [("authorization", f"Bearer key-of-{name}-0123456789")]


def text_of(answer):
    """The text of a chat completion, streamed or not."""
    if answer.get("content-type").startswith("text/event-stream"):
        chunks = [e for e in data_of(answer) if e != b"[DONE]"]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    return json.loads(answer.body)["choices"][0]["message"]["content"]


# ---- which


def test_the_guides(start, upstreams):
    up = upstreams()
    p = start(config(up, GUIDE))
    asked = chat("m", temperature=0.0)
    first, second = ask(p, asked), ask(p, chat("m", temperature=0))
    assert [first.get("x-openclaw-cache"), second.get("x-openclaw-cache")] == ["miss", "hit"]
    assert first.body == second.body and second.get("age") is not None and first.get("age") is None
    assert second.get("x-openclaw-cost-usd") == "0.000000" and second.get("x-openclaw-upstream") is None and second.get("x-openclaw-attempts") == "0"
    assert words(p, chat("m"), chat("m"), chat("m", temperature=0.7)) == ["bypass"] * 3
    assert len(up.since(0)) == 4
    assert p.metric("openclaw_cache_hits_total", route_id="r") == 1 and p.metric("openclaw_cache_misses_total", route_id="r") == 1
    line = p.request_line(second)
    assert line["cache"] == "hit" and line["upstream"] == "" and line["attempts"] == [] and line["cost_usd"] == 0 and "input_tokens" not in line
    assert p.request_line(first)["cache"] == "miss"


def test_what_is_the_same(start, upstreams):
    up = upstreams()
    p = start(config(up))
    one = {"model": "m", "messages": [{"role": "user", "content": "Caf\u00e9"}], "temperature": 0, "top_p": 1}
    ask(p, one)
    same = [json.dumps(one, indent=3).encode(), json.dumps(dict(reversed(one.items()))).encode(), json.dumps(one, ensure_ascii=False).encode(),
            json.dumps({**one, "temperature": 0.0, "user": "u7", "metadata": {"a": 1}, "stream": False}).encode()]
    for body in same:
        assert ask(p, body=body).get("x-openclaw-cache") == "hit", body
    assert ask(p, one, headers=[("x-request-id", "7"), ("user-agent", "other")]).get("x-openclaw-cache") == "hit"
    other = [{**one, "temperature": 1}, {**one, "seed": 1}, {**one, "model": "n"}, {**one, "messages": one["messages"] * 2},
             {**one, "messages": [{"role": "user", "content": "Cafe"}]}, {**one, "n": None}]
    assert words(p, *other) == ["miss"] * len(other)
    assert ask(p, one, headers=[("openai-beta", "x=1")]).get("x-openclaw-cache") == "miss"
    assert ask(p, one, path="/v1/chat/completions?api-version=2").get("x-openclaw-cache") == "miss"
    assert words(p, {**one, "conversation": "c1"}, {**one, "background": True}) == ["bypass"] * 2


def test_routes(start, upstreams):
    up = upstreams()
    routes = [{"id": i, "match": {"json_body": {"model": i}}, "strategy": {"type": "failover", "upstreams": ["u"]}, **more}
              for i, more in [("never", {"cache": False}), ("own", {"cache": {"ttl_seconds": 0.001}}), ("plain", {})]]
    p = start(config(up, routes=routes))
    assert words(p, chat("never"), chat("never"), chat("plain"), chat("plain")) == ["bypass", "bypass", "miss", "hit"]
    assert words(p, chat("own")) == ["miss"]
    eventually(lambda: words(p, chat("own"))[0] == "miss")
    p = start(config(up, caching={}, routes=[{"id": "on", "cache": True, "match": {"json_body": {"model": "on"}}, "strategy": {"upstream": "u"}},
                                             {"id": "off", "strategy": {"upstream": "u"}}]))
    assert words(p, chat("on"), chat("on"), chat("off"), chat("off")) == ["miss", "hit", "bypass", "bypass"]


def test_ttl(start, upstreams):
    up = upstreams()
    p = start(config(up, {"enabled": True, "default_ttl_seconds": 0.3}))
    assert words(p, chat("m"), chat("m")) == ["miss", "hit"]
    eventually(lambda: words(p, chat("m"))[0] == "miss")
    assert words(p, chat("m")) == ["hit"]


def test_cache_control(start, upstreams):
    up = upstreams()
    p = start(config(up))

    def word(control):
        return ask(p, chat("m"), headers=[("Cache-Control", control)]).get("x-openclaw-cache")
    assert word("no-store") == "bypass" and word("no-store") == "bypass"
    assert word("no-cache") == "bypass"                      # asked anew, and kept
    assert words(p, chat("m")) == ["hit"] and word("max-age=60") == "hit" and word("foo, Max-Age=60") == "hit"
    assert word("private, no-cache") == "bypass" and word("no-store") == "bypass"
    eventually(lambda: word("max-age=0") == "miss")          # of this very millisecond it may be
    assert words(p, chat("m")) == ["hit"]


@pytest.mark.parametrize("status, body, type", [
    (500, {"error": {"message": "x"}}, "application/json"), (404, {"error": {"message": "x"}}, "application/json"), (201, CHAT, "application/json"),
    (200, b'{"choices": [', "application/json"), (200, b"[]", "application/json"), (200, {"error": {"message": "x"}}, "application/json"),
    (200, {}, "application/json"), (200, {"message": "over quota"}, "application/json"), (200, {"choices": None, "detail": "x"}, "application/json"),
])
def test_what_is_not_kept(start, upstreams, status, body, type):
    up = upstreams()
    up.default = lambda ex: ex.reply(body, status=status, type=type)
    p = start(config(up))
    assert words(p, chat("m"), chat("m")) == ["miss", "miss"] and len(up.since(0)) == 2


def test_cut_streams_are_not_kept(start, upstreams):
    up = upstreams()
    events = stream_events()
    how = []

    def script(ex):
        ex.stream_head()
        for one in events[:3]:
            ex.chunk(one)
        if how[-1] == "cut":
            return ex.close()
        if how[-1] == "error":
            ex.chunk(event({"error": {"message": "no", "type": "server_error"}}))
            ex.chunk(events[-1])
        ex.end()                                             # else: well framed, and without the last word
    up.default = script
    p = start(config(up))
    for one in ("cut", "error", "silent"):
        how.append(one)
        with Raw(p.port) as c:
            c.send(request(body=json.dumps(chat("m", stream=True)).encode()))
            c.ended() if one == "cut" else c.response()
        eventually(lambda: p.metric("openclaw_flights") == 0)
    how.append("silent")
    assert words(p, chat("m", stream=True)) == ["miss"]
    assert json.loads(p.admin("/cache")[1])["entries"] == 0


def of_type(type, **more):
    return f"event: {type}\ndata: {json.dumps({'type': type, **more})}\n\n".encode()


@pytest.mark.parametrize("path, events", [
    ("/v1/chat/completions", [event(delta("then comes [DONE]"))]),
    ("/v1/chat/completions", [event(delta("a")), b'data:{"error":{"message":"x"}}\n\n', event("[DONE]")]),
    ("/v1/chat/completions", [event(delta("a")), b'data: { "id": "c", "error": {"message":"x"}}\n\n', event("[DONE]")]),
    ("/v1/responses", [of_type("response.output_text.delta", delta="then comes response.completed")]),
    ("/v1/messages", [of_type("content_block_delta", index=0, delta={"type": "text_delta", "text": "then comes message_stop"})]),
    ("/v1/messages", [of_type("message_start"), of_type("error", error={"message": "no message_stop"}).replace(b": ", b":")]),
])
def test_the_last_word_in_what_a_model_says_is_not_its_end(start, upstreams, path, events):
    up = upstreams()
    up.default = lambda ex: ex.stream(events)
    c = config(up)
    c["upstreams"]["u"]["type"] = "anthropic" if path.endswith("messages") else "openai"
    p = start(c)
    assert words(p, *[{**chat("m"), "max_tokens": 9, "stream": True}] * 2, path=path) == ["miss", "miss"]


def test_words_of_errors_in_what_a_model_says_are_none(start, upstreams):
    up = upstreams()
    up.default = lambda ex: ex.stream([event(delta('event: error [DONE] data: {"error"'))] + stream_events(1))
    p = start(config(up))
    assert words(p, *[chat("m", stream=True)] * 2) == ["miss", "hit"]


def test_explain_says(tmp_path, upstreams):
    path, asked = tmp_path / "openclaw.yaml", tmp_path / "request.json"
    path.write_text(json.dumps(config(upstreams(), GUIDE)))
    for temperature, line in [(0, "cache: kept for 86400 s, by strategy common_questions_cache, shared while under way, for all clients"),
                              (1, "cache: no, none of caching.strategies matches")]:
        asked.write_text(json.dumps(chat("m", temperature=temperature)))
        done = run("-config", path, "-explain", asked)
        assert done.returncode == 0 and line in done.stdout.splitlines(), done.stdout


# ---- both ways


@pytest.mark.parametrize("first", [True, False])
def test_one_entry_for_both(start, upstreams, first):
    up = upstreams()
    p = start(config(up))
    a = ask(p, chat("m", stream=first))
    b = ask(p, chat("m", stream=not first))
    again = [ask(p, chat("m", stream=s)) for s in (True, False)]
    assert a.get("x-openclaw-cache") == "miss" and [x.get("x-openclaw-cache") for x in (b, *again)] == ["hit"] * 3
    assert len(up.since(0)) == 1
    assert len({text_of(x) for x in (a, b, *again)}) == 1
    mine = again[0] if first else again[1]
    assert mine.body == a.body                               # as it was given first, byte for byte
    other = again[1] if first else again[0]
    if first:
        whole = json.loads(other.body)
        assert whole["object"] == "chat.completion" and whole["id"] == "chatcmpl-1" and whole["usage"]["prompt_tokens"] == 11
        assert whole["choices"][0]["finish_reason"] == "stop"
    else:
        chunks = data_of(other)
        assert chunks[-1] == b"[DONE]" and chunks[0]["object"] == "chat.completion.chunk" and chunks[0]["id"] == "chatcmpl-1"


@pytest.mark.parametrize("first", [True, False])
def test_usage_is_told_to_who_asks(start, upstreams, first):
    up = upstreams()
    p = start(config(up))
    bodies = {True: chat("m", stream=True), False: {**chat("m"), "stream": True}}

    def usages(body):
        a = ask(p, body)
        return a.get("x-openclaw-cache"), [c["usage"]["prompt_tokens"] for c in data_of(a) if c != b"[DONE]" and c.get("usage")], len(data_of(a))
    n = len(stream_events())
    told = {True: ([11], n), False: ([], n - 1)}
    for i, asks in enumerate([first, not first, first]):
        assert usages(bodies[asks]) == ("hit" if i else "miss", *told[asks])
    plain = ask(p, chat("m"))
    assert plain.get("x-openclaw-cache") == "hit" and json.loads(plain.body)["usage"]["total_tokens"] == 18 and len(up.since(0)) == 1


def test_dialects_are_apart(start, upstreams):
    up = upstreams()
    p = start(config(up))
    assert words(p, chat("m")) == ["miss"]
    body = {"model": "m", "max_tokens": 9, "messages": chat("m")["messages"]}
    assert [ask(p, body, path="/v1/messages").get("x-openclaw-cache") for _ in range(2)] == ["miss", "hit"]
    gemini = {"contents": [{"role": "user", "parts": [{"text": "x"}]}]}
    paths = ["/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent?key=secret", "/v1beta/models/m:streamGenerateContent?alt=sse",
             "/v1beta/models/m:streamGenerateContent", "/v1beta/models/m:streamGenerateContent", "/v1beta/models/n:generateContent"]
    assert [ask(p, gemini, path=x).get("x-openclaw-cache") for x in paths] == ["miss", "hit", "hit", "miss", "hit", "miss"]
    streamed = ask(p, {**body, "stream": True}, path="/v1/messages")
    assert streamed.get("x-openclaw-cache") == "hit" and streamed.body.startswith(b"event: message_start")
    assert b"message_stop" in streamed.body


# ---- whose


def test_scope_is_never_crossed(start, upstreams):
    """2,400 requests of three clients in any order: nobody is given what another was answered."""
    up = upstreams()
    p = start(config(up, clients=CLIENTS))
    lock, serial = threading.Lock(), [0]

    def script(ex):
        with lock:
            serial[0] += 1
            n = serial[0]
        ex.reply({**CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": f"a{n}"}, "finish_reason": "stop"}]})
    up.default = script
    seen = {}

    def client(i):
        luck, mine = random.Random(i), CLIENTS[i % 3]["name"]
        for _ in range(200):
            q = luck.randrange(40)
            a = ask(p, chat("m", seed=q), headers=key_of(mine))
            assert a.status == 200
            with lock:
                seen.setdefault(text_of(a), set()).add((mine, q))
    in_parallel(12, client)
    assert all(len(who) == 1 for who in seen.values())
    assert len(seen) == 120 == serial[0]                     # and each question of each was asked once


def test_shared_when_it_is_said(start, upstreams):
    up = upstreams()
    p = start(config(up, {"enabled": True, "scope": "shared"}, clients=CLIENTS))
    assert [ask(p, chat("m"), headers=key_of(n)).get("x-openclaw-cache") for n in ("ann", "bob", "cid")] == ["miss", "hit", "hit"]
    p = start(config(up, {"enabled": True, "scope": "client"}))  # no clients: who shows another key is another one
    assert [ask(p, chat("m"), headers=[("authorization", f"Bearer {k}")]).get("x-openclaw-cache") for k in ("a", "b", "a")] == ["miss", "miss", "hit"]
    assert words(p, chat("m"), chat("m")) == ["miss", "hit"]


# ---- bounds, purge, reload


def test_bound(start, upstreams):
    up = upstreams()
    text = "x" * 6000
    up.default = lambda ex: ex.reply({**CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
    p = start(config(up, {"enabled": True, "max_size_mb": 1}))
    in_parallel(4, lambda i: [ask(p, chat("m", seed=i * 1000 + k)) for k in range(200)])
    shown = json.loads(p.admin("/cache")[1])
    assert 0 < shown["bytes"] <= shown["max_bytes"] == 1 << 20 and shown["evictions"] > 500 and shown["entries"] > 80
    assert p.metric("openclaw_cache_bytes") == shown["bytes"] and p.metric("openclaw_cache_entries") == shown["entries"]
    assert shown["routes"][0]["id"] == "r" and shown["routes"][0]["entries"] == shown["entries"]


def test_purge(start, upstreams):
    up = upstreams()
    routes = [{"id": i, "match": {"json_body": {"stop": i}}, "strategy": {"upstream": "u"}} for i in ("x", "y")]
    p = start(config(up, clients=CLIENTS[:2], routes=routes))
    asked = [(n, r, m) for n in ("ann", "bob") for r in ("x", "y") for m in ("m1", "a/b")]

    def fill():
        for n, r, m in asked:
            ask(p, chat(m, stop=r), headers=key_of(n))

    def left():
        return [w for w in asked if ask(p, chat(w[2], stop=w[1]), headers=key_of(w[0]) + [("cache-control", "max-age=3600")]).get("x-openclaw-cache") == "hit"]
    for query, gone in [("?route=x", lambda n, r, m: r == "x"), ("?model=a%2Fb", lambda n, r, m: m == "a/b"), ("?client=ann", lambda n, r, m: n == "ann"),
                        ("?client=ann&route=y", lambda n, r, m: (n, r) == ("ann", "y")), ("?route=none", lambda *_: False), ("", lambda *_: True)]:
        fill()
        status, body = p.admin("/cache/purge" + query, method="POST")[:2]
        assert status == 200 and json.loads(body) == {"purged": sum(gone(*w) for w in asked)}
        assert left() == [w for w in asked if not gone(*w)]
    assert p.admin("/cache/purge?upstream=u", method="POST")[0] == 400


def test_a_reload_forgets_nothing(start, upstreams):
    up = upstreams()
    p = start(config(up))
    assert words(p, chat("m")) == ["miss"]
    p.config["caching"] = {"enabled": True, "max_size_mb": 7}
    p.config["upstreams"]["u"]["api_key"] = "sk-another"
    p.write_config()
    eventually(lambda: json.loads(p.admin("/cache")[1])["max_bytes"] == 7 << 20)
    assert words(p, chat("m")) == ["hit"]


def test_what_decides_counts(start, upstreams):
    """A policy that came, or a route that changed: nothing is answered as it was before."""
    up = upstreams()
    p = start(config(up), policies={"other.lua": "return { api = 1 }"})
    assert words(p, chat("m"), chat("m")) == ["miss", "hit"]
    before = p.generation()
    p.drop_policy("other.lua", "return { api = 1, init = function() end }")
    p.wait_generation(before)
    eventually(lambda: words(p, chat("m")) and len(up.since(0)) == 2)  # each worker takes it over in its own time
    assert words(p, chat("m")) == ["hit"]
    p.config["routes"][0]["timeout_seconds"] = 7
    p.write_config()
    p.wait_generation(before + 1)
    eventually(lambda: words(p, chat("m")) and len(up.since(0)) == 3)
    assert words(p, chat("m")) == ["hit"] and len(up.since(0)) == 3
    p.config["upstreams"]["u"]["model_map"] = {"m": "another"}
    p.write_config()
    p.wait_generation(before + 2)
    eventually(lambda: words(p, chat("m")) and len(up.since(0)) == 4)
    assert up.since(0)[-1].model == "another" and words(p, chat("m")) == ["hit"]


def test_a_purge_is_for_what_is_under_way_too(start, upstreams):
    up = upstreams()
    go = release_later(up)
    p = start(config(up))
    c = sent(p, chat("m"))
    up.wait_seen("m")
    assert p.admin("/cache/purge", method="POST")[0] == 200
    later = sent(p, chat("m"))
    up.wait(lambda s: len(s.exchanges) == 2)                            # who comes after it shares nothing that was begun before
    joins = sent(p, chat("m"))
    listening(p, 1)
    go.set()
    assert [one.response().get("x-openclaw-cache") for one in (c, later, joins)] == ["miss", "miss", "coalesced"]
    assert words(p, chat("m"), chat("m")) == ["hit", "hit"]


# ---- under way


def release_later(up):
    """The upstream answers once the test says so."""
    go = threading.Event()

    def script(ex):
        go.wait(30)
        ex.stream() if ex.body.get("stream") else ex.reply()
    up.default = script
    return go


def sent(p, body, **how):
    return Raw(p.port).send(request(body=json.dumps(body).encode(), **how))


def listening(p, n):
    """n requests share what is under way, so many of each flight's as do not lead it."""
    eventually(lambda: json.loads(p.admin("/cache")[1])["listening"] == n, timeout=20)


MANY = int(os.environ.get("CLAW_IDENTICAL", "1000"))


@pytest.mark.timeout(120 + MANY / 50)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("caching", [ALL, {"coalesce": True}])
def test_one_call_for_many(start, upstreams, stream, caching):
    """CLAW_IDENTICAL says how many at once."""
    up = upstreams()
    go = release_later(up)
    c = config(up, caching)
    p = start({**c, "server": {**c.get("server", {}), "max_connections": MANY + 1000}})
    clients = []
    for i in range(MANY):
        clients.append(sent(p, chat("m", stream=stream)))
    listening(p, MANY - 1)
    go.set()
    answers = [c.response() for c in clients]
    for c in clients:
        c.close()
    assert all(a.status == 200 and a.body == answers[0].body for a in answers)
    found = sorted(a.get("x-openclaw-cache") for a in answers)
    assert found == ["coalesced"] * (MANY - 1) + ["miss"]
    assert len(up.since(0)) == 1
    assert p.metric("openclaw_coalesced_total", route_id="r") == MANY - 1
    eventually(lambda: p.metric("openclaw_flights") == 0)


def test_both_ways_share(start, upstreams):
    up = upstreams()
    go = release_later(up)
    p = start(config(up))
    clients = [sent(p, chat("m", stream=bool(i % 2))) for i in range(20)]
    listening(p, 19)
    go.set()
    answers = [c.response() for c in clients]
    assert len(up.since(0)) == 1 and len({text_of(a) for a in answers}) == 1
    assert [a.get("content-type").split(";")[0] for a in answers] == ["application/json", "text/event-stream"] * 10


def steps(up, events):
    """A stream that goes on an event at a time."""
    go = threading.Semaphore(0)

    def script(ex):
        ex.stream_head()
        for one in events:
            assert go.acquire(timeout=30)
            ex.chunk(one)
        ex.end()
    up.default = script
    return go


def test_late_joiners_get_what_came(start, upstreams):
    up = upstreams()
    events = stream_events(6)
    go = steps(up, events)
    p = start(config(up))
    first = sent(p, chat("m", stream=True))
    up.wait_seen("m")
    late = []
    for i in range(len(events)):
        go.release()
        m = first.head() if i == 0 else m
        assert first.chunk(m) == events[i]
        if i < len(events) - 1:
            c = sent(p, chat("m", stream=True))
            head = c.head()
            had = b""
            while len(had) < sum(map(len, events[:i + 1])):
                had += c.chunk(head)
            assert had == b"".join(events[:i + 1])
            late.append((c, head, had))
    for c, head, had in late:
        while True:
            piece = c.chunk(head)
            if not piece:
                break
            had += piece
        assert had == b"".join(events)
    assert len(up.since(0)) == 1


def test_the_leader_leaves_at_half(start, upstreams):
    up = upstreams()
    events = stream_events(6)
    go = steps(up, events)
    p = start(config(up))
    first = sent(p, chat("m", stream=True))
    up.wait_seen("m")
    others = [sent(p, chat("m", stream=True)) for _ in range(3)]
    listening(p, 3)
    for _ in range(4):
        go.release()
    m = first.head()
    assert first.chunk(m)
    first.reset()
    heads = [c.head() for c in others]
    for _ in range(len(events) - 4):
        go.release()
    for c, m in zip(others, heads):
        body = b""
        while piece := c.chunk(m):
            body += piece
        assert body == b"".join(events)
    assert len(up.since(0)) == 1
    assert words(p, chat("m")) == ["hit"]
    line = p.wait_log(lambda l: l.get("msg") == "request" and l["status"] == 499)
    assert line["cache"] == "miss" and line["input_tokens"] == 11


def test_all_leave(start, upstreams):
    up = upstreams()
    gone = threading.Event()

    def script(ex):
        ex.stream_head()
        ex.chunk(stream_events()[0])
        try:
            ex.until_gone()
        finally:
            gone.set()
    up.default = script
    p = start(config(up))
    clients = [sent(p, chat("m", stream=True)) for _ in range(8)]
    listening(p, 7)
    for c in clients:
        c.head()
    for c in clients:
        c.reset()
    assert gone.wait(10)
    eventually(lambda: p.metric("openclaw_flights") == 0 and p.metric("openclaw_requests_in_flight") == 0)


@pytest.mark.parametrize("asks_usage", [True, False])
@pytest.mark.parametrize("joins_first", [True, False])
def test_nobody_waits_for_a_slow_leader(start, upstreams, joins_first, asks_usage):
    up = upstreams()
    go, all_here, text = threading.Event(), threading.Event(), "x" * 40000
    events = [event(delta(f"{i} {text}")) for i in range(200)]          # 8 MB: more than sockets hold
    tail = stream_events(0)

    def script(ex):
        ex.stream_head()
        ex.chunk(events[0])
        go.wait(30)
        for one in events[1:]:
            ex.chunk(one)
        all_here.wait(30)                                               # else it may be over before the last one comes
        for one in tail:
            ex.chunk(one)
        ex.end()
    up.default = script
    p = start(config(up))
    body = chat("m", stream=True) if asks_usage else {**chat("m"), "stream": True}
    wanted = b"".join(events + (tail if asks_usage else [tail[0], tail[-1]]))
    slow = Raw(p.port, rcvbuf=4096)
    slow.send(request(body=json.dumps(body).encode()))
    up.wait_seen("m")
    if not joins_first:
        go.set()
        eventually(lambda: p.metric("openclaw_flight_bytes") > 1 << 20)
    others = [sent(p, body) for _ in range(3)]
    listening(p, 3)
    go.set()
    all_here.set()
    assert all(c.response().body == wanted for c in others)             # while the leader's client reads nothing
    eventually(lambda: p.metric("openclaw_requests_in_flight") == 1)
    assert slow.response().body == wanted
    assert len(up.since(0)) == 1
    line = p.wait_log(lambda l: l.get("msg") == "request" and l.get("cache") == "miss")
    assert line["status"] == 200 and line["bytes_out"] == len(wanted) and line["input_tokens"] == 11 and "error" not in line
    eventually(lambda: p.metric("openclaw_flights") == 0)


def test_what_is_on_its_way_has_a_bound(start, upstreams):
    up = upstreams()
    go = threading.Event()
    events = [event(delta("x" * 40000))] * 50                           # 2 MB each, of 2 together

    def script(ex):
        ex.stream_head()
        for one in events[:25]:                                         # each in a piece of 64 KB: 1.6 MB
            ex.chunk(one)
        go.wait(30)
        for one in events[25:] + stream_events(0):
            ex.chunk(one)
        ex.end()
    up.default = script
    p = start(config(up, {"enabled": True, "max_size_mb": 1}))
    pairs, most = [], 0
    for i in range(8):
        bodies = [chat("m", stream=True, seed=i)] * 2
        pair = []
        for body in bodies:
            pair.append(Raw(p.port, rcvbuf=4096))
            pair[-1].send(request(body=body))
        up.wait(lambda s: len(s.exchanges) > i)
        if i == 0:
            listening(p, 1)
            eventually(lambda: p.metric("openclaw_flight_bytes") > 1 << 20)
        most = max(most, p.metric("openclaw_flight_bytes"))
        pairs.append(pair)
    go.set()
    assert p.metric("openclaw_flight_bytes") <= 2 << 20 and 1 << 20 < most <= 2 << 20
    for pair in pairs:
        for c in pair:
            c.reset()
    assert eventually(lambda: p.metric("openclaw_flights") == 0 and p.metric("openclaw_flight_bytes") == 0)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_slow_leader_of_what_cannot_be_held(start, upstreams, leaves):
    up = upstreams()
    go, more, over = threading.Event(), threading.Event(), threading.Event()
    events = [event(delta(f"{i} " + "x" * 40000)) for i in range(700)]  # 28 MB, of which 20 are held, or 10 when nobody listens

    def script(ex):
        try:
            ex.stream_head()
            ex.chunk(events[0])
            go.wait(30)
            for one in events[1:260]:                                     # 10.4 MB, more than sockets hold; in chunks that may be filled by two thirds only
                ex.chunk(one)
            more.wait(30)
            for one in events[260:] + stream_events(0):
                ex.chunk(one)
            ex.end()
        finally:
            over.set()
    up.on("m", script)
    p = start(config(up, {"enabled": True, "max_size_mb": 10}, server={"workers": 4, "max_body_mb": 20}))
    slow = Raw(p.port, rcvbuf=4096)
    slow.send(request(body=chat("m", stream=True)))
    up.wait_seen("m")
    other = sent(p, chat("m", stream=True))
    listening(p, 1)
    go.set()
    other.head()
    assert eventually(lambda: p.metric("openclaw_flight_bytes") > 10 << 20)
    if leaves:
        other.reset()
        listening(p, 0)
    more.set()
    assert over.wait(20)
    with pytest.raises(Cut):
        slow.response()
    assert eventually(lambda: p.metric("openclaw_flights") == 0 and p.metric("openclaw_requests_in_flight") == 0)
    assert words(p, chat("n"), chat("n")) == ["miss", "hit"]


def test_finish_for_the_cache(start, upstreams):
    up = upstreams()
    events = stream_events(3)
    go = steps(up, events)
    c = config(up)
    c["routes"][0]["on_disconnect"] = "finish"
    p = start(c)
    first = sent(p, chat("m", stream=True))
    up.wait_seen("m")
    go.release()
    first.head()
    first.reset()
    eventually(lambda: p.metric("openclaw_client_connections") == 0)
    for _ in events:
        go.release()
    eventually(lambda: json.loads(p.admin("/cache")[1])["entries"] == 1)
    assert words(p, chat("m", stream=True)) == ["hit"] and len(up.since(0)) == 1


def test_another_leads_when_one_fails(start, upstreams):
    up = upstreams()
    go, n = threading.Event(), []

    def script(ex):
        go.wait(30)
        n.append(1)
        ex.close() if len(n) == 1 else ex.reply()
    up.default = script
    p = start(config(up))
    clients = [sent(p, chat("m")) for _ in range(9)]
    listening(p, 8)
    go.set()
    answers = [c.response() for c in clients]
    assert sorted(a.status for a in answers) == [200] * 8 + [502] and len(n) == 2
    assert sorted(a.get("x-openclaw-cache") for a in answers if a.status == 200) == ["coalesced"] * 7 + ["miss"]


def test_when_all_fail_few_ask(start, upstreams):
    up = upstreams()
    go = threading.Event()
    up.default = lambda ex: (go.wait(30), ex.close())
    c = config(up)
    c["upstreams"]["u"]["health"] = {"failures": 1000}
    p = start(config(up))
    clients = [sent(p, chat("m")) for _ in range(40)]
    listening(p, 39)
    go.set()
    assert {c.response().status for c in clients} <= {502, 503}
    assert len(up.since(0)) <= 4


def test_an_error_answer_is_shared_and_not_kept(start, upstreams):
    up = upstreams()
    go = threading.Event()
    up.default = lambda ex: (go.wait(30), ex.reply({"error": {"message": "bad seed", "type": "invalid_request_error"}}, status=400))
    p = start(config(up))
    clients = [sent(p, chat("m")) for _ in range(20)]
    listening(p, 19)
    go.set()
    answers = [c.response() for c in clients]
    assert {a.status for a in answers} == {400} and all(b"bad seed" in a.body for a in answers) and len(up.since(0)) == 1
    assert words(p, chat("m")) == ["miss"]


def test_a_stream_that_breaks(start, upstreams):
    up = upstreams()
    events = stream_events()
    go = threading.Event()

    def script(ex):
        ex.stream_head()
        ex.chunk(events[0])
        go.wait(30)
        ex.close()
    up.default = script
    p = start(config(up))
    clients = [sent(p, chat("m", stream=True)) for _ in range(6)]
    listening(p, 5)
    for c in clients:
        m = c.head()
        assert c.chunk(m) == events[0]
    go.set()
    for c in clients:
        rest = c.ended()
        assert b'"error"' in (rest if isinstance(rest, bytes) else repr(rest).encode())


def test_who_waited_for_the_whole_of_it_asks_again_together(start, upstreams):
    up = upstreams()
    events, go, n = stream_events(), threading.Event(), []

    def script(ex):
        n.append(1)
        if len(n) > 1:
            return ex.stream(events) if ex.body.get("stream") else ex.reply()
        ex.stream_head()
        ex.chunk(events[0])
        go.wait(30)
        ex.close()
    up.default = script
    p = start(config(up))
    leader = sent(p, chat("m", stream=True))
    up.wait_seen("m")
    clients = [sent(p, chat("m")) for _ in range(12)]
    listening(p, 12)
    go.set()
    leader.ended()
    answers = [c.response() for c in clients]
    assert {a.status for a in answers} == {200} and len(n) == 2
    assert {a.get("x-openclaw-cache") for a in answers} <= {"miss", "coalesced", "hit"}


def test_scopes_do_not_coalesce(start, upstreams):
    up = upstreams()
    go = release_later(up)
    p = start(config(up, clients=CLIENTS))
    clients = [sent(p, chat("m"), headers=key_of(CLIENTS[i % 3]["name"])) for i in range(9)]
    listening(p, 6)
    go.set()
    for c in clients:
        assert c.response().status == 200
    assert len(up.since(0)) == 3


@pytest.mark.timeout(90)
def test_everything_at_once(start, upstreams):
    """Streams and not, hits, misses and what is shared, upstreams that fail or break off, clients that leave, purges: who gets an answer
    of status 200 gets the one to its own question, with usage when it asked for that; and nothing is left."""
    up = upstreams()

    def said(seed):
        return f"answer {seed} " * 40

    def script(ex):
        text, fate = said(ex.body["seed"]), random.random()
        if fate < 0.05:
            return ex.close()
        if fate < 0.1:
            return ex.reply({"error": {"message": "no"}}, status=random.choice([400, 404, 422]))
        if not ex.body.get("stream"):
            return ex.reply({**CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
        ex.stream_head()
        for i in range(10):
            ex.chunk(event(delta(text[i * len(text) // 10:(i + 1) * len(text) // 10])))
            if random.random() < 0.01:
                return ex.close()
        for one in stream_events(0):
            ex.chunk(one)
        ex.end()
    up.default = script
    c = config(up, {"enabled": True, "max_size_mb": 1, "default_ttl_seconds": 0.5}, clients=CLIENTS)
    c["routes"][0]["on_disconnect"] = "finish"
    c["retry"] = {"attempts": 2, "backoff_ms": 1}
    p = start(c)
    wrong = []

    def client(i):
        luck = random.Random(i)
        for k in range(100):
            whose = luck.randrange(3)
            body = {**chat("m"), "seed": luck.randrange(20) * 3 + whose}
            stream, asks = luck.random() < 0.5, luck.random() < 0.5
            if stream:
                body["stream"] = True
            if stream and asks:
                body["stream_options"] = {"include_usage": True}
            with sent(p, body, headers=key_of(CLIENTS[whose]["name"])) as one:
                if luck.random() < 0.2:
                    one.reset()
                    continue
                try:
                    a = one.response()
                except Cut:
                    continue
            if k % 25 == 0:
                p.admin("/cache/purge?client=ann", method="POST")
            if a.status != 200:
                continue
            if text_of(a) != said(body["seed"]):
                wrong.append((body, a.get("x-openclaw-cache"), a.body[:200]))
            if stream and asks != any(e != b"[DONE]" and bool(e.get("usage")) for e in data_of(a)):
                wrong.append((body, a.get("x-openclaw-cache"), a.body[-300:]))
    in_parallel(24, client)
    assert not wrong, wrong[:2]
    assert p.metric("openclaw_coalesced_total", route_id="r") > 0 and p.metric("openclaw_cache_hits_total", route_id="r") > 100
    eventually(lambda: p.metric("openclaw_flights") == 0 and p.metric("openclaw_requests_in_flight") == 0 and p.metric("openclaw_flight_bytes") == 0)
