"""Y: who may ask: keys, addresses, models, routes, budgets; and that no key is seen anywhere."""
import hashlib
import json
import signal
import time

import pytest

from client import Raw, ask, chat, eventually, request
from proxy import run

ANN, BOB = "sk-client-ann-52f7c1", "sk-client-bob-93ab20"
PRICES = {"cost_per_million_input_tokens": 30.0, "cost_per_million_output_tokens": 60.0}


def config(up, **more):
    return {"clients": [{"name": "ann", "key": ANN, "tier": "gold", "metadata": {"team": "blue", "seats": 3}},
                        {"name": "bob", "key_sha256": hashlib.sha256(BOB.encode()).hexdigest()}],
            "upstreams": {"u": {"type": "openai", "api_key": "sk-upstream-77aa", "base_url": up.url(), "models": ["gpt-a", "gpt-b", "o1"], **PRICES}},
            "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}},
                       {"id": "gold", "match": {"client": {"tier": "gold"}}, "strategy": {"type": "failover", "upstreams": ["u"]}}], **more}


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def error_of(a):
    return json.loads(a.body)["error"]


def test_keys(start, upstreams):
    up = upstreams()
    p = start(config(up))
    for headers in (bearer(ANN), [("Authorization", f"bearer  {ANN}")], [("x-api-key", ANN)], [("x-goog-api-key", ANN)], [("api-key", ANN)],
                    [("x-api-key", ANN), *bearer(ANN)], [("x-api-key", ""), *bearer(ANN)], [("authorization", "Basic Zm9v"), ("x-api-key", ANN)]):
        a = ask(p, chat("gpt-a"), headers=headers)
        assert a.status == 200, headers
        line = p.request_line(a)
        assert line["client"] == "ann" and line["ip"] == "127.0.0.1" and line["route"] == "gold"
    a = ask(p, chat("gpt-a"), path=f"/v1/chat/completions?key={BOB}&x=1")
    assert a.status == 200 and p.request_line(a)["client"] == "bob" and p.request_line(a)["route"] == "r"
    assert p.metric("openclaw_client_requests_total", client="ann", status="200") == 8
    for ex in up.since(0):
        text = repr(ex.request.headers) + ex.request.target
        assert ANN not in text and BOB not in text and "sk-upstream-77aa" in text


@pytest.mark.parametrize("headers", [
    [], bearer("wrong"), bearer(""), bearer(ANN + "x"), bearer(ANN[:-1]), [("authorization", ANN)], [("authorization", f"Basic {ANN}")],
    [("x-api-key", ANN), *bearer(BOB)], bearer(ANN) + bearer(BOB), [("x-api-key", "")], bearer("k" * 20000), bearer(ANN) + [("x-goog-api-key", "other")],
    [("proxy-authorization", f"Bearer {ANN}")], [("cookie", f"key={ANN}")]], ids=range(14))
def test_without_a_known_key_nothing_goes_on(start, upstreams, headers):
    up = upstreams()
    p = start(config(up))
    a = ask(p, chat("gpt-a"), headers=headers)
    assert a.status == 401 and error_of(a)["code"] == "invalid_api_key" and a.get("www-authenticate") == "Bearer"
    assert up.since(0) == []
    assert p.metric("openclaw_refused_total") == 1


def test_refused_before_the_body(start, upstreams):
    """The head is enough; nobody is told to go on sending."""
    up = upstreams()
    p = start(config(up))
    with Raw(p.port) as c:
        c.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        a = c.response()
        assert a.status == 401
    with Raw(p.port) as c:
        c.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 100000)
        assert c.response().status == 401
    assert up.since(0) == []


def test_in_the_clients_own_dialect(start, upstreams):
    p = start(config(upstreams()))
    a = ask(p, {"model": "gpt-a", "max_tokens": 5, "messages": []}, path="/v1/messages")
    body = json.loads(a.body)
    assert a.status == 401 and body["type"] == "error" and body["error"]["type"] == "authentication_error"
    a = ask(p, {"contents": []}, path="/v1beta/models/gpt-a:generateContent")
    assert a.status == 401 and json.loads(a.body)["error"]["status"] == "UNAUTHENTICATED"


