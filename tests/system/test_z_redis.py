"""Z: state that several instances share in a Redis: limits exact over all of them, places of who died, budgets, who is set
aside; and a Redis that is slow, gone, frozen, emptied, wrong, or back."""
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, in_parallel, request
from proxy import SLOW, run
from redis_server import Redis
from upstream import CHAT

BODY = json.dumps(chat("m")).encode()
HAMMER_SECONDS = float(os.environ.get("CLAW_REDIS_SECONDS", "2"))


class Between:
    """A way to Redis that holds back what comes from it for `delay` seconds, or is cut."""

    def __init__(self, port):
        self.to, self.delay, self.socks = port, 0.0, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                one.close()
                continue
            for s in (one, other):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socks += [one, other]
            threading.Thread(target=self.pump, args=(one, other, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(other, one, True), daemon=True).start()

    def pump(self, a, b, late):
        """Each piece is as late as the delay was when it came, whatever comes behind it."""
        pieces, more = [], threading.Condition()

        def deliver():
            while True:
                with more:
                    more.wait_for(lambda: pieces)
                    due, data = pieces.pop(0)
                threading.Event().wait(max(0, due - time.monotonic()))
                try:
                    if not data:
                        b.shutdown(socket.SHUT_RDWR)
                        return
                    b.sendall(data)
                except OSError:
                    return
        threading.Thread(target=deliver, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = a.recv(65536)
            except OSError:
                data = b""
            with more:
                pieces.append((time.monotonic() + (self.delay if late else 0), data))
                more.notify()

    def cut(self):
        for s in self.socks:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.socks.clear()

    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def stop(self):
        self.listener.close()
        self.cut()


@pytest.fixture
def redis():
    made = []

    def one(**kwargs):
        made.append(Redis(**kwargs))
        return made[-1]
    yield one
    for server in made:
        server.stop()


@pytest.fixture
def between():
    made = []

    def one(server):
        made.append(Between(server.port))
        return made[-1]
    yield one
    for way in made:
        way.stop()


def config(url, *limits, up=None, workers=2, state=None, **more):
    up = {"type": "openai", "base_url": up.url()} if up else {"type": "mock"}
    return {"server": {"workers": workers}, "upstreams": {"u": up}, "rate_limits": list(limits), "retry": {"attempts": 1},
            "routes": [{"id": "r", "strategy": {"upstream": "u"}}], "state": {"backend": "redis", "url": url, "timeout_ms": 3000, **(state or {})}, **more}


def statuses(p, n, **how):
    return [ask(p, chat("m"), **how).status for _ in range(n)]


def shared(p):
    return json.loads(p.admin("/limits")[1])["shared"]


def warm(*proxies, instances=None):
    """Until each has its connections and knows of the others."""
    for p in proxies:
        eventually(lambda: shared(p)["up"] and shared(p)["instances"] == (instances or len(proxies)), timeout=10 * SLOW)


# ---- limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.timeout(90 + 2 * HAMMER_SECONDS)
def test_exact_over_instances(redis, start):
    """Eight clients as fast as they can at two instances of four workers: in no window more than the burst and what its time
    allows, and over all no less. CLAW_REDIS_SECONDS says for how long."""
    server = redis()
    c = config(server.url(), {"id": "x", "requests_per_minute": 3000, "burst": 100}, workers=4)
    both = [start(c), start(c)]
    warm(*both)
    begun = time.monotonic()

    def hammer(i):
        got = []
        with Raw(both[i % 2].port) as one:
            while time.monotonic() - begun < HAMMER_SECONDS:
                sent = time.monotonic()
                got.append((sent, one.send(request(body=BODY)).response().status, time.monotonic()))
        return got
    got = [one for each in in_parallel(8, hammer) for one in each]
    seconds = time.monotonic() - begun
    assert {status for _, status, _ in got} == {200, 429}
    let_in = sorted(((sent, answered) for sent, status, answered in got if status == 200), key=lambda w: w[1])
    print(f"{len(got)} asked, {len(let_in)} let in within {seconds:.2f} s: 101 and {50 * seconds:.1f} may be")
    assert 101 + 50 * (seconds - 0.3 * SLOW) - 2 <= len(let_in) <= 101 + 50 * seconds
    first = [sent for sent, _ in let_in]
    for i in range(0, len(let_in), max(1, len(let_in) // 200)):
        for j in range(i + 101, len(let_in), 37):
            window = let_in[j][1] - min(first[i:j + 1])
            assert j - i + 1 <= 101 + 50 * window + 1, (i, j, window)
    for p in both:
        assert p.metric("openclaw_state_decisions_total", by="local") == 0
        assert p.metric("openclaw_state_decisions_total", by="redis") > 100
        assert p.metric("openclaw_state_round_trip_seconds_count") > 100


def test_one_round_trip_a_decision(redis, start):
    """However many limits there are; and what is refused by one is taken of none."""
    server = redis()
    clients = [{"name": "a", "key": "key-of-a-1", "limits": {"requests_per_day": 50, "concurrent": 5}}]
    p = start(config(server.url(), {"id": "wide", "per": ["ip", "header:X-Team"], "requests_per_day": 100, "tokens_per_day": 10000, "concurrent": 3},
                     {"id": "narrow", "requests_per_hour": 3}, clients=clients))
    warm(p)
    assert statuses(p, 3, headers=[("x-api-key", "key-of-a-1"), ("x-team", "secret-team")]) == [200] * 3
    before = p.metric("openclaw_state_decisions_total")
    a = ask(p, chat("m"), headers=[("x-api-key", "key-of-a-1"), ("x-team", "secret-team")])
    assert a.status == 429 and json.loads(a.body)["error"]["message"] == 'The rate limit "narrow" is reached: requests_per_hour 3.'
    assert a.get("retry-after") and p.metric("openclaw_state_decisions_total") == before + 1
    assert p.request_line(a)["limited_by"] == "narrow"
    keys = server.keys()
    assert {re.sub(r"[0-9a-f]{32}$", "#", k) for k in keys if ":limit:" in k} == {
        "openclaw:limit:requests_per_day:wide:#", "openclaw:limit:tokens_per_day:wide:#", "openclaw:limit:requests_per_hour:narrow",
        "openclaw:limit:requests_per_day:client:a"}, "those of places went with them"
    told = json.dumps([keys, [server.value(k) for k in keys]])
    for secret in "key-of-a-1", "secret-team", "127.0.0.1":
        assert secret not in told
    assert all(0 < int(server.ask("PTTL", k)[1:]) <= 86401000 * 400 for k in keys), "each has an end"


def test_other_limits_are_others(redis, start):
    """By key, by prefix, by client; and one instance sees what the other took."""
    server = redis()
    c = config(server.url(), {"id": "h", "per": "header:X-Team", "requests_per_day": 3})
    one, two, other = start(c), start(c), start({**c, "state": {**c["state"], "prefix": "elsewhere"}})
    warm(one, two)
    assert statuses(one, 2, headers=[("x-team", "a")]) == [200, 200]
    assert statuses(two, 2, headers=[("x-team", "a")]) == [200, 429]
    assert statuses(two, 4, headers=[("x-team", "b")]) == [200, 200, 200, 429]
    assert statuses(one, 1, headers=[("x-team", "b")]) == [429]
    assert statuses(other, 3, headers=[("x-team", "a")]) == [200] * 3


def test_tokens_are_put_right(redis, start, upstreams):
    up, server = upstreams(), redis()
    up.default = lambda ex: ex.reply({**CHAT, "usage": {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300}})
    c = config(server.url(), {"id": "t", "tokens_per_day": 1000000}, up=up)
    both = [start(c), start(c)]
    warm(*both)
    for i in range(20):
        assert ask(both[i % 2], chat("m", max_tokens=5000)).status == 200
    left = eventually(lambda: (lambda n: n if n > 1000000 - 23 * 400 else 0)(int(ask(both[0], chat("m", max_tokens=1)).get("x-ratelimit-remaining-tokens"))))
    assert left <= 1000000 - 21 * 300 + 12 * 30
    assert [ask(p, chat("m", max_tokens=995000)).status for p in both] == [429, 429]


def test_waiting_for_a_place_in_the_queue(redis, start):
    server = redis()
    c = config(server.url(), {"id": "w", "requests_per_second": 10, "burst": 0, "max_wait_ms": 600})
    both = [start(c), start(c)]
    warm(*both)
    begun = time.monotonic()
    answers = [None] * 12

    def one(i):
        answers[i] = ask(both[i % 2], chat("m"))
        return answers[i].status, time.monotonic() - begun
    got = in_parallel(12, one)
    good = sorted(t for s, t in got if s == 200)
    assert [both[i % 2].request_line(a)["limited_by"] for i, a in enumerate(answers)].count("w") >= 11      # all but the first
    assert 6 <= len(good) <= 9 and [s for s, _ in got].count(429) == 12 - len(good)
    assert good[-1] >= 0.1 * (len(good) - 1) - 0.05


def test_who_leaves_the_queue_leaves_its_place(redis, start, upstreams):
    server = redis()
    p = start(config(server.url(), {"id": "w", "requests_per_minute": 60, "burst": 0, "max_wait_ms": 60000}, up=upstreams()))
    warm(p)
    assert ask(p, chat("m")).status == 200
    waiting = [Raw(p.port) for _ in range(20)]
    for c in waiting:
        c.send(request(body=BODY))
    eventually(lambda: p.metric("openclaw_requests_in_flight") >= 20)
    for c in waiting:
        c.close()
    eventually(lambda: p.metric("openclaw_requests_in_flight") == 0)
    begun = time.monotonic()
    assert ask(p, chat("m")).status == 200 and time.monotonic() - begun < 3 * SLOW


@pytest.mark.alone
def test_places_of_who_died_come_free(redis, start, upstreams):
    """Held on for as long as their requests take, over all instances; those of one that is killed end with their lease."""
    up, server, go = upstreams(), redis(), threading.Event()
    up.on("slow", lambda ex: (go.wait(60), ex.reply(CHAT)))
    c = config(server.url(), {"id": "c", "concurrent": 3}, up=up, state={"lease_seconds": 1 * SLOW})
    one, two = start(c), start(c)
    warm(one, two)
    slow = [Raw(p.port) for p in (one, one, two)]
    for r in slow:
        r.send(request(body=json.dumps(chat("slow")).encode()))
    up.wait_seen("slow", 3)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.4 * SLOW:      # longer than a lease
        assert ask(two, chat("m")).status == 429
        threading.Event().wait(0.1)
    one.signal(signal.SIGKILL)
    one.process.wait()
    begun = time.monotonic()
    eventually(lambda: ask(two, chat("m")).status == 200, timeout=10 * SLOW)
    assert time.monotonic() - begun < 2.5 * SLOW
    go.set()
    assert slow[2].response().status == 200
    one.process = None
    eventually(lambda: not [k for k in server.keys() if ":concurrent:" in k], timeout=5 + 3 * SLOW)


def test_an_upstream_that_is_full_for_all_is_passed_over(redis, start, upstreams):
    a, b, server = upstreams(), upstreams(), redis()
    c = config(server.url(), {"id": "u-only", "match": {"upstream_name": "u"}, "requests_per_hour": 3}, up=a)
    c["upstreams"]["v"] = {"type": "openai", "base_url": b.url()}
    c["routes"][0]["strategy"] = {"type": "failover", "upstreams": ["u", "v"]}
    one, two = start(c), start(c)
    warm(one, two)
    lines = [p.request_line(ask(p, chat("m"))) for p in (one, two, one, two, one, two)]
    assert [line["limited_by"] for line in lines] == [None] * 3 + ["u-only"] * 3
    assert [line["upstream"] for line in lines] == ["u", "u", "u", "v", "v", "v"] and len(a.since(0)) == 3 and len(b.since(0)) == 3


def test_places_at_upstreams_over_tries_and_hedges(redis, between, start, upstreams):
    """A try that failed, one that was outrun, one whose client left while Redis was asked: no place stays taken."""
    a, b, server = upstreams(), upstreams(), redis()
    way = between(server)
    c = config(way.url(), {"id": "one-a", "match": {"upstream_name": "u"}, "concurrent": 1}, {"id": "one-b", "match": {"upstream_name": "v"}, "concurrent": 1}, up=a)
    c["upstreams"]["v"] = {"type": "openai", "base_url": b.url()}
    c["routes"][0] |= {"strategy": {"type": "failover", "upstreams": ["u", "v"]}, "hedge": {"after": 60, "budget": 1}, "retry": {"attempts": 2, "backoff_ms": 0}}
    p = start(c)
    warm(p)
    a.on("ill", lambda ex: ex.reply({"error": {"message": "no"}}, status=503))
    a.on("silent", lambda ex: ex.until_gone())
    for _ in range(3):
        line = p.request_line(ask(p, chat("ill")))
        assert [x["upstream"] for x in line["attempts"]] == ["u", "v"] and line["status"] == 200
        line = p.request_line(ask(p, chat("silent")))
        assert line["upstream"] == "v" and line["status"] == 200
    way.delay = 0.2
    for wait in 0.05, 0.25, 0.45:       # while the first place is asked for, while it has it, while the hedge asks for its own
        with Raw(p.port) as leaver:
            leaver.send(request(body=json.dumps(chat("silent")).encode()))
            assert leaver.quiet(wait)
    eventually(lambda: p.metric("openclaw_requests_in_flight") == 0)
    way.delay = 0
    eventually(lambda: not [k for k in server.keys() if ":concurrent:" in k])
    assert p.metric("openclaw_state_decisions_total", by="local") == 0


# ---- a Redis that is not as it should be ----------------------------------------------------------------------------------


def quantile(all, part):
    return sorted(all)[min(len(all) - 1, int(len(all) * part))]


def timed(p, n):
    """How long each of n requests took, one after the other, and what they got."""
    took, got = [], []
    with Raw(p.port) as c:
        for _ in range(n):
            begun = time.monotonic()
            got.append(c.send(request(body=BODY)).response().status)
            took.append(time.monotonic() - begun)
    return took, got


@pytest.mark.alone
def test_a_slow_redis(redis, between, start):
    """50 ms are waited for; 300 ms are not, and not by each request. Late answers count once; then it is quick again."""
    server = redis()
    way = between(server)
    p = start(config(way.url(), {"id": "d", "requests_per_day": 200, "concurrent": 50}, state={"timeout_ms": 250}))
    warm(p)
    way.delay = 0.05
    took, got = timed(p, 10)
    assert got == [200] * 10 and min(took) >= 0.045
    way.delay = 0.7
    took, got = timed(p, 60)
    assert got == [200] * 60
    assert sum(t > 0.15 * SLOW for t in took) <= 2 and max(took) < 0.65 * SLOW, "one of them found it out"
    p.wait_log(lambda l: str(l["msg"]).startswith("shared state does not answer"))
    assert p.metric("openclaw_state_up") == 0 and shared(p)["up"] is False
    assert p.metric("openclaw_state_decisions_total", by="local") >= 56
    way.delay = 0
    warm(p)
    p.wait_log(lambda l: l["msg"] == "shared state answers again")

    def taken():
        left = int(ask(p, chat("m")).get("x-ratelimit-remaining-requests"))
        taken.asked += 1
        return 200 - left, 70 + taken.asked
    taken.asked = 0
    eventually(lambda: (lambda t: t[0] == t[1])(taken()))
    assert [k for k in server.keys() if ":concurrent:" in k] == [] or eventually(lambda: not [k for k in server.keys() if ":concurrent:" in k])


@pytest.mark.alone
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_redis_that_goes(redis, start, how):
    """No request fails, few wait; two instances together let in what the limit has, and Redis is told when it is back."""
    server = redis()
    c = config(server.url(), {"id": "d", "requests_per_day": 60}, state={"timeout_ms": 200})
    both = [start(c), start(c)]
    warm(*both)
    assert [ask(p, chat("m")).status for p in both for _ in range(5)] == [200] * 10
    server.kill() if how == "killed" else server.freeze()
    try:
        results = [timed(p, 60) for p in both]
        slow = [t for took, _ in results for t in took if t > 0.15 * SLOW]
        assert len(slow) <= 2 * 2 and max([0, *slow]) < 0.6 * SLOW, "one of each worker, at most"
        assert quantile([t for took, _ in results for t in took], 0.9) < 0.02 * SLOW
        let_in = [got.count(200) for _, got in results]
        # each knows what was taken when it asked last, and has half of it from there on
        assert all(20 <= n <= 28 for n in let_in) and all(set(got) <= {200, 429} for _, got in results), let_in
        for p in both:
            p.wait_log(lambda l: str(l["msg"]).startswith("shared state does not answer"))
    finally:
        if how == "frozen":
            server.thaw()
    if how == "killed":
        server.start()
    warm(*both)
    for p in both:
        p.wait_log(lambda l: l["msg"] == "shared state answers again")
    at_once = 60 - sum(let_in) - (10 if how == "frozen" else 0)
    more = eventually(lambda: (lambda got: got if 429 in got else None)([ask(p, chat("m")).status for p in both for _ in range(15)]))
    assert more.count(200) <= max(at_once, 0) + 1, "what was let in meanwhile counts"


@pytest.mark.alone
def test_waiting_requests_end_with_a_frozen_redis(redis, start):
    """Those that were asking when it froze wait for state.timeout_ms, and are decided here."""
    server = redis()
    p = start(config(server.url(), {"id": "d", "requests_per_day": 1000}, state={"timeout_ms": 200}))
    warm(p)
    server.freeze()
    try:
        begun = time.monotonic()
        assert in_parallel(20, lambda i: ask(p, chat("m")).status) == [200] * 20
        assert time.monotonic() - begun < 1 * SLOW
        left = Raw(p.port)
        left.send(request(body=BODY))
        left.close()
    finally:
        server.thaw()
    warm(p)
    eventually(lambda: int(ask(p, chat("m")).get("x-ratelimit-remaining-requests")) <= 1000 - 21)


def test_what_is_owed_by_a_former_redis(redis, start):
    """A request waits for a Redis that stands still, the configuration names another: what the first does not answer is not the second's fault."""
    one, two = redis(), redis()
    c = config(one.url(), {"id": "a", "requests_per_hour": 100})
    c["state"]["timeout_ms"] = 10000
    p = start(c)
    warm(p)
    assert ask(p, chat("m")).status == 200
    one.freeze()
    with Raw(p.port) as waits:
        waits.send(request(body=BODY))
        eventually(lambda: p.metric("openclaw_requests_in_flight") == 1)
        c["state"]["url"] = two.url()
        p.write_config(c)
        p.wait_generation(1)
        eventually(lambda: two.keys())
        one.kill()
        assert waits.response().status == 200       # by what is known here
    assert p.metric("openclaw_state_up") == 1 and ask(p, chat("m")).status == 200
    assert not [l for l in p.lines if "does not answer" in l.get("msg", "")]


def test_an_emptied_redis(redis, start):
    """Scripts, counts and all are gone: the next request is decided as the first one was."""
    server = redis()
    p = start(config(server.url(), {"id": "d", "requests_per_day": 3}))
    warm(p)
    assert statuses(p, 4) == [200, 200, 200, 429]
    server.reply("FLUSHALL")
    server.reply("SCRIPT", "FLUSH")
    assert statuses(p, 4) == [200, 200, 200, 429]
    assert p.metric("openclaw_state_decisions_total", by="local") == 0


def test_failing_over(redis, between, start):
    """The primary dies, its replica becomes one, and the same name leads there: what was taken stays taken."""
    primary, replica = redis(), redis()
    way = between(primary)
    p = start(config(way.url(), {"id": "d", "requests_per_day": 4}))
    warm(p)
    replica.reply("REPLICAOF", "127.0.0.1", primary.port)
    assert statuses(p, 3) == [200] * 3
    eventually(lambda: "master_link_status:up" in replica.reply("INFO", "replication"), timeout=15 * SLOW)
    eventually(lambda: "openclaw:limit:requests_per_day:d" in replica.keys())
    primary.kill()
    replica.reply("REPLICAOF", "NO", "ONE")
    way.to = replica.port
    way.cut()
    eventually(lambda: shared(p)["up"] and "cmdstat_evalsha" in replica.reply("INFO", "commandstats"), timeout=15 * SLOW)
    assert sorted(statuses(p, 3)) == [200, 429, 429]


def test_a_replica_and_a_wrong_password(redis, start):
    """What cannot be written to is as one that is not there; a primary again it is used again."""
    server = redis()
    p = start(config(server.url(), {"id": "d", "requests_per_day": 5}))
    warm(p)
    assert statuses(p, 2) == [200] * 2
    server.reply("REPLICAOF", "127.0.0.1", "1")
    assert statuses(p, 2) == [200] * 2
    line = p.wait_log(lambda l: str(l["msg"]).startswith("shared state does not answer"))
    assert "READONLY" in line["error"]
    server.reply("REPLICAOF", "NO", "ONE")
    warm(p)
    assert eventually(lambda: (lambda got: got if got == [429] * 2 else None)(statuses(p, 2)), timeout=5 * SLOW)
    locked = redis(password="right-one")
    other = start(config(locked.url().replace("right-one", "wrong-one"), {"id": "d", "requests_per_day": 5}))
    assert statuses(other, 6) == [200] * 5 + [429]
    other.wait_log(lambda l: str(l["msg"]).startswith("shared state does not answer"))
    assert not shared(other)["up"] and "wrong-one" not in other.everything_told()


# ---- budgets --------------------------------------------------------------------------------------------------------------


def paying(url, up, **state):
    """1000 in and 1000 out cost 0.04 USD."""
    c = config(url, up=up, state=state, clients=[{"name": "a", "key": "key-of-a-1", "budget": {"usd": 1, "per": "month"}}])
    c["upstreams"]["u"].update(cost_per_million_input_tokens=10, cost_per_million_output_tokens=30)
    return c


KEY = [("x-api-key", "key-of-a-1")]


def dear(ex):
    ex.reply({**CHAT, "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}})


def spent(p):
    return json.loads(p.admin("/clients")[1])["clients"][0]["budget"]["spent_usd"]


def test_a_budget_of_all_instances(redis, start, upstreams):
    """What one spends the other knows; a connection that is lost, and a Redis that is emptied, change no sum."""
    up, server = upstreams(), redis()
    up.default = dear
    c = paying(server.url(), up)
    one, two = start(c), start(c)
    warm(one, two)
    assert json.loads(one.admin("/clients")[1])["shared"]["up"] is True
    for p in (one, two, one):
        assert statuses(p, 2, headers=KEY) == [200, 200]
    for p in (one, two):
        eventually(lambda: spent(p) == 0.24)
    server.reply("FLUSHALL")
    eventually(lambda: server.value("openclaw:spend:a") and server.value("openclaw:spend:a")[1] == "240000")
    for _ in range(5):
        server.reply("CLIENT", "KILL", "TYPE", "normal")
        statuses(one, 1, headers=KEY)
        statuses(two, 1, headers=KEY)
    for p in (one, two):
        eventually(lambda: spent(p) == 0.64, timeout=10 * SLOW)
    assert statuses(one, 9, headers=KEY) == [200] * 9
    eventually(lambda: spent(two) == 1)
    assert statuses(two, 1, headers=KEY) == [429]
    three = start(c)        # a new one, with a ledger of its own
    eventually(lambda: spent(three) == 1)
    assert statuses(three, 1, headers=KEY) == [429]


def test_what_is_spent_without_redis_is_told_later(redis, start, upstreams):
    up, server = upstreams(), redis()
    up.default = dear
    c = paying(server.url(), up)
    one, two = start(c), start(c)
    warm(one, two)
    assert statuses(one, 2, headers=KEY) == statuses(two, 1, headers=KEY) + [200] == [200, 200]
    eventually(lambda: spent(one) == spent(two) == 0.12)
    server.freeze()
    try:
        assert statuses(one, 3, headers=KEY) == [200] * 3 and statuses(two, 4, headers=KEY) == [200] * 4
        eventually(lambda: spent(one) == 0.24 and spent(two) == 0.28)
    finally:
        server.thaw()
    for p in (one, two):
        eventually(lambda: spent(p) == 0.4, timeout=15 * SLOW)
    assert statuses(one, 1, headers=KEY) == [200]
    one.stop()              # what it spent last is told before it ends
    eventually(lambda: spent(two) == 0.44)
    eventually(lambda: shared(two)["instances"] == 1)


# ---- who is set aside -----------------------------------------------------------------------------------------------------


def shown(p, name):
    return next(u for u in json.loads(p.admin("/upstreams")[1])["upstreams"] if u["name"] == name)


@pytest.mark.alone
def test_others_hear_of_who_is_set_aside(redis, start, upstreams):
    """An upstream, one of its keys, and what an operator says, within a second."""
    up, server = upstreams(), redis()
    up.default = lambda ex: ex.reply({"error": {"message": "no"}}, status=401) if "bbbb" in ex.request.get("authorization") else ex.reply(CHAT)
    up.on("ill", lambda ex: ex.reply({"error": {"message": "no"}}, status=503, headers=[("retry-after", "30")]))
    c = config(server.url(), up=up)
    c["upstreams"]["u"].update(api_keys=["key-aaaaaaaaaaaaaaaa", "key-bbbbbbbbbbbbbbbb"], cooling={"failures": 3})
    one, two = start(c), start(c)
    warm(one, two)
    eventually(lambda: ask(one, chat("m")) and shown(one, "u")["keys"][1]["state"] == "retired")
    eventually(lambda: shown(two, "u")["keys"][1]["state"] == "retired", timeout=1 * SLOW)
    assert shown(two, "u")["keys"][0]["state"] == "closed"
    assert "key-bbbb" not in json.dumps([[k, server.value(k)] for k in server.keys()])
    ask(one, chat("ill"))
    begun = time.monotonic()
    eventually(lambda: shown(two, "u")["state"] == "open", timeout=1 * SLOW)
    assert time.monotonic() - begun < 1 * SLOW and shown(two, "u")["why"] == "other_instance"
    line = two.wait_log(lambda l: l["msg"] == "set aside by another instance")
    assert line["upstream"] == "u" and 25000 < int(line["for_ms"]) <= 30000
    three = start(c)        # who comes later hears of it, too
    eventually(lambda: shown(three, "u")["state"] == "open" and shown(three, "u")["keys"][1]["state"] == "retired")
    assert three.admin("/upstreams/u/restore", method="POST")[0] == 200
    for p in (one, two, three):
        eventually(lambda: shown(p, "u")["state"] == "closed" and shown(p, "u")["keys"][1]["state"] == "closed", timeout=1 * SLOW)
    assert two.admin("/upstreams/u/cool?seconds=60", method="POST")[0] == 200
    for p in (one, two, three):
        eventually(lambda: shown(p, "u")["state"] == "open", timeout=1 * SLOW)


# ---- the configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state, problem", [
    ({"backend": "redis"}, "state.backend: redis needs state.url"), ({"backend": "valkey", "url": "redis://h"}, "state.backend"),
    ({"backend": "redis", "url": "redis://h", "prefix": ""}, "state.prefix"), ({"backend": "redis", "url": "redis://h", "timeout_ms": 5}, "state.timeout_ms"),
    ({"backend": "redis", "url": "redis://h", "lease_seconds": 0}, "state.lease_seconds"), ({"backend": "redis", "url": "rediss://h"}, "not supported")])
def test_what_check_says(tmp_path, state, problem):
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps({"upstreams": {"u": {"type": "mock"}}, "routes": [{"id": "r", "strategy": {"upstream": "u"}}], "state": state}))
    done = run("-check", "-config", path)
    assert done.returncode == 1 and problem in done.stdout + done.stderr


def test_from_memory_to_redis_and_back(redis, start):
    """By a reload; nothing of it is there while the backend is memory."""
    server = redis()
    c = config(server.url(), {"id": "d", "requests_per_day": 100})
    p = start({**c, "state": {"url": server.url()}})
    assert statuses(p, 2) == [200, 200] and shared(p) is False and server.keys() == []
    eventually(lambda: server.reply("CLIENT", "LIST").count("\n") == 1)     # who asks that
    was = p.generation()
    p.write_config(c)
    p.wait_generation(was)
    warm(p)
    assert statuses(p, 2) == [200, 200]
    assert "openclaw:limit:requests_per_day:d" in server.keys()
    was = p.generation()
    p.write_config({**c, "state": {"url": server.url()}})
    p.wait_generation(was)
    before = server.value("openclaw:limit:requests_per_day:d")
    assert statuses(p, 2) == [200, 200] and shared(p) is False and server.value("openclaw:limit:requests_per_day:d") == before


# ---- answers --------------------------------------------------------------------------------------------------------------

SECRET = "a-secret-of-all-instances"


def caching(url, up, state=None, **more):
    c = config(url, up=up, caching={"enabled": True, "backend": "redis", "secret": SECRET, **more})
    c["state"] = {"url": url, "timeout_ms": 3000, **(state or {})}
    return c


def ready(*proxies):
    """Their first question is answered."""
    for p in proxies:
        eventually(lambda: ask(p, chat("ready")).status == 200 and p.metric("openclaw_state_up") == 1)


def word(p, body=None, **how):
    return ask(p, body or chat("m"), **how).get("x-openclaw-cache")


def in_redis(server, epoch=0):
    """What an instance keeps there is on its way still when it counts it. `epoch`: how many purges there were before."""
    eventually(lambda: any(str(server.value(k)).removeprefix("b'").startswith(f"1 {epoch} ") for k in server.keys() if ":cache:" in k))


def test_answers_of_all_instances(redis, start, upstreams):
    """What one was answered all give again, whole and streamed, for as long as it is kept; and to nobody it is not for."""
    up, server = upstreams(), redis()
    c = caching(server.url(), up)
    c["clients"] = [{"name": n, "key": f"key-of-{n}-0123456789"} for n in ("ann", "bob")]
    one, two = start(c), start(c)
    ann, bob = [[("x-api-key", f"key-of-{n}-0123456789")] for n in ("ann", "bob")]
    first = ask(one, chat("m"), headers=ann)
    assert first.status == 200 and first.get("x-openclaw-cache") == "miss"
    one.wait_metric("openclaw_cache_shared_total", lambda v: v == 1, outcome="kept")
    in_redis(server)
    again = ask(two, chat("m"), headers=ann)
    assert again.get("x-openclaw-cache") == "hit" and again.body == first.body and again.get("age") is not None
    streamed = ask(two, chat("m", stream=True), headers=ann)
    assert streamed.get("x-openclaw-cache") == "hit" and b"[DONE]" in streamed.body
    assert ask(two, chat("m"), headers=bob).get("x-openclaw-cache") == "miss"
    assert two.metric("openclaw_cache_shared_total", outcome="hit") == 1 and len(up.seen("m")) == 2
    names = []
    eventually(lambda: names.extend(k for k in server.keys() if ":cache:" in k and k not in names) or len(names) == 2)
    assert len(names) == 2 and all(0 < server.reply("PTTL", k) <= 3600000 for k in names)
    assert "key-of-ann" not in json.dumps([names, [server.value(k) for k in names]])
    three = start({**c, "caching": {**c["caching"], "secret": "another-secret-than-theirs"}})
    assert ask(three, chat("m"), headers=ann).get("x-openclaw-cache") == "miss"
    assert json.loads(one.admin("/cache")[1])["shared"] is True and shared(one) is False


def test_a_purge_holds_for_all(redis, start, upstreams):
    up, server = upstreams(), redis()
    c = caching(server.url(), up)
    one, two = start(c), start(c)
    assert word(one) == "miss"
    one.wait_metric("openclaw_cache_shared_total", lambda v: v == 1, outcome="kept")
    in_redis(server)
    assert word(two) == "hit"
    assert one.admin("/cache/purge?model=m", method="POST")[0] == 200
    two.wait_log(lambda l: l["msg"] == "cache purged by another instance" and l["entries"] == 1)
    assert word(two) == "miss" and len(up.seen("m")) == 2
    two.wait_metric("openclaw_cache_shared_total", lambda v: v == 1, outcome="kept")
    in_redis(server, 1)         # after the purge
    eventually(lambda: word(one) == "hit")
    slow, go = chat("slow"), threading.Event()      # one that was begun before the purge is kept nowhere
    up.on("slow", lambda ex: (go.wait(20), ex.reply(CHAT)))
    with Raw(one.port) as waiting:
        waiting.send(request(body=json.dumps(slow).encode()))
        up.wait_seen("slow")
        before = one.metric("openclaw_cache_shared_total", outcome="kept")
        two.admin("/cache/purge", method="POST")
        one.wait_log(lambda l: l["msg"] == "cache purged by another instance")
        go.set()
        assert waiting.response().status == 200
    assert word(two, slow) == "miss" and one.metric("openclaw_cache_shared_total", outcome="kept") == before


def test_identical_requests_share_what_is_fetched(redis, between, start, upstreams):
    """Forty at once on an instance that has it not: one asks Redis, all are answered, no upstream is asked."""
    up, server = upstreams(), redis()
    way = between(server)
    one, two = start(caching(server.url(), up)), start(caching(way.url(), up))
    assert word(one) == "miss"
    one.wait_metric("openclaw_cache_shared_total", lambda v: v == 1, outcome="kept")
    in_redis(server)
    ready(two)
    asked = two.metric("openclaw_cache_shared_total")
    way.delay = 0.3
    got = in_parallel(40, lambda i: ask(two, chat("m", stream=bool(i % 2))))
    assert [a.status for a in got] == [200] * 40 and {a.get("x-openclaw-cache") for a in got} <= {"hit", "coalesced"}
    assert len(up.seen("m")) == 1 and two.metric("openclaw_cache_shared_total") == asked + 1
    with Raw(two.port) as leaver:
        leaver.send(request(body=json.dumps(chat("left")).encode()))
        assert leaver.quiet(0.1)
    eventually(lambda: two.metric("openclaw_requests_in_flight") == 0)
    way.delay = 0
    assert word(two, chat("left")) == "miss"


def test_answers_without_redis(redis, start, upstreams):
    """Frozen, it is asked by few; each instance has its own memory. What stands there and is none of ours is no answer."""
    up, server = upstreams(), redis()
    p = start(caching(server.url(), up, state={"timeout_ms": 200}))
    ready(p)
    server.freeze()
    try:
        begun = time.monotonic()
        assert [word(p, chat(f"m{i}")) for i in range(20)] == ["miss"] * 20
        assert time.monotonic() - begun < 2 * SLOW
        assert [word(p, chat(f"m{i}")) for i in range(20)] == ["hit"] * 20
    finally:
        server.thaw()
    eventually(lambda: p.metric("openclaw_state_up") == 1, timeout=10 * SLOW)
    before = p.metric("openclaw_cache_shared_total", outcome="kept")
    assert word(p, chat("odd", seed=1)) == "miss"
    p.wait_metric("openclaw_cache_shared_total", lambda v: v == before + 1, outcome="kept")
    names = [k for k in server.keys() if re.search(r":cache:[0-9a-f]{32}$", k)]
    for odd in ("", "x", "1 0", "1 0 5 0 1 1 1 1 1", "1 0 5 0 9999999 1 1 1 1\nabc", "2 0 5 0 0 0 0 0 0\nx", "1 7 5 0 0 0 0 0 0\nx",
                "1 0 99999999999999999999 0 0 0 0 0 0\n{}"):
        for k in names:
            server.reply("SET", k, odd, "PX", 60000)
        other = start(caching(server.url(), up))
        assert word(other, chat("odd", seed=1)) == "miss"
        other.stop()
    server.reply("DEL", *names)
    server.reply("LPUSH", names[0], "x")
    other = start(caching(server.url(), up))
    assert ask(other, chat("odd", seed=1)).status == 200


@pytest.mark.parametrize("more, problem", [({"secret": None}, "caching.backend: redis needs caching.secret"), ({"secret": "short"}, "caching.secret: must have 16")])
def test_what_check_says_of_caching(tmp_path, more, problem):
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps({"upstreams": {"u": {"type": "mock"}}, "routes": [{"id": "r", "strategy": {"upstream": "u"}}], "state": {"url": "redis://h"},
                                "caching": {"enabled": True, "backend": "redis", **{k: v for k, v in more.items() if v}}}))
    done = run("-check", "-config", path)
    assert done.returncode == 1 and problem in done.stdout + done.stderr
