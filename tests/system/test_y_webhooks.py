"""Y: webhooks: what happens is told to other systems, signed, again when it fails, and never at a request's cost."""
import base64
import hashlib
import hmac
import json
import signal
import time

import pytest

from client import ask, chat, eventually

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def receiver(upstreams):
    return upstreams()


def told(receiver, kind=None):
    """What the receiver got so far: (request, body) of each."""
    out = [(ex.request, json.loads(ex.request.body)) for ex in receiver.since(0) if ex.request.target == "/hook"]
    return [(r, body) for r, body in out if kind in (None, body["type"])]


def header(r, name):
    return r.get(name)


def config(up, receiver, hook=None, **more):
    return {"webhooks": [{"url": receiver.url("/hook"), **(hook or {})}],
            "upstreams": {"u": {"type": "openai", "base_url": up.url()}, "v": {"type": "openai", "base_url": up.url()}},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u", "v"]}}], "retry": {"backoff_ms": 1}, **more}


def test_kinds(start, up, receiver, model):
    """Each kind of event that a request or a reload can bring about."""
    up.on(model, lambda ex: ex.reply({"error": {"message": "busy"}}, status=503))
    p = start(config(up, receiver), policies={"bad.lua": "return { name = 'bad', api = 1, request = function(req) if req.model == 'boom' then error('x') end end }"})
    eventually(lambda: told(receiver, "reload"))
    published = told(receiver, "reload")[0][1]
    assert published["data"]["result"] == "published" and published["data"]["generation"] == 1
    a = ask(p, chat(model))
    assert a.status == 503
    rid = a.get("x-openclaw-request-id")
    eventually(lambda: len(told(receiver, "upstream_error")) >= 2)
    for _, body in told(receiver, "upstream_error"):
        assert body["data"]["request_id"] == rid and body["data"]["kind"] == "http_503" and body["data"]["status"] == 503
        assert body["data"]["route"] == "r" and body["data"]["model"] == model
    eventually(lambda: told(receiver, "failover"))
    over = told(receiver, "failover")[0][1]["data"]
    assert (over["from"], over["to"], over["kind"], over["request_id"]) == ("u", "v", "http_503", rid)
    assert ask(p, chat("boom")).status == 500
    eventually(lambda: told(receiver, "policy_error"))
    assert told(receiver, "policy_error")[0][1]["data"]["policy"] == "bad"
    p.drop_policy("worse.lua", "return {")
    eventually(lambda: len(told(receiver, "reload")) >= 2)
    refused = told(receiver, "reload")[1][1]["data"]
    assert refused["result"] == "refused" and "worse.lua:1" in refused["problems"]
    p.wait_metric("openclaw_webhooks_total", lambda v: v >= 2, event="reload", outcome="delivered")


@pytest.mark.parametrize("word", ["failover", "upstream_error", "reload", "policy_error"])
def test_only_what_is_asked_for(start, up, receiver, model, word):
    up.on(model, lambda ex: ex.reply({}, status=503))
    p = start(config(up, receiver, {"events": [word]}), policies={"bad.lua": "return { name = 'bad', api = 1, request = function(req) if req.model == 'boom' then error('x') end end }"})
    ask(p, chat(model))
    ask(p, chat("boom"))
    eventually(lambda: told(receiver))
    p.wait_metric("openclaw_webhooks_waiting", lambda v: v == 0)
    assert {body["type"] for _, body in told(receiver)} == {word}


def test_limits_and_budgets(start, up, receiver, model):
    """What a client was refused: which limit, whose budget; never a key."""
    p = start(config(up, receiver, {"events": ["rate_limit", "budget"]},
                     clients=[{"name": "a", "key": "key-of-client-a", "budget": {"usd": 0, "per": "day"}},
                              {"name": "b", "key": "key-of-client-b", "limits": {"requests_per_hour": 1}}]))
    assert ask(p, chat(model), headers=[("x-api-key", "key-of-client-a")]).status == 429
    assert [ask(p, chat(model), headers=[("x-api-key", "key-of-client-b")]).status for _ in range(2)] == [200, 429]
    eventually(lambda: len(told(receiver)) >= 2)
    budget, limit = told(receiver, "budget")[0][1]["data"], told(receiver, "rate_limit")[0][1]["data"]
    assert (budget["client"], budget["budget_usd"], budget["per"]) == ("a", 0, "day")
    assert (limit["client"], limit["limit"], limit["route"]) == ("b", "client:b", "r")
    assert len(told(receiver)) == 2 and "key-of-client" not in repr([r.body for r, _ in told(receiver)])


@pytest.mark.parametrize("secret, key", [(SECRET, b"0123456789abcdef0123456789abcdef"), ("a plain word", b"a plain word")])
def test_signature(start, up, receiver, secret, key):
    """As a receiver checks it (standardwebhooks.com)."""
    p = start(config(up, receiver, {"secret": secret, "headers": {"x-team": "gateway"}}))
    eventually(lambda: told(receiver))
    r, _ = told(receiver)[0]
    text = f"{header(r, 'webhook-id')}.{header(r, 'webhook-timestamp')}.".encode() + r.body
    assert header(r, "webhook-signature") == "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert abs(int(header(r, "webhook-timestamp")) - time.time()) < 60 and header(r, "x-team") == "gateway"
    assert header(r, "content-type") == "application/json"
    assert secret not in p.everything_told() and secret not in p.admin("/metrics")[1]


def test_without_a_secret_nothing_is_signed(start, up, receiver):
    start(config(up, receiver))
    eventually(lambda: told(receiver))
    assert header(told(receiver)[0][0], "webhook-signature") is None


def test_again_until_it_is_taken(start, up, receiver):
    """The same id each time, another timestamp and signature."""
    n = iter(range(100))
    receiver.on("/hook", lambda ex: ex.reply({}, status=500 if next(n) < 2 else 204))
    p = start(config(up, receiver, {"secret": SECRET}))
    eventually(lambda: len(told(receiver)) >= 3, timeout=10 * p.slow)
    ids = {header(r, "webhook-id") for r, _ in told(receiver)[:3]}
    assert len(ids) == 1 and len({r.body for r, _ in told(receiver)[:3]}) == 1
    p.wait_metric("openclaw_webhooks_total", lambda v: v == 1, outcome="delivered")
    assert len([line for line in p.lines if line["msg"] == "a webhook does not take events"]) == 1


@pytest.mark.parametrize("status, tries", [(410, 1), (400, 2), (302, 2)])
def test_given_up(start, up, receiver, status, tries):
    """After `attempts`; 410 at once; a redirect is an answer like any other."""
    receiver.on("/hook", lambda ex: ex.reply({}, status=status, headers=[("location", receiver.url("/elsewhere"))]))
    p = start(config(up, receiver, {"attempts": 2}))
    p.wait_metric("openclaw_webhooks_total", lambda v: v == 1, timeout=10, event="reload", outcome="failed")
    assert len(told(receiver)) == tries and len(receiver.since(0)) == tries


def test_a_receiver_that_hangs_holds_up_nobody(start, up, receiver, model):
    """Requests go on; the queue keeps its bound, its oldest events are dropped and counted."""
    receiver.on("/hook", lambda ex: ex.until_gone(60))
    up.on(model, lambda ex: ex.reply({}, status=503))
    p = start(config(up, receiver, {"max_queue": 10, "events": ["upstream_error"], "timeout_seconds": 60}))
    for _ in range(40):
        begun = time.monotonic()
        assert ask(p, chat(model)).status == 503
        assert time.monotonic() - begun < 2 * p.slow
    p.wait_metric("openclaw_webhooks_total", lambda v: v == 80 - 10, event="upstream_error", outcome="dropped")
    assert p.metric("openclaw_webhooks_waiting") == 10


def test_reload_moves_and_ends_them(start, up, receiver, upstreams):
    other = upstreams()
    receiver.on("/hook", lambda ex: ex.reply({}, status=500))
    p = start(config(up, receiver))
    eventually(lambda: told(receiver))
    p.write_config(config(up, other))
    p.signal(signal.SIGHUP)
    eventually(lambda: told(other, "reload"))
    p.wait_metric("openclaw_webhooks_waiting", lambda v: v == 0)
    p.write_config({k: v for k, v in config(up, other).items() if k != "webhooks"})
    n = len(told(other))
    p.signal(signal.SIGHUP)
    p.wait_generation(2)
    assert ask(p, chat("m")).status == 200 and len(told(other)) == n


def test_ends_while_deliveries_are_under_way(start, up, receiver, model):
    receiver.on("/hook", lambda ex: ex.until_gone(60))
    p = start(config(up, receiver))
    eventually(lambda: told(receiver))
    p.stop()
