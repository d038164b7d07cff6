"""Y: traces: a request's spans as an OpenTelemetry collector gets them, and the context that is carried on to upstreams."""
import json
import re
import signal
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, request
from proxy import SLOW

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY = "collector-key-9d21f0"
SERVER, CLIENT = 2, 3


@pytest.fixture
def collector(upstreams):
    c = upstreams()
    c.on("/v1/traces", lambda ex: ex.reply({}))
    return c


def config(up, collector, tracing=None, **more):
    return {"tracing": {"endpoint": collector.url(""), "interval_seconds": 0.05, "headers": {"x-collector": KEY}, **(tracing or {})},
            "upstreams": {"u": {"type": "openai", "base_url": up.url(), "api_key": "sk-upstream-of-traces-1",
                                "cost_per_million_input_tokens": 1.0, "cost_per_million_output_tokens": 2.0},
                          "v": {"type": "anthropic", "base_url": up.url(), "api_key": "sk-upstream-of-traces-2", "models": ["claude-x"]}},
            "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["u", "v"]}}],
            "retry": {"backoff_ms": 1}, **more}


def value(v):
    """An OTLP AnyValue in JSON: one member, int64 as a string."""
    (kind, x), = v.items()
    assert {"stringValue": str, "boolValue": bool, "doubleValue": (int, float), "intValue": str}[kind] and \
        isinstance(x, {"stringValue": str, "boolValue": bool, "doubleValue": (int, float), "intValue": str}[kind]), v
    return int(x) if kind == "intValue" else x


def attributes(of):
    out = {a["key"]: value(a["value"]) for a in of}
    assert len(out) == len(of), "an attribute twice"
    return out


class Span(dict):
    def __init__(self, raw):
        super().__init__(attributes(raw["attributes"]))
        self.raw, self.name, self.kind = raw, raw["name"], raw["kind"]
        self.id, self.trace, self.parent = raw["spanId"], raw["traceId"], raw.get("parentSpanId")
        self.start, self.end = int(raw["startTimeUnixNano"]), int(raw["endTimeUnixNano"])
        self.events = [(e["name"], attributes(e["attributes"])) for e in raw.get("events", [])]
        self.failed = raw.get("status", {}).get("code") == 2
        assert re.fullmatch("[0-9a-f]{32}", self.trace) and re.fullmatch("[0-9a-f]{16}", self.id) and self.start <= self.end
        assert set(raw) <= {"traceId", "spanId", "parentSpanId", "traceState", "flags", "name", "kind", "startTimeUnixNano",
                            "endTimeUnixNano", "attributes", "events", "status"}


def exports(collector):
    """(request, resource's attributes, spans) of each export so far."""
    out = []
    for ex in collector.since(0):
        assert ex.request.method == "POST" and ex.request.get("content-type") == "application/json"
        (resource,) = json.loads(ex.request.body)["resourceSpans"]
        (scope,) = resource["scopeSpans"]
        assert scope["scope"]["name"] == "openclaw"
        out.append((ex.request, attributes(resource["resource"]["attributes"]), [Span(s) for s in scope["spans"]]))
    return out


def spans(collector, request_id=None):
    """(server span, attempts' spans in order) of a request, by its id; waits for them."""
    def look():
        all_spans = [s for _, _, batch in exports(collector) for s in batch]
        for s in all_spans:
            if s.kind == SERVER and request_id in (None, s["openclaw.request_id"]):
                return s, [a for a in all_spans if a.trace == s.trace and a.parent == s.id]
        return None
    return eventually(look, timeout=10 * SLOW)


def ended(p):
    """It was asked to end once, and has."""
    p.process.wait(10 * SLOW)
    p.stop()


def sent_on(ex):
    """The context an upstream was sent."""
    found = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-0([0-3])", ex.request.get("traceparent") or "")
    assert found, ex.request.get("traceparent")
    return found[1], found[2], int(found[3])


