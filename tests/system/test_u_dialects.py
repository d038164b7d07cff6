"""U: what a client speaks: the proxy's own words in its dialect, models in paths, and translation to upstreams that speak another."""
import json

import anthropic
import openai
import pytest

from client import Raw, ask, data_of, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from upstream import CHAT, Upstream, delta, event, stream_events

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
    ("/v2/chat", "x", lambda e: len(e["id"]) == 32 and '"x"' in e["message"] and "model_not_found"),
    ("/api/chat", "x", lambda e: '"x"' in e["error"] and "model_not_found"),
], ids=["chat", "responses", "anthropic", "gemini", "cohere", "ollama"])
def test_refusals_are_in_the_clients_dialect(dialects, path, model, read):
    answer = post(dialects, path, {"model": model} if model else CONTENTS)
    assert answer.status == 404 and read(answer.json()) == "model_not_found", answer.body
    bad = post(dialects, path, [])
    assert bad.status == 400 and ("message" if path == "/v2/chat" else "error") in bad.json()


def test_who_is_not_translated_is_refused_and_no_upstream_is_asked(dialects):
    mark = dialects.up.mark()
    answer = post(dialects, "/v2/chat", {"model": "gpt", "messages": HI})
    assert answer.status == 400 and "is not translated" in answer.json()["message"]
    assert not dialects.up.since(mark)


