"""D: the command line and openclaw.yaml: what is said about mistakes, and with which exit status."""
import json
import pathlib
import re
import socket

import pytest

from client import ask, chat
from proxy import ROOT, WRAPPER, free_port, run

GOOD = """server:
  listen_address: "127.0.0.1"
  listen_port: {port}
  workers: 1
admin:
  listen_port: {admin}
upstreams:
  one:
    type: openai
    api_key: "${ONE_KEY:-sk-none-here-1}"
    base_url: "http://127.0.0.1:1/v1"
    models: ["gpt-4", "gpt-4o"]
    cost_per_million_input_tokens: 30.0
    cost_per_million_output_tokens: 60.0
  two:
    type: mock
routes:
  - id: first
    match:
      path: "/v1/chat/completions"
      json_body:
        model: "gpt-4"
    strategy:
      type: failover
      upstreams: ["one", "two"]
  - id: rest
    strategy: {type: round_robin, upstreams: ["two"]}
"""


@pytest.fixture
def write(tmp_path):
    def one(text, name="openclaw.yaml"):
        path = tmp_path / name
        path.write_text(text.replace("{port}", "8080").replace("{admin}", "9090"))
        return path
    return one


def problems(done):
    return [l for l in (done.stdout + done.stderr).splitlines() if re.search(r":\d+:\d+: ", l)]


@pytest.mark.parametrize("flag", ["-config", "--config", "-c"])
def test_check_of_a_good_file(write, flag):
    done = run("-check", flag, write(GOOD))
    assert done.returncode == 0, done.stdout + done.stderr
    assert problems(done) == []


def test_version_and_help():
    done = run("-version")
    assert done.returncode == 0 and re.search(r"openclaw-proxy \d+\.\d+", done.stdout)
    done = run("-help")
    assert done.returncode == 0
    for word in ("-config", "-check", "-explain", "-version", "-help"):
        assert word in done.stdout, word


def test_unknown_flag():
    done = run("-chekc")
    assert done.returncode not in (0, 2) and "-chekc" in done.stderr + done.stdout


def test_missing_file(tmp_path):
    done = run("-config", tmp_path / "nothing.yaml")
    assert done.returncode == 1 and "nothing.yaml" in done.stderr + done.stdout


@pytest.mark.parametrize("label,old,new,where,words", [
    ("unknown key", "listen_port: {port}", "listen_prt: 8080", "3:3: server.listen_prt", ["did you mean", "listen_port"]),
    ("unknown top key", "upstreams:\n", "upstreems:\n", "7:1: upstreems", ["did you mean", "upstreams"]),
    ("unknown upstream key", "base_url:", "base_ulr:", "11:5: upstreams.one.base_ulr", ["did you mean", "base_url"]),
    ("wrong type", "workers: 1", "workers: many", "4:12: server.workers", ["number"]),
    ("out of range", "listen_port: {port}", "listen_port: 70000", "3:16: server.listen_port", []),
    ("unset variable", "${ONE_KEY:-sk-none-here-1}", "${NOT_SET_ANYWHERE}", "10:14: upstreams.one.api_key", ["NOT_SET_ANYWHERE"]),
    ("unknown upstream in a route", '["one", "two"]', '["one", "twoo"]', "25:26: routes[0].strategy.upstreams[1]", ["twoo", "did you mean", "two"]),
    ("unknown strategy", "type: failover", "type: failovr", "24:13: routes[0].strategy.type", ["failovr", "did you mean", "failover"]),
    ("unknown upstream type", "type: mock", "type: mokc", "16:11: upstreams.two.type", ["mokc", "did you mean", "mock"]),
    ("bad url", "http://127.0.0.1:1/v1", "ftp://127.0.0.1/v1", "11:15: upstreams.one.base_url", []),
    ("unknown operator", 'model: "gpt-4"', "model: {contians: gpt}", "22:17: routes[0].match.json_body.model.contians", ["did you mean", "contains"]),
    ("missing file", "${ONE_KEY:-sk-none-here-1}", "${file:/nothing/here}", "10:14: upstreams.one.api_key", ["/nothing/here"]),
])
def test_problems(write, label, old, new, where, words):
    assert old in GOOD
    path = write(GOOD.replace(old, new))
    done = run("-check", "-config", path)
    assert done.returncode == 1
    found = problems(done)
    mine = [l for l in found if f":{where}: " in l]
    assert mine, f"{label}: none at {where} in {found or done.stderr}"
    assert mine[0].startswith(str(path)) or mine[0].startswith("openclaw.yaml")
    for word in words:
        assert word in mine[0]
    # the same file does not start either, and says the same
    started = run("-config", path)
    assert started.returncode == 1 and where in started.stdout + started.stderr


