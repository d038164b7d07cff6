"""V: a second upstream asked while the first is silent. Who speaks first answers, the other one's connection is closed."""
import json
import threading

import pytest

from certs import Authority, server_context
from client import Raw, ask, chat, data_of, eventually, request
from conftest import UPSTREAM_KEY
from proxy import Proxy, run
from upstream import CHAT, Closed, Upstream, delta, event, stream_events

WAITING = """
local P = { name = "waiting", api = 1 }
function P.request(req, body)
    body.seen_by = req.upstream.name
    if req.upstream.name == "b" and req.model:find("^hook") then claw.time.sleep(600000) end
end
return P
"""
# One order of its own each; a hedge as soon as may be, for whoever is not to be late for it.
ROUTES = {
    "own": {"hedge": {"after": 60, "budget": 1}}, "three": {"hedge": {"after": 60, "budget": 1}},
    "hook": {"hedge": {"after": 60, "budget": 1}, "policies": ["waiting"]},
    "poor": {"hedge": {"after": 60, "budget": 0.05}}, "none": {"hedge": {"after": 60, "budget": 0}},
    "usual": {"hedge": {"after": "p95", "budget": 1}}, "policy": {"policies": ["hedged"]},
}


def content(text):
    return {**CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


@pytest.fixture(scope="module")
def racing():
    up = Upstream()
    names = ("a", "b", "c")
    p = Proxy({
        "upstreams": {n: {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(f"/{n}/v1")} for n in names},
        "routes": [{"id": n, "match": {"path": f"/{n}/*"}, "retry": {"backoff_ms": 0, "attempts": 3 if n == "three" else 2},
                    "strategy": {"type": "failover", "upstreams": list(names[:3 if n == "three" else 2])}, **more} for n, more in ROUTES.items()],
        "policies": {"always": [], "settings": {"hedged": {"after": 60, "header": "x-priority", "is": "high", "others": False}}},
        "server": {"workers": 1},
    }, policies={"waiting.lua": WAITING})
    p.up = up
    yield p
    p.stop()
    up.stop()


class Race:
    """What each upstream does with the requests of one model; a step of a script waits until the test says go."""

    def __init__(self, p, model, **scripts):
        self.p, self.model, self.may = p, model, {n: threading.Event() for n in "abc"}
        p.up.on(model, lambda ex: scripts[self.who(ex)](ex, self))

    @staticmethod
    def who(ex):
        return ex.request.target[1]

    def go(self, name):
        self.may[name].set()

    def wait(self, name):
        assert self.may[name].wait(20)

    def asked(self, name):
        """The exchange with this upstream, once there is one."""
        self.p.up.wait(lambda up: any(e.model == self.model and self.who(e) == name for e in up.exchanges))
        return [e for e in self.p.up.seen(self.model) if self.who(e) == name][-1]

    def outcomes(self, route="own"):
        return {o: self.p.metric("openclaw_hedges_total", route_id=route, outcome=o) or 0 for o in ("won", "lost", "failed", "budget")}


def silent(ex, race):
    ex.until_gone()


def says(ex, race):
    if ex.body.get("stream"):
        ex.stream([event(delta("from " + race.who(ex))), b"data: [DONE]\n\n"])
    else:
        ex.reply(content("from " + race.who(ex)))


def says_when_told(ex, race):
    race.wait(race.who(ex))
    says(ex, race)


def fails_when_told(ex, race):
    race.wait(race.who(ex))
    ex.reply({"error": {"message": race.who(ex)}}, 503)


def text_of(answer, stream):
    if not stream:
        return answer.json()["choices"][0]["message"]["content"]
    return "".join(c["choices"][0]["delta"].get("content", "") for c in data_of(answer)[:-1] if c["choices"])


def kinds(line):
    return [(a["upstream"], a.get("kind")) for a in line["attempts"]]


def post(c, model, stream=False, path="/own/chat/completions", **how):
    return c.send(request(path=path, body=json.dumps(chat(model, stream=stream)).encode(), **how))


@pytest.fixture
def model(request):
    return request.node.name


PLAIN_AND_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@PLAIN_AND_STREAMED
def test_the_second_answers_and_the_first_is_canceled(racing, model, stream):
    race = Race(racing, model, a=silent, b=says)
    before = race.outcomes()
    answer = ask(racing, chat(model, stream=stream), path="/own/chat/completions")
    assert text_of(answer, stream) == "from b"
    assert answer.get("x-openclaw-upstream") == "b" and answer.get("x-openclaw-attempts") == "2"
    assert race.asked("a").left.wait(10), "the first one's connection is open"
    assert kinds(racing.request_line(answer)) == [("a", "outrun"), ("b", None)]
    after = race.outcomes()
    assert after["won"] == before["won"] + 1 and after["lost"] == before["lost"]


@PLAIN_AND_STREAMED
def test_the_first_answers_and_the_second_is_canceled(racing, model, stream):
    race = Race(racing, model, a=says_when_told, b=silent)
    before = race.outcomes()
    with Raw(racing.port) as c:
        post(c, model, stream)
        second = race.asked("b")
        race.go("a")
        answer = c.response()
        assert text_of(answer, stream) == "from a"
        assert answer.get("x-openclaw-upstream") == "a" and answer.get("x-openclaw-attempts") == "2"
        assert second.left.wait(10), "the second one's connection is open"
        assert kinds(racing.request_line(answer)) == [("a", None), ("b", "outrun")]
        assert race.outcomes()["lost"] == before["lost"] + 1
        assert text_of(post(c, "plain", stream).response(), stream), "the client's connection goes on"


def test_who_is_fast_is_asked_alone(racing, model):
    race = Race(racing, model, a=says, b=says)
    for stream in (False, True):
        answer = ask(racing, chat(model, stream=stream), path="/own/chat/completions")
        assert answer.get("x-openclaw-attempts") == "1" and text_of(answer, stream) == "from a"
    assert [race.who(e) for e in racing.up.seen(model)] == ["a", "a"]


def heads_only(ex, race):
    ex.stream_head()
    ex.chunk(b": wait\n\n")
    race.wait(race.who(ex))
    for one in (event(delta("from " + race.who(ex))), b"data: [DONE]\n\n"):
        ex.chunk(one)
    ex.end()


def test_a_streams_head_does_not_win(racing, model):
    race = Race(racing, model, a=heads_only, b=heads_only)
    with Raw(racing.port) as c:
        post(c, model, True)
        first, second = race.asked("a"), race.asked("b")
        assert c.quiet(0.2)
        race.go("b")
        answer = c.response()
        assert answer.body == b": wait\n\n" + event(delta("from b")) + b"data: [DONE]\n\n"
        race.go("a") # what it sends now meets nobody
        assert first.left.wait(10) and not second.left.is_set()


def test_a_head_that_came_first_may_still_win(racing, model):
    race = Race(racing, model, a=heads_only, b=heads_only)
    with Raw(racing.port) as c:
        post(c, model, True)
        second = race.asked("b")
        race.go("a")
        answer = c.response()
        assert answer.body == b": wait\n\n" + event(delta("from a")) + b"data: [DONE]\n\n"
        race.go("b")
        assert second.left.wait(10)


@PLAIN_AND_STREAMED
def test_a_client_that_leaves_cancels_both(racing, model, stream):
    race = Race(racing, model, a=silent, b=silent)
    c = Raw(racing.port)
    post(c, model, stream)
    first, second = race.asked("a"), race.asked("b")
    c.reset()
    assert first.left.wait(10) and second.left.wait(10)
    line = racing.wait_log(lambda e: e.get("msg") == "request" and e["model"] == model)
    assert line["status"] == 499 and kinds(line) == [("a", "client_gone"), ("b", "client_gone")]
    assert eventually(lambda: racing.metric("openclaw_requests_in_flight") == 0)


@PLAIN_AND_STREAMED
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_both_fail(racing, model, stream, order):
    race = Race(racing, model, a=fails_when_told, b=fails_when_told)
    heard = {"a": "won", "b": "failed"}[order[0]]
    before = race.outcomes()[heard]
    with Raw(racing.port) as c:
        post(c, model, stream)
        assert race.asked("a") and race.asked("b")
        race.go(order[0])
        # Sent first is not read first: epoll may tell of both in one turn, in either order.
        racing.wait_metric("openclaw_hedges_total", lambda n: n == before + 1, route_id="own", outcome=heard)
        race.go(order[1])
        answer = c.response()
        assert answer.status == 503 and answer.json()["error"]["message"] == order[1], answer.body
        assert kinds(racing.request_line(answer)) == [("a", "http_503"), ("b", "http_503")]
        assert [e.conn.requests > 0 for e in racing.up.seen(model)] == [True, True], "neither was asked again"


@PLAIN_AND_STREAMED
def test_the_hedge_goes_on_alone(racing, model, stream):
    race = Race(racing, model, a=fails_when_told, b=says_when_told)
    with Raw(racing.port) as c:
        post(c, model, stream)
        second = race.asked("b")
        race.go("a")
        assert race.asked("a").finished.wait(10)
        assert c.quiet(0.1) and not second.left.is_set()
        race.go("b")
        answer = c.response()
        assert text_of(answer, stream) == "from b" and answer.get("x-openclaw-attempts") == "2"
        assert kinds(racing.request_line(answer)) == [("a", "http_503"), ("b", None)]


@PLAIN_AND_STREAMED
@pytest.mark.parametrize("how", ["status", "reset", "error_event"])
def test_the_first_goes_on_when_the_hedge_fails(racing, model, stream, how):
    def failing(ex, race):
        if how == "status":
            ex.reply({"error": {"message": "x"}}, 500)
        elif how == "reset":
            ex.reset()
        else:
            ex.stream([event({"error": {"message": "x"}})])
    race = Race(racing, model, a=says_when_told, b=failing)
    before = race.outcomes()
    with Raw(racing.port) as c:
        post(c, model, stream)
        assert race.asked("b").finished.wait(10)
        racing.wait_metric("openclaw_hedges_total", lambda n: n == before["failed"] + 1, route_id="own", outcome="failed")
        assert not race.asked("a").left.is_set()
        race.go("a")
        answer = c.response()
        assert text_of(answer, stream) == "from a"
        line = racing.request_line(answer)
        assert kinds(line)[0] == ("a", None) and kinds(line)[1][1] in ("http_500", "eof", "stream_error"), line


def test_a_third_is_asked_behind_both(racing, model):
    race = Race(racing, model, a=fails_when_told, b=fails_when_told, c=says)
    with Raw(racing.port) as c:
        post(c, model, path="/three/chat/completions")
        assert race.asked("b")
        race.go("b")
        assert race.asked("b").finished.wait(10)
        race.go("a")
        answer = c.response()
        assert text_of(answer, False) == "from c" and answer.get("x-openclaw-attempts") == "3"
        assert kinds(racing.request_line(answer)) == [("a", "http_503"), ("b", "http_503"), ("c", None)]


def test_a_kept_connection_that_breaks_beside_is_no_reason_to_ask_again(racing, model):
    def breaks(ex, race):
        if len(racing.up.seen(model)) > 1:
            race.wait("a")
            ex.reset()
        else:
            ex.reply(content("first"))
    race = Race(racing, model, a=breaks, b=says_when_told)
    assert text_of(ask(racing, chat(model), path="/own/chat/completions"), False) == "first"
    with Raw(racing.port) as c:
        post(c, model)
        assert race.asked("b")
        race.go("a")
        assert race.asked("a").finished.wait(10)
        race.go("b")
        assert text_of(c.response(), False) == "from b"
    assert sorted(race.who(e) for e in racing.up.seen(model)) == ["a", "a", "b"]


def test_the_hedges_hook_is_given_up(racing):
    race = Race(racing, "hook-waits", a=says_when_told, b=silent)
    with Raw(racing.port) as c:
        post(c, "hook-waits", path="/hook/chat/completions")
        assert race.asked("a").body["seen_by"] == "a"
        before = race.outcomes("hook")["lost"]
        assert c.quiet(0.3)
        race.go("a")
        answer = c.response()
        assert text_of(answer, False) == "from a"
        assert kinds(racing.request_line(answer)) == [("a", None)]
        assert race.outcomes("hook")["lost"] == before + 1
    assert [race.who(e) for e in racing.up.seen("hook-waits")] == ["a"]


def test_each_gets_the_body_made_for_it(racing, model):
    race = Race(racing, model, a=silent, b=says)
    assert text_of(ask(racing, chat(model), path="/hook/chat/completions"), False) == "from b"
    assert race.asked("a").body["seen_by"] == "a" and race.asked("b").body["seen_by"] == "b"


def test_who_still_connects_is_hedged_once_it_has_the_request(start, upstreams, tmp_path, model):
    shake = threading.Event()
    first = upstreams(tls=server_context(Authority(tmp_path).issue("u")), accept=lambda conn: not shake.wait(20))
    second = upstreams()
    second.on(model, lambda ex: ex.reply(content("from b")))
    first.on(model, lambda ex: ex.until_gone())
    p = start({
        "upstreams": {"a": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": first.url(), "tls": {"verify": False}, "connect_timeout_seconds": 20},
                      "b": {"type": "openai", "base_url": second.url()}},
        "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["a", "b"]}, "hedge": {"after": 30, "budget": 1}}]})
    with Raw(p.port) as c:
        c.send(request(body=chat(model)))
        assert c.quiet(0.3) and second.exchanges == []
        shake.set()
        assert text_of(c.response(), False) == "from b"
    assert first.wait_seen(model)[0].left.wait(10)


def test_the_budget(racing, model):
    race = Race(racing, model, a=says_when_told, b=says)
    assert ask(racing, chat(model), path="/poor/chat/completions").get("x-openclaw-upstream") == "b"
    with Raw(racing.port) as c:
        post(c, model, path="/poor/chat/completions")
        racing.wait_metric("openclaw_hedges_total", lambda n: n == 1, route_id="poor", outcome="budget")
        race.go("a")
        answer = c.response()
        assert answer.get("x-openclaw-upstream") == "a" and answer.get("x-openclaw-attempts") == "1"
    race = Race(racing, model, a=says_when_told, b=says)
    with Raw(racing.port) as c:
        post(c, model, path="/none/chat/completions")
        assert race.asked("a") and c.quiet(0.3)
        race.go("a")
        assert c.response().get("x-openclaw-attempts") == "1"


def test_the_usual_time(racing, model):
    slow = threading.Event()
    race = Race(racing, model, a=lambda ex, race: silent(ex, race) if slow.is_set() else says(ex, race), b=says)
    for _ in range(25):
        ask(racing, chat(model), path="/usual/chat/completions")
    slow.set()
    answer = ask(racing, chat(model), path="/usual/chat/completions")
    assert answer.get("x-openclaw-upstream") == "b"
    assert racing.request_line(answer)["attempts"][0]["ms"] < 5000
    assert race.asked("a").left.wait(10)


def test_a_policy_says_who_is_hedged(racing, model):
    race = Race(racing, model, a=says_when_told, b=says)
    answer = ask(racing, chat(model), path="/policy/chat/completions", headers=[("x-priority", "high")])
    assert answer.get("x-openclaw-upstream") == "b"
    with Raw(racing.port) as c:
        post(c, model, path="/policy/chat/completions")
        assert c.quiet(0.3)
        race.go("a")
        assert c.response().get("x-openclaw-attempts") == "1"


def test_explain_says_so(racing, tmp_path):
    def told(path, **headers):
        (tmp_path / "q.json").write_text(json.dumps({"path": path, "headers": headers, "body": chat("m")}))
        return run("-config", racing.config_path, "-explain", tmp_path / "q.json").stdout
    assert "hedge: b is asked too when a is silent for 60 ms" in told("/own/chat/completions")
    assert "hedge: b is asked too when a is silent longer than p95 of its times" in told("/usual/chat/completions")
    text = told("/policy/chat/completions", **{"x-priority": "high"})
    assert "keeps the order: a, b, hedge after 60" in text and "hedge: b is asked too when a is silent for 60 ms" in text
    text = told("/policy/chat/completions")
    assert "keeps the order: a, b, no hedge" in text and "is asked too" not in text
