"""R: claw.redis against a real redis-server: replies, counting over workers, and a Redis that is gone, frozen, or back."""
import json
import threading
import time

import pytest

from client import Raw, ask, chat, eventually, in_parallel, request
from proxy import Proxy
from redis_server import Redis

PASSWORD = "p@ss:w/rd-7d1f"

# Does what the client says: a list of calls, each a list of words; gives the list of outcomes.
DOING = """
return { name = "doing", api = 1, admit = function(req)
    local out = claw.json.array({})
    for i, words in ipairs(claw.json.decode(req.client.headers["x-calls"])) do
        local reply, message, code
        if words[1] == "script" then reply, message, code = claw.redis.script(words[2], words[3], words[4])
        else reply, message, code = claw.redis.call(unpack(words)) end
        out[i] = code and { code = code, message = message } or { reply = reply }
    end
    return { deny = 418, message = claw.json.encode(out) }
end }
"""
COUNTING = """
return { name = "counting", api = 1, admit = function(req)
    local n, message, code = claw.redis.call("INCR", "counted")
    if not n then return { deny = 503, code = code, message = message } end
    return { deny = 418, message = tostring(n) }
end }
"""
FANNING = """
return { name = "fanning", api = 1, admit = function(req)
    local tasks, codes = {}, {}
    for i = 1, 60 do tasks[i] = claw.task.spawn(claw.redis.call, "EVAL", "return tonumber(ARGV[1]) * 2", 0, i) end
    local sum = 0
    for i = 1, 60 do sum = sum + claw.task.wait(tasks[i]) end
    return { deny = 418, message = tostring(sum) }
end }
"""


def config(url, *policies, workers=1):
    return {"server": {"workers": workers}, "upstreams": {"m": {"type": "mock"}}, "state": {"url": url},
            "routes": [{"id": n, "match": {"path": "/v1/*", "headers": {"x-route": n}}, "policies": [n], "strategy": {"upstream": "m"}}
                       for n in policies], "policies": {"always": []}}


FILES = {"doing.lua": DOING, "counting.lua": COUNTING, "fanning.lua": FANNING}


@pytest.fixture
def redis():
    made = []

    def one(**kwargs):
        made.append(Redis(**kwargs))
        return made[-1]
    yield one
    for server in made:
        server.stop()


@pytest.fixture(scope="module")
def shared():
    server = Redis(password=PASSWORD)
    p = Proxy(config(f"redis://:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@localhost:{server.port}/3", *[f[:-4] for f in FILES], workers=2), policies=FILES)
    p.redis = server
    yield p
    p.stop()
    server.stop()


def do(p, *calls):
    answer = ask(p, chat("m"), headers=[("x-route", "doing"), ("x-calls", json.dumps(calls))])
    assert answer.status == 418, answer.text
    return json.loads(answer.json()["error"]["message"])


def replies(p, *calls):
    return [one.get("reply") for one in do(p, *calls)]


def test_replies(shared):
    assert replies(shared, ["SET", "a", "text"], ["GET", "a"], ["GET", "none"], ["INCRBY", "n", 41], ["incr", "n"], ["SET", "n", 2**53 - 1], ["GET", "n"]) == \
        ["OK", "text", False, 41, 42, "OK", "9007199254740991"]
    assert replies(shared, ["SET", "n", "9007199254740992"], ["INCR", "n"], ["RPUSH", "l", "x", 1.5], ["LRANGE", "l", 0, -1], ["LRANGE", "none", 0, -1]) == \
        ["OK", "9007199254740993", 2, ["x", "1.5"], {}]
    assert replies(shared, ["EVAL", "return {1, {2, 'b', false}, redis.error_reply('ERR no')}", 0]) == [[1, [2, "b", False], {"err": "ERR no"}]]
    wrong = do(shared, ["INCR", "l"], ["NOSUCH"])
    assert [one["code"] for one in wrong] == ["EREDIS", "EREDIS"] and wrong[0]["message"].startswith("WRONGTYPE")


def test_a_script_is_sent_once(shared):
    text = "return {KEYS[1], ARGV[1]}"
    assert replies(shared, ["script", text, ["k"], ["v"]], ["script", text, ["k"], [5]]) == [["k", "v"], ["k", "5"]]
    assert b"eval" not in shared.redis.ask("GET", "none")
    do(shared, ["CONFIG", "RESETSTAT"], ["script", text, ["k"], ["v"]])
    stats = json.dumps(replies(shared, ["INFO", "commandstats"]))
    assert "cmdstat_evalsha:calls=1" in stats and "cmdstat_eval:" not in stats


def test_what_the_connection_cannot_share_is_refused(shared):
    for calls in ["SELECT", 1], ["subscribe", "x"], ["MULTI"], ["BLPOP", "l", 0], ["XREAD", "BLOCK", 0, "STREAMS", "s", "0"], ["GET", {"timeout": 5}], []:
        answer = ask(shared, chat("m"), headers=[("x-route", "doing"), ("x-calls", json.dumps([calls]))])
        assert answer.status == 500, calls
    shared.wait_log(lambda l: "policies/doing.lua:7: claw.redis.call: SUBSCRIBE is not possible on a connection that others use, too" in json.dumps(l))


