"""J: nothing is lost by reloads and by the end: 10,000 requests while policies are rewritten, streams through a drain."""
import multiprocessing
import selectors
import signal
import socket
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, request
from proxy import Proxy
from upstream import Upstream, stream_events
from wire import Closed, Cut

pytestmark = pytest.mark.alone


def stamp(n):
    """Marks the request, the answer and the log line: three places that must agree for one request."""
    return f"""
return {{ name = "stamp", api = 1,
    request = function(req, body) body.stamp = {n} return body end,
    response = function(req, body) body.stamp_back = {n} return body end,
    log = function(req) return {{ stamp_log = {n} }} end }}
"""


def load(port, total, at_once, path, out, enough):
    """In a process of its own: at least `total` requests over `at_once` kept connections, and on until `enough` is set;
    every answer's (status, body)."""
    import json as j
    body = j.dumps(chat("load")).encode()
    data = (f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
    sel = selectors.DefaultSelector()
    left, results, failed = total, [], []

    def begin(sock):
        nonlocal left
        if left <= 0 and enough.is_set():
            sel.unregister(sock)
            sock.close()
            return
        left -= 1
        state[sock] = b""
        sock.sendall(data)
    state = {}
    for _ in range(at_once):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sel.register(sock, selectors.EVENT_READ)
        begin(sock)
    while sel.get_map():
        ready = sel.select(20)
        if not ready:
            failed.append("no answer for 20 s")
            break
        for key, _ in ready:
            sock = key.fileobj
            try:
                got = sock.recv(65536)
            except OSError as e:
                got, state[sock] = b"", state[sock] + repr(e).encode()
            if not got:
                failed.append(f"connection lost: {state[sock][:200]}")
                sel.unregister(sock)
                continue
            state[sock] += got
            head, sep, rest = state[sock].partition(b"\r\n\r\n")
            if not sep:
                continue
            at = head.lower().index(b"content-length: ") + 16
            length = int(head[at:].split(b"\r\n")[0])
            if len(rest) < length:
                continue
            assert len(rest) == length, "bytes behind the answer"
            results.append((int(head[9:12]), rest))
            begin(sock)
    out.send((results, failed))


@pytest.mark.not_under("slowio", reason="moves 10,000 requests")
@pytest.mark.timeout(150)
def test_ten_thousand_requests_while_policies_change():
    import json
    total = 10000
    up = Upstream(backlog=1024)
    up.default = lambda ex: ex.reply({"stamp": ex.body["stamp"]})
    p = Proxy({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]},
              policies={"stamp.lua": stamp(0)})
    try:
        here, there = multiprocessing.Pipe(duplex=False)
        enough = multiprocessing.Event()
        client = multiprocessing.get_context("fork").Process(target=load, args=(p.port, total, 64, "/v1/chat/completions", there, enough))
        client.start()
        there.close()
        before, versions = p.generation(), 0
        while versions < 20 and not here.poll():
            versions += 1
            p.drop_policy("stamp.lua", stamp(versions))
            before = p.wait_generation(before)
        enough.set()
        results, failed = here.recv()
        client.join(10)
        assert failed == [] and len(results) >= total and versions == 20
        assert [r for r in results if r[0] != 200] == []
        pairs = [(b["stamp"], b["stamp_back"]) for b in (json.loads(r[1]) for r in results)]
        assert all(a == b for a, b in pairs), "a request was served by two generations"
        assert len({a for a, _ in pairs}) >= 15, "the reloads fell outside of the load"
        # the current one, and the one to return to while it is on probation
        assert eventually(lambda: p.generations()["live"] == 2)
        p.wait_metric("openclaw_generations_live", lambda v: v == 2)
        p.wait_metric("openclaw_requests_in_flight", lambda v: v == 0)
        p.wait_request_lines(len(results))
        counts = {}
        for line in p.request_lines():
            counts[line["stamp_log"]] = counts.get(line["stamp_log"], 0) + 1
        wanted = {}
        for a, _ in pairs:
            wanted[a] = wanted.get(a, 0) + 1
        assert counts == wanted, "log hooks ran in another generation"
    finally:
        p.stop()
        up.stop()


