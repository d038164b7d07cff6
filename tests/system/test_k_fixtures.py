"""K: recorded provider traffic of the OpenAI protocol, replayed: byte for byte in both directions.

Without the recordings (see recorded.py) these tests skip.
"""
import json
import random

import pytest

import dialects
import recorded
from client import Raw, request
from proxy import Proxy
from upstream import Upstream

FOLDER = recorded.folder()
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings", "responses": "/v1/responses"}
OWN_PROTOCOL = {"anthropic", "bedrock", "cohere", "vertex"}    # what they call chat or embeddings is another protocol


def cases():
    for path in sorted(FOLDER.glob("*/*/meta.json")) if FOLDER else []:
        meta = json.loads(path.read_text())
        if meta["api"] not in PATHS or meta["method"] != "POST" or meta["provider"] in OWN_PROTOCOL:
            continue
        if meta["case"] == "gemini/embeddings":
            continue
        yield path.parent, meta


CASES = list(cases())
if not CASES:
    CASES = [pytest.param(None, None, marks=pytest.mark.skip(reason="no recordings: set CLAW_SHARED"), id="no-recordings")]


@pytest.fixture(scope="module")
def replay():
    up = Upstream()
    p = Proxy({"upstreams": {"u": {"type": "openai", "api_key": "sk-replayed-123", "base_url": up.url("/prefix/v9")}},
               "routes": [{"id": "r", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["u"]}}], "retry": {"attempts": 1}})
    p.up = up
    yield p
    p.stop()
    up.stop()


def answer_script(folder, meta, cuts):
    headers = [(n, v) for n, v in json.loads((folder / "response_headers.json").read_text()).items() if n.lower() not in recorded.HOP]
    file = next(folder.glob("response.[jst]*"))
    body = file.read_bytes()
    if not any(n.lower() == "content-type" for n, _ in headers):     # some recorders kept no headers
        headers.append(("content-type", {".sse": "text/event-stream", ".json": "application/json"}.get(file.suffix, "text/plain")))

    def script(ex):
        if not cuts:
            ex.head(meta["status"], [*headers, ("content-length", str(len(body)))])
            return ex.send(body)
        ex.head(meta["status"], [*headers, ("transfer-encoding", "chunked")])
        rest = body
        while rest:
            n = cuts.randint(1, 97)
            ex.chunk(rest[:n])
            rest = rest[n:]
        ex.end()
    return script, headers, body


def usage_in(body):
    """The token counts a reader of the recording finds (the last usage object that has any)."""
    found = None
    pieces = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:")] or [body]
    for piece in pieces:
        try:
            value = json.loads(piece)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        usage = value.get("usage") or (value.get("response") or {}).get("usage") or (value.get("x_groq") or {}).get("usage")
        if usage:
            found = usage
    return found


USAGE_WANTED = b'"stream_options":{"include_usage":true},'


def asks_for_usage(body):
    """Who streams chat without a word on usage is still billed: the proxy asks in the client's place."""
    return body.get("stream") is True and "messages" in body and "stream_options" not in body


@pytest.mark.parametrize("folder,meta", CASES, ids=lambda v: v["case"] if isinstance(v, dict) else "")
@pytest.mark.parametrize("framing", ["length", "odd chunks"])
def test_replay(replay, folder, meta, framing):
    sent = (folder / "request.json").read_bytes()
    script, headers, body = answer_script(folder, meta, random.Random(meta["case"]) if framing == "odd chunks" else None)
    replay.up.default = script
    mark = replay.up.mark()
    with Raw(replay.port) as c:
        answer = c.send(request(path=PATHS[meta["api"]], body=sent)).response()
    got = [e.request for e in replay.up.since(mark)]
    asked = asks_for_usage(json.loads(sent))
    assert len(got) == 1 and bytes(got[0].body) == (b"{" + USAGE_WANTED + sent[1:] if asked else sent)
    assert got[0].target == "/prefix/v9" + PATHS[meta["api"]][3:]
    first_is_error = meta["status"] == 200 and answer.status >= 500
    if first_is_error:
        # an error at the head of a 200 stream is held like a status; nobody else is there to answer
        first = next(l for l in body.split(b"\n") if l.startswith(b"data:"))
        assert b'"error"' in first
        return
    assert answer.status == meta["status"] and answer.body == body and answer.complete
    for name, value in headers:
        assert value in answer.all(name) or name.lower() in ("server", "date", "alt-svc"), f"{name} was lost"
    line = replay.request_line(answer)
    assert line["status"] == meta["status"] and line["stream"] == (json.loads(sent).get("stream") is True)
    usage = usage_in(body) if meta["status"] == 200 else None
    if usage:
        wanted = dialects.usage_of(usage)
        assert line["input_tokens"] == wanted["input"]
        if "completion_tokens" in usage or "output_tokens" in usage:
            assert line["output_tokens"] == wanted["output"]


@pytest.mark.skipif(not FOLDER, reason="no recordings: set CLAW_SHARED")
def test_a_recorded_stream_byte_by_byte(replay):
    folder = FOLDER / "openai/chat-stream-usage-2"
    body = (folder / "response.sse").read_bytes()

    def script(ex):
        ex.stream_head()
        for i in range(len(body)):
            ex.send(b"1\r\n" + body[i:i + 1] + b"\r\n")
        ex.end()
    replay.up.default = script
    with Raw(replay.port) as c:
        assert c.send(request(body=(folder / "request.json").read_bytes())).response().body == body
