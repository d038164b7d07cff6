"""X: large forms go to the upstream while they come: who gets them, who waits for whom, and who leaves."""
import json
import select
import socket
import threading
import time

import openai
import pytest

from certs import Authority, server_context
from client import Raw, ask, client_tls, eventually, form, in_parallel, request
from proxy import INSTRUMENTED, free_port
from wire import Closed, Cut, Reader

pytestmark = pytest.mark.alone

TYPE = "multipart/form-data; boundary=b"
HEAD = 64 << 10        # of a large form, what is held before it goes on
DONE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{"text":"hello"}'


def large(kb=400, model="whisper-1", first=True):
    field, file = ("model", model), ("file", "a.mp3", bytes(range(256)) * 4 * kb)
    return form(field, file) if first else form(file, field)


def head_of(body, path="/v1/audio/transcriptions", headers=()):
    return request(path=path, type=TYPE, body=body, headers=headers)[:-len(body)]


class Taker:
    """An upstream that reads as its test says: each connection waits in .conns as (reader, head)."""

    def __init__(self, upstreams, then=None):
        self.conns, self.more, self.over = [], threading.Condition(), threading.Event()

        def accept(conn):
            conn.sock.settimeout(20)
            reader = Reader(conn.sock)
            try:
                head = reader.head(request=True)
            except (Closed, Cut):
                return True
            with self.more:
                self.conns.append((reader, head))
                self.more.notify_all()
            if then:
                then(reader, head)
            else:
                self.over.wait(60)
            return True
        self.url = upstreams(accept=accept).url()

    def taken(self, n=0):
        with self.more:
            assert self.more.wait_for(lambda: len(self.conns) > n, 20)
        return self.conns[n]


def read_until(reader, head, n):
    while len(head.data) < n:
        reader.chunk(head)


def whole(reader, head):
    """Read all, answer, and go on with what follows on the connection."""
    while True:
        reader.rest(head)
        reader.sock.sendall(DONE)
        try:
            head = reader.head(request=True)
        except (Closed, Cut):
            return


@pytest.fixture
def taker(upstreams):
    made = []

    def one(then=None):
        made.append(Taker(upstreams, then))
        return made[-1]
    yield one
    for t in made:
        t.over.set()


def config(*urls, **more):
    ups = {f"u{i}": {"type": "openai", "base_url": url, "api_key": "sk-u", "connect_timeout_seconds": 5, **more.pop(f"u{i}", {})} for i, url in enumerate(urls)}
    out = {"upstreams": ups, "routes": [{"id": "whisper", "match": {"model": "whisper*"}, "strategy": {"type": "failover", "upstreams": list(ups)}},
                                        {"id": "rest", "strategy": {"type": "failover", "upstreams": list(ups)}}],
           "retry": {"attempts": 3, "backoff_ms": 1}}
    out["server"] = {"max_body_mb": 256, "upload_hold_kb": 128, **more.pop("server", {})}
    return {**out, **more}


def answer_of(c):
    a = c.response()
    return a, json.loads(a.body)


# ---- as it comes

@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_it_goes_on_while_it_comes(start, taker, chunked):
    up = taker()
    p = start(config(up.url, u0={"model_map": {"whisper": "whisper-large-v3"}}))
    body = large(model="whisper")
    with Raw(p.port, timeout=20 * p.slow) as c:
        if chunked:
            c.send(head_of(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"))
            c.send(b"%x\r\n" % HEAD + body[:HEAD] + b"\r\n")
        else:
            c.send(head_of(body) + body[:HEAD])
        reader, head = up.taken()               # the rest is not sent yet
        want = large(model="whisper-large-v3")
        assert head.framing == ("chunked" if chunked else "length")
        assert chunked or head.get("content-length") == str(len(want))
        read_until(reader, head, HEAD + len(want) - len(body))
        rest = body[HEAD:]
        c.send(b"%x\r\n" % len(rest) + rest + b"\r\n0\r\n\r\n" if chunked else rest)
        reader.rest(head)
        assert head.body == want and not reader.held
        reader.sock.sendall(DONE)
        a, told = answer_of(c)
        assert a.status == 200 and told == {"text": "hello"} and a.get("x-openclaw-route") == "whisper" and a.get("connection") is None
    line = p.request_line(a)
    assert line["bytes_in"] == len(body) and line["model"] == "whisper" and line["sent_model"] == "whisper-large-v3" and len(line["attempts"]) == 1


def test_connections_are_kept_on_both_sides(start, taker):
    up = taker(whole)
    p = start(config(up.url))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        for _ in range(3):
            assert c.send(head_of(body) + body + request(body={"model": "m"})).response().status == 200
            assert c.response().status == 200   # the one sent behind it
    for _, head in up.conns:
        assert head.body == body                # the small ones came on kept connections, the forms never


def test_small_ones_are_held_whole(start, taker):
    up = taker(whole)
    p = start(config(up.url))
    body = large(100)
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:-1])
        assert c.quiet(0.1) and not up.conns
        assert c.send(body[-1:]).response().status == 200


