"""X: answers that fail after they said something, by each way an upstream has to say so: the official SDKs of every dialect raise,
and no stream ends as if the answer were whole."""
import json

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors

from client import Raw, request
from conftest import UPSTREAM_KEY
from proxy import SLOW, Proxy
from upstream import Upstream, delta, event

HI = [{"role": "user", "content": "Hi"}]


def named(kind, data):
    return f"event: {kind}\n".encode() + event({"type": kind, **data})


def line(data):
    return json.dumps(data).encode() + b"\n"


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None, "stop_sequence": None,
           "usage": {"input_tokens": 1, "output_tokens": 1}}
SAID = {
    "chat": [event(delta("Half"))],
    "messages": [named("message_start", {"message": MESSAGE}), named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
                 named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Half"}})],
    "gemini": [event({"candidates": [{"content": {"role": "model", "parts": [{"text": "Half"}]}, "index": 0}]})],
    "responses": [named("response.created", {"response": {"id": "resp_1", "model": "m", "status": "in_progress", "output": []}}),
                  named("response.output_item.added", {"output_index": 0, "item": {"type": "message", "id": "msg_1", "role": "assistant", "content": []}}),
                  named("response.content_part.added", {"output_index": 0, "content_index": 0, "item_id": "msg_1", "part": {"type": "output_text", "text": ""}}),
                  named("response.output_text.delta", {"output_index": 0, "content_index": 0, "item_id": "msg_1", "delta": "Half"})],
    "cohere": [event({"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}}),
               event({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
               event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Half"}}}})],
    "ollama": [line({"model": "m", "message": {"role": "assistant", "content": "Half"}, "done": False})],
}
# By upstream and how it fails: what it sends behind that.
FAILS = {
    ("chat", "error"): event({"error": {"message": "it broke", "type": "server_error"}}),
    ("chat", "finish"): event({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}) + b"data: [DONE]\n\n",
    ("messages", "error"): named("error", {"error": {"type": "overloaded_error", "message": "it broke"}}),
    ("gemini", "error"): event({"error": {"code": 503, "status": "UNAVAILABLE", "message": "it broke"}}),
    ("gemini", "finish"): event({"candidates": [{"index": 0, "finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "it broke"}]}),
    ("responses", "error"): named("error", {"code": "server_error", "message": "it broke", "param": None, "sequence_number": 5}),
    ("responses", "finish"): named("response.failed", {"response": {"id": "resp_1", "status": "failed", "error": {"code": "server_error", "message": "it broke"}, "output": []}}),
    ("cohere", "finish"): event({"type": "message-end", "id": "c", "delta": {"finish_reason": "ERROR", "error": "it broke"}}),
    ("ollama", "error"): line({"error": "it broke"}),
    **{(u, "cut"): b"" for u in SAID},
}
TYPES = {"chat": "nvidia", "messages": "anthropic", "gemini": "gemini", "responses": "openai", "cohere": "cohere", "ollama": "ollama"}


@pytest.fixture(scope="module")
def broken():
    up = Upstream()
    p = Proxy({
        "upstreams": {n: {"type": t, "api_key": UPSTREAM_KEY, "base_url": up.url("/v1beta" if n == "gemini" else ""),
                          **({"protocols": ["openai_responses"]} if n == "responses" else {"protocols": ["ollama_chat"]} if n == "ollama" else {})}
                      for n, t in TYPES.items()},
        "routes": [{"id": n, "match": {"path": "*", "headers": {"x-to": n}}, "strategy": {"type": "failover", "upstreams": [n]}} for n in TYPES],
        "retry": {"attempts": 1},
    })
    p.up = up
    yield p
    p.stop()
    up.stop()


def chat(p, headers):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        for c in sdk.chat.completions.create(model="m", messages=HI, stream=True):
            yield "".join(x.delta.content or "" for x in c.choices)
            assert not any(x.finish_reason for x in c.choices)


def responses(p, headers):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        for e in sdk.responses.create(model="m", input="Hi", stream=True):
            yield e.delta if e.type == "response.output_text.delta" else ""
            assert e.type not in ("response.completed", "response.incomplete")


def messages(p, headers):
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{p.port}", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        with sdk.messages.stream(model="m", max_tokens=50, messages=HI) as stream:
            for e in stream:
                yield e.text if e.type == "text" else ""
                assert e.type not in ("message_delta", "message_stop")


def gemini(p, headers):
    with genai.Client(api_key="k", http_options={"base_url": f"http://127.0.0.1:{p.port}", "headers": headers, "timeout": int(15000 * SLOW)}) as sdk:
        for a in sdk.models.generate_content_stream(model="m", contents="Hi"):
            yield a.text or ""
            assert not any(c.finish_reason for c in a.candidates or [])


def ollama_(p, headers):
    for a in ollama.Client(f"http://127.0.0.1:{p.port}", headers=headers, timeout=15 * SLOW).chat("m", HI, stream=True):
        yield a.message.content
        assert not a.done


CLIENTS = {"chat": (chat, openai.APIError), "responses": (responses, openai.APIError), "messages": (messages, anthropic.APIStatusError),
           "gemini": (gemini, genai_errors.APIError), "ollama": (ollama_, ollama.ResponseError)}
RUNS = [pytest.param(c, u, how, id=f"{c}-{u}-{how}") for c in CLIENTS for u, how in FAILS if c != u]


@pytest.mark.parametrize("client,upstream,how", RUNS)
def test_a_stream_that_fails_raises(broken, client, upstream, how):
    script = SAID[upstream] + ([FAILS[upstream, how]] if FAILS[upstream, how] else [])
    kind = "application/x-ndjson" if upstream == "ollama" else "text/event-stream"

    def tell(ex):
        ex.head(200, [("content-type", kind), ("transfer-encoding", "chunked")])
        for one in script:
            ex.chunk(one)
        ex.end()
    broken.up.default = tell
    run, error = CLIENTS[client]
    said = []
    with pytest.raises(error) as e:
        said.extend(run(broken, {"x-to": upstream}))
    if how != "cut" and (upstream, how) != ("chat", "finish"):
        assert "it broke" in str(e.value)


WHOLE = {
    "chat": {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Half"}, "finish_reason": "error"}]},
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Half"}]}, "finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}]},
    "responses": {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "it broke"},
                  "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Half"}]}]},
}


@pytest.mark.parametrize("client,upstream", [(c, u) for c in CLIENTS for u in WHOLE if c != u])
def test_a_whole_answer_that_failed_is_an_error(broken, client, upstream):
    broken.up.default = lambda ex: ex.reply(WHOLE[upstream])
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages", "gemini": "/v1beta/models/m:generateContent",
            "ollama": "/api/chat"}[client]
    body = {"contents": [{"parts": [{"text": "Hi"}]}]} if client == "gemini" else {"model": "m", "input": "Hi"} if client == "responses" \
        else {"model": "m", "messages": HI, **({"stream": False} if client == "ollama" else {"max_tokens": 50})}
    with Raw(broken.port) as c:
        answer = c.send(request("POST", path, body=json.dumps(body).encode(), headers=[("x-to", upstream)])).response()
    error = answer.json()["error"]
    assert answer.status in (500, 502) and (error if client == "ollama" else error["message"]), answer.body