def test_two_workers_count_exactly(shared):
    answers = in_parallel(400, lambda i: ask(shared, chat("m"), headers=[("x-route", "counting")]))
    assert sorted(int(a.json()["error"]["message"]) for a in answers) == list(range(1, 401))
    assert shared.redis.ask("CLIENT", "LIST").count(b"db=3") <= 2


def test_tasks_share_the_pipeline(shared):
    assert ask(shared, chat("m"), headers=[("x-route", "fanning")]).json()["error"]["message"] == str(60 * 61)


def test_a_call_has_its_time(shared):
    start = time.monotonic()
    busy = "local t = redis.call('TIME') local e = t[1] * 1000 + t[2] / 1000 + 400 repeat t = redis.call('TIME') until t[1] * 1000 + t[2] / 1000 > e return 7"
    out = do(shared, ["EVAL", busy, 0, {"timeout_ms": 100}], ["GET", "none"])
    assert out[0]["code"] == "ETIMEOUT" and out[1] == {"reply": False}, "the late reply belongs to nobody"
    assert time.monotonic() - start < 3


def test_a_client_that_leaves(shared):
    with Raw(shared.port) as c:
        slow = ["EVAL", "local t = redis.call('TIME')[1] + 1 repeat until tonumber(redis.call('TIME')[1]) > t", 0, {"timeout_ms": 60000}]
        c.send(request(headers=[("x-route", "doing"), ("x-calls", json.dumps([slow]))], body=chat("left")))
        shared.wait_metric("openclaw_requests_in_flight", lambda v: v == 1)
    shared.wait_metric("openclaw_requests_in_flight", lambda v: v == 0)
    shared.wait_metric("openclaw_policy_redis_calls_total", lambda v: v >= 1, outcome="canceled")
    eventually(lambda: replies(shared, ["GET", "none"]) == [False], timeout=15)


def test_the_password_is_in_no_log(shared):
    assert PASSWORD not in "\n".join(json.dumps(l) for l in shared.lines)


def test_redis_is_killed_and_comes_back(redis, start):
    server = redis()
    p = start(config(server.url(), "doing"), policies=FILES)
    assert replies(p, ["SET", "a", 1]) == ["OK"]
    server.kill()
    begun = time.monotonic()
    out = do(p, *[["GET", "a"]] * 20)
    assert {one["code"] for one in out} == {"EDOWN"} and "connection refused" in out[-1]["message"], out
    assert time.monotonic() - begun < 1
    p.wait_log(lambda l: l.get("msg") == "Redis is down")
    server.start()
    eventually(lambda: replies(p, ["GET", "a"]) == [False], timeout=15)
    p.wait_log(lambda l: l.get("msg") == "Redis is back")
    server.kill()
    server.start()
    eventually(lambda: replies(p, ["GET", "a"]) == [False], timeout=15)


def test_redis_freezes(redis, start):
    """What waits ends after its time; then calls are refused at once, and requests without Redis never notice."""
    server = redis()
    p = start(config(server.url(), "doing", "plain"), policies={**FILES, "plain.lua": "return { name = 'plain', api = 1 }"})
    assert replies(p, ["SET", "a", 1]) == ["OK"]
    server.freeze()
    try:
        slowest, stop = [0.0], threading.Event()

        def others():
            while not stop.is_set():
                begun = time.monotonic()
                assert ask(p, chat("m"), headers=[("x-route", "plain")]).status == 200
                slowest[0] = max(slowest[0], time.monotonic() - begun)
        side = threading.Thread(target=others)
        side.start()
        begun = time.monotonic()
        first = in_parallel(20, lambda i: do(p, ["GET", "a"])[0]["code"])
        assert set(first) <= {"ETIMEOUT", "EDOWN"} and "ETIMEOUT" in first and time.monotonic() - begun < 5
        begun = time.monotonic()
        assert {one["code"] for one in do(p, *[["GET", "a"]] * 50)} == {"EDOWN"}
        assert time.monotonic() - begun < 0.9, "not one of them waits"
        stop.set()
        side.join()
        assert slowest[0] < 0.9
    finally:
        server.thaw()
    eventually(lambda: replies(p, ["GET", "a"]) == ["1"], timeout=20)


def test_a_wrong_password_and_a_new_url(redis, start):
    server, other = redis(password="right-one"), redis()
    p = start(config(server.url().replace("right-one", "wrong-one"), "doing"), policies=FILES)
    out = do(p, ["PING"])[0]
    assert out["code"] == "EDOWN" and "WRONGPASS" in out["message"]
    assert do(p, ["PING"])[0]["code"] == "EDOWN"
    was = p.generation()
    p.write_config(config(other.url(), "doing"))
    p.wait_generation(was)
    assert replies(p, ["SET", "b", "x"]) == ["OK"] and other.ask("GET", "b") == b"x\r\n"


def test_without_a_url(start):
    p = start({**config("", "doing"), "state": None}, policies=FILES)
    assert ask(p, chat("m"), headers=[("x-route", "doing"), ("x-calls", '[["PING"]]')]).status == 500
    p.wait_log(lambda l: "claw.redis.call: state.url is not given in the configuration" in json.dumps(l))
