"""Y: answers that are kept: which, in both ways, by whom, for how long, under a bound."""
import json
import random
import threading

import pytest

from client import Raw, ask, chat, data_of, eventually, in_parallel, request
from kept import CLIENTS, config, key_of, text_of, words
from proxy import run
from upstream import CHAT, delta, event, stream_events

GUIDE = {"enabled": True, "default_ttl_seconds": 3600, "max_size_mb": 500,
         "strategies": [{"id": "common_questions_cache", "match": {"path": "/v1/chat/completions", "json_body": {"temperature": 0.0}},
                         "ttl_seconds": 86400}]}


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
