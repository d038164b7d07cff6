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


# ---- paths, and usage that is asked for in the client's stead

@pytest.mark.parametrize("path,body,wanted,sent", [
    ("/v1beta/models/gem-1:generateContent?key=k&x=1", CONTENTS, "/gemini/v1beta/models/gem-1:generateContent?x=1", CONTENTS),
    ("/v1beta/models/gem%2F1:countTokens", CONTENTS, "/gemini/v1beta/models/gem%2F1:countTokens", CONTENTS),
    ("/v1/messages", {"model": "claude-x", "n": 1.0}, "/anthropic/v1/messages", {"model": "claude-y", "n": 1.0}),
    ("/v1/messages/count_tokens", {"model": "claude-2"}, "/anthropic/v1/messages/count_tokens", {"model": "claude-2"}),
    ("/v1/responses", {"model": "gpt"}, "/openai/v1/responses", {"model": "gpt"}),
], ids=["gemini", "count", "messages", "count_tokens", "responses"])
def test_own_dialects_go_to_the_providers_own_paths(dialects, path, body, wanted, sent):
    mark = dialects.up.mark()
    assert post(dialects, path, body).status == 200
    ex, = dialects.up.since(mark)
    assert ex.request.target == wanted and ex.body == sent


USAGE_CHUNK = event({"id": "c", "choices": [], "usage": CHAT["usage"]})
CHUNKS = [event({"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}}], "usage": None}), USAGE_CHUNK, b"data: [DONE]\n\n"]


@pytest.mark.parametrize("options,sent,shown", [
    ("", '{"stream_options":{"include_usage":true},%s}', False),
    (',"stream_options":null', '{%s,"stream_options":{"include_usage":true}}', False),
    (',"stream_options":{}', '{%s,"stream_options":{"include_usage":true}}', False),
    (',"stream_options":{"a":1}', '{%s,"stream_options":{"include_usage":true,"a":1}}', False),
    (',"stream_options":{"include_usage":false}', '{%s,"stream_options":{"include_usage":true}}', False),
    (',"stream_options":{"include_usage":true}', '{%s,"stream_options":{"include_usage":true}}', True),
], ids=["absent", "null", "empty", "other", "false", "true"])
def test_usage_is_asked_for_and_kept_from_who_did_not_ask(dialects, options, sent, shown):
    dialects.up.on("gpt", lambda ex: ex.stream(CHUNKS))
    plain = '"model":"gpt","messages":[],"stream":true,"x":[1.0, {}]'
    mark = dialects.up.mark()
    answer = ask(dialects, ("{" + plain + options + "}").encode())
    ex, = dialects.up.since(mark)
    assert ex.request.body.decode() == sent.replace("%s", plain)
    assert answer.body == b"".join(e for e in CHUNKS if shown or e is not USAGE_CHUNK)
    line = dialects.request_line(answer)
    assert line["input_tokens"] == 11 and line["output_tokens"] == 7, line