def test_a_model_behind_what_is_held_is_not_seen(start, taker):
    up = taker(whole)
    p = start(config(up.url))
    for kb, route in ((100, "whisper"), (300, "rest")):
        body = large(kb, first=False)
        a = ask(p, body, path="/v1/audio/transcriptions", type=TYPE)
        assert a.status == 200 and a.get("x-openclaw-route") == route
    assert up.conns[-1][1].body == body and not p.request_line(a)["model"]
    p.stop()
    p = start(config(up.url, server={"upload_hold_kb": 512}))
    assert ask(p, body, path="/v1/audio/transcriptions", type=TYPE).get("x-openclaw-route") == "whisper"


def test_over_tls(start, upstreams, tmp_path):
    ca = Authority(tmp_path)
    cert, key = ca.issue("listener", names=("proxy.test", "localhost"))
    up = upstreams(tls=server_context(ca.issue("u")))
    p = start(config(up.url().replace("127.0.0.1", "localhost"), u0={"tls": {"ca": str(ca.path)}}, server={"tls": {"cert": str(cert), "key": str(key)}}))
    body = large()
    a = ask(p, body, path="/v1/audio/transcriptions", type=TYPE, tls=client_tls(ca.path))
    assert a.status == 200 and up.exchanges[-1].request.body == body


def test_with_the_official_sdk(start, upstreams):
    up = upstreams()
    up.default = lambda ex: ex.reply({"text": "hello", "id": "file-1", "object": "file"})
    p = start(config(up.url()))
    sound = bytes(range(256)) * 1500
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="sk-x", max_retries=0, timeout=20 * p.slow) as sdk:
        assert sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", sound)).text == "hello"
        assert sound in up.exchanges[-1].request.body
        assert sdk.files.create(file=("f.jsonl", sound), purpose="batch").id == "file-1"
        assert sound in up.exchanges[-1].request.body and up.exchanges[-1].request.target == "/v1/files"
    p.wait_request_lines(2)
    assert [line["route"] for line in p.request_lines()] == ["whisper", "rest"]


@pytest.mark.not_under("slowio", reason="moves 200 MB")
@pytest.mark.timeout(90)
@pytest.mark.skipif(INSTRUMENTED, reason="the instrumentation's own memory would be measured")
def test_memory_is_flat(start, taker):
    def drain(reader, head):
        left = int(head.get("content-length")) - len(reader.held)
        while left:
            left -= len(reader.sock.recv(1 << 18))
        reader.sock.sendall(DONE)
    up = taker(drain)
    p = start(config(up.url))
    piece = bytes(range(256)) * 4096
    begin, end = form(("model", "whisper-1"), ("file", "a", "X")).split(b"X")
    with Raw(p.port, timeout=30 * p.slow) as c:
        assert c.send(request(body={"model": "m"})).response().status == 200       # the process is warm
        before, most = p.rss(), 0
        c.send(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (TYPE.encode(), len(begin) + 200 * len(piece) + len(end)) + begin)
        for i in range(200):
            c.send(piece)
            if i % 10 == 0:
                most = max(most, p.rss())
        a = c.send(end).response()
    assert a.status == 200 and p.request_line(a)["bytes_in"] > 200 << 20
    assert most - before <= 3 << 20, f"{(most - before) >> 10} KB"