def test_every_problem_is_reported(write):
    text = GOOD.replace("workers: 1", "wokers: 1").replace("type: failover", "type: failovr").replace("base_url:", "base_ulr:")
    found = problems(run("-check", "-config", write(text)))
    assert len(found) >= 3


@pytest.mark.parametrize("text", ["server: [", "a: b: c", "\tserver: {}", "server: {}\nserver: {}\n", "", "[]", "- 1", "server:\n  listen_port: 1\n listen: 2\n",
                                  "%YAML 9.9\n---\n", "a: &x [*x, *x]\n", "\xff", "server: !!binary aGk=\n", "?", "a: *nothing"])
def test_broken_yaml(write, text):
    done = run("-check", "-config", write(text))
    assert done.returncode == 1 and (done.stdout + done.stderr).strip()


def test_yaml_bomb(write):
    layers = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    done = run("-check", "-config", write(layers))
    assert done.returncode == 1


def test_secrets_are_not_in_problems(write):
    path = write(GOOD.replace("api_key: \"${ONE_KEY:-sk-none-here-1}\"", "api_key: [\"sk-very-secret-123\"]"))
    done = run("-check", "-config", path)
    assert done.returncode == 1 and "sk-very-secret-123" not in done.stdout + done.stderr


def test_what_changes_between_two_files(write, tmp_path):
    old = write(GOOD, "old.yaml")
    first, rest = GOOD[GOOD.index("  - id: first"):GOOD.index("  - id: rest")], GOOD[GOOD.index("  - id: rest"):]
    text = GOOD.replace(first + rest, rest + first).replace("workers: 1", "workers: 2").replace("input_tokens: 30.0", "input_tokens: 2.5").replace("sk-none-here-1", "sk-none-here-2")
    new = write(text + "  - id: more\n    match: {path: /more}\n    strategy: {upstream: two}\n")
    done = run("-config", new, "-check", "-diff", old)
    assert done.returncode == 0 and done.stdout.splitlines()[1:] == [
        "live     routes[more].id: added, more",
        "live     routes[more].match.path: added, /more",
        "live     routes[more].strategy.upstream: added, two",
        "restart  server.workers: 1 -> 2",
        "live     upstreams.one.api_key: changed",
        "live     upstreams.one.cost_per_million_input_tokens: 30.0 -> 2.5",
        "live     routes: the order changed, [rest] stands before [first] now",
        "7 changed, 1 of it at a restart"]
    assert "sk-none" not in done.stdout
    done = run("-config", old, "-check", "-diff", old)
    assert done.returncode == 0 and done.stdout.endswith(f"{old}: no change\n")


def test_files_that_cannot_be_compared(write, tmp_path):
    good, bad = write(GOOD, "good.yaml"), write(GOOD.replace("type: failover", "type: [failover"), "bad.yaml")
    done = run("-config", good, "-check", "-diff", bad)
    assert done.returncode == 1 and done.stderr.startswith(f"{bad}:") and "change" not in done.stdout
    done = run("-config", good, "-check", "-diff", tmp_path / "nothing.yaml")
    assert done.returncode == 1 and "cannot read" in done.stderr
    done = run("-config", bad, "-check", "-diff", good)
    assert done.returncode == 1 and done.stderr.startswith(f"{bad}:") and done.stdout == ""
    done = run("-config", good, "-diff", good)
    assert done.returncode == 1 and "-check" in done.stderr