def test_a_request(start, up, collector, model):
    """The server's span, the attempt's below it, and what each says."""
    p = start(config(up, collector))
    a = ask(p, chat(model), headers=[("user-agent", "a test/1"), ("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=x:1,other@sys=2")])
    assert a.status == 200
    rid = a.get("x-openclaw-request-id")
    server, attempts = spans(collector, rid)
    assert (server.trace, server.parent, server.name, server.raw["traceState"]) == (TRACE, SPAN, "POST r", "vendor=x:1,other@sys=2")
    assert server["http.request.method"] == "POST" and server["url.path"] == "/v1/chat/completions" and server["http.response.status_code"] == 200
    assert server["user_agent.original"] == "a test/1" and server["client.address"] == "127.0.0.1" and server["openclaw.route"] == "r"
    assert not server.failed and [name for name, _ in server.events] == ["openclaw.answer_begins"]
    assert server.raw["flags"] == 0x301 and abs(server.end / 1e9 - time.time()) < 60
    (one,) = attempts
    assert one.kind == CLIENT and one.name == f"chat {model}" and server.start <= one.start <= one.end <= server.end
    assert one["gen_ai.operation.name"] == "chat" and one["gen_ai.provider.name"] == "openai" and one["gen_ai.request.model"] == model
    assert (one["gen_ai.usage.input_tokens"], one["gen_ai.usage.output_tokens"]) == (11, 7)
    assert one["gen_ai.usage.cache_read.input_tokens"] == 3 and one["gen_ai.usage.reasoning.output_tokens"] == 2
    assert one["openclaw.cost_usd"] == pytest.approx(25e-6) and "gen_ai.usage.input_tokens" not in server
    assert one["server.address"] == "127.0.0.1" and one["server.port"] == up.port and one["http.response.status_code"] == 200
    (seen,) = up.seen(model)
    assert sent_on(seen) == (TRACE, one.id, 1) and seen.request.get("tracestate") == "vendor=x:1,other@sys=2"
    assert p.request_line(a)["trace_id"] == TRACE
    assert json.loads(p.admin("/requests?limit=1")[1])["requests"][0]["trace_id"] == TRACE
    request_, resource, _ = exports(collector)[0]
    assert resource["service.name"] == "openclaw-proxy" and resource["service.version"] and re.fullmatch("[0-9a-f]{32}", resource["service.instance.id"])
    assert request_.target == "/v1/traces" and request_.get("x-collector") == KEY
    for text in (p.everything_told(), p.admin("/metrics")[1], p.admin("/generations")[1], json.dumps([s.raw for s in [server, one]])):
        assert KEY not in text and "sk-upstream-of-traces" not in text
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2, outcome="exported")
    p.wait_metric("openclaw_trace_requests_waiting", lambda v: v == 0)


def test_failing_over(start, up, collector, model):
    """An attempt is a span; the one that failed says how; tokens stand where they were spent."""
    up.on(model, lambda ex: ex.reply({"error": {"message": "no, sk-upstream-of-traces-1 is busy"}}, status=503))
    p = start(config(up, collector))
    a = ask(p, chat(model, max_tokens=5, temperature=0.7, top_p=1))
    assert a.status == 200
    server, (first, second) = spans(collector, a.get("x-openclaw-request-id"))
    assert server.trace == a.get("x-openclaw-request-id") and server.parent is None and not server.failed
    assert first.failed and first["error.type"] == "http_503" and first["http.response.status_code"] == 503 and first["openclaw.upstream"] == "u"
    assert "gen_ai.usage.input_tokens" not in first and first.id != second.id
    assert not second.failed and second["gen_ai.provider.name"] == "anthropic" and second["gen_ai.request.model"] == "claude-x"
    assert (second["gen_ai.request.max_tokens"], second["gen_ai.request.temperature"], second["gen_ai.request.top_p"]) == (5, 0.7, 1)
    assert second["http.request.resend_count"] == 1 and second["gen_ai.usage.output_tokens"] == 7
    sent = [sent_on(ex) for ex in [*up.seen(model), *up.seen("claude-x")] if ex.request.get("traceparent", "")[3:35] == server.trace]
    assert {s[1] for s in sent} == {first.id, second.id} and {s[0] for s in sent} == {server.trace}


def test_failures_are_told(start, up, collector, model):
    """A policy that raises, an upstream that cannot be reached, a client's own mistake."""
    lua = "return { name = 'bad', api = 1, request = function(req) if req.model == 'boom' then error('x marks it') end end }"
    c = config(up, collector)
    c["upstreams"]["u"]["models"] = [model, "boom", "far"]
    c["upstreams"]["far"] = {"type": "openai", "base_url": "http://127.0.0.1:1", "models": ["far"]}
    c["routes"].append({"id": "far", "match": {"path": "/v1/*", "json_body": {"model": "far"}}, "strategy": {"type": "failover", "upstreams": ["far"]}})
    p = start(c, policies={"bad.lua": lua})
    server, attempts = spans(collector, ask(p, chat("boom")).get("x-openclaw-request-id"))
    assert server.failed and server["error.type"] == "policy_error" and not attempts
    assert ("exception", "policy_error") in [(name, e.get("exception.type")) for name, e in server.events]
    server, attempts = spans(collector, ask(p, chat("far")).get("x-openclaw-request-id"))
    assert server.failed and server["http.response.status_code"] == 502 and attempts and all(s["error.type"] == "connect" for s in attempts)
    server, attempts = spans(collector, ask(p, {"model": 5}).get("x-openclaw-request-id"))
    assert server["http.response.status_code"] == 400 and not server.failed and not attempts


