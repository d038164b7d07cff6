"""W: translation when things go wrong or otherwise than asked: errors in a stream's or an answer's place, whole answers for
streams and streams for whole answers, candidates that cannot be told; and policies, which see the client's dialect."""
import json

import pytest

from client import Raw, ask, data_of, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from test_u_dialects import ANTHROPIC, CALL, CONTENTS, HI, TEXT, anthropic_events
from upstream import CHAT, Upstream, event

MARK = """
local P = { name = "mark", api = 1 }
function P.response(req, body)
    if body.choices then body.choices[1].message.content = "[" .. body.choices[1].message.content .. "]" end
end
function P.event(req, ev)
    if ev.data == "[DONE]" then return end
    local chunk = claw.json.decode(ev.data)
    local choice = chunk.choices and chunk.choices[1]
    if choice and choice.delta and choice.delta.content then
        choice.delta.content = choice.delta.content:upper()
        return { type = ev.type, data = claw.json.encode(chunk) }
    end
end
return P
"""


@pytest.fixture(scope="module")
def two():
    up = Upstream()
    p = Proxy({
        "upstreams": {
            "anthropic": {"type": "anthropic", "api_key": UPSTREAM_KEY, "base_url": up.url("/anthropic/v1"), "models": ["claude"]},
            "openai": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url("/openai/v1"), "models": ["gpt"]},
            "reasons": {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url("/reasons/v1"), "models": ["o3*"], "protocols": ["openai_responses"]},
        },
        "routes": [
            {"id": "two", "match": {"path": "*", "headers": {"x-two": "1"}}, "strategy": {"type": "failover", "upstreams": ["anthropic", "openai"]}},
            {"id": "back", "match": {"path": "*", "headers": {"x-two": "2"}}, "strategy": {"type": "failover", "upstreams": ["openai", "anthropic"]}},
            {"id": "marked", "match": {"path": "*", "headers": {"x-policy": "mark"}}, "policies": ["mark"], "retry": {"attempts": 1},
             "strategy": {"type": "first_available", "upstreams": ["anthropic", "openai"]}},
            {"id": "private", "match": {"path": "*", "headers": {"x-policy": "pii"}}, "policies": ["pii_redaction"],
             "strategy": {"type": "first_available", "upstreams": ["anthropic", "openai"]}},
            {"id": "guarded", "match": {"path": "*", "headers": {"x-policy": "guard"}}, "policies": ["json_schema_guard"],
             "strategy": {"type": "first_available", "upstreams": ["anthropic", "openai"]}},
            {"id": "reasons", "match": {"path": "*", "headers": {"x-two": "3"}}, "strategy": {"type": "first_available", "upstreams": ["reasons"]}},
            {"id": "slow", "match": {"path": "*", "headers": {"x-slow": "1"}},
             "strategy": {"type": "first_available", "min_context": 10, "upstreams": ["anthropic", "openai"]}},
            {"id": "one", "match": {"path": "*"}, "retry": {"attempts": 1},
             "strategy": {"type": "first_available", "upstreams": ["anthropic", "openai"]}},
        ],
    }, policies={"mark.lua": MARK})
    p.up = up
    yield p
    p.stop()
    up.stop()


def post(p, body, path="/v1/chat/completions", **headers):
    with Raw(p.port) as c:
        c.send(request("POST", path, body=json.dumps(body).encode(), headers=[(k.replace("_", "-"), v) for k, v in headers.items()]))
        return c.response()


def chat(p, stream=False, model="claude", messages=HI, more=None, **headers):
    return post(p, {"model": model, "messages": messages, **({"stream": True} if stream else {}), **(more or {})}, **headers)


def failing(kind, text="it said"):
    return b"event: error\n" + event({"type": "error", "error": {"type": kind, "message": text}})


def chunks_of(answer):
    return [c for c in data_of(answer) if isinstance(c, dict)]


