"""Y: credentials of AWS roles, from where a process runs: STS by a web identity (EKS), the container's agent (ECS, EKS), an instance's
metadata (EC2, IMDSv2), all scripted; got at start, renewed before they end, and never shown."""
import json
import time
import urllib.parse

import pytest

from client import ask, chat, eventually
from proxy import run
from test_w_clouds import verify
from upstream import Upstream

NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS",
         "AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
         "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED",
         "AWS_EC2_METADATA_SERVICE_ENDPOINT")
BARE = dict.fromkeys(NAMES, "")
ROLE = "arn:aws:iam::123456789012:role/proxy"
XML = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<SubjectFromWebIdentityToken>system:serviceaccount:x:y</SubjectFromWebIdentityToken><Credentials><SessionToken>{Token}</SessionToken>
<SecretAccessKey>{SecretAccessKey}</SecretAccessKey><Expiration>{Expiration}</Expiration><AccessKeyId>{AccessKeyId}</AccessKeyId></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Cloud(Upstream):
    """All three at once. Each set of credentials lives for `life` seconds and is numbered."""

    def __init__(self):
        super().__init__()
        self.life, self.given, self.wrong, self.secrets = 3600, 0, None, []
        self.default = self._answer

    def credentials(self):
        self.given += 1
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.life))
        return {"AccessKeyId": f"ASIAPLANTED00000{self.given:04}", "SecretAccessKey": f"planted/secret+key/00000{self.given:04}",
                "Token": f"planted//token+{self.given:04}==", "Expiration": until}

    def _answer(self, ex):
        seen, path = ex.request, ex.request.target
        if self.wrong:
            return ex.reply(*self.wrong)
        if path == "/sts":
            return ex.reply(XML.format(**self.credentials()).encode(), type="text/xml")
        if path.startswith("/container"):
            if seen.get("authorization") != "planted-authorization-0001":
                return ex.reply({}, 401)
            return ex.reply({"RoleArn": ROLE, **self.credentials()})
        if seen.get("x-amz-target") == "secretsmanager.GetSecretValue":
            self.secrets.append(seen)
            return ex.reply({"Name": "x", "SecretString": json.dumps({"k": "planted-value-0003"})}, type="application/x-amz-json-1.1")
        if path == "/latest/api/token" and seen.method == "PUT" and seen.get("x-aws-ec2-metadata-token-ttl-seconds"):
            return ex.reply(b"planted-metadata-token-0002", type="text/plain")
        if seen.get("x-aws-ec2-metadata-token") != "planted-metadata-token-0002":
            return ex.reply(b"", 401)
        if path == "/latest/meta-data/iam/security-credentials/":
            return ex.reply(b"proxy-role\n", type="text/plain")
        if path == "/latest/meta-data/iam/security-credentials/proxy-role":
            return ex.reply({"Code": "Success", "Type": "AWS-HMAC", **self.credentials()})
        return ex.reply({}, 404)


@pytest.fixture
def cloud():
    server = Cloud()
    yield server
    server.stop()


def config(up, aws=None, **more):
    return {"upstreams": {"u": {"type": "bedrock", "base_url": up.url("/openai/v1"), "aws": {"region": "eu-west-3", **(aws or {})}}},
            "routes": [{"id": "r", "strategy": {"upstream": "u"}}], **more}


def places(cloud, where):
    """The environment, the configuration's part and files."""
    url = cloud.url("")
    return {"web": ({"AWS_WEB_IDENTITY_TOKEN_FILE": "identity", "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": url + "/sts"}, {}, {"identity": "planted.web+identity.0004\n"}),
            "container": ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url + "/container?x=1", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "planted-authorization-0001"}, {}, {}),
            "pod": ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "pod"}, {}, {"pod": "planted-authorization-0001"}),
            "instance": ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": url + "/"}, {"instance_role": True}, {})}[where]


def signed_by(up, model):
    seen = up.seen(model)[-1].request
    n = int(seen.get("authorization").partition("ASIAPLANTED")[2][:9])
    assert verify(seen, f"planted/secret+key/00000{n:04}", "eu-west-3")[0] == f"ASIAPLANTED00000{n:04}"
    assert seen.get("x-amz-security-token") == f"planted//token+{n:04}=="
    return n


