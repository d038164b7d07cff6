"""Q: logging.decisions, and -replay of it against a configuration and policies that changed."""
import json

import pytest

from client import ask, chat, eventually
from conftest import UPSTREAM_KEY
from proxy import run

PRICES = {"cost_per_million_input_tokens": 1000, "cost_per_million_output_tokens": 2000}
BANS = 'return { name = "guard", api = 1, admit = function(req) if req.model == "%s" then return { deny = 403, code = "banned" } end end }'


@pytest.fixture
def recorded(start, upstreams):
    """A proxy that has decided some requests, and the lines it wrote."""
    up = upstreams()
    config = {
        "upstreams": {"a": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(), **PRICES}, "b": {"type": "openai", "base_url": up.url()}},
        "routes": [{"id": "turns", "match": {"path": "/v1/*", "headers": {"x-turns": "yes"}}, "strategy": {"type": "round_robin", "upstreams": ["a", "b"]}},
                   {"id": "chat", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["a", "b"]}}],
        "logging": {"decisions": "decisions.jsonl"},
        "server": {"workers": 1},
    }
    p = start(config, policies={"guard.lua": BANS % "banned"})
    p.recording = p.dir / "decisions.jsonl"
    secret = [("authorization", "Bearer sk-client-77aa"), ("x-api-key", "sk-client-77bb"), ("cookie", "c=77cc"), ("x-team", "red")]
    assert ask(p, chat("m"), headers=secret, path="/v1/chat/completions?key=77dd&x=1").status == 200
    assert ask(p, chat("m", stream=True), headers=secret).status == 200
    assert ask(p, chat("banned")).status == 403
    assert ask(p, b"", method="GET", path="/nowhere").status == 404
    for _ in range(3):
        assert ask(p, chat("m"), headers=[("x-turns", "yes")]).status == 200
    assert ask(p, chat("m", filler="x" * 70000)).status == 200
    assert eventually(lambda: p.recording.exists() and len(p.recording.read_text().splitlines()) == 8)
    p.told_lines = [json.loads(line) for line in p.recording.read_text().splitlines()]
    return p


def replay(p, config=None, policies=None):
    if config:
        p.write_config(config)
    for name, text in (policies or {}).items():
        (p.policies / name).write_text(text)
    done = run("-config", p.config_path, "-replay", p.recording)
    return done, done.stdout.splitlines()


def test_what_is_recorded(recorded):
    first, stream, banned, nowhere, *turns, big = recorded.told_lines
    assert (first["method"], first["path"], first["query"], first["route"], first["upstream"]) == ("POST", "/v1/chat/completions", "x=1", "chat", "a")
    assert first["candidates"] == [{"upstream": "a", "model": "m"}, {"upstream": "b", "model": "m"}]
    assert first["body"] == chat("m") and first["headers"]["x-team"] == "red" and first["status"] == 200
    assert first["usage"]["input"] > 0 and first["cost_micros"] > 0 and len(first["id"]) == 32
    text = recorded.recording.read_text()
    assert "77aa" not in text and "77bb" not in text and "77cc" not in text and "77dd" not in text and UPSTREAM_KEY not in text
    assert stream["body"]["stream"] is True, "an open stream keeps its body for the line"
    assert banned["candidates"] == [] and banned["status"] == 403 and banned["refused"] == "banned"
    assert nowhere["method"] == "GET" and nowhere["refused"] == "no_route" and "body" not in nowhere
    assert "body" not in big and big["body_left_out"] > 70000
    assert not any(line["msg"] == "request" and "candidates" in line for line in recorded.lines), "the log has its own lines only"


def test_nothing_changed(recorded):
    done, lines = replay(recorded)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines) == 1 and lines[0].startswith("7 decisions, 0 routes changed, 0 first candidates changed, 0 refusals changed, 0 costs changed, cost $")
    assert lines[0].endswith("1 not decided anew (body left out)")
    before, after = lines[0].split("cost $")[1].split(",")[0].split(" -> $")
    assert before == after and float(before) > 0


def test_what_would_change(recorded):
    done, lines = replay(recorded, policies={"guard.lua": BANS % "m", "order.lua": 'return { name = "order", api = 1, route = function() return "b" end }'})
    assert done.returncode == 1
    assert "line 1: refused no -> 403 banned" in lines
    assert "line 3: refused 403 banned -> no" in lines
    assert "7 decisions, 0 routes changed, 0 first candidates changed, 6 refusals changed" in lines[-1]
    done, lines = replay(recorded, policies={"guard.lua": BANS % "banned"})
    assert done.returncode == 1
    assert lines[0].startswith("line 1: first a with m -> b with m; cost $") and lines[0].endswith(" -> unknown")
    assert not any(line.startswith("line 5: first") for line in lines), "whose turn it is does not count"


def test_routes_prices_and_models(recorded):
    config = {**recorded.config, "routes": [{"id": "other", "strategy": {"type": "failover", "upstreams": ["a"]}}]}
    config["upstreams"] = {**config["upstreams"], "a": {**config["upstreams"]["a"], "cost_per_million_input_tokens": 2000, "cost_per_million_output_tokens": 4000}}
    done, lines = replay(recorded, config=config)
    assert done.returncode == 1
    first = next(line for line in lines if line.startswith("line 1: "))
    assert "route chat -> other; cost $" in first
    before, after = map(float, first.split("cost $")[1].split(" -> $"))
    assert after == pytest.approx(2 * before)
    assert "line 4: refused 404 no_route -> no" in lines


def test_a_policy_that_fails_and_what_is_no_recording(recorded, tmp_path):
    done, lines = replay(recorded, policies={"guard.lua": 'return { name = "guard", api = 1, admit = function() error("oh") end }'})
    assert done.returncode == 1 and "line 1: refused no -> 500 policy_error" in lines
    recorded.recording.write_text('{"model":"m"}\n')
    done, lines = replay(recorded)
    assert done.returncode == 1 and lines == ["line 1: no decision as logging.decisions writes them"]
    assert run("-config", recorded.config_path, "-replay", tmp_path / "nothing").returncode == 3


def test_off_by_default(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"a": {"type": "openai", "base_url": up.url()}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["a"]}}]})
    assert p.request_line(ask(p, chat()))
    assert not list(p.dir.glob("*.jsonl"))
    p.write_config({**p.config, "logging": {"decisions": "later.jsonl"}})       # and comes with a reload
    assert eventually(lambda: (p.dir / "later.jsonl").exists())
    assert ask(p, chat()).status == 200
    assert eventually(lambda: len((p.dir / "later.jsonl").read_text().splitlines()) >= 1)