def text_of(answer):
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks_of(answer) if c.get("choices"))


# ---- errors

@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("kind,status", [("overloaded_error", 529), ("rate_limit_error", 429), ("invalid_request_error", 400),
                                         ("authentication_error", 401), ("api_error", 500)])
def test_an_error_in_the_answers_place_keeps_its_status(two, stream, kind, status):
    def tell(ex):
        if stream:
            ex.stream([failing(kind)])
        else:
            ex.reply({"type": "error", "error": {"type": kind, "message": "it said"}})
    two.up.on("claude", tell)
    answer = chat(two, stream)
    assert answer.status == status and answer.get("content-type") == "application/json", answer.body
    assert answer.json()["error"]["message"] == "it said"
    line = two.request_line(answer)
    assert line["status"] == status and line["attempts"][0]["kind"] == f"http_{status}", line


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("kind,next_one", [("overloaded_error", True), ("rate_limit_error", True), ("invalid_request_error", False)])
def test_an_error_in_the_answers_place_fails_over_as_its_status_does(two, stream, kind, next_one):
    two.up.on("claude", lambda ex: ex.stream([failing(kind)]) if stream else ex.reply({"type": "error", "error": {"type": kind, "message": "x"}}))
    two.up.on("gpt", lambda ex: ex.stream() if stream else ex.reply(CHAT))
    answer = chat(two, stream, x_two="1")
    assert answer.status == (200 if next_one else 400), answer.body
    assert len(two.request_line(answer)["attempts"]) == (2 if next_one else 1)


def test_an_answer_that_is_none_fails_over(two):
    two.up.on("claude", lambda ex: ex.reply({"x": 1}))
    two.up.on("gpt", lambda ex: ex.reply(CHAT))
    answer = chat(two, x_two="1")
    assert answer.status == 200 and answer.json()["choices"], answer.body
    line = two.request_line(answer)
    assert [a.get("kind") for a in line["attempts"]] == ["bad_response", None] and "error_message" not in line, line


AUDIO = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}]


def test_who_cannot_be_told_is_passed_over(two):
    two.up.on("gpt", lambda ex: ex.reply(CHAT))
    mark = two.up.mark()
    answer = chat(two, messages=AUDIO, x_two="1")
    assert answer.status == 200 and answer.get("x-openclaw-upstream") == "openai", answer.body
    assert len(two.up.since(mark)) == 1 and len(two.request_line(answer)["attempts"]) == 1
    answer = chat(two, messages=AUDIO)
    assert answer.status == 400 and answer.json()["error"]["code"] == "untranslatable"


def test_a_failure_is_not_told_as_the_clients_fault(two):
    two.up.on("gpt", lambda ex: ex.reply({"error": {"message": "no"}}, status=503))
    answer = chat(two, model="gpt", messages=AUDIO, x_two="2")
    assert answer.status == 503 and answer.json()["error"]["code"] == "no_upstream", answer.body


@pytest.mark.parametrize("messages", [[{"role": "user", "content": "x" * 6_000_000}], [{"role": "user", "content": "x"}] * 150_000], ids=["long", "many"])
def test_what_is_too_large_to_be_translated(start, upstreams, messages):
    """The client is told so, and not that the proxy made a mistake; who need not be told in other words takes it."""
    up = upstreams()
    p = start({"upstreams": {t: {"type": t, "api_key": UPSTREAM_KEY, "base_url": up.url()} for t in ("anthropic", "openai")}, "policies": {"memory_mb": 4},
               "routes": [{"id": "both", "match": {"headers": {"x-two": "1"}}, "strategy": {"type": "failover", "upstreams": ["anthropic", "openai"]}},
                          {"id": "one", "strategy": {"type": "failover", "upstreams": ["anthropic"]}}]})
    answer = ask(p, {"model": "m", "messages": messages})
    assert answer.status == 413 and answer.json()["error"]["code"] == "request_memory" and up.mark() == 0, answer.body
    assert "too large to be translated" in answer.json()["error"]["message"]
    answer = ask(p, {"model": "m", "messages": messages}, headers=[("x-two", "1")])
    assert (answer.status, answer.get("x-openclaw-upstream"), answer.get("x-openclaw-attempts")) == (200, "openai", "1")
    assert ask(p, {"model": "m", "messages": [{"role": "user", "content": "small"}]}).status == 200
    assert not [line for line in p.lines if line["level"] == "error"]


