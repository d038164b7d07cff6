"""A: what every client sees: plain and streamed answers, connection handling, headers, the log line, metrics."""
import json
import re
import shutil
import subprocess

import pytest

from client import Raw, ask, chat, data_of, request
from conftest import UPSTREAM_KEY
from proxy import parse_metrics
from upstream import CHAT, stream_events

CURL = shutil.which("curl")


def curl(proxy, *args, path="/v1/chat/completions"):
    done = subprocess.run([CURL, "-sS", "--max-time", "20", *args, f"http://127.0.0.1:{proxy.port}{path}"], capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not CURL, reason="no curl")
def test_curl_plain(proxy, up, model):
    out = curl(proxy, "-H", "content-type: application/json", "-d", json.dumps(chat(model)))
    assert json.loads(out)["choices"][0]["message"]["content"] == "Hello."
    assert len(up.seen(model)) == 1


@pytest.mark.skipif(not CURL, reason="no curl")
def test_curl_stream(proxy, model):
    out = curl(proxy, "-N", "-H", "content-type: application/json", "-d", json.dumps(chat(model, stream=True)))
    assert out == b"".join(stream_events())


def test_plain_body_is_untouched(proxy, up, model):
    body = json.dumps(CHAT, indent=3).encode() + b"\n \n"
    up.on(model, lambda ex: ex.reply(body))
    sent = json.dumps(chat(model, seed=9007199254740993, tools=[], metadata={}, x="\u00e9\\u00e9"), indent=2).encode() + b"\n"
    answer = ask(proxy, sent)
    assert answer.status == 200 and answer.body == body
    assert answer.get("content-type") == "application/json"
    assert bytes(up.seen(model)[0].request.body) == sent