def test_a_stream_and_one_that_is_cut(start, up, collector, model):
    def cut(ex):
        ex.stream_head()
        ex.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n')
        eventually(lambda: any(r["step"] == "stream" for r in json.loads(p.admin("/requests/inflight")[1])["requests"]))
        ex.reset()
    up.on(model + "-cut", cut)
    p = start(config(up, collector))
    server, (one,) = spans(collector, ask(p, chat(model, stream=True)).get("x-openclaw-request-id"))
    assert one["gen_ai.request.stream"] is True and 0 <= one["gen_ai.response.time_to_first_chunk"] < 10 * SLOW
    with Raw(p.port) as c:
        c.send(request(body=chat(model + "-cut", stream=True)))
        c.sock.settimeout(10 * SLOW)
        while c.sock.recv(65536):
            pass
    server, (one,) = eventually(lambda: next(((s, a) for s, a in [spans(collector, line["id"]) for line in p.request_lines()] if s.failed), None))
    assert server["http.response.status_code"] == 200 and server["error.type"] == "eof" and one.failed


def test_an_attempt_that_was_outrun(start, up, collector, model):
    """Of a hedge's two the one that lost is no failure."""
    up.on(model, lambda ex: ex.until_gone(20) if "/slow/" in ex.request.target else ex.reply())
    c = config(up, collector)
    c["upstreams"] = {"slow": {"type": "openai", "base_url": up.url("/slow/v1")}, "fast": {"type": "openai", "base_url": up.url()}}
    c["routes"] = [{"id": "r", "strategy": {"type": "failover", "upstreams": ["slow", "fast"]}, "hedge": {"after": 20, "budget": 1}}]
    p = start(c)
    server, (slow, fast) = spans(collector, ask(p, chat(model)).get("x-openclaw-request-id"))
    assert slow["openclaw.outrun"] and not slow.failed and "error.type" not in slow and "gen_ai.usage.input_tokens" not in slow
    assert fast["gen_ai.usage.input_tokens"] == 11 and not server.failed
    assert {sent_on(ex)[1] for ex in up.seen(model)} == {slow.id, fast.id}


def test_a_gemini_client(start, up, collector, model):
    """What the body says elsewhere, and an operation of its own."""
    p = start(config(up, collector, routes=[{"id": "g", "strategy": {"type": "failover", "upstreams": ["u"]}}]))
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 9, "topP": 0.5}}
    a = ask(p, body, path=f"/v1beta/models/{model}:generateContent")
    assert a.status == 200
    _, (one,) = spans(collector, a.get("x-openclaw-request-id"))
    assert one.name == f"generate_content {model}" and (one["gen_ai.request.max_tokens"], one["gen_ai.request.top_p"]) == (9, 0.5)


def test_from_the_cache(start, up, collector, model):
    p = start(config(up, collector, caching={"enabled": True}))
    ids = [ask(p, chat(model)).get("x-openclaw-request-id") for _ in range(2)]
    assert len(spans(collector, ids[0])[1]) == 1
    server, attempts = spans(collector, ids[1])
    assert server["openclaw.cache"] == "hit" and not attempts


@pytest.mark.parametrize("parent", [
    f"00-{TRACE}-{SPAN}", f"00-{TRACE.upper()}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-0x", "", "x", f"01-{TRACE}-{SPAN}-01x"])
def test_an_invalid_parent_is_replaced(start_shared, up, model, parent):
    """W3C Trace Context 4.2: as if it were not there, and its tracestate with it."""
    p, _ = start_shared
    a = ask(p, chat(model), headers=[("traceparent", parent), ("tracestate", "a=1")])
    (seen,) = up.seen(model)
    trace, _, flags = sent_on(seen)
    assert trace == a.get("x-openclaw-request-id") == p.request_line(a)["trace_id"] and flags == 1 and seen.request.get("tracestate") is None


