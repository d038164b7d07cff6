"""Y: budget.soft_stop: a stream that reaches its client's budget ends as one of the greatest length, in each dialect."""
import json
import threading

import anthropic
import openai
import pytest
from google import genai

from client import Raw, ask, chat, data_of, eventually, request
from upstream import CHAT, delta, event
from wire import Closed

KEY = "key-of-ann-0123456789"
WORDS = "several words of an answer "      # 5 tokens or so
MOST = 2000


def config(up, usd=60, soft=True, type="openai", **more):
    price = {"cost_per_million_input_tokens": 0, "cost_per_million_output_tokens": 1_000_000}       # a dollar a token
    return {"clients": [{"name": "ann", "key": KEY, "budget": {"usd": usd, "per": "total", "soft_stop": soft}}], "retry": {"attempts": 1},
            "upstreams": {"u": {"type": type, "api_key": "sk-up", "base_url": up.url("" if type == "gemini" else "/v1"), **price}},
            "routes": [{"id": "r", "strategy": {"upstream": "u"}}], **more}


def mine(p, body, **how):
    return ask(p, body, headers=[("authorization", f"Bearer {KEY}")], **how)


def told_until_left(events, after=(), most=MOST):
    """A script: as many events as are taken."""
    def script(ex):
        ex.stream_head()
        ex.server.gave = 0
        for i in range(most):
            try:
                ex.chunk(events(i))
            except (Closed, OSError):
                return
            ex.server.gave = i + 1
        for one in after:
            ex.chunk(one)
        ex.end()
    return script


OPENAI = told_until_left(lambda i: event(delta(WORDS)), [event(delta(None, "stop")), b"data: [DONE]\n\n"])
COMPLETIONS = told_until_left(lambda i: event({"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", "choices": [
    {"index": 0, "text": WORDS, "logprobs": None, "finish_reason": None}]}))


def typed(data):
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def anthropic_event(i):
    if i == 0:
        return typed({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                                                           "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1}}})
    if i == 1:
        return typed({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    return typed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS}})


def gemini_event(i):
    return event({"candidates": [{"content": {"parts": [{"text": WORDS}], "role": "model"}, "index": 0}], "modelVersion": "m-1"})


def settled(p, answer=None):
    """The log's line, when what was spent is about the budget: a look each 512 bytes or so."""
    line = p.request_line(answer) if answer else p.wait_log(lambda l: l["msg"] == "request")
    assert line["status"] == 200 and line["soft_stop"] is True and line["usage_estimated"] is True and not line["error"]
    spent = json.loads(p.admin("/clients")[1])["clients"][0]["budget"]["spent_usd"]
    assert 60 <= spent <= 120 and line["output_tokens"] == spent
    return line


def test_openais(start, upstreams):
    up = upstreams()
    up.on("m", OPENAI)
    p = start(config(up))
    a = mine(p, chat("m", stream=True))
    events = data_of(a)
    assert events[-1] == b"[DONE]" and events[-2]["usage"]["completion_tokens"] >= 60 and events[-2]["choices"] == []
    end = events[-3]
    assert end == {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m",
                   "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    assert all(e["choices"][0]["delta"]["content"] == WORDS for e in events[:-3])
    settled(p, a)
    assert up.seen("m")[0].finished.wait(10) and up.gave < MOST            # the upstream is left
    refused = mine(p, chat("m"))
    assert refused.status == 429 and json.loads(refused.body)["error"]["code"] == "insufficient_quota"


def test_sdks(start, upstreams):
    up = upstreams()
    up.on("m", OPENAI)
    p = start(config(up))
    sdk = openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key=KEY, max_retries=0)
    chunks = list(sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True))
    assert chunks[-1].choices[0].finish_reason == "length" and all(c.choices for c in chunks)      # usage was not asked for
    settled(p)


