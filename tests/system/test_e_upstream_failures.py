"""E: upstreams that fail, before the commit point (another try may answer) and behind it (the cut must show)."""
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from client import Raw, ask, chat, data_of, eventually, request
from proxy import Proxy, free_port
from upstream import CHAT, Upstream, delta, event, stream_events
from wire import Closed, Cut, sse_events

ERROR = {"error": {"message": "it broke", "type": "server_error", "param": None, "code": None}}


def upstream_entry(server, **more):
    return {"type": "openai", "base_url": server.url(), "connect_timeout_seconds": 1, "first_byte_timeout_seconds": 1, "stall_timeout_seconds": 1, **more}


@pytest.fixture(scope="module")
def pair():
    """`bad` does what a test says; `good` always answers. Routes: both in failover, or bad alone with one try."""
    bad, good = Upstream(), Upstream()
    p = Proxy({
        "upstreams": {"bad": upstream_entry(bad), "good": upstream_entry(good), "closed": upstream_entry(bad, base_url=f"http://127.0.0.1:{free_port()}/v1"),
                      "nowhere": upstream_entry(bad, base_url="http://no-such-host.invalid/v1")},
        "routes": [
            {"id": "both", "match": {"headers": {"x-route": "both"}}, "strategy": {"type": "failover", "upstreams": ["bad", "good"]}},
            {"id": "alone", "match": {"headers": {"x-route": "alone"}}, "strategy": {"type": "failover", "upstreams": ["bad"]}, "retry": {"attempts": 1}},
            {"id": "again", "match": {"headers": {"x-route": "again"}}, "strategy": {"type": "failover", "upstreams": ["bad"]}, "retry": {"attempts": 3}},
            {"id": "closed", "match": {"headers": {"x-route": "closed"}}, "strategy": {"type": "failover", "upstreams": ["closed", "good"]}},
            {"id": "nowhere", "match": {"headers": {"x-route": "nowhere"}}, "strategy": {"type": "failover", "upstreams": ["nowhere", "good"]}},
        ],
        "retry": {"backoff_ms": 20, "jitter": 0},
    })
    p.bad, p.good = bad, good
    yield p
    p.stop()
    bad.stop()
    good.stop()


def go(p, route, model, **more):
    return ask(p, chat(model, **more), headers=[("x-route", route)])


def reset(ex):
    ex.reset()
    raise Closed("rst")


def close(ex):
    ex.close()
    raise Closed("fin")


def sends(data, then):
    def script(ex):
        ex.send(data)
        then(ex)
    return script