# ---- the other way than asked for

@pytest.mark.parametrize("usage", [False, True])
def test_a_whole_answer_becomes_the_stream_that_was_asked_for(two, usage):
    two.up.on("claude", lambda ex: ex.reply(ANTHROPIC))
    answer = chat(two, True, more={"stream_options": {"include_usage": True}} if usage else {})
    assert answer.status == 200 and answer.get("content-type") == "text/event-stream" and answer.complete, answer.body
    assert text_of(answer) == "Hello." and b"data: [DONE]\n\n" in answer.body
    chunks = chunks_of(answer)
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"] and c["choices"][0]["finish_reason"]] == ["stop"]
    assert [c["usage"]["total_tokens"] for c in chunks if c.get("usage")] == ([23] if usage else [])
    line = two.request_line(answer)
    assert (line["input_tokens"], line["output_tokens"]) == (16, 7)


def test_a_whole_answers_calls_become_deltas(two):
    two.up.on("claude", lambda ex: ex.reply({**ANTHROPIC, "stop_reason": "tool_use", "content": [{**CALL[0], "input": {"city": "Zürich", "a": []}}]}))
    answer = chat(two, True)
    got = "".join(t["function"].get("arguments") or "" for c in chunks_of(answer)
                  for t in (c["choices"][0]["delta"].get("tool_calls") or []))
    assert json.loads(got) == {"city": "Zürich", "a": []}


@pytest.mark.parametrize("sse", [True, False])
def test_a_whole_answer_becomes_geminis_stream(two, sse):
    two.up.on("gpt", lambda ex: ex.reply(CHAT))
    answer = post(two, CONTENTS, "/v1beta/models/gpt:streamGenerateContent" + ("?alt=sse" if sse else ""))
    assert answer.status == 200 and answer.complete, answer.body
    events = data_of(answer) if sse else json.loads(answer.body)
    assert "".join(p.get("text", "") for e in events for c in e["candidates"] for p in c.get("content", {}).get("parts", [])) == "Hello."


@pytest.mark.parametrize("said", [{"x": 1}, b"no JSON", b""])
def test_no_answer_in_a_streams_place_is_a_bad_response(two, said):
    two.up.on("claude", lambda ex: ex.reply(said))
    answer = chat(two, True)
    assert answer.status == 502 and "error" in answer.json()
    assert two.request_line(answer)["error"] == "bad_response"
    two.up.on("gpt", lambda ex: ex.stream())
    assert chat(two, True, x_two="1").status == 200


