"""U: what a client speaks: the proxy's own words in its dialect, models in paths, and translation to upstreams that speak another."""
import json

import pytest

from client import Raw, ask, data_of, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from upstream import CHAT, Upstream, event

TELL = """
local P = { name = "tell", api = 1 }
function P.log(req) return { dialect = req.dialect or "none", asked = req.model, streams = req.stream } end
return P
"""
HI = [{"role": "user", "content": "Hi"}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


@pytest.fixture(scope="module")
def dialects():
    up = Upstream()
    up.default = lambda ex: ex.reply({"path": ex.request.target, "usage": {"prompt_tokens": 1}})
    p = Proxy({
        "upstreams": {
            "openai": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url("/openai/v1"), "models": ["gpt", "gone"]},
            "anthropic": {"type": "anthropic", "api_key": UPSTREAM_KEY, "base_url": up.url("/anthropic/v1"), "models": ["claude*"],
                          "model_map": {"claude-x": "claude-y"}},
            "gemini": {"type": "gemini", "api_key": UPSTREAM_KEY, "base_url": up.url("/gemini/v1beta"), "models": ["gem*"]},
        },
        "routes": [
            {"id": "chat", "match": {"path": "*"}, "strategy": {"type": "first_available", "upstreams": ["openai", "anthropic", "gemini"]}},
        ],
        "policies": {"always": ["tell"]},
    }, policies={"tell.lua": TELL})
    p.up = up
    yield p
    p.stop()
    up.stop()


def post(p, path, body, **how):
    with Raw(p.port) as c:
        c.send(request("POST", path, body=json.dumps(body).encode(), **how))
        return c.response()


@pytest.mark.parametrize("path,model,read", [
    ("/v1/chat/completions", "x", lambda e: e["error"]["code"]),
    ("/v1/responses", "x", lambda e: e["error"]["code"]),
    ("/v1/messages", "x", lambda e: e["type"] == "error" and e["error"]["type"] == "not_found_error" and "model_not_found"),
    ("/v1beta/models/x:generateContent", None,
     lambda e: (e["error"]["code"], e["error"]["status"]) == (404, "NOT_FOUND") and e["error"]["details"][0]["reason"]),
], ids=["chat", "responses", "anthropic", "gemini"])
def test_refusals_are_in_the_clients_dialect(dialects, path, model, read):
    answer = post(dialects, path, {"model": model} if model else CONTENTS)
    assert answer.status == 404 and read(answer.json()) == "model_not_found", answer.body
    bad = post(dialects, path, [])
    assert bad.status == 400 and "error" in bad.json()


@pytest.mark.parametrize("path,dialect,model", [
    ("/v1/chat/completions", "openai_chat", None), ("/v1/messages", "anthropic_messages", None),
    ("/v1beta/models/g%2Ex:streamGenerateContent?alt=sse", "gemini_generate", "g.x"), ("/v1/models/g:countTokens", "gemini_count_tokens", "g"),
    ("/v1/moderations", "none", None),
])
def test_policies_and_the_log_know_the_dialect(dialects, path, dialect, model):
    answer = post(dialects, path, {"model": "nobody"} if not model else CONTENTS)
    line = dialects.request_line(answer)
    assert line["dialect"] == dialect and line["asked"] == (model or "nobody") == line["model"]
    assert line["streams"] is ("stream" in path)