def test_models_and_routes(start, upstreams):
    up = upstreams()
    c = config(up)
    c["clients"][0] |= {"models": ["gpt-*"]}
    c["clients"][1] |= {"routes": ["gold"]}
    p = start(c)
    assert ask(p, chat("gpt-b"), headers=bearer(ANN)).status == 200
    a = ask(p, chat("o1"), headers=bearer(ANN))
    assert a.status == 403 and error_of(a)["code"] == "model_not_allowed" and "o1" in error_of(a)["message"]
    assert ask(p, {"messages": []}, headers=bearer(ANN)).status == 403
    a = ask(p, chat("gpt-a"), headers=bearer(BOB))
    assert a.status == 403 and error_of(a)["code"] == "route_not_allowed"
    listed = [m["id"] for m in json.loads(ask(p, b"", method="GET", path="/v1/models", headers=bearer(ANN)).body)["data"]]
    assert listed == ["gpt-a", "gpt-b"]
    assert len(json.loads(ask(p, b"", method="GET", path="/v1/models", headers=bearer(BOB)).body)["data"]) == 3
    assert ask(p, b"", method="GET", path="/v1/models/o1", headers=bearer(ANN)).status == 404
    assert [ex.model for ex in up.since(0)] == ["gpt-b"]


FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\no1\r\n--b--\r\n'


@pytest.mark.parametrize("path, type, body", [
    ("/v1/audio/transcriptions", "multipart/form-data; boundary=b", FORM), ("/v1/x", "application/octet-stream", b'{"model":"o1"}'),
    ("/v1/batches", "application/json", b'{"input_file_id":"f"}'), ("/v1/images/generations", "application/json", b'{"prompt":"x"}'),
    ("/v1/x", "application/json", b'[{"model":"o1"}]')])
def test_a_body_that_names_no_model_is_no_way_around_the_list(start, upstreams, path, type, body):
    """What the proxy cannot see might be any model; who may use all of them goes on."""
    up = upstreams()
    c = config(up)
    c["clients"][0] |= {"models": ["gpt-*"]}
    c["upstreams"]["u"] = {"type": "generic", "base_url": up.url("")}
    p = start(c)
    a = ask(p, body, path=path, type=type, headers=bearer(ANN))
    assert a.status == 403 and error_of(a)["code"] == "model_not_allowed"
    assert up.since(0) == []
    assert ask(p, body, path=path, type=type, headers=bearer(BOB)).status == 200
    assert ask(p, b"", method="GET", path="/v1/files", headers=bearer(ANN)).status == 200


def test_policies_see_who_asks(start, upstreams):
    up = upstreams()
    p = start(config(up), policies={"who.lua": """
return { name = "who", api = 1, log = function(req)
    local c = req.client
    return { who = tostring(c.name) .. "/" .. tostring(c.tier) .. "/" .. (c.metadata and c.metadata.team .. c.metadata.seats or "none") }
end }"""})
    assert p.request_line(ask(p, chat("gpt-a"), headers=bearer(ANN)))["who"] == "ann/gold/blue3"
    assert p.request_line(ask(p, chat("gpt-a"), headers=bearer(BOB)))["who"] == "bob/nil/none"


def test_a_key_is_rotated(start, upstreams):
    up = upstreams()
    p = start(config(up))
    with Raw(p.port) as c:
        c.send(request(body=json.dumps(chat("gpt-a")).encode(), headers=bearer(ANN)))
        assert c.response().status == 200
        new = config(up)
        new["clients"][0]["key"] = "sk-client-ann-rotated"
        p.write_config(new)
        p.wait_generation(1)
        assert eventually(lambda: ask(p, chat("gpt-a"), headers=bearer("sk-client-ann-rotated")).status == 200)
        c.send(request(body=json.dumps(chat("gpt-a")).encode(), headers=bearer(ANN)))
        assert c.response().status == 401


