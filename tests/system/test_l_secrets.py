"""L: planted keys stay where they belong: not in logs (at debug level), answers, metrics, admin; ours never with a
client, a client's never with an upstream."""
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from client import Raw, ask, chat, request
from proxy import Proxy, free_port
from upstream import Upstream, event

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
    for status in (200, 400, 401, 503):
        p.up.on(f"h{status}", lambda ex, s=status: ex.reply({"choices": []}, s, headers=[("x-plain", "1"), ("www-authenticate", f'Bearer realm="{ex.request.get("authorization")}"'),
                                                                                        ("x-echo", str(ex.request.get("x-secret"))), ("x-last", "2")]))
        answer = go(chat(f"h{status}"))
        assert (answer.get("x-plain"), answer.get("x-echo"), answer.get("x-last"), answer.get("content-type")) == ("1", "***", "2", "application/json")
    p.up.on("cut", lambda ex: (ex.send(b"HTTP/1.1 200 OK\r\nx: " + ex.request.get("authorization").encode() + b"\0\r\n\r\n"), ex.close()))
    go(chat("cut"))
    with Raw(p.port) as c:
        c.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + THEIRS[0].encode() + b"\r\nBad Header: 1\r\n\r\n")
        seen.append(bytes(c.response().raw))
    for path in ("/metrics", "/healthz", "/readyz", "/", "/generations", "/upstreams", "/config", "/live", "/requests", "/requests/inflight", "/routes", "/policies", "/policies/nosy", "/clients",
                 "/limits", "/cache", "/openapi.json", "/dashboard"):
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


# ---- errors inside of answers that began well: in the client's own protocol, and translated

ANSWERS = {
    "gpt": ({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}, lambda m: (b"", {"error": {"message": m, "code": m, "param": m}})),
    "claude": ({"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}}, lambda m: (b"event: error\n", {"type": "error", "error": {"type": m, "message": m}})),
    "gem": ({"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}}]}, lambda m: (b"", {"error": {"code": 400, "message": m, "status": m}})),
}
ASKED = {"/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]}, "/v1/messages": {"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
         "/v1/responses": {"input": "x"}, "/v1beta/models/%s:streamGenerateContent?alt=sse": {"contents": [{"parts": [{"text": "x"}]}]},
         "/v1beta/models/%s:streamGenerateContent": {"contents": [{"parts": [{"text": "x"}]}]}}
LATE = "planted-late-key-0005"


@pytest.fixture(scope="module")
def late():
    up = Upstream()

    def quotes(ex):
        first, error = ANSWERS[ex.request.target.split("/")[1]]
        line, data = error(f"refused: {LATE}")
        if ex.body.get("stream") or "stream" in ex.request.target:
            head = b"event: message_start\n" if line else b""
            return ex.stream([head + event(first), line + event(data)])
        return ex.reply(data)
    up.default = quotes
    p = Proxy({"upstreams": {
        "a": {"type": "openai", "api_key": LATE, "base_url": up.url("/gpt/v1"), "models": ["gpt"]},
        "b": {"type": "anthropic", "api_key": LATE, "base_url": up.url("/claude/v1"), "models": ["claude"]},
        "c": {"type": "gemini", "api_key": LATE, "base_url": up.url("/gem/v1beta"), "models": ["gem"]}},
        "routes": [{"id": "r", "match": {"path": "*"}, "retry": {"attempts": 1}, "strategy": {"type": "first_available", "upstreams": ["a", "b", "c"]}}]})
    yield p
    p.stop()
    up.stop()


@pytest.mark.parametrize("model", ANSWERS)
@pytest.mark.parametrize("path", ASKED)
def test_an_error_inside_a_stream_quotes_no_key(late, model, path):
    body = ASKED[path] if "%" in path else {**ASKED[path], "model": model, "stream": True}
    answer = ask(late, body, path=path % model if "%" in path else path)
    assert "refused: ***" in answer.text, answer.text
    assert LATE not in answer.text and LATE not in late.everything_told()


@pytest.mark.parametrize("path,model", [("/v1/chat/completions", "gem"), ("/v1/messages", "gpt"), ("/v1/responses", "claude")])
def test_a_translated_error_of_status_200_quotes_no_key(late, path, model):
    answer = ask(late, {**ASKED[path], "model": model}, path=path)
    assert answer.status >= 400 and "refused: ***" in answer.text and LATE not in answer.text and LATE not in late.everything_told(), answer.text


def test_an_error_of_status_200_quotes_no_key(late):
    answer = ask(late, {**ASKED["/v1/chat/completions"], "model": "gpt"})
    assert answer.status == 200 and answer.json()["error"]["message"] == "refused: ***" and LATE not in answer.text
