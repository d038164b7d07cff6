"""Recorded provider traffic, which is not part of this tree: CLAW_SHARED names the folder that holds fixtures/ (default: ../shared
beside the repository, or beside a folder it lies in)."""
import json
import os
import pathlib

from proxy import ROOT

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "upgrade", "te", "trailer", "proxy-authenticate"}
# An api's dialect, and the path its clients call.
APIS = {"chat": "chat", "responses": "responses", "messages": "messages", "rawPredict": "messages", "generateContent": "gemini", "streamGenerateContent": "gemini"}
# Claude at Vertex answers as Anthropic does; who has no type of its own is reached as OpenAI is.
TYPES = {"rawPredict": "anthropic", "cerebras": "openai"}


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
        # Google's and Ollama's OpenAI-compatible endpoints are other base URLs of the same types
        self.upstream = self.type + ("-compatible" if self.type in ("gemini", "ollama") and self.dialect == "chat" else "")
        self.streams = self.meta["streaming"] or self.api == "streamGenerateContent"

    def __repr__(self):
        return self.name

    @property
    def request(self):
        return (self.path / "request.json").read_bytes()

    @property
    def model(self):
        return self.meta["model"]

    @property
    def answer_file(self):
        return next(self.path.glob("response.[jstn]*"))

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
            out = [(n, v) for n, v in out if n.lower() != "content-type"]
        if not any(n.lower() == "content-type" for n, _ in out):     # some recorders kept no headers
            kind = {".sse": "text/event-stream", ".json": "application/json"}.get(self.answer_file.suffix, "text/plain")
            out.append(("content-type", "text/event-stream" if streams else kind))
        return out

    def script(self, ex, cuts=None):
        """Answers as it was recorded; cuts, a random.Random: in odd chunks."""
        streams = self.status == 200 and self.streams
        body = self.events_body if ex.request.target.endswith("alt=sse") else self.body
        array = body.lstrip()[:1] == b"["
        headers = self.headers(streams and not array)
        if not cuts:
            ex.head(self.status, [*headers, ("content-length", str(len(body)))])
            return ex.send(body)
        ex.head(self.status, [*headers, ("transfer-encoding", "chunked")])
        while body:
            n = cuts.randint(1, 97)
            ex.chunk(body[:n])
            body = body[n:]
        ex.end()


def cases():
    """All of a chat protocol's."""
    at = folder()
    found = [Case(p.parent) for p in sorted(at.glob("*/*/meta.json"))] if at else []
    return [c for c in found if c.dialect and c.meta["method"] == "POST" and c.meta["provider"] not in ("cohere", "bedrock")]