@pytest.mark.parametrize("path,dialect,model", [
    ("/v1/chat/completions", "openai_chat", None), ("/v1/messages", "anthropic_messages", None),
    ("/v1beta/models/g%2Ex:streamGenerateContent?alt=sse", "gemini_generate", "g.x"), ("/v1/models/g:countTokens", "gemini_count_tokens", "g"),
    ("/v1/moderations", "none", None), ("/v2/chat", "cohere_chat", None),
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


# ---- translation: the official SDKs against upstreams that speak another protocol

ANTHROPIC = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-9", "stop_reason": "end_turn", "stop_sequence": None,
             "content": [{"type": "text", "text": "Hello."}],
             "usage": {"input_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 7}}


def anthropic_events(*blocks, stop="end_turn"):
    def one(kind, **data):
        return b"event: " + kind.encode() + b"\n" + event({"type": kind, **data})
    out = [one("message_start", message={**ANTHROPIC, "content": [], "stop_reason": None}), one("ping")]
    for i, (block, deltas) in enumerate(blocks):
        out += [one("content_block_start", index=i, content_block=block)]
        out += [one("content_block_delta", index=i, delta=d) for d in deltas]
        out += [one("content_block_stop", index=i)]
    return out + [one("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 7}), one("message_stop")]


TEXT = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": t} for t in ("Hel", "lo", ".")])
CALL = ({"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}},
        [{"type": "input_json_delta", "partial_json": t} for t in ("", "{\"city\":", " \"Zürich\"}")])
OPENAI_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}, "required": []}}}
ANTHROPIC_TOOL = {"name": "get_weather", "description": "It.", "input_schema": {"type": "object", "properties": {}, "required": []}}


@pytest.fixture(scope="module")
def openai_sdk(dialects):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{dialects.port}/v1", api_key="sk-of-a-client", max_retries=0, timeout=15 * dialects.slow) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def anthropic_sdk(dialects):
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{dialects.port}", api_key="sk-of-a-client", max_retries=0, timeout=15 * dialects.slow) as sdk:
        yield sdk


def last(dialects):
    return dialects.up.since(dialects.up.mark() - 1)[0]


def test_openai_client_at_anthropic(dialects, openai_sdk):
    dialects.up.on("claude-1", lambda ex: ex.reply(ANTHROPIC))
    got = openai_sdk.chat.completions.with_raw_response.create(model="claude-1", messages=[{"role": "system", "content": "Be."}, *HI], max_tokens=9, seed=7)
    done, ex = got.parse(), last(dialects)
    assert done.choices[0].message.content == "Hello." and done.choices[0].finish_reason == "stop"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.prompt_tokens_details.cached_tokens) == (16, 7, 4)
    assert ex.request.target == "/anthropic/v1/messages" and ex.request.get("x-api-key") == UPSTREAM_KEY
    assert ex.request.get("anthropic-version") == "2023-06-01"
    assert ex.body["max_tokens"] == 9 and "seed" not in ex.body and ex.body["messages"][0]["role"] == "user"
    assert got.headers["x-openclaw-dropped"] == "seed" and got.headers["content-type"] == "application/json"
    line = dialects.request_line(got.headers["x-openclaw-request-id"])
    assert (line["input_tokens"], line["cached_tokens"], line["output_tokens"]) == (16, 4, 7)


def test_what_is_dropped_is_told_in_the_words_of_the_client(dialects, openai_sdk, anthropic_sdk):
    dialects.up.on("claude-1d", lambda ex: ex.reply(ANTHROPIC))
    got = openai_sdk.chat.completions.with_raw_response.create(model="claude-1d", messages=HI, max_tokens=9, stop=[" "])
    assert got.headers["x-openclaw-dropped"] == "stop"
    dialects.up.on("gpt", lambda ex: ex.reply(CHAT))
    got = anthropic_sdk.messages.with_raw_response.create(model="gpt", max_tokens=5, messages=HI, stop_sequences=list("abcdef"))
    assert got.headers["x-openclaw-dropped"] == "stop_sequences"
    ask = {"contents": [{"parts": [{"text": "Hi"}]}], "generation_config": {"stop_sequences": list("abcdef"), "top_k": 3}}
    answer = post(dialects, "/v1beta/models/gpt:generateContent", ask)
    assert answer.get("x-openclaw-dropped") == "generation_config.stop_sequences,generation_config.top_k"
    refused = post(dialects, "/v1beta/models/claude-1d:generateContent", {**ask, "generation_config": {"candidate_count": 2}})
    assert refused.status == 400 and "generation_config.candidate_count" in refused.json()["error"]["message"], refused.body


@pytest.mark.parametrize("usage", [False, True])
def test_openai_client_streams_from_anthropic(dialects, openai_sdk, usage):
    dialects.up.on("claude-2", lambda ex: ex.stream(anthropic_events(TEXT)))
    more = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(openai_sdk.chat.completions.create(model="claude-2", messages=HI, stream=True, **more))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello."
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert [c.usage.total_tokens for c in chunks if c.usage] == ([23] if usage else [])
    assert last(dialects).body["stream"] is True


def test_openai_client_has_tools_at_anthropic(dialects, openai_sdk):
    dialects.up.on("claude-3", lambda ex: ex.stream(anthropic_events(CALL, stop="tool_use")) if ex.body.get("stream") else ex.reply(
        {**ANTHROPIC, "stop_reason": "tool_use", "content": [{**CALL[0], "input": {"city": "Z"}}]}))
    done = openai_sdk.chat.completions.create(model="claude-3", messages=HI, tools=[OPENAI_TOOL])
    assert done.choices[0].finish_reason == "tool_calls"
    assert json.loads(done.choices[0].message.tool_calls[0].function.arguments) == {"city": "Z"}
    assert last(dialects).body["tools"][0]["input_schema"] == OPENAI_TOOL["function"]["parameters"]
    assert '"required":[]' in last(dialects).request.body.decode().replace(" ", "")
    got = ""
    for c in openai_sdk.chat.completions.create(model="claude-3", messages=HI, tools=[OPENAI_TOOL], stream=True):
        for t in (c.choices[0].delta.tool_calls or []) if c.choices else []:
            got += t.function.arguments or ""
    assert json.loads(got) == {"city": "Zürich"}


def test_anthropic_client_at_openai(dialects, anthropic_sdk):
    dialects.up.on("gpt", lambda ex: ex.reply(CHAT))
    got = anthropic_sdk.messages.with_raw_response.create(model="gpt", max_tokens=5, system="Be.", messages=HI, extra_body={"top_k": 3})
    done, ex = got.parse(), last(dialects)
    assert done.content[0].text == "Hello." and done.stop_reason == "end_turn" and done.type == "message"
    assert (done.usage.input_tokens, done.usage.cache_read_input_tokens, done.usage.output_tokens) == (8, 3, 7)
    assert ex.request.target == "/openai/v1/chat/completions" and ex.request.get("authorization") == "Bearer " + UPSTREAM_KEY
    assert not ex.request.get("x-api-key") and ex.body["messages"][0]["role"] in ("system", "developer")
    assert got.headers["x-openclaw-dropped"] == "top_k"


def test_anthropic_client_streams_from_openai(dialects, anthropic_sdk):
    dialects.up.on("gpt", lambda ex: ex.stream())
    with anthropic_sdk.messages.stream(model="gpt", max_tokens=5, messages=HI) as stream:
        assert "".join(stream.text_stream) == "tok0 tok1 tok2 tok3 tok4 "
        done = stream.get_final_message()
    assert done.stop_reason == "end_turn" and done.usage.output_tokens == 7
    assert last(dialects).body["stream_options"] == {"include_usage": True}


def test_anthropic_client_has_tools_at_openai(dialects, anthropic_sdk):
    parts = ["{\"ci", "ty\":", "\"Zü", "rich\"}"]

    def chunk(fn, **more):
        return event({**delta(None), "choices": [{"index": 0, "finish_reason": None, "delta": {"tool_calls": [{"index": 0, "function": fn, **more}]}}]})
    dialects.up.on("gpt", lambda ex: ex.stream([chunk({"name": "get_weather", "arguments": ""}, id="call_1", type="function"),
                                                *[chunk({"arguments": p}) for p in parts], event(delta(None, "tool_calls")), b"data: [DONE]\n\n"]))
    with anthropic_sdk.messages.stream(model="gpt", max_tokens=5, messages=HI, tools=[ANTHROPIC_TOOL]) as stream:
        done = stream.get_final_message()
    assert done.stop_reason == "tool_use" and done.content[0].input == {"city": "Zürich"} and done.content[0].id == "call_1"


def test_errors_are_translated(dialects, anthropic_sdk, openai_sdk):
    dialects.up.on("gpt", lambda ex: ex.reply({"error": {"message": "slow down", "type": "rate_limit_error", "code": "x"}}, status=429, headers=[("retry-after", "7")]))
    with pytest.raises(anthropic.RateLimitError) as e:
        anthropic_sdk.messages.create(model="gpt", max_tokens=5, messages=HI)
    assert e.value.body["error"] == {"type": "rate_limit_error", "message": "slow down"} and e.value.response.headers["retry-after"] == "7"
    dialects.up.on("claude-4", lambda ex: ex.reply({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, status=400))
    with pytest.raises(openai.BadRequestError) as e:
        openai_sdk.chat.completions.create(model="claude-4", messages=HI)
    assert e.value.body["message"] == "no" and e.value.body["type"] == "invalid_request_error"
    dialects.up.on("claude-5", lambda ex: ex.reply(b"<html>" + b"x" * 100000, status=500, type="text/html"))
    with pytest.raises(openai.InternalServerError):
        openai_sdk.chat.completions.create(model="claude-5", messages=HI)


def test_an_answer_that_is_none_is_a_bad_response(dialects, anthropic_sdk, openai_sdk):
    for said in ({"x": 1}, b"not JSON", []):
        dialects.up.on("gpt", lambda ex: ex.reply(said))
        with pytest.raises(anthropic.APIStatusError) as e:
            anthropic_sdk.messages.create(model="gpt", max_tokens=5, messages=HI)
        assert e.value.status_code == 502 and e.value.body["error"]["type"] == "api_error"
        line = dialects.request_line(e.value.response.headers["x-openclaw-request-id"])
        assert line["error"] == "bad_response", line


def test_what_cannot_be_said_is_refused(dialects, openai_sdk):
    with pytest.raises(openai.BadRequestError) as e:
        openai_sdk.chat.completions.create(model="claude-6", messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}])
    assert e.value.body["code"] == "untranslatable" and e.value.body["param"], e.value.body