# ---- who waits for whom

def push(sock, data, seconds):
    """Send as much as is taken, until nothing is for that long."""
    sent = 0
    while sent < len(data) and select.select([], [sock], [], seconds)[1]:
        sent += sock.send(data[sent:sent + (1 << 16)])
    return sent


@pytest.mark.not_under("slowio", reason="moves 60 MB")
@pytest.mark.timeout(60)
def test_a_slow_upstream_holds_up_the_client(start, taker):
    """And the client's time for its body does not run meanwhile."""
    up = taker()
    p = start(config(up.url, server={"body_timeout_seconds": 1}))
    body = large(60 << 10)
    with Raw(p.port, timeout=30 * p.slow) as c:
        before = p.rss()
        c.send(head_of(body))
        sent = push(c.sock, body, 2.5)
        assert sent < len(body) and (INSTRUMENTED or p.rss() - before < 3 << 20), (sent, p.rss() - before)
        rest = threading.Thread(target=lambda: c.send(body[sent:]), daemon=True)
        rest.start()
        reader, head = up.taken()
        reader.rest(head)
        rest.join()
        assert head.body == body
        reader.sock.sendall(DONE)
        assert c.response().status == 200


@pytest.mark.not_under("slowio", reason="moves what fills every buffer")
def test_an_upstream_that_takes_nothing_is_left(start, taker):
    up = taker()
    p = start(config(up.url, u0={"stall_timeout_seconds": 1}))
    body = large(60 << 10)
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body))
        push(c.sock, body, 1)
        a, told = answer_of(c)
        assert a.status == 504 and told["error"]["code"] == "stall"
    line = p.request_line(a)
    assert line["upstream_error"] == "the upstream stopped taking the request" and len(line["attempts"]) == 1


def test_a_client_that_stops_is_left(start, taker):
    up = taker()
    p = start(config(up.url, server={"body_timeout_seconds": 1}))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:200_000])
        reader, head = up.taken()
        a, told = answer_of(c)
        assert a.status == 408 and told["error"]["code"] == "body_timeout"
        assert c.ended()[0] == "fin"
    with pytest.raises(Cut):
        reader.rest(head)
    assert p.request_line(a)["error"] == "body_timeout"


def test_time_for_the_answer_runs_from_the_end(start, taker):
    """Neither the time for the first byte nor the total time are used up by a client that is slow."""
    up = taker(whole)
    p = start(config(up.url, u0={"first_byte_timeout_seconds": 2, "stall_timeout_seconds": 2}, server={"body_timeout_seconds": 2},
                     retry={"attempts": 2, "total_timeout_seconds": 2}))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:-20000])
        up.taken()
        for i in range(5):
            assert c.quiet(0.5)
            c.send(body[len(body) - 20000 + i * 4000:][:4000])
        assert c.response().status == 200
    silent = taker()
    p = start(config(silent.url, u0={"first_byte_timeout_seconds": 1}))
    a = ask(p, body, path="/v1/files", type=TYPE)
    assert a.status == 504 and json.loads(a.body)["error"]["code"] == "timeout_first_byte"
    p = start(config(silent.url, retry={"attempts": 2, "total_timeout_seconds": 1}))
    a = ask(p, body, path="/v1/files", type=TYPE)
    assert a.status == 504 and json.loads(a.body)["error"]["code"] == "deadline"


# ---- who leaves, and who answers early

@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_leaves_takes_the_upstream_along(start, taker, how):
    up = taker()
    p = start(config(up.url))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:200_000])
        reader, head = up.taken()
        read_until(reader, head, 200_000)
        c.fin() if how == "fin" else c.reset()
        with pytest.raises(Cut):
            reader.rest(head)
    p.wait_metric("openclaw_requests_in_flight", lambda v: v == 0)
    p.wait_request_lines(1)
    line = p.request_lines()[0]
    assert line["error"] == "client_gone" and line["status"] == 499 and line["bytes_in"] == 200_000