def holds(ex):
    ex.until_gone()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BEFORE_COMMIT = {
    # label: (script, kind in the log, tried elsewhere)
    "reset instead of a head": (reset, "eof", True),
    "closed instead of a head": (close, "eof", True),
    "silent": (holds, "timeout_first_byte", True),
    "half a status line, then reset": (sends(b"HTTP/1.1 20", reset), "eof", True),
    "half a head, then closed": (sends(HEAD, close), "eof", True),
    "half a head, then silent": (sends(HEAD, holds), ("timeout_first_byte", "stall"), True),
    "interim answers only": (sends(b"HTTP/1.1 100 Continue\r\n\r\n", holds), "timeout_first_byte", True),
    "garbage": (sends(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", holds), "bad_response", False),
    "HTTP/0.9": (sends(b"<html>hello</html>\r\n", close), "bad_response", False),
    "HTTP/2": (sends(b"\0\0\x12\4\0\0\0\0\0\0\3\0\0\0\x80", holds), "bad_response", False),
    "status 000": (sends(b"HTTP/1.1 000 Zero\r\ncontent-length: 0\r\n\r\n", holds), "bad_response", False),
    "status 99": (sends(b"HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n", holds), "bad_response", False),
    "an unasked 101": (sends(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", holds), "bad_response", False),
    "two content-lengths": (sends(HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", holds), "bad_response", False),
    "signed content-length": (sends(HEAD + b"content-length: +2\r\n\r\n{}", holds), "bad_response", False),
    "content-length beyond numbers": (sends(HEAD + b"content-length: 99999999999999999999\r\n\r\n{}", holds), "bad_response", False),
    "length and chunked": (sends(HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", holds), "bad_response", False),
    "coding cow": (sends(HEAD + b"transfer-encoding: cow\r\n\r\n{}", holds), "bad_response", False),
    "coding chunked, cow": (sends(HEAD + b"transfer-encoding: chunked, cow\r\n\r\n{}", holds), "bad_response", False),
    "coding twice": (sends(HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", holds), "bad_response", False),
    "coding in HTTP/1.0": (sends(HEAD.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", holds), "bad_response", False),
    "folded field": (sends(HEAD + b"x-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\n{}", holds), "bad_response", False),
    "space before the colon": (sends(HEAD + b"content-length : 2\r\n\r\n{}", holds), "bad_response", False),
    "NUL in a field": (sends(HEAD + b"x-a: \0\r\ncontent-length: 2\r\n\r\n{}", holds), "bad_response", False),
    "bare CR in a field": (sends(HEAD + b"x-a: a\rb\r\ncontent-length: 2\r\n\r\n{}", holds), "bad_response", False),
    "bare LF line ends": (sends(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}", holds), "bad_response", False),
    "a head of a megabyte": (sends(HEAD + b"x-a: " + b"a" * (1 << 20) + b"\r\n\r\n", holds), "bad_response", False),
    "ten thousand fields": (sends(HEAD + b"x-a: 1\r\n" * 10000 + b"\r\n", holds), "bad_response", False),
}


@pytest.mark.parametrize("label", BEFORE_COMMIT)
@pytest.mark.parametrize("stream", [False, True])
def test_before_the_commit_point(pair, label, stream, model):
    script, kind, elsewhere = BEFORE_COMMIT[label]
    pair.bad.on(model, script)
    started = time.monotonic()
    answer = go(pair, "alone", model, stream=stream)
    took = time.monotonic() - started
    error = answer.json()["error"]
    assert answer.status in (502, 504) and answer.complete
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"] and error["param"] is None
    assert f"{pair.bad.port}" not in answer.text, "no internal address in an answer"
    line = pair.request_line(answer)
    assert line["attempts"][0]["kind"] in (kind if isinstance(kind, tuple) else (kind,))
    assert took < 4 * pair.slow
    again = go(pair, "both", model, stream=stream)
    if elsewhere:
        assert again.status == 200 and again.get("x-openclaw-upstream") == "good"
    else:
        assert again.status in (200, 502)
    # the damaged connection is not used again
    pair.bad.on(model, None)
    assert go(pair, "alone", model).status == 200


def test_truncated_plain_bodies_never_pass_for_complete(pair, model):
    body = json.dumps(CHAT).encode()
    for then in (reset, close):
        for framed in (b"content-length: %d\r\n\r\n" % len(body) + body[:-1], b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n",
                       b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[:20]):
            pair.bad.on(model, sends(HEAD + framed, then))
            try:
                answer = go(pair, "alone", model)
                assert answer.status in (502, 504)
            except Cut:
                pass


def test_connection_refused(pair, model):
    answer = go(pair, "closed", model)
    assert answer.status == 200 and answer.get("x-openclaw-attempts") == "2"
    assert pair.request_line(answer)["attempts"][0]["kind"] == "connect"


def test_name_does_not_resolve(pair, model):
    answer = go(pair, "nowhere", model)
    assert answer.status == 200
    assert pair.request_line(answer)["attempts"][0]["kind"] == "connect"


def test_500_then_ok(pair, model):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 500) if len(pair.bad.seen(model)) == 1 else ex.reply())
    answer = go(pair, "again", model)
    assert answer.status == 200 and answer.get("x-openclaw-attempts") == "2"
    line = pair.request_line(answer)
    assert [a["status"] for a in line["attempts"]] == [500, 200] and line["attempts"][0]["kind"] == "http_500"


def test_attempts_are_a_cap_and_the_last_error_is_the_upstreams_own(pair, model):
    body = json.dumps(ERROR, indent=2).encode()
    pair.bad.on(model, lambda ex: ex.reply(body, 500, headers=[("x-mine", "1")]))
    answer = go(pair, "again", model)
    assert answer.status == 500 and answer.body == body and answer.get("x-mine") == "1"
    assert len(pair.bad.seen(model)) == 3


def test_retry_sends_the_same_bytes(pair, model):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 503) if len(pair.bad.seen(model)) < 3 else ex.reply())
    assert go(pair, "again", model, pad="x" * 100000).status == 200
    assert len({bytes(e.request.body) for e in pair.bad.seen(model)}) == 1


@pytest.mark.parametrize("field,value", [("Retry-After", "1"), ("retry-after-ms", "700")])
def test_429_with_retry_after(pair, model, field, value):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 429, headers=[(field, value)]) if len(pair.bad.seen(model)) == 1 else ex.reply())
    assert go(pair, "again", model).status == 200
    first, second = pair.bad.seen(model)
    assert 0.65 <= second.request.at - first.request.at < 2.5 * pair.slow


def test_429_goes_to_the_next_candidate_at_once(pair, model):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 429, headers=[("Retry-After", "30")]))
    started = time.monotonic()
    assert go(pair, "both", model).get("x-openclaw-upstream") == "good"
    assert time.monotonic() - started < 2 * pair.slow


def test_429_that_stays_keeps_its_headers(pair, model):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 429, headers=[("Retry-After", "7")]))
    answer = go(pair, "alone", model)
    assert answer.status == 429 and answer.get("retry-after") == "7" and answer.json() == ERROR


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_never_tried_again(pair, model, status):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, status))
    assert go(pair, "both", model).status == status and len(pair.bad.seen(model)) == 1 and pair.good.seen(model) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_never_followed(pair, model, status):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, status, headers=[("Location", pair.good.url() + "/chat/completions")]))
    go(pair, "alone", model)
    assert pair.good.seen(model) == []


