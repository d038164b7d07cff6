"""Y: answers that are shared while they come: in both ways, by many, through leaders that leave, fail or read slowly."""
import json
import os
import random
import threading

import pytest

from client import Raw, chat, data_of, eventually, in_parallel, request
from kept import ALL, CLIENTS, config, key_of, text_of, words
from upstream import CHAT, delta, event, stream_events
from wire import Cut


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
        for one in events[:28]:                                         # 1.1 MB; at most a piece of 64 KB each, 1.8 MB
            ex.chunk(one)
        go.wait(30)
        for one in events[28:] + stream_events(0):
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


@pytest.mark.not_under("slowio", reason="fills the sockets' buffers")
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
    events, go, then, n = stream_events(), threading.Event(), threading.Event(), []

    def script(ex):
        n.append(1)
        if len(n) > 1:
            then.wait(30)
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
    listening(p, 11)
    then.set()
    answers = [c.response() for c in clients]
    assert {a.status for a in answers} == {200} and len(n) == 2
    assert {a.get("x-openclaw-cache") for a in answers} <= {"miss", "coalesced", "hit"}


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
