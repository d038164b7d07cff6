"""U: upstreams that no client speaks like: Cohere, Ollama (lines of JSON) and Bedrock (AWS's framing), for clients of OpenAI's and Anthropic's."""
import json
import struct
import zlib

import anthropic
import ollama
import openai
import pytest

from client import Raw, request
from conftest import UPSTREAM_KEY
from proxy import Proxy
from upstream import Upstream, event

HI = [{"role": "user", "content": "Hi"}]
TOOL = {"name": "weather", "description": "Weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def frame(kind, payload, name=":event-type"):
    headers = b""
    for key, value in ((name, kind), (":message-type", "exception" if "exception" in name else "event")):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return whole + struct.pack(">I", zlib.crc32(whole))


def line(**fields):
    return json.dumps({"model": "m", **fields}).encode() + b"\n"


COHERE = [event({"type": "message-start", "id": "i", "delta": {"message": {"role": "assistant"}}}),
          event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "hm"}}}}),
          event({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "let me see"}}}),
          event({"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {
              "id": "c", "type": "function", "function": {"name": "weather", "arguments": ""}}}}}),
          event({"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": '{"city": "Oslo"}'}}}}}),
          event({"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": {"tokens": {"input_tokens": 5, "output_tokens": 6}}}})]
OLLAMA = [line(message={"role": "assistant", "content": "", "thinking": "hm"}, done=False),
          line(message={"content": "let me see"}, done=False),
          line(message={"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]}, done=False),
          line(message={"content": ""}, done=True, done_reason="stop", prompt_eval_count=5, eval_count=6)]
BEDROCK = [frame("messageStart", {"role": "assistant"}),
           frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}),
           frame("contentBlockStop", {"contentBlockIndex": 0}),
           frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "let me see"}}),
           frame("contentBlockStop", {"contentBlockIndex": 1}),
           frame("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t", "name": "weather"}}}),
           frame("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"city": "Oslo"}'}}}),
           frame("contentBlockStop", {"contentBlockIndex": 2}),
           frame("messageStop", {"stopReason": "tool_use"}),
           frame("metadata", {"usage": {"inputTokens": 5, "outputTokens": 6}})]
STREAMS = {"/v2/chat": ("text/event-stream", COHERE), "/api/chat": ("application/x-ndjson", OLLAMA),
           "/model/bed/converse-stream": ("application/vnd.amazon.eventstream", BEDROCK)}
KINDS = {"coh": "cohere", "oll": "ollama", "bed": "bedrock"}
ALL = {**KINDS, "emb": "openai"}