def test_a_stream_becomes_the_whole_answer_that_was_asked_for(two):
    two.up.on("claude", lambda ex: ex.stream(anthropic_events(TEXT)))
    answer = chat(two)
    assert answer.status == 200 and answer.get("content-type") == "application/json", answer.body
    done = answer.json()
    assert done["choices"][0]["message"]["content"] == "Hello." and done["usage"]["total_tokens"] == 23
    assert done["choices"][0]["finish_reason"] == "stop" and done["object"] == "chat.completion"
    two.up.on("claude", lambda ex: ex.stream(anthropic_events(CALL, stop="tool_use")))
    done = chat(two).json()
    assert json.loads(done["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Zürich"}


def test_a_gathered_stream_that_breaks_fails_over(two):
    two.up.on("gpt", lambda ex: ex.reply(CHAT))
    for events in (anthropic_events(TEXT)[:5], anthropic_events(TEXT)[:5] + [failing("overloaded_error")]):
        two.up.on("claude", lambda ex: ex.stream(events))
        answer = chat(two, x_two="1")
        assert answer.status == 200 and len(two.request_line(answer)["attempts"]) == 2, answer.body


# ---- policies

def test_policies_see_the_clients_dialect(two):
    two.up.on("claude", lambda ex: ex.stream(anthropic_events(TEXT)) if ex.body.get("stream") else ex.reply(ANTHROPIC))
    assert chat(two, x_policy="mark").json()["choices"][0]["message"]["content"] == "[Hello.]"
    assert text_of(chat(two, True, x_policy="mark")) == "HELLO."
    two.up.on("claude", lambda ex: ex.reply(ANTHROPIC) if ex.body.get("stream") else ex.stream(anthropic_events(TEXT)))
    assert chat(two, x_policy="mark").json()["choices"][0]["message"]["content"] == "[Hello.]"
    assert text_of(chat(two, True, x_policy="mark")) == "HELLO."
    two.up.on("claude", lambda ex: ex.stream([failing("rate_limit_error")]))
    assert chat(two, True, x_policy="mark").status == 429


def test_pii_redaction_works_across_dialects(two):
    seen = []

    def tell(ex):
        seen.append(ex.request.body.decode())
        if ex.body.get("stream"):
            ex.stream(anthropic_events(({"type": "text", "text": ""}, [{"type": "text_delta", "text": t} for t in ("To <em", "ail_1>", " it goes.")])))
        else:
            ex.reply({**ANTHROPIC, "content": [{"type": "text", "text": "To <email_1> it goes."}]})
    two.up.on("claude", tell)
    write = [{"role": "user", "content": "Write to ann@example.org"}]
    assert chat(two, messages=write, x_policy="pii").json()["choices"][0]["message"]["content"] == "To ann@example.org it goes."
    assert text_of(chat(two, True, messages=write, x_policy="pii")) == "To ann@example.org it goes."
    assert len(seen) == 2 and not any("ann@" in s for s in seen) and all("<email_1>" in s for s in seen)


SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}}}}


def test_json_schema_guard_reads_translated_answers(two):
    two.up.on("claude", lambda ex: ex.reply({**ANTHROPIC, "content": [{"type": "text", "text": '{"a": 1}'}]}))
    answer = chat(two, more=SCHEMA, x_policy="guard")
    assert json.loads(answer.json()["choices"][0]["message"]["content"]) == {"a": 1}, answer.body
    assert two.request_line(answer)["schema"] == "ok"


# ---- an upstream that is asked in one of its protocols

REASONED = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "o3", "output": [
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "ENC"},
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "Hello.", "annotations": []}]}],
    "usage": {"input_tokens": 5, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}}}


def test_an_upstreams_protocols_say_how_it_is_asked(two):
    """All clients reach it by Responses; what it thought goes there and back, turn after turn."""
    two.up.on("o3", lambda ex: ex.reply(REASONED))
    mark = two.up.mark()
    answer = chat(two, model="o3", x_two="3")
    assert answer.json()["choices"][0]["message"]["content"] == "Hello.", answer.body
    messages = [{"role": "user", "content": "Hi"}]
    for turn in range(3):
        body = {"model": "o3", "max_tokens": 900, "thinking": {"type": "enabled", "budget_tokens": 800}, "messages": messages}
        answer = post(two, body, "/v1/messages", x_two="3").json()
        assert [b["type"] for b in answer["content"]] == ["thinking", "text"] and answer["content"][0]["signature"] == "openai:ENC"
        messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "And?"}]
    sent = [ex.request for ex in two.up.since(mark)]
    assert [s.target for s in sent] == ["/reasons/v1/responses"] * 4
    items = json.loads(sent[-1].body)["input"]
    assert [i.get("encrypted_content") for i in items if i.get("type") == "reasoning"] == ["ENC"] * 2
    assert [i.get("role") or i["type"] for i in items] == ["user", "reasoning", "assistant", "user", "reasoning", "assistant", "user"]


