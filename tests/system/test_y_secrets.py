"""Y: secrets from Vault (KV 2 and 1) and AWS Secrets Manager: fetched at start, by -check and by reloads, fetched again, rotated
under load, and never shown. Vault is a scripted server; AWS is moto's, which verifies signatures."""
import json
import threading
import urllib.request

import pytest

from certs import Authority, server_context
from client import Raw, ask, chat, eventually, request
from proxy import SLOW, free_port, run
from upstream import Upstream

TOKEN = "hvs.planted-vault-token-0001"
BARE = {k: "" for k in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
                        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER")}


class Vault(Upstream):
    """KV 2 under secret/, KV 1 under kv/. `data`: path -> fields; `answer`: path -> a callable that answers instead."""

    def __init__(self, **how):
        super().__init__(**how)
        self.data, self.answer, self.token = {}, {}, TOKEN
        self.default = self._serve_kv

    def counts(self, request):
        return request.target != "/v1/auth/token/renew-self"

    def _serve_kv(self, ex):
        path = ex.request.target.removeprefix("/v1/")
        if path in self.answer:
            return self.answer[path](ex)
        if ex.request.get("x-vault-token") != self.token:
            return ex.reply({"errors": ["permission denied", self.token]}, 403)
        if path not in self.data:
            return ex.reply({"errors": []}, 404)
        fields = self.data[path]
        return ex.reply({"request_id": "1", "data": fields if path.startswith("kv/") else
                         {"data": fields, "metadata": {"version": 1, "destroyed": False}}})

    def asked(self, path):
        return [e.request for e in list(self.exchanges) if e.request.target == "/v1/" + path]


@pytest.fixture
def vault():
    server = Vault()
    server.data["secret/data/openai"] = {"api_key": "sk-planted-first-0002", "other": "planted-other-0003", "n": 7}
    yield server
    server.stop()


def config(up, vault=None, key="${vault:secret/openai#api_key}", **more):
    secrets = {"refresh_seconds": 0, **more.pop("secrets", {})}
    if vault:
        secrets["vault"] = {"address": vault.url(""), "token": TOKEN, **secrets.get("vault", {})}
    return {"upstreams": {"u": {"type": "openai", "api_key": key, "base_url": up.url(), **more.pop("upstream", {})}},
            "routes": [{"id": "r", "strategy": {"upstream": "u"}}], "secrets": secrets, **more}


def check(tmp_path, c, *words, env=None):
    file = tmp_path / "openclaw.yaml"
    file.write_text(json.dumps(c, indent=1))
    return run("-config", file, *(words or ["-check"]), env={**BARE, **(env or {})})


def key_seen(up, model):
    return up.seen(model)[-1].request.get("authorization")


# ---- where they are ------------------------------------------------------------------------------------------------

def test_kv_2(start, up, vault, model):
    p = start(config(up, vault, upstream={"headers": {"x-other": "a ${vault:secret/openai#other}, ${vault:secret/data/openai#n}"}}), env=BARE)
    assert ask(p, chat(model)).status == 200
    assert key_seen(up, model) == "Bearer sk-planted-first-0002"
    assert up.seen(model)[-1].request.get("x-other") == "a planted-other-0003, 7"
    seen = vault.asked("secret/data/openai")
    assert len(seen) == 2                        # of each path as it is written, once, whatever fields
    assert seen[0].method == "GET" and seen[0].get("x-vault-token") == TOKEN and seen[0].get("x-vault-request") == "true"
    assert seen[0].get("x-vault-namespace") is None
    assert p.metric("openclaw_secret_fetches_total", store="vault", outcome="200") == 2
    assert p.metric("openclaw_secrets_stale") == 0


def test_kv_1_and_what_the_environment_says(start, up, vault, model):
    vault.data["kv/team/x%20y"] = {"k": "sk-planted-one-0004"}
    c = config(up, key="${vault:kv/team/x y#k}", secrets={"vault": {"kv_version": 1}})
    p = start(c, env={**BARE, "VAULT_ADDR": vault.url("/"), "VAULT_TOKEN": TOKEN, "VAULT_NAMESPACE": "team-a/b"})
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-one-0004"
    assert vault.exchanges[-1].request.get("x-vault-namespace") == "team-a/b"


def test_a_token_file_is_read_each_time(start, up, vault, model):
    c = config(up, secrets={"refresh_seconds": 0.1, "vault": {"address": vault.url(""), "token_file": "token"}})
    p = start(c, files={"token": TOKEN + "\n"}, env=BARE)
    vault.token = "hvs.planted-next-token-0005"
    p.wait_metric("openclaw_secrets_stale", lambda v: v == 1)
    (p.dir / "token").write_text(vault.token)
    p.wait_metric("openclaw_secrets_stale", lambda v: v == 0)
    assert TOKEN not in p.everything_told() and vault.token not in p.everything_told()


def test_tls(start, up, tmp_path, model):
    authority, other = Authority(tmp_path), Authority(tmp_path, "another CA")
    server = Vault(tls=server_context(authority.issue("vault")))
    server.data["secret/data/openai"] = {"api_key": "sk-planted-tls-0006"}
    try:
        p = start(config(up, server, secrets={"vault": {"tls": {"ca": str(authority.path)}}}), env=BARE)
        assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-tls-0006"
        refused = check(tmp_path, config(up, server, secrets={"vault": {"tls": {"ca": str(other.path)}}}))
        assert refused.returncode == 1 and "vault:secret/openai: " in refused.stderr and "certificate" in refused.stderr
        assert check(tmp_path, config(up, server), env={"VAULT_CACERT": str(authority.path)}).returncode == 0
        assert check(tmp_path, config(up, server, secrets={"vault": {"tls": {"verify": False}}})).returncode == 0
    finally:
        server.stop()


def test_the_token_is_renewed(start, up, vault, model):
    """At half of its time, and without fetching anything else; -check leaves it alone."""
    vault.answer["auth/token/renew-self"] = lambda ex: ex.reply({"auth": {"client_token": "hvs.planted-echo-0041", "renewable": True, "lease_duration": 1}})
    p = start(config(up, vault), env=BARE)
    eventually(lambda: len(vault.aside) >= 3)
    seen = vault.aside[0].request
    assert seen.method == "POST" and seen.get("x-vault-token") == TOKEN and seen.body == b"{}"
    assert len(vault.exchanges) == 1 and p.generation() == 1
    assert ask(p, chat(model)).status == 200 and "planted-echo" not in p.everything_told()


def test_a_token_that_cannot_be_renewed(start, up, vault, model, tmp_path):
    vault.answer["auth/token/renew-self"] = lambda ex: ex.reply({"errors": ["lease is not renewable"]}, 400)
    assert check(tmp_path, config(up, vault)).returncode == 0 and not vault.aside
    p = start(config(up, vault), env=BARE)
    line = p.wait_log(lambda l: l["msg"].startswith("Vault's token cannot be renewed"))
    assert line["error"] == "status 400"
    assert p.admin("/reload", "POST")[0] == 200 and ask(p, chat(model)).status == 200
    assert len(vault.aside) == 1


# ---- what goes wrong -----------------------------------------------------------------------------------------------

def slow(ex):
    ex.until_gone(20)


WRONG = {
    "refused": (lambda ex: ex.reply({"errors": ["sk-planted-error-0007"]}, 403), "status 403 (the token is not valid, or may not read it)"),
    "missing": (lambda ex: ex.reply({"errors": []}, 404), "status 404 (there is no such secret, or its last version is deleted)"),
    "sealed": (lambda ex: ex.reply({"errors": ["Vault is sealed"]}, 503), "status 503 (Vault is sealed or in maintenance)"),
    "elsewhere": (lambda ex: ex.reply({}, 307, [("location", "http://127.0.0.1:1/")]), "status 307 (redirects are not followed)"),
    "no JSON": (lambda ex: ex.reply(b"<html>sk-planted-error-0007"), "the answer is no JSON object"),
    "no data": (lambda ex: ex.reply({"data": None}), "the answer has no data"),
    "no field": (lambda ex: ex.reply({"data": {"data": {"x": "sk-planted-error-0007"}, "metadata": {}}}), "it has no field api_key"),
    "no text": (lambda ex: ex.reply({"data": {"data": {"api_key": ["sk-planted-error-0007"]}, "metadata": {}}}), "its field api_key is neither text nor a number"),
    "large": (lambda ex: ex.reply({"data": {"x": "y" * 600_000}}), "the answer is larger than 524288 bytes"),
    "cut": (lambda ex: ex.close(), "the upstream closed before its answer was complete"),
    "slow": (slow, "no whole answer within"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_goes_wrong_is_named_by_its_place(up, vault, tmp_path, how):
    script, text = WRONG[how]
    vault.answer["secret/data/openai"] = script
    c = config(up, vault, secrets={"timeout_seconds": 1 if how == "slow" else 10})
    for done in (check(tmp_path, c), run("-config", tmp_path / "openclaw.yaml", env=BARE)):     # to start is refused the same way
        assert done.returncode == 1
        assert f"openclaw.yaml:5:15: upstreams.u.api_key: vault:secret/openai: {text}" in done.stderr
        assert "planted" not in done.stdout + done.stderr and TOKEN not in done.stderr


def test_what_is_not_given(up, vault, tmp_path):
    def told(c, **env):
        done = check(tmp_path, c, env=env)
        assert done.returncode == 1
        return done.stderr
    assert "set VAULT_ADDR or secrets.vault.address" in told(config(up))
    assert "set VAULT_TOKEN, secrets.vault.token or token_file" in told(config(up), VAULT_ADDR=vault.url(""))
    assert "token_file cannot be read" in told(config(up, secrets={"vault": {"address": vault.url(""), "token_file": "none"}}))
    assert "connection refused" in told(config(up, secrets={"vault": {"address": f"http://127.0.0.1:{free_port()}", "token": "t"}}))
    assert "set AWS_ACCESS_KEY_ID" in told(config(up, key="${aws-sm:x}"))
    assert "set AWS_REGION" in told(config(up, key="${aws-sm:x}"), AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="secret-0008")
    assert "needs a field" in told(config(up, vault, key="${vault:secret/openai}"))
    assert "a path has no . or .." in told(config(up, vault, key="${vault:secret/../sys/mounts#x}"))
    assert "secrets.vault.token: " in told(config(up, vault, secrets={"vault": {"token": "two\nlines"}}))
    assert "cannot be a secret from elsewhere itself" in told(config(up, vault, secrets={"vault": {"token": "${vault:secret/openai#api_key}"}}))
    assert "more than 64 secrets" in told(config(up, vault, upstream={"headers": {f"x-{i}": f"${{vault:secret/{i}#x}}" for i in range(65)}}))
    assert "give either token or token_file" in told(config(up, vault, secrets={"vault": {"token_file": "x"}}))
    assert not vault.exchanges                      # mistakes of the file are told before anything is asked


def test_odd_values(start, up, vault, tmp_path, model):
    vault.data["secret/data/openai"] = {"api_key": 'sk-"planted"\\\'é', "lines": "sk-planted\nx: y-0009", "empty": ""}
    p = start(config(up, vault), env=BARE)
    assert ask(p, chat(model)).status == 200 and key_seen(up, model).encode("latin-1").decode() == 'Bearer sk-"planted"\\\'é'
    done = check(tmp_path, config(up, vault, key="${vault:secret/openai#lines}"))
    assert done.returncode == 1 and "upstreams.u.api_key: must not hold line breaks or other control characters" in done.stderr
    assert "planted" not in done.stderr and "0009" not in done.stderr


# ---- without a network -----------------------------------------------------------------------------------------------

def test_offline(up, vault, tmp_path):
    c = config(up, vault, clients=[{"name": n, "key": f"${{vault:secret/clients#{n}}}"} for n in ("ann", "bob")])
    c["upstreams"]["v"] = {"type": "vertex", "base_url": "${vault:secret/vertex#url}", "service_account": "${vault:secret/vertex#account}"}
    done = check(tmp_path, c, "-check", "-offline")
    assert done.returncode == 0 and "3 secrets from elsewhere were not fetched" in done.stdout, done.stderr
    (tmp_path / "ask.json").write_text(json.dumps(chat("m")))
    done = check(tmp_path, c, "-explain", str(tmp_path / "ask.json"))
    assert done.returncode == 0 and "decision: goes to u first" in done.stdout
    assert not vault.exchanges


# ---- again and again -------------------------------------------------------------------------------------------------

def test_a_changed_secret_under_load(start, up, vault, model):
    p = start(config(up, vault, secrets={"refresh_seconds": 0.1}), env=BARE)
    ended, bad = threading.Event(), []

    def work():
        while not ended.is_set():
            answer = ask(p, chat(model))
            if answer.status != 200:
                bad.append(answer.status)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for i in range(5):
        vault.data["secret/data/openai"] = {"api_key": f"sk-planted-turn-{i}"}
        eventually(lambda: up.seen(model) and key_seen(up, model) == f"Bearer sk-planted-turn-{i}", timeout=10 * p.slow)
    ended.set()
    for w in workers:
        w.join()
    assert not bad
    p.wait_log(lambda l: l["msg"] == "generation published" and l["generation"] == 6)   # it serves before it is told
    told = [l for l in p.lines if l["msg"] == "generation published"]
    assert len(told) == 6 and {l["reason"] for l in told[1:]} == {"secrets changed"}
    assert "planted" not in p.everything_told()


def test_what_did_not_change_is_no_generation(start, up, vault):
    p = start(config(up, vault, secrets={"refresh_seconds": 0.1}), env=BARE)
    vault.data["secret/data/openai"] = {**vault.data["secret/data/openai"], "unused": "planted-0010"}
    eventually(lambda: len(vault.asked("secret/data/openai")) >= 5)
    assert p.generation() == 1


def test_loads_do_not_put_a_refresh_off(start, up, vault):
    p = start(config(up, vault, secrets={"refresh_seconds": 0.6}), env=BARE)
    asked = len(vault.asked("secret/data/openai"))
    eventually(lambda: (p.config_path.touch(), len(vault.asked("secret/data/openai")) >= asked + 2)[1], timeout=10 * p.slow, every=0.2)
    assert p.metric("openclaw_reloads_total", result="unchanged") >= 2


def test_a_refresh_that_fails(start, up, vault, model):
    p = start(config(up, vault, secrets={"refresh_seconds": 0.2}), env=BARE)
    vault.answer["secret/data/openai"] = lambda ex: ex.reply({"errors": ["planted-0011"]}, 503)
    p.wait_metric("openclaw_secrets_stale", lambda v: v == 1)
    line = p.wait_log(lambda l: l["msg"].startswith("a secret could not be fetched again"))
    assert (line["level"], line["store"], line["name"]) == ("warn", "vault", "secret/openai") and "status 503" in line["error"]
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-first-0002"
    assert json.loads(p.admin("/reload", "POST")[1])["result"] == "unchanged"    # what there was is good enough
    vault.data["secret/data/openai"] = {"api_key": "sk-planted-second-0012"}
    del vault.answer["secret/data/openai"]
    p.wait_generation(1)
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-second-0012"
    assert p.metric("openclaw_secrets_stale") == 0 and "planted" not in p.everything_told()


def test_a_reload_that_waits(start, up, vault, model):
    vault.data["secret/data/second"] = {"k": "planted-second-0014"}
    p = start(config(up, vault, upstream={"headers": {"x-second": "${vault:secret/second#k}"}}), env=BARE)
    go = threading.Event()

    def held(ex):
        go.wait(20)
        ex.reply({"data": {"data": {"api_key": "sk-planted-third-0013"}, "metadata": {}}})
    vault.answer["secret/data/openai"] = held
    answers = []
    workers = [threading.Thread(target=lambda: answers.append(p.admin("/reload", "POST"))) for _ in range(2)]
    workers[0].start()
    eventually(lambda: len(vault.exchanges) == 4 and sum(e.finished.is_set() for e in vault.exchanges) == 3)
    workers[1].start()                                               # while one secret is there again, and one is not
    for _ in range(20):                                              # it is there, too, by then
        assert p.admin("/readyz")[0] == 200 and p.generation() == 1  # nobody is held up
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-first-0002"
    go.set()
    for w in workers:
        w.join()
    assert {(a[0], json.loads(a[1])["result"]) for a in answers} == {(200, "published")}
    assert len(vault.exchanges) == 4                                 # who comes meanwhile joins, and puts nobody off
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-third-0013"


def test_who_leaves_and_who_stops_meanwhile(start, up, vault):
    p = start(config(up, vault), env=BARE)
    vault.answer["secret/data/openai"] = slow
    with Raw(p.admin_port) as c:
        c.send(request("POST", "/reload", host=f"127.0.0.1:{p.admin_port}"))
        vault.wait(lambda s: len(s.exchanges) == 2)
    with Raw(p.admin_port) as c:
        c.send(request("POST", "/reload", host=f"127.0.0.1:{p.admin_port}"))
        assert p.admin("/readyz")[0] == 200
        p.stop()


def test_so_many_wait_for_a_reload(start, up, vault):
    """Those who ask meanwhile join, and so many do; the rest hear so at once. Nobody is asked twice for it."""
    p = start(config(up, vault), env=BARE)
    go = threading.Event()
    vault.answer["secret/data/openai"] = lambda ex: (go.wait(20), ex.reply({"data": {"data": {"api_key": "sk-planted-third-0013"}, "metadata": {}}}))
    waiting = [Raw(p.admin_port) for _ in range(64)]
    for c in waiting:
        c.send(request("POST", "/reload", host=f"127.0.0.1:{p.admin_port}"))
    for _ in range(10):                                              # they are there by then
        assert p.admin("/readyz")[0] == 200
    status, text = late(p)
    assert status == 503 and "too many wait for it" in text
    waiting.pop().close()
    eventually(lambda: late(p) == (0, ""))
    go.set()
    assert {json.loads(c.response().body)["result"] for c in waiting} <= {"published", "unchanged"}
    assert len(vault.exchanges) == 2


def late(p):
    """A reload of somebody who does not wait for long."""
    with Raw(p.admin_port) as c:
        c.send(request("POST", "/reload", host=f"127.0.0.1:{p.admin_port}"))
        if c.quiet(0.2 * SLOW):
            return 0, ""
        a = c.response()
        return a.status, a.body.decode()


def test_a_reload_that_wants_another_secret(start, up, vault, model):
    p = start(config(up, vault), env=BARE)
    c = config(up, vault, key="${vault:secret/new#k}")
    p.write_config(c)
    line = p.wait_log(lambda l: l["msg"] == "reload refused")
    assert "vault:secret/new: status 404" in line["problem"] and p.generation() == 1
    status, text, _ = p.admin("/reload", "POST")
    assert status == 422 and "vault:secret/new: status 404" in json.loads(text)["report"]
    assert "status 404" in p.generations()["last_error"]["report"]
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-first-0002"
    vault.data["secret/data/new"] = {"k": "sk-planted-new-0014"}
    assert json.loads(p.admin("/reload", "POST")[1])["result"] == "published"
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-new-0014"


# ---- nowhere to be seen ------------------------------------------------------------------------------------------------

def test_many_refused_reloads_take_no_place(start, up, vault, model):
    """Two loads of as many names as there may be are refused, each name another; what is right goes live all the same."""
    p = start(config(up, vault), env=BARE)
    for turn in range(3):
        headers = {f"x-{i}": f"${{vault:secret/none-{turn}-{i}#k}}" for i in range(60)}
        p.write_config(config(up, vault, upstream={"headers": headers}))
        status, text, _ = p.admin("/reload", "POST")
        assert status == 422 and "404" in text, text
    vault.data["secret/data/new"] = {"k": "sk-planted-new-0040"}
    p.write_config(config(up, vault, key="${vault:secret/new#k}"))
    status, text, _ = p.admin("/reload", "POST")
    assert status == 200, text
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-new-0040"


def test_none_is_shown(start, up, vault, tmp_path, model):
    planted = ["sk-planted-first-0002", "planted-other-0003", "planted-admin-0015", "planted-client-0016", TOKEN]
    vault.data["secret/data/own"] = {"admin": planted[2], "client": planted[3]}
    up.on(model + "-quotes", lambda ex: ex.reply({"error": {"message": f"bad key {ex.request.get('authorization')}"}}, 500))
    c = config(up, vault, upstream={"headers": {"x-free": "Bearer ${vault:secret/openai#other}"}}, admin={"token": "${vault:secret/own#admin}"},
               clients=[{"name": "ann", "key": "${vault:secret/own#client}"}], logging={"level": "debug", "decisions": "decisions.jsonl"},
               policies={"always": ["nosy"], "settings": {"nosy": {"key": "${vault:secret/openai#other}"}}})
    nosy = """local key
    return { name = "nosy", api = 1, init = function(conf) key = conf.policies.settings.nosy.key end,
        request = function(req, body)
            claw.log("info", "nosy", { key = key, auth = tostring(req.upstream.headers["authorization"]) })
            if body.fail then error("with " .. key) end
        end }"""
    p = start(c, policies={"nosy.lua": nosy}, env=BARE, start=False)
    p.admin = lambda path, method="GET", headers=None, bare=p.admin: bare(path, method, headers or {"Authorization": f"Bearer {planted[2]}"})
    p.start()
    mine = [("authorization", f"Bearer {planted[3]}")]
    seen = b"".join(bytes(ask(p, body, headers=mine).raw) for body in (chat(model), chat(model, fail=True), chat(model + "-quotes")))
    vault.answer["secret/data/own"] = lambda ex: ex.reply({"errors": []}, 503)
    assert json.loads(p.admin("/reload", "POST")[1])["result"] == "unchanged"
    del vault.answer["secret/data/own"]
    vault.data["secret/data/openai"]["short"] = "q7!x"        # too short for the log to know it by
    c["policies"]["settings"]["nosy"]["short"] = "${vault:secret/openai#short}"
    p.write_config(c)
    assert json.loads(p.admin("/reload", "POST")[1])["result"] == "published"
    shown = p.admin("/generations")[1]
    assert "nosy.short" in shown and "q7!x" not in shown
    pages = "".join(p.admin(a)[1] for a in ("/generations", "/upstreams", "/clients", "/metrics", "/limits", "/live", "/requests", "/requests/inflight", "/routes",
                                            "/policies", "/policies/nosy"))
    (tmp_path / "ask.json").write_text(json.dumps(chat(model)))
    done = run("-config", p.config_path, "-explain", tmp_path / "ask.json", env=BARE)
    assert done.returncode == 0, done.stderr
    decisions = p.dir / "decisions.jsonl"
    eventually(lambda: decisions.exists() and len(decisions.read_text().splitlines()) >= 3)
    for secret in planted:
        for what, text in (("log", p.everything_told()), ("admin", pages), ("decisions", decisions.read_text()), ("explain", done.stdout + done.stderr)):
            assert secret not in text, (secret, what)
        if secret != planted[0]:       # an upstream that quotes its key does so to the client: not changed on the way
            assert secret.encode() not in seen


# ---- AWS ---------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def aws():
    """moto's server: who may, and what is there; from then on it verifies every signature."""
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors")
    import boto3
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    url = f"http://127.0.0.1:{server._port}"
    how = {"endpoint_url": url, "region_name": "eu-west-3", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    iam = boto3.client("iam", **how)
    iam.create_user(UserName="proxy")
    iam.put_user_policy(UserName="proxy", PolicyName="read", PolicyDocument=json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "secretsmanager:*", "Resource": "*"}]}))
    key = iam.create_access_key(UserName="proxy")["AccessKey"]
    sm = boto3.client("secretsmanager", **how)
    arn = sm.create_secret(Name="team/openai", SecretString=json.dumps({"api_key": "sk-planted-aws-0020", "model": "x"}))["ARN"]
    sm.create_secret(Name="plain", SecretString="sk-planted-plain-0021")
    sm.create_secret(Name="bytes", SecretBinary=b"sk-planted")
    urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"})).read()
    sm = boto3.client("secretsmanager", **{**how, "aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]})
    yield {"url": url, "arn": arn, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"], "client": sm}
    server.stop()


def aws_env(aws, **more):
    return {**BARE, "AWS_ACCESS_KEY_ID": aws["id"], "AWS_SECRET_ACCESS_KEY": aws["secret"], "AWS_REGION": "eu-west-3",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws["url"], **more}


def test_aws(start, up, aws, model):
    c = config(up, key=f"${{aws-sm:{aws['arn']}#api_key}}", upstream={"headers": {"x-plain": "${aws-sm:plain}"}}, secrets={"refresh_seconds": 0.2})
    p = start(c, env=aws_env(aws, AWS_REGION=""), start=False)
    p.config["secrets"]["aws"] = {"region": "eu-west-3"}
    p.start()
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-aws-0020"
    assert up.seen(model)[-1].request.get("x-plain") == "sk-planted-plain-0021"
    aws["client"].put_secret_value(SecretId="team/openai", SecretString=json.dumps({"api_key": "sk-planted-aws-0022"}))
    p.wait_generation(1)
    assert ask(p, chat(model)).status == 200 and key_seen(up, model) == "Bearer sk-planted-aws-0022"
    assert "planted" not in p.everything_told() and aws["secret"] not in p.everything_told()


@pytest.mark.parametrize("name,text", [("none#x", "(ResourceNotFoundException)"),
                                       ("team/openai#none", "aws-sm:team/openai: it has no field none"),
                                       ("plain#x", "aws-sm:plain: it is no JSON object, so it has no field x"),
                                       ("bytes", "aws-sm:bytes: the answer has no SecretString (binary secrets are not supported)")])
def test_aws_says_no(up, aws, tmp_path, name, text):
    done = check(tmp_path, config(up, key=f"${{aws-sm:{name}}}"), env=aws_env(aws))
    assert done.returncode == 1 and f"upstreams.u.api_key: aws-sm:" in done.stderr and text in done.stderr and "planted" not in done.stderr


def test_a_signature_with_another_key_is_refused(up, aws, tmp_path):
    done = check(tmp_path, config(up, key="${aws-sm:plain}"), env=aws_env(aws, AWS_SECRET_ACCESS_KEY="planted/not/the/key/0023"))
    assert done.returncode == 1 and "aws-sm:plain: status 403" in done.stderr and "planted/not" not in done.stderr
    keys = {"access_key_id": aws["id"], "secret_access_key": aws["secret"], "region": "eu-west-3", "endpoint": aws["url"]}
    assert check(tmp_path, config(up, key="${aws-sm:plain}", secrets={"aws": keys})).returncode == 0


def test_what_aws_is_asked(up, vault, tmp_path):
    vault.default = lambda ex: ex.reply({"SecretString": "x-planted-0024"})
    env = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED000000001", "AWS_SECRET_ACCESS_KEY": "secret-0025", "AWS_SESSION_TOKEN": "session//0026", "AWS_REGION": "eu-west-3",
           "AWS_ENDPOINT_URL": vault.url("/")}
    assert check(tmp_path, config(up, key='${aws-sm:arn:aws:secretsmanager:us-east-2:1:secret:a"b-1}'), env=env).returncode == 0
    seen = vault.exchanges[-1].request
    assert (seen.method, seen.target, json.loads(seen.body)) == ("POST", "/", {"SecretId": 'arn:aws:secretsmanager:us-east-2:1:secret:a"b-1'})
    assert seen.get("x-amz-target") == "secretsmanager.GetSecretValue" and seen.get("content-type") == "application/x-amz-json-1.1"
    assert seen.get("x-amz-security-token") == "session//0026" and "/us-east-2/secretsmanager/aws4_request" in seen.get("authorization")
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target" in seen.get("authorization")