def test_check_of_policies(write, tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "broken.lua").write_text("return {\n  name = 'broken', api = 1,\n  admit = function(req) if end,\n}\n")
    done = run("-check", "-config", write(GOOD))
    assert done.returncode == 1 and re.search(r"policies/broken\.lua:3", done.stdout + done.stderr)
    (tmp_path / "policies" / "broken.lua").write_text("return { name = 'broken', api = 1, admitt = function(req) end }\n")
    done = run("-check", "-config", write(GOOD))
    assert done.returncode == 1 and "admitt" in done.stdout + done.stderr and "did you mean" in done.stdout + done.stderr
    (tmp_path / "policies" / "broken.lua").write_text("return { name = 'broken', api = 1, selftest = function() error('no good') end }\n")
    done = run("-check", "-config", write(GOOD))
    assert done.returncode == 1 and "no good" in done.stdout + done.stderr


def test_guide_passes_check():
    path = ROOT / "tests/unit/base/guide.yaml"
    assert path.exists(), f"{path} is part of the tree"
    keys = {name: "sk-from-the-environment-1" for name in re.findall(r"\$\{([A-Z_0-9]+)\}", path.read_text())}
    done = run("-check", "-config", path, env=keys)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/openclaw.yaml")), ids=lambda p: p.parent.name)
def test_examples_pass_check(path):
    keys = {name: "sk-from-the-environment-1" for name in re.findall(r"\$\{([A-Z_0-9]+)\}", path.read_text())}
    done = run("-check", "-config", path, env=keys)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cannot_bind(write):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = GOOD.replace("{port}", str(port)).replace("{admin}", str(free_port()))
        done = run("-config", write(text))
        assert done.returncode == 2 and str(port) in done.stdout + done.stderr
        text = GOOD.replace("{port}", str(free_port())).replace("{admin}", str(port))
        done = run("-config", write(text))
        assert done.returncode == 2 and str(port) in done.stdout + done.stderr


def test_explain(write, tmp_path):
    question = tmp_path / "request.json"
    question.write_text(json.dumps({"method": "POST", "path": "/v1/chat/completions", "headers": {}, "body": chat("gpt-4")}))
    done = run("-explain", question, "-config", write(GOOD))
    assert done.returncode == 0, done.stderr
    for word in ("first", "rest", "one", "two", "gpt-4", "failover"):
        assert word in done.stdout, word
    assert done.stdout.index("one") < done.stdout.rindex("two")
    question.write_text(json.dumps(chat("gpt-4")))      # a bare body is a chat completion
    assert run("-explain", question, "-config", write(GOOD)).returncode == 0
    question.write_text("{ not json")
    assert run("-explain", question, "-config", write(GOOD)).returncode != 0


def test_schema(write):
    done = run("-schema")
    assert done.returncode == 0
    assert {"server", "upstreams", "routes"} <= set(json.loads(done.stdout)["properties"])


def test_expansion_reaches_the_upstream(start, upstreams, tmp_path):
    up = upstreams()
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file-77\n")
    p = start({"upstreams": {"u": {"type": "openai", "api_key": "${file:%s}" % secret, "base_url": "${UPSTREAM_URL}",
                                   "headers": {"x-a": "${NOT_SET:-fall back}", "x-b": "a$$b"}}},
               "routes": [{"id": "r", "strategy": {"type": "round_robin", "upstreams": ["u"]}}]}, env={"UPSTREAM_URL": up.url()})
    assert ask(p, chat()).status == 200
    got = up.exchanges[0].request
    assert got.get("authorization") == "Bearer sk-from-a-file-77" and got.get("x-a") == "fall back" and got.get("x-b") == "a$b"


