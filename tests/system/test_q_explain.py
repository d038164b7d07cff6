"""Q: what shows an author what his policy does: -explain runs it, -check proves it."""
import json
import re
import socket
import subprocess

import pytest

from client import chat
from proxy import BINARY, SLOW, WRAPPER, run

KEY = "sk-explain-9d81c27745"
CONFIG = """server:
  listen_address: "127.0.0.1"
upstreams:
  one:
    type: openai
    api_key: "%s"
    base_url: "http://127.0.0.1:{port}/v1"
  two:
    type: mock
routes:
  - id: chat
    strategy: {type: STRATEGY, upstreams: ["one", "two"]}
""" % KEY


@pytest.fixture
def explain(tmp_path):
    """explain(policies, request) -> a completed process. What would go to upstream one reaches a socket nobody serves."""
    (tmp_path / "policies").mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)

        def one(policies, request=None, strategy="failover", more="", stdin=False, upstreams="", order='"one", "two"'):
            for name, text in policies.items():
                (tmp_path / "policies" / f"{name}.lua").write_text(text)
            config = tmp_path / "openclaw.yaml"
            config.write_text(CONFIG.replace("{port}", str(listener.getsockname()[1])).replace("STRATEGY", strategy).replace("routes:", upstreams + "routes:")
                              .replace('"one", "two"', order) + more)
            question = tmp_path / "request.json"
            question.write_text(json.dumps(request if request is not None else chat("m")))
            if stdin:
                return subprocess.run([*WRAPPER, BINARY, "-config", config, "-explain", "-"], stdin=question.open(), capture_output=True,
                                      text=True, timeout=20 * SLOW)
            return run("-config", config, "-explain", question)
        one.port = listener.getsockname()[1]
        yield one
        with pytest.raises(BlockingIOError):
            listener.accept()      # no policy, no upstream was asked


def lines_of(done):
    return [line.strip() for line in done.stdout.splitlines()]


def test_admit_lets_pass_and_denies(explain):
    guard = """return { name = "guard", api = 1, admit = function(req)
        if req.client.headers["x-tier"] == "banned" then return { deny = 451, code = "law", message = "not here" } end
    end }"""
    done = explain({"guard": guard})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  admit, guard: lets it pass \(\d+ us\)$", done.stdout, re.M)
    assert lines_of(done)[-1] == "decision: goes to one first"
    done = explain({}, {"headers": {"x-tier": "banned"}, "body": chat("m")})
    assert done.returncode == 0, "a denial is a decision"
    assert re.search(r"^  admit, guard: denies it: 451 law: not here \(\d+ us\)$", done.stdout, re.M)
    assert lines_of(done)[-1] == "decision: denied by guard with status 451"


def test_a_routes_own_admit(explain):
    done = explain({"own": 'return { name = "own", api = 1, admit = function() return { deny = 403 } end }'},
                   more="    policies: [own]\n")
    assert done.returncode == 0 and "admit, own: denies it: 403 denied" in done.stdout
    assert lines_of(done)[-1] == "decision: denied by own with status 403"


def test_order_before_and_after(explain):
    done = explain({"last": 'return { name = "last", api = 1, route = function(req, list) return "two" end }'})
    assert done.returncode == 0
    assert re.search(r"^  route, last: order two, one \(before: one, two\) \(\d+ us\)$", done.stdout, re.M)
    assert lines_of(done)[-1] == "decision: goes to two first"


def test_a_strategy_of_ones_own(explain):
    done = explain({"mine": 'return { name = "mine", api = 1, choose = function(list) return { list[2] } end }'}, strategy="mine")
    assert done.returncode == 0 and "choose, mine: chooses two (of one, two)" in done.stdout


def test_what_a_request_hook_changes(explain):
    done = explain({"a_changes": """return { name = "a_changes", api = 1, request = function(req, body)
        body.max_tokens = 5
        body.temperature = nil
        body.messages[1].content = ("x"):rep(200)
        req.upstream.headers["x-plain"] = "seen"
        req.upstream.headers["authorization"] = nil
        req.upstream.headers["x-session-token"] = "hidden-1234"
        req.upstream.path = "/messages"
        req.upstream.commit = 40
    end }""", "b_table": """return { name = "b_table", api = 1, request = function(req, body)
        return { model = "other", key = "%s" }
    end }""" % KEY, "c_nothing": 'return { name = "c_nothing", api = 1, request = function(req, body) return body end }'},
                   {**chat("m"), "temperature": 1})
    assert done.returncode == 0, done.stdout + done.stderr
    told = lines_of(done)
    for line in ("+ max_tokens: 5", "- temperature: 1", "header x-plain: seen", "header authorization: removed",
                 "header x-session-token: ***", "path: /messages", "commit: 40", '~ model: "m" -> "other"', '+ key: "***"'):
        assert line in told, (line, done.stdout)
    changed = next(line for line in told if line.startswith("~ messages[0].content: "))
    assert changed.endswith('-> "' + "x" * 79 + "…")
    assert "request at one, c_nothing: changes nothing" in done.stdout
    assert KEY not in done.stdout + done.stderr and "hidden-1234" not in done.stdout