# ---- what is answered here: counts and models

@pytest.mark.parametrize("more", [{}, {"x_slow": "1"}], ids=["simple", "filtered"])
@pytest.mark.parametrize("path,model,field", [("/v1/messages/count_tokens", "gpt", "input_tokens"), ("/v1beta/models/claude:countTokens", None, "totalTokens")])
def test_tokens_are_estimated_where_nobody_counts(two, path, model, field, more):
    mark = two.up.mark()
    answer = post(two, {"model": model, "messages": [{"role": "user", "content": "one two three four"}]} if model else CONTENTS, path, **more)
    assert answer.status == 200 and 1 <= answer.json()[field] < 30 and list(answer.json()) == [field], answer.body
    assert two.up.since(mark) == []


def test_tokens_are_counted_by_who_does(two):
    two.up.on("claude", lambda ex: ex.reply({"input_tokens": 77}))
    assert post(two, {"model": "claude", "messages": HI}, "/v1/messages/count_tokens").json() == {"input_tokens": 77}


def get(p, path, **headers):
    with Raw(p.port) as c:
        c.send(request("GET", path, headers=[(k.replace("_", "-"), v) for k, v in headers.items()]))
        return c.response()


def test_models_are_listed_in_the_clients_dialect(two):
    assert [m["id"] for m in get(two, "/v1/models").json()["data"]] == ["claude", "gpt"]
    listed = get(two, "/v1/models", anthropic_version="2023-06-01").json()
    assert [m["type"] for m in listed["data"]] == ["model", "model"] and listed["first_id"] == "claude" and "object" not in listed
    assert get(two, "/v1/models/gpt", anthropic_version="2023-06-01").json()["display_name"] == "gpt"
    assert [m["name"] for m in get(two, "/v1beta/models").json()["models"]] == ["models/claude", "models/gpt"]
    assert get(two, "/v1beta/models/gpt").json()["name"] == "models/gpt" and get(two, "/v1beta/models/none").status == 404


# ---- the built-in mock, for clients of every dialect

def test_the_mock_answers_every_dialect():
    p = Proxy({"upstreams": {"mock": {"type": "mock"}}, "routes": [{"id": "all", "match": {"path": "*"}, "strategy": {"upstream": "mock"}}], "retry": {"attempts": 1}})
    asked = {"/v1/chat/completions": {"messages": HI}, "/v1/messages": {"max_tokens": 9, "messages": HI}, "/v1/responses": {"input": "Hi"},
             "/v1beta/models/m:generateContent": {"contents": [{"parts": [{"text": "Hi"}]}]}, "/v1/completions": {"prompt": "Hi"}}
    try:
        for path, body in asked.items():
            answer = post(p, {"model": "m", **body}, path)
            assert answer.status == 200 and b"You said: Hi" in answer.body, answer.body
            gemini = path.endswith("generateContent")
            stream = path.replace("generateContent", "streamGenerateContent?alt=sse")
            streamed = post(p, body if gemini else {"model": "m", "stream": True, **body}, stream)
            assert streamed.status == 200 and streamed.get("content-type").startswith("text/event-stream") and b"said" in streamed.body, streamed.body
            line = p.request_line(streamed)
            assert line["upstream"] == "mock" and line["input_tokens"] > 0 and line["output_tokens"] > 0
        failed = post(p, {"model": "mock-status-503", "max_tokens": 9, "messages": HI}, "/v1/messages")
        assert failed.status in (503, 529) and failed.json()["type"] == "error", failed.body
        assert len(post(p, {"model": "m", "input": "x"}, "/v1/embeddings").json()["data"]) == 1
        assert post(p, {"model": "m", "messages": HI}, "/v1/messages/count_tokens").json()["input_tokens"] > 0
    finally:
        p.stop()