@pytest.mark.parametrize("prefix", ["", "/", "/v1", "/v1/", "/deep/er/v2", "/openai/deployments/x"])
def test_base_url_with_any_prefix(start, upstreams, prefix):
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "generic", "base_url": up.url(prefix)}}, "routes": [{"id": "r", "strategy": {"type": "round_robin", "upstreams": ["u"]}}]})
    assert ask(p, chat(), path="/v1/chat/completions?x=1").status == 200
    # a base_url without a path of its own names only the host: the client's path stays whole
    assert up.exchanges[0].request.target == (prefix.rstrip("/") or "/v1") + "/chat/completions?x=1"


def test_file_log_and_reopen(start, tmp_path, upstreams):
    import signal
    log = tmp_path / "proxy.log"
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "round_robin", "upstreams": ["u"]}}],
               "logging": {"output": "file", "path": str(log)}})
    from client import eventually
    first = ask(p, chat()).get("x-openclaw-request-id")
    assert eventually(lambda: log.exists() and first in log.read_text())
    log.rename(tmp_path / "proxy.log.1")
    p.signal(signal.SIGUSR1)
    assert eventually(lambda: log.exists())
    second = ask(p, chat()).get("x-openclaw-request-id")
    assert eventually(lambda: second in log.read_text())
    assert second not in (tmp_path / "proxy.log.1").read_text()
    assert pathlib.Path(log).stat().st_size > 0


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_started_without_standard_files(start, closed):
    """No socket gets the number of a closed one: what is logged goes nowhere, and the process ends as it should."""
    p = start({"upstreams": {"m": {"type": "mock"}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["m"]}}]},
              wrapper=["sh", "-c", f'exec "$@" {closed}', "sh", *WRAPPER])
    assert ask(p).status == 200
    for one in closed.split():
        assert str(pathlib.Path(f"/proc/{p.pid}/fd/{one[0]}").readlink()) == "/dev/null"


# ---- logging.bodies

def test_bodies_are_logged_where_they_are_asked_for(start, upstreams):
    """As the client sent it, before a policy; as the client got it, plain, streamed, refused here, kept; its bound; no secrets, no audio."""
    up, secret = upstreams(), "sk-upstream-3f9d01c2"
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url(), "api_key": secret}}, "routes": [{"id": "r", "strategy": {"upstream": "u"}}],
               "caching": {"enabled": True}, "logging": {"bodies": True}},
              policies={"mask.lua": "return { name = 'mask', api = 1, request = function(req, body) if body then body.user = 'masked' end end }"})

    def line(body, **more):
        answer = ask(p, body, **more)
        return answer, p.request_line(answer)
    sent = chat("gpt-4", user="ann")
    for _ in ("from the upstream", "from the cache"):
        answer, told = line(sent)
        assert json.loads(told["request_body"]) == sent and told["response_body"] == answer.body.decode()
    assert up.exchanges[-1].body["user"] == "masked" and len(up.exchanges) == 1
    answer, told = line(chat("gpt-4", stream=True, temperature=0.5))
    assert told["response_body"].startswith("data: {") and told["response_body"] in answer.body.decode() and told["stream"]
    _, told = line(b'{"model":')
    assert told["request_body"] == '{"model":' and "JSON" in told["response_body"]
    _, told = line(chat("gpt-4", user="\u00e9" * 5000 + "\"\\"))
    assert 4000 < len(told["request_body"].encode()) <= 4096
    up.on("leaks", lambda ex: ex.reply({"error": {"message": f"bad key {secret}"}}, 400))
    _, told = line({**chat("leaks"), "user": secret})
    assert "bad key" in told["response_body"] and secret not in json.dumps(told)
    _, told = line(b"\x00\x01\x02audio", path="/v1/audio/translations", headers=[("content-type", "audio/mpeg")])
    assert "request_body" not in told
    p.write_config({**p.config, "logging": {"bodies": False}})
    p.wait_generation(1)
    assert not {"request_body", "response_body"} & set(line(chat("gpt-5"))[1])
