"""Y: signs of life in streams that are silent for long, each in its dialect's way; before an answer, too, where that is asked for."""
import json
import signal
import threading

import anthropic
import openai
import pytest

from client import Raw, ask, chat, eventually, request
from kept import ALL
from upstream import delta, event
from wire import Cut

COMMENT = b": keep-alive\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
EVERY = 0.2
DONE = b"data: [DONE]\n\n"


def config(up, types=("openai",), before=False, **more):
    return {"server": {"heartbeat_seconds": EVERY, "heartbeat_before_answer": before}, "retry": {"attempts": 3, "backoff_ms": 1},
            "upstreams": {f"u{i}": {"type": t, "api_key": "sk-up", "base_url": up.url("" if t == "gemini" else "/v1"), "cooling": False} for i, t in enumerate(types)},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": [f"u{i}" for i in range(len(types))]}, **more}]}


def typed(data):
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def anthropic_stream():
    return [typed({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                                                        "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}}),
            typed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            typed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
            typed({"type": "content_block_stop", "index": 0}),
            typed({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}}),
            typed({"type": "message_stop"})]


def openai_stream():
    return [event(delta("Hel")), event(delta("lo")), event(delta(None, "stop")), DONE]


def halting(events, at=1):
    """-> script, go: the events before `at`, the rest once go is set."""
    go = threading.Event()

    def script(ex):
        ex.stream_head()
        for e in events[:at]:
            ex.chunk(e)
        assert go.wait(60)
        for e in events[at:]:
            ex.chunk(e)
        ex.end()
    return script, go


def read_until(c, m, what, times=1):
    """Read on in the answer until it has this so many times."""
    while m.body.count(what) < times:
        assert c.chunk(m), m


PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "gemini": "/v1beta/models/m:streamGenerateContent?alt=sse", "ollama": "/api/chat"}
STREAMS = {"openai": (COMMENT, openai_stream()), "anthropic": (PING, anthropic_stream())}


def opened(p, kind="openai", **more):
    c = Raw(p.port, timeout=20 * p.slow)
    return c.send(request(path=PATHS[kind], body=chat("m", stream=True, max_tokens=50, **more)))


@pytest.mark.parametrize("kind", STREAMS)
def test_a_silent_stream_has_beats_between_its_events(start, upstreams, kind):
    beat, events = STREAMS[kind]
    up = upstreams()
    up.default, go = halting(events)
    p = start(config(up, (kind,)))
    with opened(p, kind) as c:
        m = c.head()
        read_until(c, m, beat, 2)
        go.set()
        c.reader.rest(m)
    assert m.body.replace(beat, b"") == b"".join(events) and m.body.startswith(events[0] + beat)
    assert p.wait_log(lambda line: line.get("status") == 200)["bytes_out"] == len(m.body)


def test_a_stream_that_speaks_has_none(start, upstreams):
    """More often than the interval, for longer than it."""
    up = upstreams()

    def script(ex):
        ex.stream_head()
        for i in range(20):
            ex.chunk(event(delta(str(i))))
            threading.Event().wait(EVERY / 10)
        ex.end()
    up.default = script
    p = start({**config(up), "server": {"heartbeat_seconds": EVERY * 10}})
    with opened(p) as c:
        assert COMMENT not in c.response().body


@pytest.mark.parametrize("kind", ["gemini", "ollama"])
def test_clients_that_choke_on_them_get_none(start, upstreams, kind):
    up = upstreams()
    up.default, go = halting(openai_stream())
    p = start(config(up))
    with opened(p, kind) as c, opened(p) as other:
        m, watch = c.head(), other.head()
        c.chunk(m)
        read_until(other, watch, COMMENT, 3)    # so long it was silent here, too
        go.set()
        c.reader.rest(m)
    assert b"keep-alive" not in m.body and b"ping" not in m.body and m.complete


@pytest.mark.parametrize("server", [{"heartbeat_seconds": 0}, {}])
def test_none_unless_it_is_time(start, upstreams, server):
    up = upstreams()
    up.default, go = halting(openai_stream())
    p, beating = start({**config(up), "server": server}), start(config(up))
    with opened(p) as c, opened(beating) as other:
        m, watch = c.head(), other.head()
        read_until(other, watch, COMMENT, 3)
        go.set()
        assert c.reader.rest(m).body == b"".join(openai_stream())


def test_plain_answers_wait_without(start, upstreams):
    up = upstreams()
    go = threading.Event()
    up.default = lambda ex: go.wait(60) and ex.reply()
    p = start(config(up, before=True))
    with opened(p) as other, Raw(p.port, timeout=20 * p.slow) as c:
        c.send(request(body=chat("m")))
        watch = other.head()
        read_until(other, watch, COMMENT, 3)
        go.set()
        assert c.response().json()["choices"]


def test_a_kept_answer_has_none(start, upstreams):
    up = upstreams()
    up.default, go = halting(openai_stream())
    p = start({**config(up), "caching": ALL})
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        go.set()
        c.reader.rest(m)
    again = eventually(lambda: (a := ask(p, chat("m", stream=True, max_tokens=50))).get("x-openclaw-cache") == "hit" and a)
    assert again.body == b"".join(openai_stream())


@pytest.mark.parametrize("kind", STREAMS)
def test_who_shares_an_answer_has_them_too(start, upstreams, kind):
    beat, events = STREAMS[kind]
    up = upstreams()
    up.default, go = halting(events)
    p = start({**config(up, (kind,)), "caching": ALL})
    with opened(p, kind) as leader:
        first = leader.head()
        read_until(leader, first, events[0])
        with opened(p, kind) as c:
            m = c.head()
            assert m.get("x-openclaw-cache") == "coalesced"
            read_until(c, m, beat, 2)
            read_until(leader, first, beat, 2)
            go.set()
            for one in ((c, m), (leader, first)):
                one[0].reader.rest(one[1])
    assert len(up.exchanges) == 1
    for answer in (m, first):
        assert answer.body.replace(beat, b"") == b"".join(events) and answer.body.startswith(events[0] + beat)
    assert p.wait_log(lambda line: line.get("cache") == "coalesced")["bytes_out"] == len(m.body)


def test_who_shares_an_answer_has_them_before_it_too(start, upstreams):
    up = upstreams()
    up.default, go = halting(openai_stream(), at=0)
    p = start({**config(up, before=True), "caching": ALL})
    with opened(p) as leader, opened(p) as c:
        m, first = c.head(), leader.head()
        read_until(c, m, COMMENT, 2)
        go.set()
        c.reader.rest(m)
        leader.reader.rest(first)
    assert m.body.replace(COMMENT, b"") == b"".join(openai_stream()) == first.body.replace(COMMENT, b"")


def test_who_shares_a_failure_behind_a_beat_is_told_by_an_event(start, upstreams):
    up = upstreams()
    go = threading.Event()
    up.default = lambda ex: go.wait(60) and ex.reply(b'{"error":{"message":"no"}}', 400)
    p = start({**config(up, before=True), "caching": ALL})
    with opened(p) as leader, opened(p) as c:
        m, first = c.head(), leader.head()
        read_until(c, m, COMMENT)
        read_until(leader, first, COMMENT)
        go.set()
        for one in ((c, m), (leader, first)):
            assert one[0].reader.rest(one[1]).body.replace(COMMENT, b"") == b'data: {"error":{"message":"no"}}\n\n'


def test_the_official_clients_read_over_them(start, upstreams):
    up = upstreams()
    for kind in STREAMS:
        for before in (False, True):
            up.default, go = halting(STREAMS[kind][1], at=0 if before else 3)
            p = start(config(up, (kind,), before=before))
            mark = threading.Timer(EVERY * 4, go.set)
            mark.start()
            if kind == "openai":
                sdk = openai.OpenAI(api_key="x", base_url=f"http://127.0.0.1:{p.port}/v1", max_retries=0)
                said = "".join(c.choices[0].delta.content or "" for c in sdk.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "Hi"}]))
            else:
                with anthropic.Anthropic(api_key="x", base_url=f"http://127.0.0.1:{p.port}", max_retries=0).messages.stream(
                        model="m", max_tokens=50, messages=[{"role": "user", "content": "Hi"}]) as stream:
                    said = stream.get_final_text()
            assert said == "Hello"
            # The one who leaves at [DONE] may be gone before the end is sent: then its status is 499.
            assert p.wait_log(lambda line: line["msg"] == "request")["bytes_out"] > len(b"".join(STREAMS[kind][1]))