def test_a_route_that_is_not_there(tmp_path, upstreams):
    c = config(upstreams())
    c["clients"][0]["routes"] = ["gold", "golden"]
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps(c, indent=1))
    done = run("-check", "-config", path)
    assert done.returncode == 1 and 'clients[0].routes: there is no route "golden"' in done.stdout + done.stderr


def test_explained_and_replayed_as_the_client(start, upstreams):
    """-explain takes the client by name; what logging.decisions recorded of one is decided as that one's again."""
    p = start(config(upstreams(), logging={"decisions": "decisions.jsonl"}))
    assert p.request_line(ask(p, chat("gpt-a"), headers=bearer(ANN)))["route"] == "gold"
    decisions = p.dir / "decisions.jsonl"
    assert eventually(lambda: decisions.exists() and decisions.read_text().endswith("\n"))
    recorded = json.loads(decisions.read_text().splitlines()[0])
    assert recorded["client"] == "ann" and ANN not in decisions.read_text()
    request_path = p.dir / "request.json"
    for client, route in (("ann", "gold"), ("bob", "r")):
        request_path.write_text(json.dumps({"client": client, "path": "/v1/chat/completions", "body": chat("gpt-a")}))
        assert f"candidates of {route} " in run("-config", p.config_path, "-explain", request_path).stdout
    done = run("-config", p.config_path, "-replay", decisions)
    assert done.returncode == 0 and done.stdout.startswith("1 decisions, 0 routes changed, "), done.stdout


def test_two_clients_with_one_key(tmp_path, upstreams):
    c = config(upstreams())
    c["clients"][1] = {"name": "carl", "key": ANN}
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps(c))
    done = run("-check", "-config", path)
    assert done.returncode == 1 and "clients[1]: has the key of the client ann" in done.stdout + done.stderr and ANN not in done.stdout + done.stderr


# -- addresses

@pytest.mark.parametrize("security, status", [
    ({"ip_whitelist": ["192.168.1.0/24", "10.0.0.5"]}, 403), ({"ip_whitelist": ["127.0.0.0/8"]}, 200), ({"ip_blacklist": ["127.0.0.1"]}, 403),
    ({"ip_whitelist": ["127.0.0.1"], "ip_blacklist": ["127.0.0.0/8"]}, 403), ({"ip_whitelist": []}, 200), ({"ip_blacklist": ["::ffff:127.0.0.1"]}, 403),
    ({"ip_whitelist": ["::/0"]}, 403), ({"ip_whitelist": ["::/0", "0.0.0.0/0"]}, 200), ({"ip_blacklist": ["::/0"]}, 200)])
def test_addresses(start, upstreams, security, status):
    up = upstreams()
    c = config(up, security=security)
    del c["clients"]
    p = start(c)
    a = ask(p, chat("gpt-a"))
    assert a.status == status and (status == 200 or error_of(a)["code"] == "ip_not_allowed")
    assert len(up.since(0)) == (status == 200)


@pytest.mark.parametrize("forwarded, ip", [
    (["9.9.9.9"], "9.9.9.9"), (["1.1.1.1, 9.9.9.9"], "9.9.9.9"), (["1.1.1.1, 9.9.9.9, 10.0.0.3"], "9.9.9.9"), (["1.1.1.1", "9.9.9.9,10.0.0.3"], "9.9.9.9"),
    (["9.9.9.9:4711"], "9.9.9.9"), (["[2001:db8::7]:443"], "2001:db8::7"), (["2001:db8::7"], "2001:db8::7"), (["10.0.0.9"], "10.0.0.9"),
    (["9.9.9.9, unknown"], "127.0.0.1"), ([""], "127.0.0.1"), (["9.9.9.9, 10.0.0.3, nonsense, 10.0.0.4"], "10.0.0.4"), ([], "127.0.0.1"),
    (["fe80::1%eth0"], "127.0.0.1"), (["," * 3000], "127.0.0.1")], ids=range(14))