@pytest.mark.parametrize("form", ["openai", "named", "anthropic"])
def test_error_event_at_the_head_of_a_200_stream(pair, model, form):
    first = {"openai": event({"error": {"message": "overloaded", "type": "server_error", "code": 503}}),
             "named": b"event: error\ndata: {\"error\":{\"message\":\"overloaded\"}}\n\n",
             "anthropic": b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"overloaded\"}}\n\n"}[form]
    pair.bad.on(model, lambda ex: ex.stream([b": ping\n\n", first, b"data: [DONE]\n\n"]))
    answer = go(pair, "both", model, stream=True)
    assert answer.get("x-openclaw-upstream") == "good" and answer.body == b"".join(stream_events())
    assert pair.request_line(answer)["attempts"][0]["kind"] in ("stream_error", "overloaded", "http_503")


def test_error_event_at_the_head_with_nobody_else(pair, model):
    pair.bad.on(model, lambda ex: ex.stream([event({"error": {"message": "overloaded", "type": "server_error"}})]))
    answer = go(pair, "alone", model, stream=True)
    assert "overloaded" in answer.text and b"[DONE]" not in answer.body
    assert answer.status >= 500 or data_of(answer)[-1]["error"]


def test_stale_kept_connection_is_replaced(pair, model):
    """The upstream closes an idle connection just as a request is sent on it: not the client's problem."""
    def script(ex):
        ex.reply()
        ex.conn.sock.settimeout(10)
        if ex.conn.requests == 1:
            ex.conn.sock.recv(1)   # the next request begins: reset under its feet
            reset(ex)
    pair.bad.on(model, script)
    for _ in range(5):
        answer = go(pair, "alone", model)
        assert answer.status == 200
        pair.bad.on(model, script)