@pytest.mark.not_under("slowio", reason="moves what fills every buffer")
def test_a_client_that_leaves_while_the_upstream_takes_nothing(start, taker):
    """Nobody reads from it then: its reset is seen all the same."""
    up = taker()
    p = start(config(up.url))
    body = large(60 << 10)
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body))
        assert push(c.sock, body, 1) < len(body)
        up.taken()
        c.reset()
    line = p.wait_log(lambda line: line.get("msg") == "request", timeout=5)
    assert line["error"] == "client_gone" and line["status"] == 499


@pytest.mark.parametrize("status", [413, 200])
def test_an_early_answer_is_relayed(start, taker, status):
    def early(reader, head):
        read_until(reader, head, 100_000)
        reader.sock.sendall(DONE.replace(b"200", b"%d" % status))
        reader.end()
    up = taker(early)
    p = start(config(up.url))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:200_000])
        a, told = answer_of(c)
        assert a.status == status and told == {"text": "hello"} and a.get("connection") == "close"
        c.send_leniently(body[200_000:400_000])
        assert c.ended()[0] == "fin"
    assert p.request_line(a)["error"] is None
    p.wait_metric("openclaw_client_connections", lambda v: v == 0, timeout=10)
    assert p.metric("openclaw_pool_idle_connections") == 0


def test_an_early_answer_that_streams_goes_on(start, taker):
    def talks(reader, head):
        reader.sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n1\r\n\n\r\n")
        reader.rest(head)
        reader.sock.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        reader.end()
    up = taker(talks)
    p = start(config(up.url))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:HEAD])
        head = c.head()
        assert c.chunk(head) == b"data: 1\n\n"
        c.send(body[HEAD:])
        assert c.reader.rest(head).body == b"data: 1\n\ndata: 2\n\n"
        assert c.ended()[0] == "fin"


# ---- another try

def test_until_more_is_sent_than_held_there_is_another_try(start, taker):
    def busy(reader, head):
        read_until(reader, head, HEAD)
        reader.sock.sendall(DONE.replace(b"200", b"503"))
        reader.end()
    first, second = taker(busy), taker()
    p = start(config(f"http://127.0.0.1:{free_port()}/v1", first.url, second.url, u2={"model_map": {"whisper-1": "other"}}))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:HEAD])
        reader, head = second.taken()
        c.send(body[HEAD:])
        reader.rest(head)
        assert head.body == large(model="other")
        reader.sock.sendall(DONE)
        a = c.response()
    assert a.status == 200 and [x.get("kind") for x in p.request_line(a)["attempts"]] == ["connect", "http_503", None]


@pytest.mark.parametrize("how", ["503", "reset"])
def test_behind_that_there_is_none(start, taker, how):
    def fails(reader, head):
        read_until(reader, head, 300_000)
        if how == "503":
            reader.sock.sendall(DONE.replace(b"200", b"503"))
            reader.end()
        else:
            reader.sock.shutdown(socket.SHUT_RDWR)
    first, second = taker(fails), taker(whole)
    p = start(config(first.url, second.url))
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body[:HEAD])
        first.taken()
        c.send(body[HEAD:400_000])
        a = c.response()
    assert a.status == (503 if how == "503" else 502)
    assert len(p.request_line(a)["attempts"]) == 1 and not second.conns


def test_it_is_not_hedged(start, taker):
    slow, other = taker(), taker(whole)
    c = config(slow.url, other.url)
    c["routes"][0]["hedge"] = {"after": 10, "budget": 1}
    p = start(c)
    body = large()
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body) + body)
        reader, head = slow.taken()
        reader.rest(head)
        assert c.quiet(0.2)
        reader.sock.sendall(DONE)
        assert c.response().status == 200
    assert not other.conns


# ---- what is wrong with it