def test_what_a_translation_drops(explain):
    other = "  three: {type: anthropic, api_key: k}\n  four: {type: anthropic, api_key: k, lossy: refuse}\n"
    said = {**chat("m"), "seed": 1, "stop": [" "]}
    done = explain({}, said, upstreams=other, order="one, three, four")
    assert done.returncode == 0, done.stdout + done.stderr
    told = lines_of(done)
    at = told.index("translation, of a client that speaks openai_chat:")
    assert told[at + 1:at + 3] == ["one: not translated", "three: speaks anthropic_messages; drops stop, seed"], told
    assert told[at + 3].startswith('four: speaks anthropic_messages; refused: "stop" has no counterpart'), told
    assert told[-1] == "decision: goes to one first"
    done = explain({"p": """return { name = "p", api = 1, request = function(req, body) body.seed = nil end }"""}, said, upstreams=other, order="three, one")
    told = lines_of(done)
    assert "three: speaks anthropic_messages; drops stop" in told and "- seed: 1" in told, told
    done = explain({"p": """return { name = "p", api = 1, request = function(req, body) body.n = 2 end }"""}, chat("m"), upstreams=other, order="three, one")
    assert any(line.startswith('three: speaks anthropic_messages; refused: "n" has no counterpart') for line in lines_of(done)), done.stdout
    assert lines_of(done)[-1] == "decision: goes to one first"
    done = explain({}, {"path": "/v2/chat", "body": chat("m")}, upstreams=other, order="three")
    assert lines_of(done)[-1].startswith("decision: refused, untranslatable: cohere_chat is not translated"), done.stdout


def test_what_policies_say_and_would_do(explain):
    done = explain({"asks": """return { name = "asks", api = 1, admit = function(req)
        claw.log("warn", "asking", { n = 1 })
        claw.time.sleep(600000)
        local answer, message, code = claw.http.fetch("http://127.0.0.1:PORT/check?key=hidden", { method = "POST", body = { a = 1 } })
        claw.task.background(function() error("it ran") end)
        local task = claw.task.spawn(function(x) return x + 1 end, 1)
        claw.log("info", "got", { code = code, sum = claw.task.wait(task), answer = tostring(answer) })
    end }""".replace("PORT", str(explain.port))})
    assert done.returncode == 0, done.stdout + done.stderr
    told = lines_of(done)
    at = told.index('asks says: warn: asking {"n":1}')
    assert told[at + 1] == f"would fetch POST http://127.0.0.1:{explain.port}/check?…"
    assert told[at + 2] == "would start a background task"
    assert told[at + 3] == 'asks says: info: got {"answer":"nil","code":"EEXPLAIN","sum":2}'


def test_errors_in_their_place(explain):
    done = explain({"bad": """return { name = "bad", api = 1,
        request = function(req, body)
            body.x = nothing.there
        end }"""})
    assert done.returncode == 1
    assert re.search(r"^  request at one, bad: failed \(\d+ us\)\n    error: policies/bad\.lua:3: attempt to index", done.stdout, re.M)
    assert lines_of(done)[-1].startswith("decision: none, bad failed in request: policies/bad.lua:3: ")
    done = explain({"bad": 'return { name = "bad", api = 1, on_error = "skip",\n route = function() return "nobody" end }'})
    assert done.returncode == 0, "it is skipped, so a decision was made"
    assert "error: policies/bad.lua: route: expected" in done.stdout and "(skipped)" in done.stdout
    done = explain({"bad": 'return { name = "bad", api = 1, request = function() return "{no json" end }'})
    assert done.returncode == 1 and "the returned text is no valid JSON" in lines_of(done)[-1]


def test_standard_input(explain):
    done = explain({"p": 'return { name = "p", api = 1, admit = function() end }'}, stdin=True)
    assert done.returncode == 0 and "admit, p: lets it pass" in done.stdout


@pytest.mark.parametrize("text,place,words", [
    ('return { name = "p", api = 1,\n selftest = function()\n  assert(1 + 1 == 3, "sums are wrong")\n end }', "policies/p.lua:3", "sums are wrong"),
    ('return { name = "p", api = 1,\n selftest = function()\n  error("no good")\n end }', "policies/p.lua:3", "no good"),
    ('return { name = "p", api = 1,\n init = function(conf)\n  return conf.nothing.there\n end }', "policies/p.lua:3", "nothing"),
])
def test_check_runs_selftests(tmp_path, text, place, words):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.lua").write_text(text)
    config = tmp_path / "openclaw.yaml"
    config.write_text(CONFIG.replace("{port}", "1").replace("STRATEGY", "failover"))
    done = run("-check", "-config", config)
    assert done.returncode == 1
    line = next(l for l in (done.stdout + done.stderr).splitlines() if words in l)
    assert line.startswith(place + ": "), line
    assert ("selftest: " if "selftest" in text else "init: ") in line
    (tmp_path / "policies" / "p.lua").write_text('return { name = "p", api = 1, selftest = function() assert(true) end }')
    assert run("-check", "-config", config).returncode == 0
