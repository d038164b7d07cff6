"""W: upstreams whose requests are signed (bedrock), or carry an access token that is got first (vertex). Signatures are verified
here by AWS' written rules, assertions with another library, not by the proxy's code."""
import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.parse

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from client import Raw, ask, chat, request
from proxy import Proxy, free_port, run
from upstream import Upstream

AWS = {"access_key_id": "AKIAPLANTED000000001", "secret_access_key": "planted/secret+access/key/0000000000002", "session_token": "planted//session+token==0003",
       "region": "eu-west-3"}
BARE = {k: "" for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")}


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def verify(seen, secret, region):
    """Raises unless this request (as it came over the wire) is signed with `secret`; gives the credential and what was signed."""
    algorithm, _, rest = seen.get("authorization").partition(" ")
    parts = dict(p.split("=", 1) for p in rest.split(", "))
    key_id, day, said, service, end = parts["Credential"].split("/")
    assert (algorithm, said, service, end) == ("AWS4-HMAC-SHA256", region, "bedrock", "aws4_request")
    when = seen.get("x-amz-date")
    assert when[:8] == day and abs(time.time() - time.mktime(time.strptime(when, "%Y%m%dT%H%M%SZ")) + time.timezone) < 120
    names = parts["SignedHeaders"].split(";")
    assert names == sorted(names) and {"host", "x-amz-date"} <= set(names)
    assert {n.lower() for n, _ in seen.headers if n.lower().startswith("x-amz-")} | {"content-type"} <= set(names)
    path, _, query = seen.target.partition("?")
    segments = [urllib.parse.quote(s, safe="-._~") for s in path.split("/") if s]
    pairs = sorted((urllib.parse.quote(urllib.parse.unquote(n), safe="-._~"), urllib.parse.quote(urllib.parse.unquote(v), safe="-._~"))
                   for n, _, v in (p.partition("=") for p in query.split("&") if p))
    lines = [seen.method, "/" + "/".join(segments), "&".join(f"{n}={v}" for n, v in pairs)]
    lines += [f"{n}:{' '.join(seen.get(n).split())}" for n in names]
    lines += ["", ";".join(names), hashlib.sha256(seen.body).hexdigest()]
    text = "\n".join(["AWS4-HMAC-SHA256", when, f"{day}/{region}/bedrock/aws4_request", hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = digest(digest(digest(digest(b"AWS4" + secret.encode(), day), region), "bedrock"), "aws4_request")
    assert parts["Signature"] == hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return key_id, names


@pytest.fixture(scope="module")
def cloud():
    up = Upstream()
    p = Proxy({
        "upstreams": {
            "signed": {"type": "bedrock", "base_url": up.url("/openai/v1"), "aws": AWS, "models": ["m", "renamed", "fails"], "model_map": {"renamed": "openai.gpt-oss-120b-1:0"}},
            "native": {"type": "bedrock", "base_url": up.url(""), "aws": AWS},
            "bearer": {"type": "bedrock", "base_url": up.url("/openai/v1"), "api_key": "bedrock-api-key-0004", "models": ["bearer"]},
            "environment": {"type": "bedrock", "base_url": up.url("/openai/v1"), "models": ["environment"]},
            "second": {"type": "bedrock", "base_url": up.url("/two/openai/v1"), "aws": {**AWS, "region": "us-east-1"}, "models": ["fails"]},
        },
        "routes": [
            {"id": "fails", "match": {"model": "fails"}, "strategy": {"type": "failover", "upstreams": ["signed", "second"]}},
            *({"id": n, "match": {"model": n}, "strategy": {"upstream": n}} for n in ("bearer", "environment")),
            {"id": "converse", "match": {"model": "anthropic.claude-3-haiku-20240307-v1:0"}, "strategy": {"upstream": "native"}},
            {"id": "native", "match": {"path": "/model/*"}, "strategy": {"type": "failover", "upstreams": ["native"]}},
            {"id": "chat", "match": {"path": "*"}, "strategy": {"upstream": "signed"}}],
        "retry": {"backoff_ms": 1},
        "policies": {"always": ["changes"]},
    }, policies={"changes.lua": """return { name = "changes", api = 1,
        init = function(conf) for _, u in pairs(conf.upstreams) do assert(u.aws == nil) end end,
        request = function(req, body)
            if body and body.change then body.changed = "è \\n" return body end
            if body and body.fetch then
                local answer = assert(claw.http.fetch({ upstream = "native", path = "/model/x%3A0/invoke", method = "POST", body = "{}",
                    headers = { ["content-type"] = "application/json" } }))
                body.fetch = answer.status
                return body
            end
        end }"""},
        env={**BARE, "AWS_ACCESS_KEY_ID": "AKIAOFENVIRONMENT0001", "AWS_SECRET_ACCESS_KEY": "environments/secret/0000000000000005", "AWS_REGION": "ap-south-1"})
    p.up = up
    yield p
    p.stop()
    up.stop()


def last(p, model=None):
    return (p.up.seen(model) if model else p.up.exchanges)[-1].request


@pytest.mark.parametrize("body", [chat("m"), chat("m", stream=True), chat("renamed"), chat("m", change=True), chat("m", filler="x" * 300_000)],
                         ids=["plain", "stream", "renamed", "changed", "large"])
def test_signed(cloud, body):
    mark = cloud.up.mark()
    assert ask(cloud, body).status == 200
    seen = cloud.up.since(mark)[0].request
    key_id, names = verify(seen, AWS["secret_access_key"], "eu-west-3")
    assert key_id == AWS["access_key_id"] and seen.get("x-amz-security-token") == AWS["session_token"] and "x-amz-security-token" in names


@pytest.mark.parametrize("path", ["/model/anthropic.claude-3%3A0/converse", "/model/anthropic.claude-3:0/converse", "/model//a%2Fb%20c/x?b=2&a=1%2F2&a=0&empty"])
def test_paths(cloud, path):
    mark = cloud.up.mark()
    with Raw(cloud.port) as c:
        c.send(request("POST", path, body=b'{"a": 1}', headers=[("X-Amz-Date", "20000101T000000Z"), ("X-Amz-Security-Token", "theirs"), ("X-Amz-Custom", "a   b ")]))
        assert c.response().status == 200
    seen = cloud.up.since(mark)[0].request
    assert seen.target == path
    _, names = verify(seen, AWS["secret_access_key"], "eu-west-3")
    assert "x-amz-custom" in names and seen.get("x-amz-security-token") == AWS["session_token"]


def test_a_translated_request(cloud):
    target = "/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"
    cloud.up.on(target, lambda ex: ex.reply({"output": {"message": {"role": "assistant", "content": [{"text": "Hello."}]}}, "stopReason": "end_turn",
                                             "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}}))
    mark = cloud.up.mark()
    answer = ask(cloud, chat("anthropic.claude-3-haiku-20240307-v1:0"))
    assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == "Hello."
    seen = cloud.up.since(mark)[0].request
    assert seen.target == target
    verify(seen, AWS["secret_access_key"], "eu-west-3")


def test_each_attempt_is_signed_for_its_upstream(cloud):
    cloud.up.on("fails", lambda ex: ex.reply({"error": {"message": "no"}}, 503) if "/two/" not in ex.request.target else ex.reply())
    assert ask(cloud, chat("fails")).status == 200
    first, second = cloud.up.seen("fails")[-2:]
    verify(first.request, AWS["secret_access_key"], "eu-west-3")
    verify(second.request, AWS["secret_access_key"], "us-east-1")


def test_an_api_key_is_a_bearer_key(cloud):
    assert ask(cloud, chat("bearer")).status == 200
    assert last(cloud, "bearer").get("authorization") == "Bearer bedrock-api-key-0004" and not last(cloud, "bearer").get("x-amz-date")


def test_keys_of_the_environment(cloud):
    assert ask(cloud, chat("environment")).status == 200
    key_id, names = verify(last(cloud, "environment"), "environments/secret/0000000000000005", "ap-south-1")
    assert key_id == "AKIAOFENVIRONMENT0001" and "x-amz-security-token" not in names


def test_a_policys_fetch_is_signed(cloud):
    mark = cloud.up.mark()
    assert ask(cloud, chat("m", fetch=True)).status == 200
    fetched, asked = (e.request for e in cloud.up.since(mark))
    assert fetched.target == "/model/x%3A0/invoke" and asked.json()["fetch"] == 200
    verify(fetched, AWS["secret_access_key"], "eu-west-3")
    verify(asked, AWS["secret_access_key"], "eu-west-3")


CHECKS = [
    ("no region", {"type": "bedrock", "aws": {"access_key_id": "AKIA01234", "secret_access_key": "secret01234"}}, {}, "upstreams.u.aws: no region to sign for"),
    ("no secret", {"type": "bedrock", "aws": {"access_key_id": "AKIA01234", "region": "r"}}, {}, "upstreams.u.aws: give access_key_id and secret_access_key together"),
    ("both", {"type": "bedrock", "api_key": "k", "aws": {"access_key_id": "AKIA01234", "secret_access_key": "secret01234", "region": "r"}}, {}, "give either"),
    ("a host in the region", {"type": "bedrock", "aws": {"access_key_id": "AKIA01234", "secret_access_key": "secret01234", "region": "evil.example/"}}, {}, "a-z, 0-9 and -"),
    ("another type", {"type": "openai", "aws": AWS}, {}, "is used only with type: bedrock"),
    ("nowhere", {"type": "bedrock", "api_key": "k"}, {}, "upstreams.u.base_url: required"),
    ("region alone", {"type": "bedrock", "api_key": "k", "region": "us-west-2"}, {}, None),
    ("all of the environment", {"type": "bedrock"}, {"AWS_ACCESS_KEY_ID": "AKIA01234", "AWS_SECRET_ACCESS_KEY": "secret01234", "AWS_DEFAULT_REGION": "us-west-2"}, None),
    ("of base_url", {"type": "bedrock", "base_url": "https://bedrock-runtime.us-west-2.amazonaws.com", "aws": {"access_key_id": "AKIA01234", "secret_access_key": "secret01234"}}, {}, None),
]


@pytest.mark.parametrize("upstream,env,problem", [c[1:] for c in CHECKS], ids=[c[0] for c in CHECKS])
def test_checks(tmp_path, upstream, env, problem):
    path = tmp_path / "openclaw.yaml"
    path.write_text(json.dumps({"upstreams": {"u": upstream}, "routes": [{"match": {"path": "*"}, "strategy": {"upstream": "u"}}]}))
    done = run("-check", "-config", path, env={**BARE, **env})
    assert done.returncode == (1 if problem else 0), done.stdout + done.stderr
    told = done.stdout + done.stderr
    assert not problem or problem in told, told
    for secret in ("AKIA01234", "secret01234", AWS["secret_access_key"]):
        assert secret not in told


# ---- vertex ----------------------------------------------------------------------------------------------------

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
TOKEN = "ya29.planted-access-token"


def account(uri, **more):
    return {"type": "service_account", "project_id": "p-1", "private_key_id": "kid-1", "private_key": PEM, "client_email": "me@p-1.iam.example",
            "token_uri": uri, **more}


class Vertex:
    """A proxy with one worker, its upstream, and a token endpoint that answers as it is told."""

    def __init__(self, config=None, policies=None, **upstream):
        self.up = Upstream()
        self.life, self.status, self.answer = 3600, 200, None
        self.hold = threading.Event()
        self.hold.set()
        self.tokens = 0
        self.up.on("/token", self.token)
        self.up.on("quotes", lambda ex: ex.reply({"error": {"message": "bad: " + ex.request.get("authorization")}}, 400))
        self.config = {
            "server": {"workers": 1},
            "upstreams": {"v": {"type": "vertex", "base_url": self.up.url("/v1/projects/p-1/locations/l/endpoints/openapi"), "service_account": "account.json", **upstream},
                          "spare": {"type": "openai", "base_url": self.up.url("/spare"), "api_key": "sk-spare-000001"}},
            "routes": [{"id": "failover", "match": {"path": "*", "headers": {"x-spare": "yes"}}, "strategy": {"type": "failover", "upstreams": ["v", "spare"]}},
                       {"id": "v", "match": {"path": "*"}, "strategy": {"upstream": "v"}}],
            "retry": {"backoff_ms": 1}, **(config or {})}
        self.p = Proxy(self.config, policies=policies, files={"account.json": json.dumps(account(self.up.url("/token")))})

    def token(self, ex):
        self.hold.wait(20)
        self.tokens += 1
        if self.status != 200:
            return ex.reply(self.answer or {"error": "invalid_grant", "error_description": "never shown"}, self.status)
        return ex.reply(self.answer or {"access_token": f"{TOKEN}-{self.tokens}", "expires_in": self.life, "token_type": "Bearer"})

    def ask(self, body=None, **how):
        return ask(self.p, body or chat("m"), **how)

    def exchanges(self):
        return [e.request for e in self.up.exchanges if e.request.target == "/token"]

    def asked(self):
        return [e.request for e in self.up.exchanges if e.request.target != "/token"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hold.set()
        self.p.stop()
        self.up.stop()


def unpack(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


CLAUDE = "/v1/projects/p-1/locations/l/publishers/anthropic"
SAID = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [{"type": "text", "text": "Oi"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 2}}


def claude(**upstream):
    v = Vertex(models=["claude-sonnet-4-5@20250929"], model_map={"sonnet": "claude-sonnet-4-5@20250929"}, **upstream)
    v.config["upstreams"]["v"]["base_url"] = v.up.url(CLAUDE)
    before = v.p.generation()
    v.p.write_config(v.config)
    v.p.wait_generation(before)
    v.up.on("Raw", lambda ex: ex.reply(SAID))
    v.up.default = lambda ex: ex.reply(SAID)
    return v


def test_claude_gets_its_clients_bytes_without_the_model():
    """Anthropic's own clients: the model stands in the path, all else goes out as it came, with the version's field."""
    text = b'{"model": "claude-sonnet-4-5@20250929", "max_tokens": 9.0, "x": [ ], "messages": [{"role":"user","content":"\\u00e1"}]%s}'
    with claude() as v:
        for stream, verb in ((b"", "rawPredict"), (b', "stream": true', "streamRawPredict")):
            answer = ask(v.p, text % stream, path="/v1/messages", headers=[("anthropic-version", "2023-06-01")])
            assert answer.status == 200 and (stream or answer.json() == SAID), answer.text
            sent = v.asked()[-1]
            assert sent.target == f"{CLAUDE}/models/claude-sonnet-4-5@20250929:{verb}" and sent.get("authorization") == f"Bearer {TOKEN}-1"
            assert sent.get("anthropic-version") in (None, "2023-06-01")
            body = json.loads(sent.body)
            assert body.pop("anthropic_version") == "vertex-2023-10-16"
            assert body == {k: w for k, w in json.loads(text % stream).items() if k != "model"}
            for value in (b'9.0', b'[ ]', b'[{"role":"user","content":"\\u00e1"}]'):
                assert value in sent.body
        answer = ask(v.p, text.replace(b"claude-sonnet-4-5@20250929", b"sonnet") % b"", path="/v1/messages")
        assert answer.status == 200 and v.asked()[-1].target.endswith("/claude-sonnet-4-5@20250929:rawPredict") and b'"model"' not in v.asked()[-1].body


def test_claudes_tokens_are_counted_there():
    with claude() as v:
        v.up.default = lambda ex: ex.reply({"input_tokens": 14})
        v.up.on("claude-sonnet-4-5@20250929", v.up.default)
        body = {"model": "sonnet", "messages": [{"role": "user", "content": "Hi"}]}
        answer = ask(v.p, body, path="/v1/messages/count_tokens")
        assert answer.status == 200 and answer.json() == {"input_tokens": 14}, answer.text
        sent = v.asked()[-1]
        assert sent.target == f"{CLAUDE}/models/count-tokens:rawPredict"
        assert json.loads(sent.body) == {**body, "model": "claude-sonnet-4-5@20250929", "anthropic_version": "vertex-2023-10-16"}


def test_claude_answers_other_dialects():
    with claude() as v:
        answer = v.ask({"model": "sonnet", "messages": [{"role": "user", "content": "Hi"}]})
        assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == "Oi"
        sent = v.asked()[-1]
        assert sent.target == f"{CLAUDE}/models/claude-sonnet-4-5@20250929:rawPredict"
        body = json.loads(sent.body)
        assert body["anthropic_version"] == "vertex-2023-10-16" and "model" not in body and body["messages"], body


def test_claudes_body_after_a_policy():
    hook = """return { name = "p", api = 1, request = function(req, body)
        if req.client.headers["x-text"] then return claw.json.encode({ model = body.model, messages = body.messages, max_tokens = 7 }) end
        body.max_tokens = 7
        return body
    end }"""
    with claude(config={"policies": {"always": ["p"]}}, policies={"p.lua": hook}) as v:
        for headers in ([], [("x-text", "1")]):
            answer = ask(v.p, {"model": "sonnet", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}, path="/v1/messages", headers=headers)
            assert answer.status == 200, answer.text
            assert json.loads(v.asked()[-1].body) == {"anthropic_version": "vertex-2023-10-16", "max_tokens": 7, "messages": [{"role": "user", "content": "Hi"}]}


def test_a_token_is_got_with_a_signed_assertion():
    with Vertex() as v:
        for _ in range(3):
            assert v.ask().status == 200
        assert [r.get("authorization") for r in v.asked()] == [f"Bearer {TOKEN}-1"] * 3
        (exchange,) = v.exchanges()
        assert exchange.method == "POST" and exchange.get("content-type") == "application/x-www-form-urlencoded"
        form = urllib.parse.parse_qs(exchange.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        head, claims, signature = form["assertion"][0].split(".")
        KEY.public_key().verify(unpack(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        assert json.loads(unpack(head)) == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
        said = json.loads(unpack(claims))
        assert abs(said.pop("iat") - time.time()) < 60 and abs(said.pop("exp") - time.time() - 3600) < 60
        assert said == {"iss": "me@p-1.iam.example", "scope": "https://www.googleapis.com/auth/cloud-platform", "aud": v.up.url("/token")}


def test_one_exchange_for_all_who_wait():
    with Vertex() as v:
        v.hold.clear()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(v.ask().status)) for _ in range(20)]
        for t in threads:
            t.start()
        v.p.wait_metric("openclaw_requests_in_flight", lambda n: n == 20)
        assert len(v.asked()) == 0
        with Raw(v.p.port) as gone:     # one more, who does not wait
            gone.send(request(body=chat("gone")))
            v.p.wait_metric("openclaw_requests_in_flight", lambda n: n == 21)
        v.p.wait_metric("openclaw_requests_in_flight", lambda n: n == 20)
        v.hold.set()
        for t in threads:
            t.join()
        assert answers == [200] * 20 and len(v.exchanges()) == 1 and not v.up.seen("gone")


def test_a_token_that_is_old_is_replaced_while_it_serves():
    with Vertex() as v:
        v.life = 4     # old after 3 seconds, used up after 3.6
        assert v.ask().status == 200
        deadline = time.monotonic() + 20
        while v.tokens < 2 and time.monotonic() < deadline:
            assert v.ask().status == 200
        assert v.tokens == 2
        assert v.ask().status == 200 and v.asked()[-1].get("authorization") == f"Bearer {TOKEN}-2"


def test_a_token_that_is_refused_is_replaced():
    with Vertex() as v:
        refused = set()

        def script(ex):
            if ex.request.get("authorization") in refused:
                return ex.reply({"error": {"message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED"}}, 401)
            return ex.reply({"id": "c", "object": "chat.completion", "model": "m", "choices": []})
        v.up.on("m", script)
        assert v.ask().status == 200
        refused.add(f"Bearer {TOKEN}-1")
        assert v.ask().status == 200    # nobody notices
        assert [r.get("authorization") for r in v.asked()] == [f"Bearer {TOKEN}-{i}" for i in (1, 1, 2)]
        refused.add(f"Bearer {TOKEN}-2")
        for _ in range(3):              # the account itself is refused: not an exchange for each request
            a = v.ask()
            assert a.status == 401 and "UNAUTHENTICATED" in a.body.decode()
        assert len(v.exchanges()) == 2 and len(v.asked()) == 6
        assert '"open"' not in v.p.admin("/upstreams")[1]


def test_a_token_without_life_serves_who_waited():
    with Vertex() as v:
        v.life = 0
        for i in (1, 2, 3):
            assert v.ask().status == 200 and v.asked()[-1].get("authorization") == f"Bearer {TOKEN}-{i}"


@pytest.mark.parametrize("status,answer,told", [
    (400, None, "status 400 (invalid_grant)"), (500, b"<html>", "status 500 (no JSON object)"), (401, {"error": "Quotes <" + TOKEN}, "(no reason given)"),
    (200, {"token": "x"}, "has no access_token"), (200, {"access_token": "a\r\nb: c"}, "has no access_token"), (200, b"[]", "has no access_token")],
    ids=["refused", "html", "odd", "none", "hostile", "list"])
def test_no_token(status, answer, told):
    with Vertex() as v:
        v.status, v.answer = status, answer
        failed = v.ask()
        assert failed.status == 502 and failed.json()["error"]["code"] == "auth"
        assert failed.json()["error"]["message"] == 'The upstream "v" failed: no access token for the upstream could be had (1 attempt).'
        line = v.p.request_line(failed)
        assert told in line["upstream_error"] and line["attempts"][0]["kind"] == "auth"
        assert v.ask(headers=[("x-spare", "yes")]).status == 200 and v.asked()[-1].target.startswith("/spare")
        assert len(v.exchanges()) == 1, "the next one waits for the end of the backoff"
        v.status, v.answer = 200, None
        deadline = time.monotonic() + 20
        while (answer := v.ask()).status != 200 and time.monotonic() < deadline:
            assert answer.status == 502
        assert answer.status == 200 and len(v.exchanges()) == 2
        assert "never shown" not in v.p.everything_told()


def test_no_endpoint():
    with Vertex(service_account=json.dumps(account(f"http://127.0.0.1:{free_port()}/token"))) as v:
        failed = v.ask()
        assert failed.status == 502 and "could not be asked" in v.p.request_line(failed)["upstream_error"]


def test_it_outlives_a_reload():
    with Vertex({"policies": {"always": ["tells"]}}, policies={"tells.lua": "return { name = 'tells', api = 1, log = function() return { turn = 1 } end }"}) as v:
        assert v.ask().status == 200

        def publish(change, turn):
            first = v.p.generation()
            v.p.drop_policy("tells.lua", f"return {{ name = 'tells', api = 1, log = function() return {{ turn = {turn} }} end }}")
            change()
            v.p.admin("/reload", "POST")
            v.p.wait_generation(first)
            deadline = time.monotonic() + 20
            while v.p.request_line(v.ask())["turn"] != turn:
                assert time.monotonic() < deadline
        publish(lambda: None, 2)
        assert len(v.exchanges()) == 1
        other = account(v.up.url("/token"), client_email="other@p-1.iam.example")
        publish(lambda: (v.p.dir / "account.json").write_text(json.dumps(other)), 3)
        v.ask()
        assert len(v.exchanges()) == 2


def test_a_new_account_in_its_file_is_live_by_itself():
    with Vertex() as v:
        assert v.ask().status == 200
        before = v.p.generation()
        (v.p.dir / "account.json").write_text(json.dumps(account(v.up.url("/token"), client_email="other@p-1.iam.example")))
        v.p.wait_generation(before)
        assert v.ask().status == 200
        claims = urllib.parse.parse_qs(v.exchanges()[-1].body.decode())["assertion"][0].split(".")[1]
        assert json.loads(unpack(claims))["iss"] == "other@p-1.iam.example"


def test_it_is_never_shown():
    with Vertex({"logging": {"level": "debug"}}) as v:
        answer = v.ask(chat("quotes"))
        assert answer.status == 400 and answer.json()["error"]["message"] == "bad: Bearer ***"
        for told in (answer.body.decode(), v.p.everything_told()):
            assert TOKEN not in told and PEM.splitlines()[3] not in told


def test_a_policys_fetch_carries_it():
    policy = """return { name = "fetches", api = 1, request = function(req, body)
        local answer, message, code = claw.http.fetch({ upstream = "v", path = "/x" })
        body.fetched = answer and answer.status or code
        return body
    end }"""
    with Vertex({"policies": {"always": ["fetches"]}}, policies={"fetches.lua": policy}) as v:
        assert v.ask().status == 200 and v.asked()[-1].json()["fetched"] == "ETOKEN"     # it does not wait
        assert v.ask().status == 200 and v.asked()[-1].json()["fetched"] == 200
        assert v.asked()[-2].get("authorization") == f"Bearer {TOKEN}-1" and v.tokens == 1


def test_a_token_that_a_policys_fetch_is_refused_with_is_replaced():
    policy = """return { name = "fetches", api = 1, request = function(req, body)
        local answer, message, code = claw.http.fetch({ upstream = "v", path = "/x" })
        body.fetched = answer and answer.status or code
        return body
    end }"""
    with Vertex({"policies": {"always": ["fetches"]}}, policies={"fetches.lua": policy}) as v:
        v.up.default = lambda ex: ex.reply({}, 401 if ex.request.target.endswith("/x") and ex.request.get("authorization").endswith("-1") else 200)
        seen = []
        for _ in range(3):
            assert v.ask().status == 200
            seen.append((v.asked()[-1].json()["fetched"], v.asked()[-1].get("authorization")))
        assert seen == [("ETOKEN", f"Bearer {TOKEN}-1"), (401, f"Bearer {TOKEN}-2"), (200, f"Bearer {TOKEN}-2")] and v.tokens == 2


def test_a_static_token():
    with Vertex(service_account=None, api_key="ya29.static-token-0001") as v:
        assert v.ask().status == 200 and v.asked()[-1].get("authorization") == "Bearer ya29.static-token-0001" and not v.exchanges()


ACCOUNT = account("https://oauth2.example/token")
VERTEX_CHECKS = [
    ("base_url follows", {"type": "vertex", "service_account": json.dumps(ACCOUNT), "region": "europe-west1"}, None),
    ("global", {"type": "vertex", "api_key": "k", "project": "p", "region": "global"}, None),
    ("no region", {"type": "vertex", "service_account": json.dumps(ACCOUNT)}, "upstreams.u.base_url: required"),
    ("no file", {"type": "vertex", "service_account": "nowhere.json", "region": "r"}, "upstreams.u.service_account: cannot read"),
    ("no JSON", {"type": "vertex", "service_account": "{", "region": "r"}, "is no JSON object"),
    ("no account", {"type": "vertex", "service_account": json.dumps({**ACCOUNT, "type": "authorized_user"}), "region": "r"}, "its type is another"),
    ("no key", {"type": "vertex", "service_account": json.dumps({**ACCOUNT, "private_key": "secret01234"}), "region": "r"}, "its private_key is no RSA key"),
    ("a path in the project", {"type": "vertex", "api_key": "k", "project": "../p", "region": "r"}, "upstreams.u.project: a project is named"),
    ("both", {"type": "vertex", "api_key": "k", "service_account": json.dumps(ACCOUNT), "region": "r"}, "give either"),
    ("another type", {"type": "openai", "project": "p"}, "is used only with type: vertex"),
]


@pytest.mark.parametrize("upstream,problem", [c[1:] for c in VERTEX_CHECKS], ids=[c[0] for c in VERTEX_CHECKS])
def test_vertex_checks(tmp_path, upstream, problem):
    test_checks(tmp_path, upstream, {}, problem)
