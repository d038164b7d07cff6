"""C: which upstream gets a request, seen from the upstreams' side."""
import collections
import threading

import pytest

from client import Raw, ask, chat, request
from upstream import Upstream

GUIDE = """
server:
  listen_address: "127.0.0.1"
  listen_port: {port}
  timeout_seconds: 60
admin:
  listen_port: {admin}
upstreams:
  # Example for OpenAI
  openai-gpt4:
    type: openai
    api_key: "${OPENAI_API_KEY}" # Use environment variable for security
    base_url: "${OPENAI_URL}"
    models: ["gpt-4", "gpt-4o", "gpt-3.5-turbo"] # Models supported by this upstream
  # Example for Anthropic
  anthropic-claude:
    type: anthropic
    api_key: "${ANTHROPIC_API_KEY}"
    base_url: "${ANTHROPIC_URL}"
    models: ["claude-3-opus-20240229", "claude-3-sonnet-20240229"]
  local-mistral:
    type: generic
    api_key: "" # May not be needed for local models
    base_url: "http://localhost:11434/v1"
    models: ["mistral"]
routes:
  - id: default_chat_route
    match:
      path: "/v1/chat/completions" # Matches OpenAI-compatible chat completion endpoint
    strategy:
      type: round_robin # Distribute requests evenly
      upstreams: ["openai-gpt4", "anthropic-claude"] # Try these upstreams
  - id: specific_gpt4_route
    match:
      path: "/v1/chat/completions"
      json_body:
        model: "gpt-4" # Routes specifically when the model in the request body is "gpt-4"
    strategy:
      type: weighted_random
      upstreams:
        - name: "openai-gpt4"
          weight: 100 # Only use openai-gpt4 for gpt-4 requests
"""


@pytest.fixture(scope="module")
def guide():
    a, b = Upstream(), Upstream()
    from proxy import Proxy
    p = Proxy(GUIDE, env={"OPENAI_API_KEY": "sk-openai-1234567", "ANTHROPIC_API_KEY": "sk-ant-1234567",
                          "OPENAI_URL": a.url("/v1"), "ANTHROPIC_URL": b.url("/v1")})
    yield p, a, b
    p.stop()
    a.stop()
    b.stop()


def test_guide_gpt4_goes_to_openai_only(guide):
    p, openai, anthropic = guide
    for _ in range(10):
        answer = ask(p, chat("gpt-4"))
        assert answer.status == 200 and answer.get("x-openclaw-route") == "specific_gpt4_route"
    assert len(openai.seen("gpt-4")) == 10 and anthropic.seen("gpt-4") == []
    got = openai.seen("gpt-4")[0].request
    assert got.target == "/v1/chat/completions" and got.get("authorization") == "Bearer sk-openai-1234567"


def test_guide_claude_goes_to_anthropic_only(guide):
    p, openai, anthropic = guide
    name = "claude-3-opus-20240229"
    for _ in range(10):
        answer = ask(p, chat(name))
        assert answer.status == 200 and answer.get("x-openclaw-route") == "default_chat_route"
    assert openai.seen(name) == [] and len(anthropic.seen(name)) == 10
    got = anthropic.seen(name)[0].request
    assert got.get("x-api-key") == "sk-ant-1234567" and got.get("authorization") is None
    assert got.get("anthropic-version") == "2023-06-01"
    assert got.target == "/v1/messages" and answer.json()["choices"][0]["message"]["content"] == "Hello."


def test_guide_models_that_nobody_lists(guide):
    p, openai, anthropic = guide
    answer = ask(p, chat("mistral"))
    error = answer.json()["error"]
    assert answer.status == 404 and error["code"] == "model_not_found" and error["param"] is None
    assert "gpt-4o" in error["message"] and "claude-3-opus-20240229" in error["message"]
    assert openai.seen("mistral") == anthropic.seen("mistral") == []
    assert answer.get("x-openclaw-route") == "default_chat_route" == p.request_line(answer)["route"]
    assert p.metric("openclaw_requests_total", route_id="default_chat_route", status="404", method="POST") == 1