def test_idle_connection_closed_by_the_upstream_is_not_used(pair, model):
    pair.bad.on(model, lambda ex: (ex.reply(), ex.close()))
    for _ in range(10):
        assert go(pair, "alone", model).status == 200


def test_bytes_behind_an_answer_do_not_answer_the_next(pair, model):
    # What an upstream sends before it was asked is told from an answer by its being there before the request is written;
    # so the next request waits until the stray bytes have left.
    sent = threading.Event()

    def script(ex):
        evil = json.dumps({**CHAT, "id": "evil"}).encode()
        ex.reply({**CHAT, "id": "good"})
        ex.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(evil) + evil)
        sent.set()
    pair.bad.on(model, script)
    for _ in range(10):
        sent.clear()
        assert go(pair, "alone", model).json()["id"] == "good"
        assert sent.wait(10)


@pytest.mark.parametrize("status", [204, 304])
def test_body_behind_a_bodyless_answer(pair, model, status):
    pair.bad.on(model, lambda ex: ex.send(b"HTTP/1.1 %d X\r\ncontent-length: 5\r\n\r\nevilHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil" % status))
    for _ in range(3):
        with Raw(pair.port) as c:
            c.send(request(body=chat(model), headers=[("x-route", "alone")]))
            m = c.head()
            assert m.status == status
            assert c.quiet(0.05) or c.ended()[1] == b""


@pytest.mark.not_under("slowio", reason="moves 4 MB")
def test_answer_before_the_body_was_read(pair, model):
    """A 413 that comes early must reach the client although the upstream stops reading."""
    server = Upstream(accept=lambda conn: early(conn))
    p = Proxy({"upstreams": {"u": upstream_entry(server)}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}, "retry": {"attempts": 1}}]})

    def early(conn):
        conn.sock.recv(4096)
        conn.sock.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        conn.sock.settimeout(5)
        try:
            while conn.sock.recv(65536):
                pass
        except OSError:
            pass
        return True
    try:
        for size in (1000, 4 << 20):
            assert ask(p, chat(model, pad="x" * size)).status == 413
    finally:
        p.stop()
        server.stop()


def test_error_is_never_the_upstreams_key(pair, model):
    pair.bad.on(model, lambda ex: ex.reply({"error": {"message": "Incorrect API key provided: sk-ab", "type": "invalid_request_error", "param": None,
                                                      "code": "invalid_api_key"}}, 401))
    answer = go(pair, "alone", model)
    assert answer.status == 401 and answer.json()["error"]["code"] == "invalid_api_key"


def test_401_tries_the_next_candidate(pair, model):
    pair.bad.on(model, lambda ex: ex.reply(ERROR, 401))
    assert go(pair, "both", model).get("x-openclaw-upstream") == "good"


def test_total_timeout(start, upstreams):
    up = upstreams()
    up.default = holds
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "timeout_seconds": 1, "strategy": {"type": "failover", "upstreams": ["u"]}, "retry": {"attempts": 1}}]})
    started = time.monotonic()
    answer = ask(p, chat())
    assert answer.status == 504 and 0.8 < time.monotonic() - started < 3 * p.slow


# -- behind the commit point ---------------------------------------------------------------------------------------

def recorded():
    """A short stream as OpenAI sends it, with its framing: (head, framed body, plain body)."""
    events = [event(delta("H\u00e9")), event(delta("llo")), event(delta(None, "stop")), b"data: [DONE]\n\n"]
    short = [e.replace(b'"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",', b"") for e in events]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head, b"".join(b"%x\r\n" % len(e) + e + b"\r\n" for e in short) + b"0\r\n\r\n", b"".join(short)