@pytest.mark.parametrize("headers, state, flags", [
    ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1"), ("TraceState", " b=2")], "a=1,b=2", 1),
    ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "A=1")], None, 1),
    ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1,a=2")], None, 1),
    ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", ",".join(f"k{i}=v" for i in range(33)))], None, 1),
    ([("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", ",".join(f"k{i}=v" for i in range(32)))], ",".join(f"k{i}=v" for i in range(32)), 1),
    ([("traceparent", f"00-{TRACE}-{SPAN}-00")], None, 0),
    ([("traceparent", f"00-{TRACE}-{SPAN}-ff")], None, 3),
    ([("traceparent", f"cc-{TRACE}-{SPAN}-01-what.the.future.has")], None, 1),
])
def test_a_valid_parent_is_gone_on_with(start_shared, up, model, headers, state, flags):
    p, _ = start_shared
    assert ask(p, chat(model), headers=headers).status == 200
    (seen,) = up.seen(model)
    trace, span, sent = sent_on(seen)
    assert trace == TRACE and span != SPAN and sent == flags and seen.request.get("tracestate") == state


@pytest.fixture(scope="module")
def start_shared(up):
    from proxy import Proxy
    from upstream import Upstream
    c = Upstream()
    c.on("/v1/traces", lambda ex: ex.reply({}))
    p = Proxy(config(up, c))
    yield p, c
    p.stop()
    c.stop()


def test_two_parents_are_none(start_shared, up, model):
    p, _ = start_shared
    a = ask(p, chat(model), headers=[("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])
    assert sent_on(up.seen(model)[0])[0] == a.get("x-openclaw-request-id")


def test_not_configured(start, up, collector, model):
    """The context passes as it came; nothing is made of it."""
    c = config(up, collector)
    del c["tracing"]
    p = start(c)
    a = ask(p, chat(model), headers=[("traceparent", "whatever"), ("tracestate", "A=1")])
    (seen,) = up.seen(model)
    assert seen.request.get("traceparent") == "whatever" and seen.request.get("tracestate") == "A=1" and "trace_id" not in p.request_line(a)
    p.write_config(config(up, collector))           # live, both ways
    p.signal(signal.SIGHUP)
    p.wait_metric("openclaw_generation", lambda v: v == 2)
    a = ask(p, chat(model))
    assert spans(collector, a.get("x-openclaw-request-id"))
    p.write_config(c)
    p.signal(signal.SIGHUP)
    p.wait_metric("openclaw_generation", lambda v: v == 3)
    assert "trace_id" not in p.request_line(ask(p, chat(model)))


def test_sampling(start, up, collector, model):
    """A part of those that begin a trace; who comes with one has decided; the header says so either way."""
    p = start(config(up, collector, {"sample_ratio": 0.25}))
    for _ in range(120):
        assert ask(p, chat(model)).status == 200
    flags = [sent_on(ex)[2] for ex in up.seen(model)]
    assert 8 <= sum(flags) <= 60
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2 * sum(flags), outcome="exported")
    for i in range(3):
        ask(p, chat(model), headers=[("traceparent", f"00-{TRACE[:-1]}{i}-{SPAN}-0{i % 2}")])
    assert [sent_on(ex)[2] for ex in up.seen(model)[-3:]] == [0, 1, 0]
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2 * sum(flags) + 2, outcome="exported")


def test_clients_that_are_not_trusted(start, up, collector, model):
    p = start(config(up, collector, {"trust_parents": False, "sample_ratio": 0}))
    a = ask(p, chat(model), headers=[("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=1")])
    (seen,) = up.seen(model)
    assert sent_on(seen)[0] == a.get("x-openclaw-request-id") and sent_on(seen)[2] == 0 and seen.request.get("tracestate") is None


def test_a_policy_may_say_otherwise(start, up, collector, model):
    lua = "return { name = 'own', api = 1, request = function(req) req.upstream.headers['traceparent'] = 'mine' end }"
    p = start(config(up, collector), policies={"own.lua": lua})
    assert spans(collector, ask(p, chat(model)).get("x-openclaw-request-id"))
    assert up.seen(model)[0].request.get("traceparent") == "mine"


def test_a_policy_that_asks_elsewhere(start, up, collector, upstreams, model):
    """Its fetch belongs to the trace, below the server's span, unless it says where."""
    other = upstreams()
    lua = """return { name = 'asks', api = 1, admit = function(req)
        claw.http.fetch("%s")
        claw.http.fetch("%s", { headers = { TraceParent = "own" } })
    end }""" % (other.url("/a"), other.url("/b"))
    p = start(config(up, collector, policies={"allow_private": ["127.0.0.0/8"]}), policies={"asks.lua": lua})
    server, _ = spans(collector, ask(p, chat(model)).get("x-openclaw-request-id"))
    first, second = other.since(0)
    assert sent_on(first) == (server.trace, server.id, 1) and second.request.get("traceparent") == "own"


def test_batches(start, up, collector, model):
    """What ended within the interval goes together."""
    p = start(config(up, collector, {"interval_seconds": 0.5}))
    for _ in range(20):
        ask(p, chat(model))
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 40, outcome="exported")
    assert len(exports(collector)) <= 4