def test_guide_no_route(guide):
    p, _, _ = guide
    answer = ask(p, chat("gpt-4"), path="/v1/embeddings")
    assert answer.status == 404 and answer.json()["error"]["code"] == "no_route"
    line = p.request_line(answer)
    assert line["status"] == 404 and line["route"] == "" and answer.get("x-openclaw-route") is None


class House:
    """Three upstreams told apart by their path, and one route for each strategy under test, picked by a header."""

    def __init__(self):
        self.up = Upstream()
        self.count = 0

    def start(self, routes, upstreams=None, policies=None, **more):
        from proxy import Proxy
        names = {"a": {}, "b": {}, "c": {}, **(upstreams or {})}
        config = {
            "server": {"workers": 1},
            "upstreams": {n: {"type": "openai", "base_url": self.up.url(f"/{n}/v1"), **u} for n, u in names.items()},
            "routes": [{"id": name, "match": {"path": "/v1/*", "headers": {"x-route": name}}, **r} for name, r in routes.items()],
            **more}
        self.proxy = Proxy(config, policies=policies)
        return self

    def go(self, route, n=1, headers=(), **body):
        """The upstreams that n requests on one connection reached, in order."""
        self.count += 1
        name = body.pop("model", f"m{self.count}")
        mark = self.up.mark()
        with Raw(self.proxy.port) as c:
            for _ in range(n):
                answer = c.send(request(body=chat(name, **body), headers=[("x-route", route), *headers])).response()
                assert answer.status == 200, answer.text
        return [e.request.target[1] for e in self.up.since(mark)]

    def stop(self):
        self.proxy.stop()
        self.up.stop()


def strategy(kind, upstreams=("a", "b"), **more):
    return {"strategy": {"type": kind, "upstreams": list(upstreams), **more}}


@pytest.fixture(scope="module")
def house():
    slow = threading.Event()
    h = House().start({
        "rr": strategy("round_robin", "abc"),
        "wrr": strategy("weighted_round_robin", [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]),
        "wr": strategy("weighted_random", [{"name": "a", "weight": 70}, {"name": "b", "weight": 30}]),
        "wr0": strategy("weighted_random", [{"name": "a", "weight": 0}, {"name": "b", "weight": 1}]),
        "first": strategy("first_available", "abc"),
        "fo": strategy("failover", "abc"),
        "cost": strategy("lowest_cost", ["dear", "cheap", "cheap-in"]),
        "latency": strategy("lowest_latency", "ab"),
        "canary": strategy("canary", [{"name": "a", "percentage": 95}, {"name": "b", "percentage": 5}]),
        "canary-user": strategy("canary", [{"name": "a", "percentage": 50}, {"name": "b", "percentage": 50}], sticky_by="header:x-user"),
        "busy": strategy("least_busy", "ab"),
        "sticky": strategy("sticky", "abc", on="header:x-user"),
        "mine": strategy("last_first", "abc"),
        "mapped": strategy("round_robin", ["mapper"]),
    }, {
        "dear": {"cost_per_million_input_tokens": 30.0, "cost_per_million_output_tokens": 60.0},
        "cheap": {"cost_per_million_input_tokens": 3.0, "cost_per_million_output_tokens": 6.0},
        "cheap-in": {"cost_per_million_input_tokens": 1.0, "cost_per_million_output_tokens": 90.0},
        "mapper": {"models": ["served", "glob-*"], "model_map": {"asked": "sent"}},
    }, {"last_first.lua": "return { name = 'last_first', api = 1, choose = function(candidates, facts, rng)\n"
                          "  local out = {}\n  for i = #candidates, 1, -1 do out[#out + 1] = candidates[i] end\n  return out\nend }\n"},
        retry={"backoff_ms": 1})
    h.slow = slow
    yield h
    slow.set()
    h.stop()


def test_round_robin(house):
    got = "".join(house.go("rr", 9))
    assert got in ("abcabcabc", "bcabcabca", "cabcabcab")


def test_weighted_round_robin_is_exact_and_smooth(house):
    got = "".join(house.go("wrr", 40))
    assert collections.Counter(got) == {"a": 30, "b": 10}
    assert "aaaa" not in got and "bb" not in got