def test_what_the_upstream_gets(proxy, up, model):
    ask(proxy, chat(model), path="/v1/chat/completions?a=b%20c", headers=[
        ("Authorization", "Bearer sk-client-secret-1"), ("X-Api-Key", "sk-client-secret-2"),
        ("Connection", "x-drop-me"), ("X-Drop-Me", "1"), ("X-Keep-Me", "2"), ("TE", "trailers"), ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic abc"), ("Upgrade", "h2c"), ("Proxy-Connection", "keep-alive")])
    got = up.seen(model)[0].request
    assert got.target == "/v1/chat/completions?a=b%20c"
    assert got.get("host") == f"127.0.0.1:{up.port}"
    assert got.all("authorization") == [f"Bearer {UPSTREAM_KEY}"]
    for gone in ("x-api-key", "x-drop-me", "te", "keep-alive", "proxy-authorization", "upgrade", "proxy-connection"):
        assert got.get(gone) is None, gone
    assert got.get("x-keep-me") == "2"
    assert got.get("content-type") == "application/json"
    assert b"sk-client-secret" not in got.raw


def test_answer_headers_pass_hop_by_hop_do_not(proxy, up, model):
    up.on(model, lambda ex: ex.reply(headers=[("X-Request-Id", "req_1"), ("X-RateLimit-Remaining-Requests", "7"), ("Connection", "x-hop"),
                                              ("X-Hop", "1"), ("Keep-Alive", "timeout=3"), ("Set-Cookie", "a=1")]))
    answer = ask(proxy, chat(model))
    assert answer.get("x-request-id") == "req_1" and answer.get("x-ratelimit-remaining-requests") == "7"
    assert answer.get("x-hop") is None and answer.get("keep-alive") is None


def test_keep_alive(proxy, up, model):
    with Raw(proxy.port) as c:
        for _ in range(5):
            answer = c.send(request(body=chat(model))).response()
            assert answer.status == 200 and answer.get("connection", "keep-alive") == "keep-alive"
        for _ in range(3):
            assert c.send(request(body=chat(model, stream=True))).response().complete
        assert c.quiet(0.05)


def test_upstream_connections_are_kept(proxy, up, model):
    with Raw(proxy.port) as c:
        for _ in range(10):
            c.send(request(body=chat(model))).response()
    assert len({e.conn.serial for e in up.seen(model)}) == 1


def test_connection_close(proxy, model):
    with Raw(proxy.port) as c:
        answer = c.send(request(body=chat(model), close=True)).response()
        assert answer.status == 200 and answer.get("connection") == "close"
        assert c.ended() == ("fin", b"")


def test_pipelining(proxy, up, model):
    up.on(model, lambda ex: ex.reply({"n": ex.body["n"]}))
    with Raw(proxy.port) as c:
        c.send(b"".join(request(body=chat(model, n=i)) for i in range(20)))
        assert [c.response().json()["n"] for _ in range(20)] == list(range(20))


def test_pipelined_stream_then_plain(proxy, model):
    with Raw(proxy.port) as c:
        c.send(request(body=chat(model, stream=True)) + request(body=chat(model)) + request(body=chat(model, stream=True)))
        assert c.response().body == b"".join(stream_events())
        assert c.response().json()["object"] == "chat.completion"
        assert c.response().body == b"".join(stream_events())


@pytest.mark.parametrize("stream", [False, True])
def test_request_byte_by_byte(proxy, model, stream):
    data = request(body=chat(model, stream=stream))
    with Raw(proxy.port) as c:
        for i in range(len(data)):
            c.send(data[i:i + 1])
        assert c.response().status == 200


@pytest.mark.parametrize("ending", ["chunked", "length", "close"])
@pytest.mark.parametrize("slowly", [False, True])
def test_answer_framings(proxy, up, model, ending, slowly):
    body = json.dumps(CHAT).encode()

    def script(ex):
        send = ex.slowly if slowly else ex.send
        frame = {"chunked": "transfer-encoding: chunked", "length": f"content-length: {len(body)}", "close": "connection: close"}[ending]
        send(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{frame}\r\n\r\n".encode())
        if ending == "chunked":
            for i in range(0, len(body), 7):
                piece = body[i:i + 7]
                send(b"%X;ext=1\r\n" % len(piece) + piece + b"\r\n")
            send(b"0\r\nX-Trailer: 1\r\n\r\n")
        else:
            send(body)
        if ending == "close":
            ex.close()
    up.on(model, script)
    with Raw(proxy.port) as c:
        answer = c.send(request(body=chat(model))).response()
        assert answer.status == 200 and answer.body == body and answer.complete
        # the client's connection does not depend on how the upstream framed its answer
        assert c.send(request(body=chat(model))).response().body == body


def test_stream_byte_by_byte(proxy, up, model):
    wire = b"".join(b"%x\r\n" % len(e) + e + b"\r\n" for e in stream_events()) + b"0\r\n\r\n"

    def script(ex):
        ex.slowly(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    up.on(model, script)
    answer = ask(proxy, chat(model, stream=True))
    assert answer.body == b"".join(stream_events()) and answer.complete
    assert proxy.request_line(answer)["output_tokens"] == 7


def test_one_byte_a_chunk(proxy, up, model):
    def script(ex):
        ex.stream_head()
        for byte in b"".join(stream_events()):
            ex.chunk(bytes([byte]))
        ex.end()
    up.on(model, script)
    assert ask(proxy, chat(model, stream=True)).body == b"".join(stream_events())


def test_events_arrive_as_they_are_sent(proxy, up, model):
    """Each event reaches the client before the upstream sends the next one: nothing waits for a fuller buffer."""
    import threading
    go = [threading.Event() for _ in stream_events()]

    def script(ex):
        ex.stream_head()
        for gate, one in zip(go, stream_events()):
            assert gate.wait(10)
            ex.chunk(one)
        ex.end()
    up.on(model, script)
    with Raw(proxy.port) as c:
        c.send(request(body=chat(model, stream=True)))
        go[0].set()
        m = c.head()
        assert m.status == 200 and m.get("content-type").startswith("text/event-stream")
        for i, one in enumerate(stream_events()):
            got = b""
            go[i].set()
            while len(got) < len(one):
                piece = c.chunk(m)
                assert piece
                got += piece
            assert got == one
        assert c.chunk(m) == b"" and m.complete


def test_sse_line_ends_comments_and_utf8(proxy, up, model):
    body = ("\ufeffdata: {\"a\":\"\u00e9\U0001f600\"}\r\n\r\n: keep-alive\r\n\r\nevent: x\rdata: 1\rdata: 2\r\r"
            "id: 7\ndata:  two spaces\n\nretry: 10\n\ndata: [DONE]\n\n").encode()

    def script(ex):
        ex.stream_head()
        for i in range(0, len(body), 3):
            ex.chunk(body[i:i + 3])
        ex.end()
    up.on(model, script)
    assert ask(proxy, chat(model, stream=True)).body == body


def test_large_event_and_many_events(proxy, up, model):
    events = [b"data: " + b"x" * (300 << 10) + b"\n\n"] + [b"data: %d\n\n" % i for i in range(5000)] + [b"data: [DONE]\n\n"]

    def script(ex):
        ex.stream_head()
        whole = b"".join(events)
        for i in range(0, len(whole), 50000):
            ex.chunk(whole[i:i + 50000])
        ex.end()
    up.on(model, script)
    assert ask(proxy, chat(model, stream=True)).body == b"".join(events)


@pytest.mark.not_under("slowio", reason="moves 16 MB")
def test_large_bodies_both_ways(proxy, up, model):
    def script(ex):
        ex.reply(bytes(ex.request.body))
    up.on(model, script)
    body = json.dumps(chat(model, pad="y" * (8 << 20))).encode()
    answer = ask(proxy, body)
    assert answer.status == 200 and answer.body == body


def test_chunked_request_body(proxy, up, model):
    body = json.dumps(chat(model)).encode()
    pieces = b"".join(b"%x;a=b\r\n" % len(body[i:i + 5]) + body[i:i + 5] + b"\r\n" for i in range(0, len(body), 5))
    with Raw(proxy.port) as c:
        c.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
               + pieces + b"0\r\nX-T: 1\r\n\r\n")
        assert c.response().status == 200
        assert c.send(request(body=chat(model))).response().status == 200
    got = up.seen(model)[0].request
    assert bytes(got.body) == body and got.get("x-t") is None


def test_expect_continue(proxy, up, model):
    data = request(body=chat(model), headers=[("Expect", "100-continue")])
    head, _, body = data.partition(b"\r\n\r\n")
    with Raw(proxy.port) as c:
        c.send(head + b"\r\n\r\n")
        m = c.head()
        assert m.status == 100 and m.headers == []
        c.send(body)
        assert c.response().status == 200
        # a client that does not wait is served all the same, with at most one interim answer
        answer = c.send(data).response()
        assert answer.status == 200 and len(answer.interim) <= 1
        assert c.send(request(body=chat(model))).response().status == 200
    assert all(e.request.get("expect") is None for e in up.seen(model))


def test_absolute_form(proxy, up, model):
    with Raw(proxy.port) as c:
        answer = c.send(request(path="http://elsewhere.example:81/v1/chat/completions?q=1", host="elsewhere.example:81", body=chat(model))).response()
        assert answer.status == 200
    got = up.seen(model)[0].request
    assert got.target == "/v1/chat/completions?q=1" and got.get("host") == f"127.0.0.1:{up.port}"


@pytest.mark.parametrize("stream", [False, True])
def test_http_10(proxy, model, stream):
    body = json.dumps(chat(model, stream=stream)).encode()
    with Raw(proxy.port) as c:
        c.send(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = c.response()
        assert answer.status == 200 and answer.get("transfer-encoding") is None
        assert answer.body == (b"".join(stream_events()) if stream else answer.body) and answer.body
        assert c.ended() == ("fin", b"")


def test_head(proxy, up):
    with Raw(proxy.port) as c:
        answer = c.send(request("HEAD", "/v1/files/head-test")).response(to_head=True)
        assert answer.status == 200 and answer.body == b""
        assert c.send(request("HEAD", "/v1/files/head-test")).response(to_head=True).status == 200
        assert c.quiet(0.05)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
def test_other_methods_and_paths(proxy, up, method):
    path = f"/v1/files/{method.lower()}"
    up.on(path, lambda ex: ex.reply({"method": ex.request.method}))
    assert ask(proxy, b"{}" if method in ("PUT", "PATCH") else b"", method=method, path=path).json() == {"method": method}


def test_204(proxy, up, model):
    up.on(model, lambda ex: ex.head(204, [("x-a", "1")], "No Content"))
    with Raw(proxy.port) as c:
        answer = c.send(request(body=chat(model))).response()
        assert answer.status == 204 and answer.get("transfer-encoding") is None and answer.get("content-length") in (None, "0")
        assert c.send(request(body=chat(model))).response().status == 204


def test_interim_answers_of_the_upstream_are_swallowed(proxy, up, model):
    def script(ex):
        ex.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        ex.reply()
    up.on(model, script)
    answer = ask(proxy, chat(model))
    assert answer.status == 200 and answer.get("link") is None


@pytest.mark.parametrize("stream", [False, True])
def test_own_headers(proxy, model, stream):
    answer = ask(proxy, chat(model, stream=stream))
    assert re.fullmatch(r"[0-9a-f]{32}", answer.get("x-openclaw-request-id"))
    assert answer.get("x-openclaw-route") == "all"
    assert answer.get("x-openclaw-upstream") == "main"
    assert answer.get("x-openclaw-model") == model
    assert answer.get("x-openclaw-attempts") == "1"
    assert int(answer.get("x-openclaw-overhead-us")) >= 0
    for name in {n for n, _ in answer.headers if n.startswith("x-openclaw")}:
        assert len(answer.all(name)) == 1, name


def test_request_ids_differ(proxy, model):
    ids = {ask(proxy, chat(model)).get("x-openclaw-request-id") for _ in range(20)}
    assert len(ids) == 20


def test_expose_headers_false(start, up):
    p = start({"server": {"expose_headers": False}, "upstreams": {"u": {"type": "openai", "base_url": up.url()}},
               "routes": [{"id": "r", "strategy": {"type": "round_robin", "upstreams": ["u"]}}]})
    answer = ask(p, chat("hide-headers"))
    assert answer.status == 200 and not [n for n, _ in answer.headers if n.startswith("x-openclaw")]


FIELDS = {"time", "id", "client", "route", "upstream", "model", "sent_model", "status", "attempts", "ttfb_ms", "duration_ms", "overhead_us",
          "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cost_usd", "cache", "bytes_in", "bytes_out", "stream",
          "method", "path"}          # and "error" where there was one


@pytest.mark.parametrize("stream", [False, True])
def test_log_line(proxy, model, stream):
    sent = request(body=chat(model, stream=stream))
    with Raw(proxy.port) as c:
        answer = c.send(sent).response()
    line = proxy.request_line(answer)
    assert FIELDS <= set(line), FIELDS - set(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["route"], line["upstream"], line["model"], line["sent_model"]) == ("all", "main", model, model)
    assert (line["status"], line["stream"], line["method"], line["path"]) == (200, stream, "POST", "/v1/chat/completions")
    assert line["error"] is None
    assert [(a["upstream"], a["status"]) for a in line["attempts"]] == [("main", 200)] and line["attempts"][0]["ms"] >= 0
    assert (line["input_tokens"], line["output_tokens"], line["cached_tokens"], line["reasoning_tokens"]) == (11, 7, 3, 2)
    # 11 tokens at 30 USD (cached ones at the same price when none is given) and 7 at 60 USD a million
    assert line["cost_usd"] == pytest.approx((11 * 30 + 7 * 60) / 1e6, abs=1e-6)
    assert line["bytes_in"] in (len(sent), len(sent.partition(b"\r\n\r\n")[2]))
    assert line["bytes_out"] >= len(answer.body)
    assert 0 <= line["ttfb_ms"] <= line["duration_ms"]
    assert 0 < line["overhead_us"] < 1e6


def test_log_line_escapes_what_clients_send(proxy, up, model):
    name = model + "\u001b[31m\"\\\n\u0000\u2028end"
    answer = ask(proxy, chat(name), path="/v1/chat/completions?x=%00%1b")
    line = proxy.request_line(answer)
    assert line["model"] == name


def test_log_line_of_an_error(proxy, up, model):
    up.on(model, lambda ex: ex.reply({"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}}, 400))
    line = proxy.request_line(ask(proxy, chat(model)))
    assert line["status"] == 400 and line["attempts"][0]["status"] == 400


def test_usage_that_is_not_told_is_estimated(proxy, up, model):
    up.on(model, lambda ex: ex.reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": "One two three."}}]}))
    answer = ask(proxy, chat(model))
    line = proxy.request_line(answer)
    assert line["usage_estimated"] is True and 3 <= line["input_tokens"] <= 30 and 3 <= line["output_tokens"] <= 5
    assert line["cost_usd"] == pytest.approx((line["input_tokens"] * 30 + line["output_tokens"] * 60) / 1e6, abs=1e-6)
    assert float(answer.get("x-openclaw-cost-usd")) == pytest.approx(line["cost_usd"])
    assert proxy.metric("openclaw_usage_estimated_total", upstream_name="main", model_name=model) == 1


def test_usage_of_a_stream_its_client_left_is_estimated(proxy, up, model):
    def script(ex):
        ex.stream_head()
        for one in stream_events()[:5]:
            ex.chunk(one)
        ex.until_gone()
    up.on(model, script)
    with Raw(proxy.port) as c:
        m = c.send(request(body=chat(model, stream=True))).head()
        while b"tok4" not in m.body:
            c.chunk(m)
    line = proxy.wait_log(lambda e: e.get("msg") == "request" and e.get("model") == model)
    assert line["status"] == 499 and line["usage_estimated"] is True and 5 <= line["output_tokens"] <= 15 and line["cost_usd"] > 0


def test_no_usage_is_not_a_zero(proxy, up, model):
    up.on(model, lambda ex: ex.reply({"error": {"message": "no"}}, 400))
    line = proxy.request_line(ask(proxy, chat(model)))
    assert line["input_tokens"] is None and line["output_tokens"] is None and line["cost_usd"] is None and line["usage_estimated"] is None


TABLE_2 = {
    "openclaw_requests_total": ("counter", {"route_id", "status", "method"}),
    "openclaw_upstream_requests_total": ("counter", {"upstream_name", "status"}),
    "openclaw_request_duration_seconds": ("histogram", {"route_id", "upstream_name"}),
    "openclaw_upstream_duration_seconds": ("histogram", {"upstream_name"}),
    "openclaw_estimated_cost_usd_total": ("counter", {"upstream_name", "model_name"}),
}


def test_metrics(proxy, model):
    before = proxy.metric("openclaw_requests_total", route_id="all", status="200", method="POST")
    upstream_before = proxy.metric("openclaw_upstream_requests_total", upstream_name="main", status="200")
    durations = proxy.metric("openclaw_request_duration_seconds_count", route_id="all", upstream_name="main")
    for _ in range(3):
        ask(proxy, chat(model))
    proxy.wait_metric("openclaw_requests_total", lambda v: v == before + 3, route_id="all", status="200", method="POST")
    assert proxy.metric("openclaw_upstream_requests_total", upstream_name="main", status="200") == upstream_before + 3
    assert proxy.metric("openclaw_request_duration_seconds_count", route_id="all", upstream_name="main") == durations + 3
    assert proxy.metric("openclaw_estimated_cost_usd_total", upstream_name="main", model_name=model) == pytest.approx(3 * 750e-6)
    assert proxy.metric("openclaw_tokens_total", upstream_name="main", model_name=model, **{"class": "output"}) == 21
    status, text, headers = proxy.admin("/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    types, samples = parse_metrics(text)
    for name, (kind, labels) in TABLE_2.items():
        assert types[name] == kind
        mine = [s for s in samples if s.name == (name + "_count" if kind == "histogram" else name)]
        assert mine and all(set(s.labels) == labels for s in mine), name
    for name in ("openclaw_cache_hits_total", "openclaw_cache_misses_total", "openclaw_rate_limit_blocked_total"):
        assert types[name] == "counter"


def test_histograms_are_cumulative(proxy, model):
    ask(proxy, chat(model))
    buckets = {}
    samples = proxy.metrics()
    for s in samples:
        if s.name.endswith("_bucket"):
            key = (s.name[:-7], tuple(sorted((k, v) for k, v in s.labels.items() if k != "le")))
            buckets.setdefault(key, []).append((float(s.labels["le"].replace("+Inf", "inf")), s.value))
    assert buckets
    for (name, labels), points in buckets.items():
        assert points == sorted(points) and points[-1][0] == float("inf")
        assert [v for _, v in points] == sorted(v for _, v in points)
        count = [s.value for s in samples if s.name == name + "_count" and tuple(sorted(s.labels.items())) == labels]
        assert count == [points[-1][1]]


def test_in_flight_and_connections_return_to_zero(proxy, up, model):
    with Raw(proxy.port) as c:
        c.send(request(body=chat(model))).response()
    proxy.wait_metric("openclaw_requests_in_flight", lambda v: v == 0)
    proxy.wait_metric("openclaw_client_connections", lambda v: v == 0)


def test_admin(proxy):
    assert proxy.admin("/healthz")[0] == 200
    assert proxy.admin("/readyz")[0] == 200
    assert proxy.admin("/nothing-here")[0] == 404


def test_models(proxy):
    answer = ask(proxy, b"", method="GET", path="/v1/models")
    assert answer.status == 200 and answer.get("content-type").startswith("application/json")
    listed = answer.json()
    assert listed["object"] == "list"
    assert {"mock-small", "mock-large"} <= {m["id"] for m in listed["data"]}
    assert all(m["object"] == "model" for m in listed["data"])
    one = ask(proxy, b"", method="GET", path="/v1/models/mock-small").json()
    assert one["id"] == "mock-small" and one["object"] == "model"


def test_mock_plain(proxy):
    answer = ask(proxy, chat("mock-small"))
    body = answer.json()
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "mock"
    assert body["object"] == "chat.completion" and body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"] and body["usage"]["total_tokens"] > 0
    assert body["model"] == "mock-small"


def test_mock_stream(proxy):
    answer = ask(proxy, chat("mock-large", stream=True))
    events = data_of(answer)
    assert answer.status == 200 and answer.complete and events[-1] == b"[DONE]"
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events[:-1] if e["choices"])
    assert text
    assert [e["choices"][0]["finish_reason"] for e in events[:-1] if e["choices"]][-1] == "stop"