def judge_cut(c, whole, at):
    """R12: a cut answer is an error before commit, or shows its cut. -> what it was"""
    try:
        answer = c.response()
    except Cut as cut:
        if cut.part.status is None:
            return "nothing"
        body, complete = cut.part.body, False
    except Closed:
        return "nothing"
    else:
        if answer.status != 200:
            assert answer.status in (502, 504) and answer.json()["error"]["message"]
            return "refused"
        body, complete = answer.body, True
    events, rest = sse_events(body)
    own = [e for e in events if e.startswith(b"{\"error\"")]
    sent, _ = sse_events(whole)
    theirs = [e for e in events if e not in own]
    assert theirs == sent[:len(theirs)], f"cut at {at}: events that were never sent: {events}"
    assert len(own) <= 1 and (not own or events[-1] == own[0]), f"cut at {at}: {events}"
    assert not complete or own, f"cut at {at}: passes for complete: {body!r}"
    assert rest == b"" or not complete, f"cut at {at}: half an event as if complete: {rest!r}"
    if own:
        error = json.loads(own[0])["error"]
        assert error["message"] and error["type"]
    if at < len(whole):
        assert b"[DONE]" not in body, f"cut at {at}"
    return "shown"


@pytest.mark.timeout(90)
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_cut_at_every_byte(pair, model, how, framing):
    head, framed, plain = recorded()
    if framing == "length":
        head = head.replace(b"transfer-encoding: chunked", b"content-length: %d" % len(plain))
        framed = plain
    wire = head + framed
    done_at = wire.index(b"[DONE]") + len(b"[DONE]\n\n")

    def script(ex):
        at = ex.body["at"]
        ex.send(wire[:at])
        (reset if how == "rst" else close)(ex)
    pair.bad.on(model, script)
    outcomes = {}
    for at in range(len(wire)):
        with Raw(pair.port, timeout=10 * pair.slow) as c:
            c.send(request(body=chat(model, stream=True, at=at), headers=[("x-route", "alone")]))
            # [DONE] itself may have passed before a cut in the framing behind it
            outcome = judge_cut(c, plain, at if at < done_at else len(plain))
            outcomes.setdefault(outcome, []).append(at)
    # something was refused before commit and something shown after it, else this test tests nothing
    assert outcomes.get("refused") and outcomes.get("shown"), {k: (min(v), max(v)) for k, v in outcomes.items()}
    if how == "fin":
        assert max(outcomes["refused"]) < wire.index(b"\n\n") + 2 + len(head)
        assert not outcomes.get("nothing")


@pytest.mark.parametrize("how", [reset, close])
def test_cut_after_some_events_says_so(pair, model, how):
    import threading
    seen = threading.Event()

    def script(ex):
        ex.stream_head()
        ex.chunk(stream_events()[0])
        ex.chunk(stream_events()[1][:-9])
        assert seen.wait(10)
        how(ex)
    pair.bad.on(model, script)
    with Raw(pair.port) as c:
        c.send(request(body=chat(model, stream=True), headers=[("x-route", "both")]))
        m = c.head()
        got = c.chunk(m)
        assert got.startswith(stream_events()[0])
        seen.set()
        try:
            c.reader.rest(m)
        except Cut:
            pass
    events, _ = sse_events(m.body)
    assert len(events) == 2 and json.loads(events[1])["error"]["message"] and b"[DONE]" not in m.body
    assert pair.good.seen(model) == [], "nothing is tried again behind the commit point"
    line = pair.request_line(m)
    assert line["error"] and line["attempts"][0]["kind"] == "eof"


def test_stall_mid_stream(pair, model):
    def script(ex):
        ex.stream_head()
        ex.chunk(stream_events()[0])
        ex.until_gone()
    pair.bad.on(model, script)
    started = time.monotonic()
    with Raw(pair.port) as c:
        c.send(request(body=chat(model, stream=True), headers=[("x-route", "both")]))
        m = c.head()
        try:
            c.reader.rest(m)
        except Cut:
            pass
    assert 0.8 < time.monotonic() - started < 3 * pair.slow
    events, _ = sse_events(m.body)
    assert json.loads(events[-1])["error"]["message"] and b"[DONE]" not in m.body
    assert pair.request_line(m)["attempts"][0]["kind"] == "stall"
    ex = pair.bad.seen(model)[0]
    assert ex.left.wait(2), "the proxy gives the stalled connection up"