def test_weighted_random(house):
    share = house.go("wr", 400).count("a") / 400
    assert 0.58 < share < 0.82
    assert set(house.go("wr0", 30)) == {"b"}


def test_first_available(house):
    assert set(house.go("first", 6)) == {"a"}


def test_lowest_cost(house):
    assert set(house.go("cost", 3, max_tokens=1000)) == {"c"} and house.up.exchanges[-1].request.target.startswith("/cheap/")
    house.go("cost", 1, max_tokens=1, messages=[{"role": "user", "content": "long " * 20000}])
    assert house.up.exchanges[-1].request.target.startswith("/cheap-in/")


def test_lowest_latency(house):
    def script(ex):
        if ex.request.target.startswith("/a/"):
            house.slow.wait(0.06)
        ex.reply()
    house.up.on("timed", script)
    house.go("latency", 10, model="timed")
    got = house.go("latency", 30, model="timed")
    assert got.count("b") >= 27


def test_canary_is_within_two_points(house):
    share = house.go("canary", 1000).count("b") / 1000
    assert 0.03 <= share <= 0.07


def test_canary_keeps_a_user_on_one_side(house):
    sides = {}
    for user in range(30):
        got = set(house.go("canary-user", 4, headers=[("x-user", f"user-{user}")]))
        assert len(got) == 1
        sides[user] = got.pop()
    assert set(sides.values()) == {"a", "b"}


def test_least_busy(house):
    hold = threading.Event()
    house.up.on("held", lambda ex: (hold.wait(10), ex.reply()))
    with Raw(house.proxy.port) as c:
        c.send(request(body=chat("held"), headers=[("x-route", "busy")]))
        held = house.up.wait_seen("held")[0].request.target[1]
        other = {"a": "b", "b": "a"}[held]
        assert set(house.go("busy", 5)) == {other}
        hold.set()
        assert c.response().status == 200


def test_sticky(house):
    sides = {}
    for user in range(40):
        got = set(house.go("sticky", 3, headers=[("x-user", f"user-{user}")]))
        assert len(got) == 1, "one user, one upstream"
        sides[user] = got.pop()
    assert set(sides.values()) == {"a", "b", "c"}


def test_a_policy_as_strategy(house):
    assert set(house.go("mine", 3)) == {"c"}


def test_model_map_and_globs(house):
    house.go("mapped", model="asked")
    assert house.up.exchanges[-1].body["model"] == "sent"
    house.go("mapped", model="glob-1")
    assert house.up.exchanges[-1].body["model"] == "glob-1"
    answer = ask(house.proxy, chat("served-not"), headers=[("x-route", "mapped")])
    assert answer.status == 404 and "served" in answer.json()["error"]["message"]


def test_model_map_touches_nothing_else(house):
    before = b'{ "seed" : 9007199254740993,"model" :\t"asked","x":[],"y":{ },"m":1.0e+2 }'
    with Raw(house.proxy.port) as c:
        assert c.send(request(body=before, headers=[("x-route", "mapped")])).response().status == 200
    assert bytes(house.up.exchanges[-1].request.body) == before.replace(b'"asked"', b'"sent"')


def failing(upstream, status=500):
    def script(ex):
        if ex.request.target[1] in upstream:
            return ex.reply({"error": {"message": "down", "type": "server_error"}}, status)
        ex.reply()
    return script


@pytest.mark.parametrize("route", ["fo", "first", "rr"])
def test_failing_over(house, route):
    name = f"down-{route}"
    house.up.on(name, failing("a"))
    for _ in range(3):
        assert house.go(route, model=name)[-1] != "a"
    answer = ask(house.proxy, chat(name), headers=[("x-route", "fo")])
    assert answer.get("x-openclaw-attempts") == "2" and answer.get("x-openclaw-upstream") == "b"
    line = house.proxy.request_line(answer)
    assert [(a["upstream"], a["status"], a["kind"]) for a in line["attempts"]] == [("a", 500, "http_500"), ("b", 200, None)]


