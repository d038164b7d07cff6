"""W: upstreams whose requests are signed (bedrock). The signature is verified here by AWS' written rules, not by the proxy's code."""
import hashlib
import hmac
import json
import time
import urllib.parse

import pytest

from client import Raw, ask, chat, request
from proxy import Proxy, run
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