def test_a_stream_that_is_cut_ends_with_an_error(dialects, anthropic_sdk, openai_sdk):
    dialects.up.on("gpt", lambda ex: ex.stream([event(delta("a"))]))
    with pytest.raises(anthropic.APIStatusError):
        with anthropic_sdk.messages.stream(model="gpt", max_tokens=5, messages=HI) as stream:
            stream.until_done()
    dialects.up.on("claude-7", lambda ex: ex.stream(anthropic_events(TEXT)[:4]))
    with pytest.raises(openai.APIError):
        list(openai_sdk.chat.completions.create(model="claude-7", messages=HI, stream=True))


def test_a_streams_byte_order_mark_is_not_passed_on(dialects):
    dialects.up.on("claude-m", lambda ex: ex.stream([b"\xef\xbb\xbf" + anthropic_events(TEXT)[0], b": wait\n\n", *anthropic_events(TEXT)[1:]]))
    answer = ask(dialects, {"model": "claude-m", "messages": HI, "stream": True})
    assert answer.body.startswith(b"data: {") and data_of(answer)[0]["choices"][0]["delta"]["role"] == "assistant", answer.body[:200]


def test_an_error_in_the_stream_is_translated(dialects, anthropic_sdk, openai_sdk):
    overloaded = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"too much"}}\n\n'
    dialects.up.on("claude-8", lambda ex: ex.stream(anthropic_events(TEXT)[:4] + [overloaded]))
    with pytest.raises(openai.APIError, match="too much"):
        list(openai_sdk.chat.completions.create(model="claude-8", messages=HI, stream=True))
    dialects.up.on("claude-8", lambda ex: ex.stream([overloaded]))
    with pytest.raises(openai.APIStatusError, match="too much"):
        list(openai_sdk.chat.completions.create(model="claude-8", messages=HI, stream=True))


# ---- Gemini and Responses on either side

GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hello."}]}, "finishReason": "STOP", "index": 0}],
          "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 7, "thoughtsTokenCount": 3, "totalTokenCount": 20}, "modelVersion": "gem-1"}


def gemini_events(*texts):
    return [event({"candidates": [{"content": {"role": "model", "parts": [{"text": t}]}, "index": 0, **({"finishReason": "STOP"} if t is texts[-1] else {})}],
                   "usageMetadata": GEMINI["usageMetadata"]}) for t in texts]


def test_openai_client_at_gemini(dialects, openai_sdk):
    plain, stream = "/gemini/v1beta/models/gem-1:generateContent", "/gemini/v1beta/models/gem-1:streamGenerateContent"
    dialects.up.on(plain, lambda ex: ex.reply(GEMINI))
    dialects.up.on(stream, lambda ex: ex.stream(gemini_events("Hel", "lo.")))
    done = openai_sdk.chat.completions.create(model="gem-1", messages=HI, max_tokens=9)
    assert done.choices[0].message.content == "Hello." and done.usage.completion_tokens == 10
    assert last(dialects).request.target == plain and last(dialects).request.get("x-goog-api-key") == UPSTREAM_KEY
    assert last(dialects).body["generationConfig"]["maxOutputTokens"] == 9 and "model" not in last(dialects).body
    chunks = list(openai_sdk.chat.completions.create(model="gem-1", messages=HI, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello."
    assert last(dialects).request.target == stream + "?alt=sse"


def test_anthropic_client_at_gemini(dialects, anthropic_sdk):
    dialects.up.on("/gemini/v1beta/models/gem-2:streamGenerateContent", lambda ex: ex.stream(gemini_events("Hel", "lo.")))
    with anthropic_sdk.messages.stream(model="gem-2", max_tokens=5, messages=HI) as stream:
        done = stream.get_final_message()
    assert done.content[-1].text == "Hello." and done.stop_reason == "end_turn"


@pytest.mark.parametrize("sse", [True, False])
def test_gemini_client_streams_from_openai(dialects, sse):
    dialects.up.on("gpt", lambda ex: ex.stream())
    answer = post(dialects, "/v1beta/models/gpt:streamGenerateContent" + ("?alt=sse" if sse else ""), CONTENTS)
    assert answer.status == 200 and answer.complete, answer.body
    assert answer.get("content-type") == ("text/event-stream" if sse else "application/json")
    events = data_of(answer) if sse else json.loads(answer.body)
    parts = [p for e in events for c in e["candidates"] for p in c.get("content", {}).get("parts", [])]
    assert "".join(p.get("text", "") for p in parts) == "tok0 tok1 tok2 tok3 tok4 "
    assert events[-1]["candidates"][0]["finishReason"] == "STOP" and events[-1]["usageMetadata"]["promptTokenCount"] == 11
    assert last(dialects).body["model"] == "gpt" and last(dialects).request.target == "/openai/v1/chat/completions"


def test_comments_go_to_who_can_read_them(dialects):
    """Google's clients take a comment for an event."""
    waits = b": still at it\n\n"
    dialects.up.on("gpt", lambda ex: ex.stream([waits, *[e + waits for e in stream_events(2)]]))
    answer = post(dialects, "/v1beta/models/gpt:streamGenerateContent?alt=sse", CONTENTS)
    assert answer.status == 200 and b": still" not in answer.body and answer.body.startswith(b"data: {")
    dialects.up.on("claude-w", lambda ex: ex.stream([waits, *[e + waits for e in anthropic_events(TEXT)]]))
    answer = post(dialects, "/v1/chat/completions", {"model": "claude-w", "messages": HI, "stream": True})
    assert answer.body.count(waits) == 1 + len(anthropic_events(TEXT))


def test_gemini_client_has_errors_in_its_words(dialects):
    dialects.up.on("claude-g", lambda ex: ex.reply({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}, status=429))
    answer = post(dialects, "/v1beta/models/claude-g:generateContent", CONTENTS)
    assert answer.status == 429 and answer.json()["error"]["status"] == "RESOURCE_EXHAUSTED" and answer.json()["error"]["message"] == "slow"


def test_responses_client_at_anthropic(dialects, openai_sdk):
    dialects.up.on("claude-r", lambda ex: ex.stream(anthropic_events(TEXT)) if ex.body.get("stream") else ex.reply(ANTHROPIC))
    done = openai_sdk.responses.create(model="claude-r", input="Hi")
    assert done.output_text == "Hello." and done.status == "completed" and done.usage.output_tokens == 7
    with openai_sdk.responses.stream(model="claude-r", input="Hi") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        assert text == "Hello." == stream.get_final_response().output_text