def test_behind_proxies(start, upstreams, forwarded, ip):
    up = upstreams()
    c = config(up, server={"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]})
    del c["clients"]
    p = start(c)
    a = ask(p, chat("gpt-a"), headers=[("x-forwarded-for", v) for v in forwarded])
    assert a.status == 200 and p.request_line(a)["client"] == ip
    assert up.since(0)[0].request.get("x-forwarded-for") is None


def test_forwarded_is_not_believed_from_others(start, upstreams):
    c = config(upstreams(), server={"trusted_proxies": ["10.0.0.0/8"]}, security={"ip_whitelist": ["9.9.9.9"]})
    del c["clients"]
    p = start(c)
    assert ask(p, chat("gpt-a"), headers=[("x-forwarded-for", "9.9.9.9")]).status == 403


# -- budgets

def test_budget(start, upstreams):
    """What is spent counts at once, also after a restart; others go on; the client's SDK is told not to try again."""
    up = upstreams()
    c = config(up)
    c["clients"][0]["budget"] = {"usd": 0.0015, "per": "total"}     # two of 750 micro-dollars
    p = start(c)
    for _ in range(2):
        p.request_line(ask(p, chat("gpt-a"), headers=bearer(ANN)))     # logged, so settled
    a = ask(p, chat("gpt-a"), headers=bearer(ANN))
    assert a.status == 429 and error_of(a)["code"] == "insufficient_quota" and a.get("x-should-retry") == "false" and a.get("retry-after") is None
    assert "0.0015 USD" in error_of(a)["message"]
    assert ask(p, chat("gpt-a"), headers=bearer(BOB)).status == 200
    assert ask(p, b"", method="GET", path="/v1/models", headers=bearer(ANN)).status == 200
    told = json.loads(p.admin("/clients")[1])["clients"]
    assert told[0]["budget"] == {"usd": 0.0015, "per": "total", "spent_usd": 0.0015} and told[1]["budget"] is None
    p.signal(signal.SIGTERM)
    p.process.wait(10 * p.slow)
    for t in p.readers:
        t.join(5)
    p.process, p.asked_to_end = None, False
    p.start()
    assert ask(p, chat("gpt-a"), headers=bearer(ANN)).status == 429
    c["clients"][0]["budget"] = {"usd": 1, "per": "total"}
    p.write_config(c)
    assert eventually(lambda: ask(p, chat("gpt-a"), headers=bearer(ANN)).status == 200)


def test_budget_of_a_day_says_when_it_begins_anew(start, upstreams):
    c = config(upstreams())
    c["clients"][0]["budget"] = {"usd": 0.0001, "per": "day"}
    p = start(c)
    p.request_line(ask(p, chat("gpt-a"), headers=bearer(ANN)))
    a = ask(p, chat("gpt-a"), headers=bearer(ANN))
    assert a.status == 429 and abs(int(a.get("retry-after")) - (86400 - time.time() % 86400)) < 5
    assert "a day; it begins anew at" in error_of(a)["message"] and "T00:00:00Z" in error_of(a)["message"]


# -- secrets

def test_no_key_is_seen_anywhere(start, upstreams):
    up = upstreams()
    p = start(config(up, logging={"level": "debug"}))
    ask(p, chat("gpt-a"), headers=bearer(ANN))
    ask(p, chat("gpt-a"), headers=bearer("sk-client-wrong-but-secret"))
    ask(p, chat("gpt-a"), path="/v1/chat/completions?key=sk-client-wrong-but-secret")
    p.wait_request_lines(3)
    everything = p.everything_told() + p.admin("/metrics")[1] + p.admin("/clients")[1] + p.admin("/generations")[1]
    for secret in (ANN, BOB, "sk-client-wrong-but-secret", hashlib.sha256(BOB.encode()).hexdigest(), hashlib.sha256(ANN.encode()).hexdigest()):
        assert secret not in everything
