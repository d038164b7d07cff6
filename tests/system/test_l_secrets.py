"""L: planted keys stay where they belong: not in logs (at debug level), answers, metrics, admin; ours never with a
client, a client's never with an upstream."""
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from client import Raw, ask, chat, request
from proxy import Proxy, free_port
from upstream import Upstream

OURS = ["sk-planted-upstream-key-0001", "sk-planted-upstream-key-0002", "planted-header-token-0003", "planted-admin-token-0004",
        "PLANTEDAWSKEYID00005", "planted/aws/secret/key/0006", "planted/aws/session/token/0007", "ya29.planted-access-token-0008"]
USED = (0, 2, 4, 6, 7)  # those that an upstream gets to see
ACCOUNT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
THEIRS = ["sk-planted-client-key-1001", "sk-planted-client-key-1002", "planted-goog-key-1003", "planted-basic-1004"]

POLICY = """
return { name = "nosy", api = 1,
    request = function(req, body)
        if body.fail then error("auth is " .. tostring(req.upstream.headers["authorization"])) end
        claw.log("info", "headers", { auth = tostring(req.upstream.headers["authorization"]), url = req.upstream.url })
    end,
    log = function(req) return { auth = tostring(req.upstream and req.upstream.headers["authorization"]) } end }
"""


@pytest.fixture(scope="module")
def planted():
    up = Upstream()
    up.on("/token", lambda ex: ex.reply({"access_token": OURS[7], "expires_in": 3600}))
    up.on("quotes", lambda ex: ex.reply({"error": {"message": f"{ex.request.get('authorization')} {ex.request.get('x-amz-security-token')}"}}, 403))
    account = {"client_email": "a@b", "private_key": ACCOUNT_KEY, "token_uri": up.url("/token")}
    p = Proxy({
        "admin": {"token": OURS[3]},
        "upstreams": {
            "a": {"type": "openai", "api_key": "${PLANTED_KEY}", "base_url": up.url(), "headers": {"x-secret": OURS[2]}},
            "signed": {"type": "bedrock", "base_url": up.url("/openai/v1"), "region": "r",
                       "aws": {"access_key_id": OURS[4], "secret_access_key": OURS[5], "session_token": OURS[6]}},
            "vertex": {"type": "vertex", "base_url": up.url("/endpoints/openapi"), "service_account": "${file:account.json}"},
            "dead": {"type": "openai", "api_key": OURS[1], "base_url": f"http://127.0.0.1:{free_port()}/v1"}},
        "routes": [*({"id": n, "match": {"path": "/v1/*", "headers": {"x-route": n}}, "strategy": {"type": "failover", "upstreams": [n]}} for n in ("signed", "vertex")),
                   {"id": "a", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["a"]}},
                   {"id": "dead", "match": {"path": "/v1/*", "headers": {"x-route": "dead"}}, "strategy": {"type": "failover", "upstreams": ["dead"]}}],
        "logging": {"level": "debug"}, "retry": {"backoff_ms": 1},
    }, policies={"nosy.lua": POLICY}, files={"account.json": json.dumps(account)}, env={"PLANTED_KEY": OURS[0]}, start=False)
    p._ready = lambda ready=p._ready: ready()
    p.admin = lambda path, method="GET", headers=None, ask_admin=p.admin: ask_admin(path, method, headers or {"Authorization": f"Bearer {OURS[3]}"})
    p.start()
    p.up = up
    yield p
    p.stop()
    up.stop()


CREDENTIALS = [("Authorization", f"Bearer {THEIRS[0]}"), ("X-Api-Key", THEIRS[1]), ("X-Goog-Api-Key", THEIRS[2]), ("Proxy-Authorization", f"Basic {THEIRS[3]}"),
               ("Api-Key", THEIRS[1])]


def everything(p):
    """Each way a request can go, and all that anyone outside of the proxy gets to see."""
    seen = []

    def go(body, **how):
        answer = ask(p, body, headers=[*CREDENTIALS, *how.pop("headers", [])], **how)
        seen.append(bytes(answer.raw))
        return answer
    go(chat("ok"))
    go(chat("ok", stream=True))
    go(chat("fail", fail=True))
    go(chat("dead"), headers=[("x-route", "dead")])
    for name in ("signed", "vertex"):
        for body in (chat("ok"), chat("fail", fail=True), chat("quotes"), chat("quotes", stream=True)):
            go(body, headers=[("x-route", name)])
    go(b"not json")
    go(chat("x"), path="/nowhere")
    for status in (400, 401, 429, 500):
        p.up.on(f"s{status}", lambda ex, s=status: ex.reply({"error": {"message": f"Incorrect API key provided: {ex.request.get('authorization')}"}}, s))
        go(chat(f"s{status}"))
    p.up.on("echo", lambda ex: ex.reply({"choices": []}, headers=[("x-plain", "1")]))
    go(chat("echo"))
    p.up.on("cut", lambda ex: (ex.send(b"HTTP/1.1 200 OK\r\nx: " + ex.request.get("authorization").encode() + b"\0\r\n\r\n"), ex.close()))
    go(chat("cut"))
    with Raw(p.port) as c:
        c.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + THEIRS[0].encode() + b"\r\nBad Header: 1\r\n\r\n")
        seen.append(bytes(c.response().raw))
    for path in ("/metrics", "/healthz", "/readyz", "/", "/generations", "/upstreams", "/config"):
        status, text, headers = p.admin(path)
        seen.append((text + json.dumps(headers)).encode())
    return b"\n".join(seen).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def told(planted):
    answers = everything(planted)
    planted.wait_log(lambda l: l.get("msg") == "request" and l.get("status") == 400 and l.get("model") in ("", None) and "header" in str(l.get("error", "")).lower()
                     or l.get("model") == "cut")
    return answers


@pytest.mark.parametrize("secret", OURS)
def test_ours_stay(planted, told, secret):
    upstream_saw = b"".join(bytes(e.request.raw) for e in planted.up.exchanges).decode("latin-1")
    if OURS.index(secret) in USED:
        assert secret in upstream_saw, "planted where it is used, else this proves nothing"
    # an upstream that itself repeats a key in its error says it to the client in its own words: masked there, too
    assert secret not in told
    assert secret not in planted.everything_told()


@pytest.mark.parametrize("secret", THEIRS)
def test_theirs_stay(planted, told, secret):
    assert secret not in b"".join(bytes(e.request.raw) for e in planted.up.exchanges).decode("latin-1")
    assert secret not in planted.everything_told()
    assert secret not in told


def test_a_service_accounts_key_stays(planted, told):
    upstream_saw = b"".join(bytes(e.request.raw) for e in planted.up.exchanges).decode("latin-1")
    for line in ACCOUNT_KEY.splitlines()[1:-1]:
        assert line not in told and line not in upstream_saw and line not in planted.everything_told()


def test_debug_says_something(planted, told):
    assert any(l.get("level") == "debug" for l in planted.lines), "else the debug level was not tested"


def test_admin_token(planted):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", planted.admin_port, timeout=5)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {OURS[3]}x"}, {"Authorization": f"Bearer {OURS[3][:-1]}"}):
        c.request("GET", "/metrics", headers=headers)
        r = c.getresponse()
        r.read()
        assert r.status == 401
    c.request("GET", "/healthz")        # a probe needs no token
    assert c.getresponse().status in (200, 401)
    c.close()


def test_memory_map_of_arguments(planted):
    """Keys come by environment or file, so they are not in the process list."""
    with open(f"/proc/{planted.pid}/cmdline", "rb") as f:
        line = f.read().decode()
    assert not [s for s in OURS if s in line]