def script(ex):
    if ex.request.target == "/v1/embeddings":
        return ex.reply({"object": "list", "model": "emb", "data": [{"index": 0, "embedding": [0.5, 1]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    kind, pieces = STREAMS[ex.request.target]
    ex.head(200, [("content-type", kind), ("transfer-encoding", "chunked")], "OK")
    for one in pieces:
        half = len(one) // 2
        ex.chunk(one[:half])
        ex.chunk(one[half:])
    ex.end()


@pytest.fixture(scope="module")
def translated():
    up = Upstream()
    up.default = script
    p = Proxy({
        "upstreams": {kind: {"type": kind, "api_key": UPSTREAM_KEY, "base_url": up.url(""), "models": [model]} for model, kind in ALL.items()},
        "routes": [{"id": "chat", "match": {"path": "*"}, "strategy": {"type": "first_available", "upstreams": list(ALL.values())}}],
    })
    p.up = up
    yield p
    p.stop()
    up.stop()


@pytest.mark.parametrize("model", KINDS)
def test_an_anthropic_client_streams_from(translated, model):
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{translated.port}", api_key="sk-of-a-client", max_retries=0,
                             timeout=15 * translated.slow) as sdk:
        with sdk.messages.stream(model=model, max_tokens=50, messages=HI, tools=[TOOL]) as stream:
            message = stream.get_final_message()
    said = {block.type: block for block in message.content}
    assert said["thinking"].thinking == "hm" and said["text"].text == "let me see"
    assert said["tool_use"].name == "weather" and said["tool_use"].input == {"city": "Oslo"}
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 5, 6)


@pytest.mark.parametrize("model", ["coh", "bed"])  # Ollama speaks as OpenAI does
def test_an_openai_client_streams_from(translated, model):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{translated.port}/v1", api_key="sk-of-a-client", max_retries=0,
                       timeout=15 * translated.slow) as sdk:
        chunks = list(sdk.chat.completions.create(model=model, messages=HI, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        calls = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices and c.choices[0].delta.tool_calls]
        assert text == "let me see" and calls[0].function.name == "weather"
        assert json.loads("".join(c.function.arguments or "" for c in calls)) == {"city": "Oslo"}
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 6)
        told = list(sdk.completions.create(model=model, prompt="Hi", stream=True))
        assert "".join(c.choices[0].text for c in told) == "let me see" and told[-1].choices[0].finish_reason == "stop"


def test_a_google_client_embeds_at(translated):
    with Raw(translated.port) as c:
        c.send(request("POST", "/v1beta/models/emb:embedContent", body=json.dumps({"content": {"parts": [{"text": "Hi"}]}}).encode()))
        answer = c.response()
    assert answer.status == 200 and answer.json() == {"embedding": {"values": [0.5, 1]}}, answer.body
    assert translated.up.seen("emb")[-1].body == {"model": "emb", "input": "Hi", "encoding_format": "float"}


@pytest.mark.parametrize("n", [1, 3])
def test_too_few_or_too_many_embeddings_are_no_answer(translated, n):
    """Each would be taken for another's."""
    data = [{"index": i, "embedding": [0.5, i]} for i in reversed(range(n))]
    translated.up.on("emb", lambda ex: ex.reply({"object": "list", "model": "emb", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}))

    def batch(texts):
        asked = {"requests": [{"model": "models/emb", "content": {"parts": [{"text": t}]}} for t in texts]}
        with Raw(translated.port) as c:
            return c.send(request("POST", "/v1beta/models/emb:batchEmbedContents", body=json.dumps(asked).encode())).response()
    answer = batch(["a", "b"])
    assert answer.status == 502 and f"{n} embeddings for 2 inputs" in answer.json()["error"]["message"], answer.body
    line = translated.request_line(answer)
    assert line["error"] == "bad_response" and line["attempts"][0]["kind"] == "bad_response", line
    answer = batch(["a", "b", "c"][:n])
    assert [e["values"][1] for e in answer.json()["embeddings"]] == list(range(n)), answer.body
    del translated.up.scripts["emb"]


def test_an_ollama_client_lists_embeds_and_hears_of_errors(translated):
    client = ollama.Client(f"http://127.0.0.1:{translated.port}", timeout=15 * translated.slow)
    assert [m.model for m in client.list().models] == list(ALL)
    got = client.embed("emb", ["Hi"])
    assert (got.embeddings, got.prompt_eval_count, got.model) == ([[0.5, 1]], 3, "emb")
    with pytest.raises(ollama.ResponseError, match="nobody") as e:
        client.chat("nobody", HI)
    assert e.value.status_code == 404
    translated.up.on("emb", lambda ex: ex.reply({"error": {"message": "too much"}}, status=429))
    with pytest.raises(ollama.ResponseError, match="too much") as e:
        client.embed("emb", "Hi")
    assert e.value.status_code == 429
    del translated.up.scripts["emb"]


@pytest.mark.parametrize("model", ["coh", "bed"])
def test_an_ollama_client_streams_from(translated, model):
    client = ollama.Client(f"http://127.0.0.1:{translated.port}", timeout=15 * translated.slow)
    tool = {"type": "function", "function": {"name": "weather", "description": "It.", "parameters": {"type": "object", "properties": {}}}}
    lines = list(client.chat(model, HI, tools=[tool], stream=True))
    assert "".join(one.message.content or "" for one in lines) == "let me see"
    calls = [c.function for one in lines for c in one.message.tool_calls or []]
    assert [(c.name, c.arguments) for c in calls] == [("weather", {"city": "Oslo"})]
    assert [one.done for one in lines].count(True) == 1 and (lines[-1].prompt_eval_count, lines[-1].eval_count) == (5, 6)