# ---- before an answer

def waits(then):
    """-> script, go: nothing until go is set, then what `then` does."""
    go = threading.Event()

    def script(ex):
        assert go.wait(60)
        then(ex)
    return script, go


@pytest.mark.parametrize("kind", STREAMS)
def test_beats_before_the_answer_and_then_it(start, upstreams, kind):
    beat, events = STREAMS[kind]
    up = upstreams()
    up.default, go = waits(lambda ex: ex.stream(events))
    p = start(config(up, (kind,), before=True))
    with opened(p, kind) as c:
        m = c.head()
        assert (m.status, m.get("content-type")) == (200, "text/event-stream")
        assert m.get("x-openclaw-route") == "r" and m.get("x-openclaw-request-id") and m.get("x-openclaw-upstream") is None
        read_until(c, m, beat, 2)
        go.set()
        c.reader.rest(m)
    assert m.body.replace(beat, b"") == b"".join(events)
    line = p.wait_log(lambda line: line.get("status") == 200)
    assert line["upstream"] == "u0" and line["output_tokens"] > 0


def test_a_byte_order_mark_does_not_come_behind_beats(start, upstreams):
    """It is one at the beginning only: else it would be a part of the first event's first field."""
    up = upstreams()
    events = openai_stream()
    up.default, go = waits(lambda ex: ex.stream([b"\xef\xbb\xbf" + events[0], *events[1:]]))
    p = start(config(up, before=True))
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        go.set()
        c.reader.rest(m)
    assert m.body.replace(COMMENT, b"") == b"".join(events)