@pytest.mark.parametrize("status, tries, outcome", [(503, 3, "exported"), (429, 3, "exported"), (400, 1, "failed"), (500, 1, "failed")])
def test_again(start, up, collector, model, status, tries, outcome):
    """What OTLP calls retryable is tried again, as Retry-After says, with the same spans; the rest is lost at once."""
    n = iter(range(100))
    collector.on("/v1/traces", lambda ex: ex.reply({}, status=status if next(n) < 2 else 200, headers=[("retry-after", "0")]))
    p = start(config(up, collector))
    ask(p, chat(model))
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2, outcome=outcome)
    assert len({ex.request.body for ex in collector.since(0)}) == 1 and len(collector.since(0)) == tries
    p.wait_log(lambda line: line["msg"] == "the trace collector does not take spans")


def test_given_up(start, up, collector, model):
    collector.on("/v1/traces", lambda ex: ex.close())
    p = start(config(up, collector, {"attempts": 2}))
    ask(p, chat(model))
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2, timeout=10, outcome="failed")
    assert p.metric("openclaw_trace_requests_waiting") == 0


def test_partial_success(start, up, collector, model):
    collector.on("/v1/traces", lambda ex: ex.reply({"partialSuccess": {"rejectedSpans": "1", "errorMessage": "too old"}}))
    p = start(config(up, collector))
    ask(p, chat(model))
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 1, outcome="failed")
    assert p.metric("openclaw_trace_spans_total", outcome="exported") == 1
    assert "too old" in p.wait_log(lambda line: line["msg"] == "the trace collector does not take spans")["error"]


def test_a_collector_that_hangs_holds_up_nobody(start, up, collector, model):
    """Requests go on; the queue keeps its bound, the rest is dropped and counted; the end does not wait for longer than it may."""
    collector.on("/v1/traces", lambda ex: ex.until_gone(60))
    p = start(config(up, collector, {"max_queue": 10, "timeout_seconds": 60, "flush_seconds": 0.3}))
    for _ in range(40):
        begun = time.monotonic()
        assert ask(p, chat(model)).status == 200
        assert time.monotonic() - begun < 2 * p.slow
    p.wait_metric("openclaw_trace_spans_total", lambda v: v == 2 * (40 - 10), outcome="dropped")
    assert p.metric("openclaw_trace_requests_waiting") == 10
    p.signal(signal.SIGTERM)
    ended(p)
    p.wait_log(lambda line: line["msg"].startswith("tracing.flush_seconds are over"))


def test_a_second_signal_ends_the_flush(start, up, collector, model):
    collector.on("/v1/traces", lambda ex: ex.until_gone(60))
    p = start(config(up, collector, {"timeout_seconds": 60, "flush_seconds": 60}))
    ask(p, chat(model))
    eventually(lambda: collector.since(0), timeout=10 * SLOW)
    p.signal(signal.SIGTERM)
    p.wait_log(lambda line: line["msg"] == "draining")
    p.signal(signal.SIGTERM)
    p.stop()


def test_the_end_flushes(start, up, collector, model):
    """What ended just before the stop arrives, also at a collector that wants it twice."""
    n = iter(range(100))
    collector.on("/v1/traces", lambda ex: ex.reply({}, status=503 if next(n) == 0 else 200, headers=[("retry-after", "0")]))
    release = threading.Event()
    up.on(model, lambda ex: (release.wait(20), ex.reply()))
    p = start(config(up, collector, {"interval_seconds": 60}))
    with Raw(p.port) as c:
        c.send(request(body=chat(model)))
        up.wait_seen(model)
        p.signal(signal.SIGTERM)
        p.wait_log(lambda line: line["msg"] == "draining")
        release.set()
        assert c.response().status == 200
    ended(p)
    assert len(collector.since(0)) == 2 and len(exports(collector)[1][2]) == 2