def test_completions(start, upstreams):
    up = upstreams()
    up.on("m", COMPLETIONS)
    p = start(config(up))
    a = mine(p, {"model": "m", "prompt": "Hi", "stream": True}, path="/v1/completions")
    events = data_of(a)
    assert events[-1] == b"[DONE]" and events[-2]["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    assert events[-2]["object"] == "text_completion"
    settled(p, a)


def test_anthropics(start, upstreams):
    up = upstreams()
    up.on("m", told_until_left(anthropic_event))
    p = start(config(up, type="anthropic"))
    sdk = anthropic.Anthropic(base_url=f"http://127.0.0.1:{p.port}", api_key=KEY, max_retries=0)
    with sdk.messages.stream(model="m", max_tokens=100000, messages=[{"role": "user", "content": "Hi"}]) as stream:
        kinds = [e.type for e in stream]
        message = stream.get_final_message()
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens >= 60 and message.content[0].text.startswith(WORDS)
    assert "content_block_stop" in kinds and kinds[-1] == "message_stop"
    settled(p)


@pytest.mark.parametrize("alt", ["?alt=sse", ""])
def test_geminis(start, upstreams, alt):
    up = upstreams()
    up.default = told_until_left(gemini_event)
    p = start(config(up, type="gemini"))
    a = mine(p, {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}, path=f"/v1beta/models/m:streamGenerateContent{alt}")
    events = data_of(a) if alt else json.loads(a.body)
    assert events[-1]["candidates"][0]["finishReason"] == "MAX_TOKENS" and events[-1]["usageMetadata"]["candidatesTokenCount"] >= 60
    assert all("finishReason" not in e["candidates"][0] for e in events[:-1])
    settled(p, a)


def test_geminis_sdk(start, upstreams):
    up = upstreams()
    up.default = told_until_left(gemini_event)
    p = start(config(up, type="gemini"))
    sdk = genai.Client(api_key=KEY, http_options={"base_url": f"http://127.0.0.1:{p.port}"})
    chunks = list(sdk.models.generate_content_stream(model="m", contents="Hi"))
    assert chunks[-1].candidates[0].finish_reason.name == "MAX_TOKENS"
    settled(p)


def test_translated_and_hooked(start, upstreams):
    """Claude's stream for a client of OpenAI's, through an event hook: it ends in the client's dialect."""
    up = upstreams()
    up.on("m", told_until_left(anthropic_event))
    p = start(config(up, type="anthropic", policies={"always": ["louder"]}),
              policies={"louder.lua": 'return { name = "louder", api = 1, event = function(req, ev) return { data = (ev.data:gsub("words", "WORDS")) } end }'})
    a = mine(p, chat("m", stream=True))
    events = data_of(a)
    assert events[-1] == b"[DONE]" and events[-3]["choices"][0]["finish_reason"] == "length" and "WORDS" in a.body.decode()
    settled(p, a)


def test_what_was_spent_before_counts(start, upstreams):
    up = upstreams()
    up.on("long", OPENAI)
    up.on("short", lambda ex: ex.reply({**CHAT, "usage": {"prompt_tokens": 1, "completion_tokens": 59, "total_tokens": 60}}))
    p = start(config(up))
    p.request_line(mine(p, chat("short")))
    a = mine(p, chat("long", stream=True))
    assert b'"finish_reason":"length"' in a.body and len(data_of(a)) < 12        # at the first look
    assert p.request_line(a)["soft_stop"] is True


@pytest.mark.parametrize("what", ["hard", "two", "kept", "responses", "whole"])
def test_what_is_not_stopped(start, upstreams, what):
    up = upstreams()
    few = told_until_left(lambda i: event(delta(WORDS)), [event(delta(None, "stop")), b"data: [DONE]\n\n"], most=100)
    item = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0, "delta": WORDS}
    up.on("m", told_until_left(lambda i: typed(item), most=100) if what == "responses" else few)
    if what == "whole":
        up.on("m", lambda ex: ex.reply({**CHAT, "usage": {"prompt_tokens": 1, "completion_tokens": 500, "total_tokens": 501}}))
    p = start(config(up, soft=what != "hard", **({"caching": {"enabled": True}} if what == "kept" else {})))
    if what == "responses":
        a = mine(p, {"model": "m", "input": "Hi", "stream": True}, path="/v1/responses")
    else:
        a = mine(p, chat("m", stream=what != "whole", **({"n": 2} if what == "two" else {})))
    assert a.status == 200 and b"length" not in a.body and (what == "whole" or up.gave == 100)
    assert p.request_line(a)["soft_stop"] is None
    assert mine(p, chat("m")).status == 429


def test_many_at_once(start, upstreams):
    """Each stops by itself, whoever reads slowly or leaves; nothing stays open."""
    up, all_here = upstreams(), threading.Event()

    def script(ex):
        all_here.wait(20)       # who comes when the budget is spent is refused
        OPENAI(ex)
    up.on("m", script)
    p = start(config(up, usd=300))
    body = request(body=json.dumps(chat("m", stream=True)).encode(), headers=[("authorization", f"Bearer {KEY}")])
    conns = [Raw(p.port, timeout=20 * p.slow) for _ in range(20)]
    for c in conns:
        c.send(body)
    up.wait(lambda s: len(s.exchanges) == 20)
    all_here.set()
    for i, c in enumerate(conns):
        if i % 5 == 4:
            c.close()
        else:
            assert c.response().body.endswith(b"data: [DONE]\n\n")
            c.close()
    eventually(lambda: p.metric("openclaw_requests_in_flight") == 0, timeout=10 * p.slow)