@pytest.mark.not_under("slowio", reason="moves 2 MB before the upstream's patience ends")
def test_more_than_a_body_may_have(start, taker):
    """Where nobody said before how much it is."""
    up = taker()
    p = start(config(up.url, server={"max_body_mb": 1}))
    body = large(2048)
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(head_of(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"))
        c.send_leniently(b"".join(b"%x\r\n" % HEAD + body[i:i + HEAD] + b"\r\n" for i in range(0, len(body) - HEAD, HEAD)))
        a, told = answer_of(c)
        assert a.status == 413 and told["error"]["code"] == "body_too_large"
    reader, head = up.taken()
    with pytest.raises(Cut):
        reader.rest(head)


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("what", ["a second model", "no end", "bare LF"])
def test_what_is_malformed_late_never_gets_there_whole(start, taker, what, chunked):
    up = taker()
    p = start(config(up.url))
    body = large()[:-len(b"--b--\r\n")]
    body += {"a second model": form(("model", "gpt-4o")), "no end": b"", "bare LF": b"\n--b--\r\n" + bytes(9)}[what]
    with Raw(p.port, timeout=20 * p.slow) as c:
        if chunked:
            c.send(head_of(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"))
            c.send(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        else:
            c.send(head_of(body) + body)
        a, told = answer_of(c)
        assert a.status == 400 and told["error"]["code"] == "bad_request" and told["error"]["message"].startswith("The form in the request's body is malformed")
    reader, head = up.taken()
    if what == "no end" and not chunked:     # each byte of it was sent before that could be known
        return
    with pytest.raises(Cut):
        reader.rest(head)
    assert b"gpt-4o\r\n--b" not in head.body


# ---- policies

def test_policies_beside_it(start, taker):
    up = taker(whole)
    p = start(config(up.url), policies={"p.lua": """
        local P = { name = "p", api = 1 }
        function P.admit(req)
            claw.time.sleep(50)
            if req.client.headers["x-do"] == "answer" then return { answer = { own = true }, status = 201 } end
            if req.client.headers["x-do"] == "deny" then return { deny = 403, message = "no" } end
        end
        function P.request(req, body)
            claw.time.sleep(50)
            if req.client.headers["x-do"] == "body" then return { other = true } end
        end
        return P"""})
    body = large()

    def go(what, n):
        with Raw(p.port, timeout=20 * p.slow) as c:
            c.send(head_of(body, headers=[("x-do", what)]) + body[:n])
            return answer_of(c)
    a, told = go("", len(body))
    assert a.status == 200 and up.conns[0][1].body == body
    assert go("deny", HEAD)[0].status == 403
    a, told = go("answer", HEAD)
    assert a.status == 201 and told == {"own": True}
    a, told = go("body", HEAD)
    assert a.status == 413 and "upload_hold_kb" in told["error"]["message"]
    assert len(up.conns) == 1


def test_it_is_recorded_without_its_body(start, taker):
    p = start(config(taker(whole).url, logging={"decisions": "decisions.jsonl"}))
    body = large()
    a = ask(p, body, path="/v1/files", type=TYPE)
    line = eventually(lambda: (p.dir / "decisions.jsonl").read_text())
    told = json.loads(line)
    assert a.status == 200 and told["body_left_out"] == len(body) and told["candidates"][0]["model"] == "whisper-1" and told["status"] == 200


@pytest.mark.not_under("slowio", reason="moves 60 MB")
@pytest.mark.timeout(90)
def test_many_at_once(start, taker):
    up = taker(whole)
    p = start(config(up.url))
    body = large(2048)
    assert in_parallel(20, lambda i: ask(p, body, path="/v1/files", type=TYPE, timeout=60 * p.slow).status) == [200] * 20
    assert all(head.body == body for _, head in up.conns)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", b""], ids=["408", "eof"])
def test_a_client_that_is_slow_says_nothing_of_its_upstream(start, taker, answer):
    up = taker(lambda reader, head: (read_until(reader, head, HEAD), reader.sock.sendall(answer)))
    p = start(config(up.url, u0={"cooling": {"failures": 2}}, retry={"attempts": 1}))
    body = large()
    for i in range(4):
        with Raw(p.port, timeout=20 * p.slow) as c:
            c.send(head_of(body) + body[:HEAD])
            up.taken(i)
            assert c.response().status == (408 if answer else 502)
    assert json.loads(p.admin("/upstreams")[1])["upstreams"][0]["state"] == "closed"