def test_failover_chain_to_its_end(house):
    house.up.on("down-two", failing("ab", 503))
    assert house.go("fo", model="down-two") == ["a", "b", "c"]
    house.up.on("down-all", failing("abc", 503))
    mark = house.up.mark()
    answer = ask(house.proxy, chat("down-all"), headers=[("x-route", "fo")])
    assert answer.status == 503 and "down" in answer.json()["error"]["message"]
    assert [e.request.target[1] for e in house.up.since(mark)][:3] == ["a", "b", "c"]


@pytest.mark.parametrize("status", [400, 404, 422])
def test_client_errors_do_not_fail_over(house, status):
    name = f"refused-{status}"
    house.up.on(name, failing("abc", status))
    mark = house.up.mark()
    assert ask(house.proxy, chat(name), headers=[("x-route", "fo")]).status == status
    assert len(house.up.since(mark)) == 1


@pytest.fixture(scope="module")
def chain():
    """The guide's openai -> anthropic -> gemini chain, each with models of its own; one port that nobody serves."""
    from proxy import free_port
    h = House().start({
        "chain": strategy("failover", ["a", "b", "c"]),
        "alone": strategy("round_robin", ["a", "b"], fallback=False),
        "listed": strategy("round_robin", ["a", "b"]),
        "dead": strategy("failover", ["dead"]),
        "rescued": strategy("first_available", ["dead2", "any"]),
        "regional": strategy("round_robin", ["a", "b"], region="mars"),
    }, {"a": {"models": ["gpt-4"]}, "b": {"models": ["claude-3", "claude-*"], "model_map": {"gpt-4": "claude-mapped"}}, "c": {"models": ["gemini-pro"]},
        "dead": {"base_url": f"http://127.0.0.1:{free_port()}/v1"}, "dead2": {"base_url": f"http://127.0.0.1:{free_port()}/v1"}, "any": {}},
        retry={"backoff_ms": 1})
    yield h
    h.stop()


def test_failover_sends_each_candidate_a_model_it_has(chain):
    chain.up.default = failing("ab", 503)
    mark = chain.up.mark()
    answer = ask(chain.proxy, chat("gpt-4"), headers=[("x-route", "chain")])
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "c" and answer.get("x-openclaw-model") == "gemini-pro"
    assert [(e.request.target[1], e.body["model"]) for e in chain.up.since(mark)] == [("a", "gpt-4"), ("b", "claude-mapped"), ("c", "gemini-pro")]
    line = chain.proxy.request_line(answer)
    assert (line["model"], line["sent_model"]) == ("gpt-4", "gemini-pro")


def test_other_strategies_stay_with_who_lists_the_model(chain):
    chain.up.default = failing("", 503)
    mark = chain.up.mark()
    for _ in range(4):
        assert ask(chain.proxy, chat("claude-3"), headers=[("x-route", "listed")]).status == 200
    assert {e.request.target[1] for e in chain.up.since(mark)} == {"b"}


def test_fallback_false(chain):
    chain.up.default = failing("a", 503)
    mark = chain.up.mark()
    statuses = [ask(chain.proxy, chat("gpt-4"), headers=[("x-route", "alone")]).status for _ in range(4)]
    assert statuses.count(503) == 2, "two of four begin with the failing one, and stay there"
    reached = [e.request.target[1] for e in chain.up.since(mark)]
    assert reached.count("b") == 2


def test_nobody_there(chain):
    answer = ask(chain.proxy, chat("x"), headers=[("x-route", "dead")])
    error = answer.json()["error"]
    assert answer.status in (502, 503) and error["message"] and error["type"]
    line = chain.proxy.request_line(answer)
    assert line["attempts"][0]["kind"] == "connect" and line["attempts"][0]["upstream"] == "dead"
    assert "127.0.0.1" not in error["message"], "no internal address in an answer"


def test_refused_connection_fails_over(chain):
    chain.up.default = failing("", 503)
    answer = ask(chain.proxy, chat("x"), headers=[("x-route", "rescued")])
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "any"