@pytest.mark.parametrize("where", ["web", "container", "pod", "instance"])
def test_got_and_renewed(start, up, cloud, model, where):
    env, aws, files = places(cloud, where)
    cloud.life = 3
    p = start(config(up, aws, secrets={"refresh_seconds": 0}), env={**BARE, **env}, files=files)
    assert ask(p, chat(model)).status == 200 and signed_by(up, model) == 1
    if where == "web":
        form = dict(urllib.parse.parse_qsl(cloud.exchanges[0].request.body.decode()))
        assert form == {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": ROLE, "RoleSessionName": "openclaw",
                        "WebIdentityToken": "planted.web+identity.0004"}
    cloud.life = 3600
    eventually(lambda: ask(p, chat(model)).status == 200 and signed_by(up, model) == 2)
    assert cloud.given == 2
    told = p.everything_told() + p.admin("/generations")[1] + p.admin("/upstreams")[1]
    assert "planted" not in told.replace("planted.web", "planted") or not [w for w in ("planted/secret", "planted//token", "planted-", "ASIAPLANTED", "planted.web") if w in told]


def test_one_that_cannot_be_renewed_stays(start, up, cloud, model):
    env, aws, files = places(cloud, "container")
    cloud.life = 2
    p = start(config(up, aws), env={**BARE, **env}, files=files)
    cloud.wrong = ({}, 500)
    p.wait_metric("openclaw_secrets_stale", lambda v: v == 1)
    assert ask(p, chat(model)).status == 200 and signed_by(up, model) == 1
    cloud.wrong, cloud.life = None, 3600
    eventually(lambda: ask(p, chat(model)).status == 200 and signed_by(up, model) == 2)


def test_a_reload_asks_for_no_others(start, up, cloud, model):
    env, aws, files = places(cloud, "web")
    p = start(config(up, aws), env={**BARE, **env}, files=files)
    assert json.loads(p.admin("/reload", "POST")[1])["result"] == "unchanged" and cloud.given == 1


@pytest.mark.parametrize("where, wrong, problem", [
    ("web", (b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>planted-0005</Message></Error></ErrorResponse>", 400),
     "aws-role:credentials: STS answered with status 400 (InvalidIdentityToken)"),
    ("web", (b"<x/>", 200), "the answer has no credentials"),
    ("container", ({}, 403), "the container's credentials: status 403"),
    ("container", (b"no", 200), "the answer is no JSON object"),
    ("instance", (b"", 404), "the instance's metadata gave no token: status 404")])
def test_what_cannot_be_had_is_told(tmp_path, up, cloud, where, wrong, problem):
    env, aws, files = places(cloud, where)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "openclaw.yaml").write_text(json.dumps(config(up, aws), indent=1))
    cloud.wrong = wrong
    done = run("-config", tmp_path / "openclaw.yaml", "-check", env={**BARE, **env})
    assert done.returncode == 1 and problem in done.stderr and "planted" not in done.stderr, done.stderr
    done = run("-config", tmp_path / "openclaw.yaml", "-check", "-offline", env={**BARE, **env})
    assert done.returncode == 0, done.stderr


def test_who_is_asked(tmp_path, up, cloud):
    """Keys come first, an instance is asked only where the file says so, and a container's agent without TLS only near by."""
    def check(c, **env):
        (tmp_path / "openclaw.yaml").write_text(json.dumps(c))
        return run("-config", tmp_path / "openclaw.yaml", "-check", env={**BARE, "AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url(""), **env})
    assert check(config(up)).returncode == 0
    assert check(config(up, {"instance_role": True}), AWS_ACCESS_KEY_ID="AKIA01234", AWS_SECRET_ACCESS_KEY="secret01234").returncode == 0
    assert check(config(up, {"instance_role": True}), AWS_EC2_METADATA_DISABLED="true").returncode == 0
    assert not cloud.exchanges
    done = check(config(up), AWS_CONTAINER_CREDENTIALS_FULL_URI="http://10.1.2.3/x")
    assert done.returncode == 1 and "is neither https nor this machine's" in done.stderr


def test_secrets_by_the_role(start, up, cloud, model):
    """AWS Secrets Manager is asked with the role's credentials, in the same round."""
    env, _, _ = places(cloud, "instance")
    c = {"upstreams": {"u": {"type": "openai", "base_url": up.url(), "api_key": "${aws-sm:x#k}"}}, "routes": [{"id": "r", "strategy": {"upstream": "u"}}],
         "secrets": {"refresh_seconds": 0, "aws": {"region": "eu-west-3", "endpoint": cloud.url(""), "instance_role": True}}}
    p = start(c, env={**BARE, **env})
    assert ask(p, chat(model)).status == 200 and up.seen(model)[-1].request.get("authorization") == "Bearer planted-value-0003"
    seen = cloud.secrets[0]
    assert "Credential=ASIAPLANTED000000001/" in seen.get("authorization") and seen.get("x-amz-security-token") == "planted//token+0001=="
    assert p.admin("/reload", "POST")[0] == 200 and len(cloud.secrets) == 2 and cloud.given == 1
