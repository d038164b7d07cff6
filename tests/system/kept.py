"""What tests of answers that are kept, or shared while they come, ask of a proxy and read from its answers."""
import json

from client import ask, data_of

ALL = {"enabled": True}
CLIENTS = [{"name": n, "key": f"key-of-{n}-0123456789"} for n in ("ann", "bob", "cid")]


def config(up, caching=ALL, **more):
    c = {"server": {"workers": 4},
         "upstreams": {"u": {"type": "openai", "api_key": "sk-up", "base_url": up.url(), "cost_per_million_input_tokens": 1000000,
                             "cost_per_million_output_tokens": 0}},
         "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}], "retry": {"attempts": 1}, "caching": caching, **more}
    return c


def words(p, *bodies, **how):
    return [ask(p, b, **how).get("x-openclaw-cache") for b in bodies]


def key_of(name):
    return [("authorization", f"Bearer key-of-{name}-0123456789")]


def text_of(answer):
    """The text of a chat completion, streamed or not."""
    if answer.get("content-type").startswith("text/event-stream"):
        chunks = [e for e in data_of(answer) if e != b"[DONE]"]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    return json.loads(answer.body)["choices"][0]["message"]["content"]