def test_no_upstream_available_says_why(chain):
    answer = ask(chain.proxy, chat("gpt-4"), headers=[("x-route", "regional")])
    error = answer.json()["error"]
    assert answer.status == 503 and error["message"].startswith("No upstream available")
    assert "a: " in error["message"] and "region" in error["message"]


MATCHES = {
    "exact": {"path": "/v1/a", "method": "GET"},
    "glob": {"path": "/v1/a/*"},
    "list": {"path": "/v1/m", "json_body": {"model": ["x1", "x2"]}},
    "number": {"path": "/v1/m", "json_body": {"temperature": 0.0}},
    "contains": {"path": "/v1/m", "json_body": {"messages[*].content": {"contains": ["billing", "invoice"]}}},
    "last": {"path": "/v1/m", "json_body": {"messages[-1].content": {"equals": "last words"}}},
    "range": {"path": "/v1/m", "json_body": {"max_tokens": {"gt": 1000, "lte": 2000}}},
    "exists": {"path": "/v1/m", "json_body": {"tools": {"exists": True}}},
    "query": {"path": "/v1/m", "query": {"tier": "gold"}},
    "header": {"path": "/v1/m", "headers": {"X-Tier": {"in": ["gold", "silver"]}}},
    "both": {"path": "/v1/m", "headers": {"X-Tier": "gold"}, "query": {"tier": "gold"}},
    "general": {"path": "/v1/*"},
}


@pytest.fixture(scope="module")
def matching():
    from proxy import Proxy
    p = Proxy({"upstreams": {"m": {"type": "mock"}},
               "routes": [{"id": "general", "match": MATCHES["general"], **strategy("round_robin", ["m"])}]
               + [{"id": k, "match": m, **strategy("round_robin", ["m"])} for k, m in MATCHES.items() if k != "general"]})
    yield p
    p.stop()


USER = "user"


@pytest.mark.parametrize("wanted,how", [
    ("exact", {"method": "GET", "path": "/v1/a", "body": b""}),
    ("general", {"path": "/v1/a"}),
    ("glob", {"path": "/v1/a/b/c"}),
    ("list", {"body": chat("x2")}),
    ("general", {"body": chat("x3")}),
    ("number", {"body": chat("q", temperature=0)}),
    ("general", {"body": chat("q", temperature=0.1)}),
    ("contains", {"body": {"model": "q", "messages": [{"role": USER, "content": "my INVOICE please"}, {"role": USER, "content": "x"}]}}),
    ("contains", {"body": {"model": "q", "messages": [{"role": USER, "content": [{"type": "text", "text": "Billing"}]}]}}),
    ("last", {"body": {"model": "q", "messages": [{"role": USER, "content": "x"}, {"role": USER, "content": "last words"}]}}),
    ("general", {"body": {"model": "q", "messages": [{"role": USER, "content": "last words"}, {"role": USER, "content": "x"}]}}),
    ("range", {"body": chat("q", max_tokens=2000)}),
    ("general", {"body": chat("q", max_tokens=1000)}),
    ("exists", {"body": chat("q", tools=[])}),
    ("query", {"path": "/v1/m?a=1&tier=go%6cd"}),
    ("header", {"headers": [("x-tier", "silver")]}),
    ("general", {"headers": [("x-tier", "bronze")]}),
    ("both", {"path": "/v1/m?tier=gold", "headers": [("x-tier", "gold")]}),
])
def test_match(matching, wanted, how):
    how = {"path": "/v1/m", "body": chat("q"), **how}
    answer = ask(matching, how.pop("body"), **how)
    assert answer.get("x-openclaw-route") == wanted


def test_round_robin_over_two_workers_is_fair(start, upstreams):
    up = upstreams()
    p = start({"server": {"workers": 2}, "upstreams": {n: {"type": "openai", "base_url": up.url(f"/{n}/v1")} for n in "ab"},
               "routes": [{"id": "r", **strategy("round_robin")}]})
    for _ in range(40):
        assert ask(p, chat("m")).status == 200
    counts = collections.Counter(e.request.target[1] for e in up.exchanges)
    assert abs(counts["a"] - counts["b"]) <= 2