@pytest.mark.timeout(60)
def test_streams_through_a_hundred_reloads(start, upstreams):
    up = upstreams()
    stop = threading.Event()

    def script(ex):
        ex.stream_head()
        i = 0
        while not stop.is_set():
            ex.chunk(b"data: %d\n\n" % i)
            i += 1
            stop.wait(0.02)
        ex.chunk(b"data: [DONE]\n\n")
        ex.end()
    up.on("long", script)
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]})
    results = [None] * 8

    def one(i):
        with Raw(p.port, timeout=30) as c:
            results[i] = c.send(request(body=chat("long", stream=True))).response()
    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    up.wait_seen("long", 8)
    generation = p.generation()
    for i in range(100):
        (p.policies / "stamp.lua").write_text(stamp(i))
        p.signal(signal.SIGHUP)
        if i % 10 == 9:
            generation = p.wait_generation(generation)
    stop.set()
    for t in threads:
        t.join()
    for r in results:
        events = r.body.split(b"\n\n")
        assert r.complete and events[-2] == b"data: [DONE]" and events[:-2] == [b"data: %d" % i for i in range(len(events) - 2)]
    assert eventually(lambda: p.generations()["live"] == 2)
    p.wait_metric("openclaw_generations_live", lambda v: v == 2)


def drained(p, up, model, while_draining=None):
    """A stream is under way when SIGTERM comes; -> its whole answer, and the seconds the end took."""
    go_on = threading.Event()

    def script(ex):
        ex.stream_head()
        events = stream_events()
        ex.chunk(events[0])
        go_on.wait(15)
        for one in events[1:]:
            ex.chunk(one)
        ex.end()
    up.on(model, script)
    with Raw(p.port, timeout=20) as c:
        c.send(request(body=chat(model, stream=True)))
        m = c.head()
        c.chunk(m)
        p.signal(signal.SIGTERM)
        if while_draining:
            while_draining()
        go_on.set()
        c.reader.rest(m)
        assert c.ended() == ("fin", b"")
    started = time.monotonic()
    assert p.process.wait(10 * p.slow) == 0
    return m, time.monotonic() - started


def config(up, **server):
    return {"server": server, "upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}]}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_end(start, upstreams, number):
    p = start(config(upstreams()))
    idle = Raw(p.port)
    idle.send(request(body=chat())).response()
    p.signal(number)
    assert p.process.wait(5 * p.slow) == 0
    assert idle.ended() == ("fin", b"")
    idle.close()


def test_drain_finishes_streams(start, upstreams):
    up = upstreams()
    p = start(config(up))

    def new_ones_are_refused():
        def refused():
            try:
                with Raw(p.port, timeout=2) as late:
                    late.send(request(body=chat("late")))
                    return late.response().status == 503
            except (OSError, Closed, Cut):
                return True
        assert eventually(refused, 3)
        try:
            assert p.admin("/readyz")[0] == 503
        except OSError:
            pass
    m, took = drained(p, up, "draining", new_ones_are_refused)
    assert m.complete and m.body == b"".join(stream_events())
    assert took < 2 * p.slow


def test_drain_has_a_limit(start, upstreams):
    up = upstreams()
    up.on("endless", lambda ex: (ex.stream_head(), ex.chunk(stream_events()[0]), ex.until_gone()))
    p = start(config(up, drain_seconds=1))
    with Raw(p.port, timeout=20) as c:
        c.send(request(body=chat("endless", stream=True)))
        m = c.head()
        c.chunk(m)
        started = time.monotonic()
        p.signal(signal.SIGTERM)
        try:
            c.reader.rest(m)
        except Cut:
            pass
        assert b"[DONE]" not in m.body
        assert p.process.wait(10 * p.slow) == 0
        assert 0.8 < time.monotonic() - started < 3 * p.slow
    # its log line is not lost
    p.request_line(m)


def test_second_signal_does_not_break_the_drain(start, upstreams):
    up = upstreams()
    p = start(config(up))
    m, _ = drained(p, up, "twice", lambda: p.signal(signal.SIGHUP))
    assert m.complete


def test_drain_writes_the_last_log_lines(start, upstreams):
    up = upstreams()
    p = start(config(up))
    ids = [ask(p, chat()).get("x-openclaw-request-id") for _ in range(50)]
    p.signal(signal.SIGTERM)
    p.process.wait(5 * p.slow)
    for t in p.readers:
        t.join(5)
    assert set(ids) <= {l["id"] for l in p.request_lines()}


def test_asked_to_end_again_and_again(start, upstreams):
    """To the last moment: it ends by itself, with 0, not by a signal."""
    p = start(config(upstreams()))
    end = time.monotonic() + 30 * p.slow
    while p.process.poll() is None and time.monotonic() < end:
        p.signal(signal.SIGTERM)
        time.sleep(0.0002)   # for no event: signals come at every moment of the end
    assert p.process.wait(1) == 0