def test_stall_in_a_plain_body(pair, model):
    pair.bad.on(model, sends(HEAD + b"content-length: 100000\r\n\r\n" + b" " * 50000, holds))
    with Raw(pair.port) as c:
        c.send(request(body=chat(model), headers=[("x-route", "alone")]))
        try:
            assert c.response().status in (502, 504)
        except Cut:
            pass


def test_garbage_in_a_chunked_stream(pair, model):
    for junk in (b"zz\r\n", b"-1\r\n", b"5\r\nabcdeXX", b"0x5\r\nabcde\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"5 \r\nabcde\r\n", b"\r\n", b"5\nabcde\n"):
        pair.bad.on(model, lambda ex, junk=junk: (ex.stream_head(), ex.chunk(stream_events()[0]), ex.send(junk), ex.until_gone()))
        with Raw(pair.port) as c:
            c.send(request(body=chat(model, stream=True), headers=[("x-route", "alone")]))
            assert judge_cut(c, stream_events()[0], 0) in ("shown", "refused")


def test_error_status_body_cut(pair, model):
    pair.bad.on(model, sends(b"HTTP/1.1 500 X\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"error\":", close))
    with Raw(pair.port) as c:
        c.send(request(body=chat(model), headers=[("x-route", "alone")]))
        try:
            answer = c.response()
            assert answer.status >= 500 and answer.json()["error"]["message"]
        except Cut:
            pass
    assert go(pair, "both", model).get("x-openclaw-upstream") == "good"


def test_huge_error_body(pair, model):
    body = json.dumps({"error": {"message": "x" * (1 << 20)}}).encode()
    pair.bad.on(model, lambda ex: ex.reply(body, 500))
    answer = go(pair, "alone", model)
    assert answer.status == 500 and answer.body == body
    assert go(pair, "both", model).get("x-openclaw-upstream") == "good"


# -- an upstream that is a process: stopped and killed -------------------------------------------------------------

class Child:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "upstream.py")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def child():
    one = Child()
    good = Upstream()
    p = Proxy({"upstreams": {"child": upstream_entry(good, base_url=f"http://127.0.0.1:{one.port}/v1"), "good": upstream_entry(good)},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["child", "good"]}}]})
    p.child, p.good = one, good
    yield p
    one.stop()
    p.stop()
    good.stop()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_process_upstream_mid_stream(child, number):
    with Raw(child.port, timeout=20) as c:
        c.send(request(body=chat(stream=True)))
        m = c.head()
        assert m.status == 200 and c.chunk(m)
        started = time.monotonic()
        os.kill(child.child.process.pid, number)
        try:
            c.reader.rest(m)
        except Cut:
            pass
        assert time.monotonic() - started < 3 * child.slow
    events, _ = sse_events(m.body)
    assert json.loads(events[-1])["error"]["message"] and b"[DONE]" not in m.body
    assert child.request_line(m)["attempts"][0]["kind"] == ("stall" if number == signal.SIGSTOP else "eof")
    assert child.good.exchanges == []


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_process_upstream_at_head(child, number):
    with Raw(child.port, timeout=20) as c:
        c.send(request(body=chat("at-head", stream=True)))
        assert eventually(lambda: child.metric("openclaw_requests_in_flight") == 1)
        os.kill(child.child.process.pid, number)
        answer = c.response()
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "good" and answer.complete
    assert child.request_line(answer)["attempts"][0]["kind"] in (("timeout_first_byte",) if number == signal.SIGSTOP else ("eof", "connect"))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_process_upstream_at_connect(child, number):
    os.kill(child.child.process.pid, number)
    if number == signal.SIGKILL:
        child.child.process.wait()
    answer = ask(child, chat(), timeout=20)
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "good"
    assert child.request_line(answer)["attempts"][0]["kind"] in (("timeout_first_byte", "connect") if number == signal.SIGSTOP else ("connect",))
