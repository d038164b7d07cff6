"""Recorded provider traffic, which is not part of this tree: CLAW_SHARED names the folder that holds fixtures/ (default: ../shared
beside the repository, or beside a folder it lies in)."""
import json
import os
import pathlib

from proxy import ROOT

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "upgrade", "te", "trailer", "proxy-authenticate"}
# An api's dialect, and the path its clients call.
APIS = {"chat": "chat", "responses": "responses", "messages": "messages", "rawPredict": "messages", "generateContent": "gemini", "streamGenerateContent": "gemini",
        "chat-v2": "cohere", "api-chat": "ollama", "converse": "bedrock", "converse-stream": "bedrock"}
KINDS = {".sse": "text/event-stream", ".json": "application/json", ".ndjson": "application/x-ndjson", ".bin": "application/vnd.amazon.eventstream"}
# Claude at Vertex answers as Anthropic does; who has no type of its own is reached as OpenAI is.
TYPES = {"rawPredict": "anthropic", "cerebras": "openai"}
BASES = {"azure": "", "azure-v1": "/openai/v1", "gemini": "/v1beta", "gemini-compatible": "/v1beta/openai", "vertex": "/v1/projects/p/locations/l",
         "perplexity": "", "cohere": "/v2", "ollama": "", "bedrock": ""}
# Types that speak Responses themselves: what they said as chat is told to Responses' clients by one that does not.
BOTH = {"openai", "groq", "huggingface", "openrouter", "xai", "ollama", "vllm"}
CHAT_ONLY = "chat-only"
ROUTED = "x-recorded-by"      # the header that names an upstream


def folder():
    named = os.environ.get("CLAW_SHARED")
    places = [pathlib.Path(named)] if named else [p / "shared" for p in ROOT.parents]
    return next((p / "fixtures" for p in places if (p / "fixtures/INDEX.md").exists()), None)


class Case:
    def __init__(self, path):
        self.path = path
        self.meta = json.loads((path / "meta.json").read_text())
        self.name, self.api, self.status = self.meta["case"], self.meta["api"], self.meta["status"]
        self.dialect = APIS.get(self.api)
        self.type = TYPES.get(self.api) or TYPES.get(self.meta["provider"], self.meta["provider"])
        self.streams = self.meta["streaming"] or self.api == "streamGenerateContent"

    def __repr__(self):
        return self.name

    def upstream(self, dialect):
        """The name of the upstream that answers clients of this dialect with it."""
        if dialect == "responses" and self.dialect == "chat" and self.type in BOTH:
            return CHAT_ONLY
        if self.type == "azure" and self.dialect == "responses":
            return "azure-v1"
        # Google's and Ollama's OpenAI-compatible endpoints are other base URLs of the same types
        return self.type + ("-compatible" if self.type in ("gemini", "ollama") and self.dialect == "chat" else "")

    @property
    def request(self):
        return (self.path / "request.json").read_bytes()

    @property
    def model(self):
        return self.meta["model"]

    @property
    def answer_file(self):
        return next(self.path.glob("response.[jstnb]*"))

    @property
    def body(self):
        return self.answer_file.read_bytes()

    @property
    def events_body(self):
        """The answer as a stream's events, also where an array was recorded: nobody asks for one in a client's stead."""
        body = self.body
        if self.api == "streamGenerateContent" and self.status == 200 and body.lstrip()[:1] == b"[":
            return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in json.loads(body))
        return body

    def headers(self, streams=False):
        out = [(n, v) for n, v in json.loads((self.path / "response_headers.json").read_text()).items() if n.lower() not in HOP]
        if streams:
            out = [(n, v) for n, v in out if n.lower() != "content-type"] + [("content-type", "text/event-stream")]
        if not any(n.lower() == "content-type" for n, _ in out):     # some recorders kept no headers
            out.append(("content-type", KINDS.get(self.answer_file.suffix, "text/plain")))
        return out

    def script(self, ex, cuts=None):
        """Answers as it was recorded; cuts, a random.Random: in odd chunks."""
        streams = self.status == 200 and self.streams
        body = self.events_body if ex.request.target.endswith("alt=sse") else self.body
        array = body.lstrip()[:1] == b"["
        headers = self.headers(streams and not array and self.dialect not in ("ollama", "bedrock"))
        if not cuts:
            ex.head(self.status, [*headers, ("content-length", str(len(body)))])
            return ex.send(body)
        ex.head(self.status, [*headers, ("transfer-encoding", "chunked")])
        while body:
            n = cuts.randint(1, 97)
            ex.chunk(body[:n])
            body = body[n:]
        ex.end()


def unasked(sent):
    """A request's body without what is asked for in the client's stead: usage, by some bytes behind the brace."""
    return bytes(sent).replace(b'{"stream_options":{"include_usage":true},', b"{", 1)


def config(up, key):
    """A proxy's: an upstream for each provider and a route to it, by a header."""
    names = {c.upstream(d): c.type for c in cases() for d in (c.dialect, "responses")} | {CHAT_ONLY: "nvidia"}
    return {
        "upstreams": {n: {"type": t, "api_key": key, "base_url": up.url(BASES.get(n, "/v1"))} for n, t in names.items()},
        "routes": [{"id": n, "match": {"path": "*", "headers": {ROUTED: n}}, "strategy": {"type": "failover", "upstreams": [n]}} for n in names],
        "retry": {"attempts": 1},
    }


def cases():
    """All of a chat protocol's."""
    at = folder()
    found = [Case(p.parent) for p in sorted(at.glob("*/*/meta.json"))] if at else []
    return [c for c in found if c.dialect and c.meta["method"] == "POST"]