def test_another_upstream_takes_over_behind_beats(start, upstreams):
    up = upstreams()
    first, go = waits(lambda ex: ex.reply(b'{"error":{"message":"no"}}', 500))
    scripts = [first, lambda ex: ex.stream(openai_stream())]
    up.default = lambda ex: scripts.pop(0)(ex)
    p = start(config(up, ("openai", "openai"), before=True))
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        go.set()
        c.reader.rest(m)
    assert m.body.replace(COMMENT, b"") == b"".join(openai_stream())
    assert [a["upstream"] for a in p.wait_log(lambda line: line.get("status") == 200)["attempts"]] == ["u0", "u1"]


def test_a_hedge_behind_beats(start, upstreams):
    up = upstreams()
    scripts = [lambda ex: ex.until_gone(), lambda ex: ex.stream(openai_stream())]
    up.default = lambda ex: scripts.pop(0)(ex)
    p = start(config(up, ("openai", "openai"), before=True, hedge={"after": EVERY * 3000, "budget": 1}))
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        c.reader.rest(m)
    assert m.body.replace(COMMENT, b"") == b"".join(openai_stream())


@pytest.mark.parametrize("kind", STREAMS)
def test_an_upstreams_error_is_an_event_then(start, upstreams, kind):
    beat = STREAMS[kind][0]
    error = {"error": {"message": "too many of these", "type": "rate_limit_error"}}
    up = upstreams()
    up.default, go = waits(lambda ex: ex.reply(json.dumps({"type": "error", **error} if kind == "anthropic" else error).encode(), 429))
    p = start({**config(up, (kind,), before=True), "retry": {"attempts": 1}})
    with opened(p, kind) as c:
        m = c.head()
        read_until(c, m, beat)
        go.set()
        c.reader.rest(m)
        assert m.complete
        c.send(request(path=PATHS[kind], body=chat("m", max_tokens=50)))        # the connection is as good as before
        assert c.response().status == 429
    last = m.body.replace(beat, b"").decode()
    assert last.startswith("event: error\ndata: " if kind == "anthropic" else "data: ")
    assert json.loads(last.partition("data: ")[2])["error"]["message"] == "too many of these"
    line = p.wait_log(lambda line: line.get("attempts"))
    assert (line["status"], line["error"], line["attempts"][0]["status"]) == (200, "stream_error", 429)


@pytest.mark.parametrize("then,message", [
    (lambda ex: ex.reply(b"<html>busy</html>", 503, type="text/html"), "status 503"),
    (lambda ex: ex.reply(), "not valid"),                                                       # no stream
    (lambda ex: ex.close(), "closed"),
])
def test_what_fails_is_an_event_then(start, upstreams, then, message):
    up = upstreams()
    up.default, go = waits(then)
    p = start({**config(up, before=True), "retry": {"attempts": 1}})
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        go.set()
        with pytest.raises(Cut):
            c.reader.rest(m)
    error = json.loads(m.body.replace(COMMENT, b"").partition(b"data: ")[2])["error"]
    assert message in error["message"] and error["type"] == "upstream_error"


def test_translated_streams_too(start, upstreams):
    up = upstreams()
    for then, good in ((lambda ex: ex.stream(anthropic_stream()), True), (lambda ex: ex.reply(b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', 529), False)):
        up.default, go = waits(then)
        p = start({**config(up, ("anthropic",), before=True), "retry": {"attempts": 1}})
        with opened(p) as c:
            m = c.head()
            read_until(c, m, COMMENT)
            go.set()
            c.reader.rest(m)
        said = m.body.replace(COMMENT, b"")
        assert b'"Hello"' in said and said.endswith(DONE) if good else b'"busy"' in said and b"data: {" in said


def test_a_client_that_leaves_between_beats(start, upstreams):
    up = upstreams()
    gone = threading.Event()

    def script(ex):
        try:
            ex.until_gone()
        finally:
            gone.set()
    up.default = script
    p = start(config(up, before=True))
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
    assert gone.wait(10 * p.slow)


def test_the_end_of_the_time_to_drain_is_an_event(start, upstreams):
    up = upstreams()
    up.default = lambda ex: ex.until_gone()
    p = start({**config(up, before=True), "server": {"heartbeat_seconds": EVERY, "heartbeat_before_answer": True, "drain_seconds": EVERY}})
    with opened(p) as c:
        m = c.head()
        read_until(c, m, COMMENT)
        p.signal(signal.SIGTERM)
        with pytest.raises(Cut):
            c.reader.rest(m)
    assert b"shutting down" in m.body
