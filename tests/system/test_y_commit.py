"""Y: when a stream is committed: its state is shown, a policy may have more of it held, and nothing brings one back from there."""
import json
import threading

import pytest

from client import Raw, ask, chat, data_of, eventually, request
from upstream import delta, event
from wire import Cut

DONE = b"data: [DONE]\n\n"
WORDS = [f"word{i} " for i in range(20)]
CALL = event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                           "finish_reason": None}]})
POLICY = """return { name = "late", api = 1,
    request = function(req) req.upstream.commit = %s end,
    retry = function(req, attempt) return { next = true } end,
    log = function(req) return { seen = req.stream_state, tries = #req.attempts } end }"""


def said(words):
    return [event(delta(w)) for w in words]


def going(words, go):
    """Says the words, waits, and says how it goes on by what `go` returns."""
    def script(ex):
        ex.stream_head()
        for e in said(words):
            ex.chunk(e)
        go(ex)
    return script


def whole(words):
    return lambda ex: ex.stream([*said(words), event(delta(None, "stop")), DONE])


def served(start, upstreams, first, second, commit, types=("openai", "openai"), caching=None):
    a, b = upstreams(), upstreams()
    a.default, b.default = first, second
    p = start({**({"caching": caching} if caching else {}), "upstreams": {n: {"type": t, "api_key": "sk-up", "base_url": up.url("" if t == "gemini" else "/v1"), "cooling": False}
                             for n, t, up in (("a", types[0], a), ("b", types[1], b))},
               "retry": {"attempts": 3, "backoff_ms": 1}, "policies": {"always": ["late"]},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["a", "b"]}}]}, policies={"late.lua": POLICY % commit})
    p.a, p.b = a, b
    return p


def text_of(answer):
    return "".join(c["delta"].get("content") or "" for e in data_of(answer) if e != b"[DONE]" for c in e["choices"])


@pytest.mark.parametrize("commit, words", [("40", 5), ('"token"', 0)])
def test_one_that_dies_while_it_is_held_was_never_there(start, upstreams, commit, words):
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})

    def dies(ex):
        ex.stream_head()
        for e in [role, *said(["lost! "] * words)]:
            ex.chunk(e)
        ex.close()
    p = served(start, upstreams, dies, whole(WORDS), commit)
    answer = ask(p, chat("m", stream=True))
    assert answer.status == 200 and text_of(answer) == "".join(WORDS) and answer.get("x-openclaw-upstream") == "b"
    line = p.request_line(answer)
    assert (line["seen"], line["tries"]) == ("done", 2)


@pytest.mark.parametrize("path, types, text", [("/api/chat", ("openai", "openai"), "message"), ("/v1/messages", ("openai", "openai"), "delta"),
                                               ("/v1beta/models/m:streamGenerateContent", ("openai", "openai"), "candidates")])
def test_translated_streams_are_held_too(start, upstreams, path, types, text):
    p = served(start, upstreams, going(["lost! "] * 5, lambda ex: ex.close()), whole(WORDS), "40", types)
    answer = ask(p, json.dumps({"model": "m", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}],
                                "contents": [{"role": "user", "parts": [{"text": "hi"}]}]}).encode() if "v1beta" not in path else
                 json.dumps({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}).encode(), path=path)
    assert answer.status == 200 and b"lost!" not in answer.body, answer.body
    assert all(w.encode() in answer.body for w in WORDS) and text.encode() in answer.body


def test_nothing_brings_one_back_behind_the_commit(start, upstreams):
    p = served(start, upstreams, going(WORDS, lambda ex: ex.close()), whole(WORDS), "40")
    with Raw(p.port) as c, pytest.raises(Cut) as cut:
        c.send(request(body=chat("m", stream=True))).response()
    assert cut.value.part.body.startswith(b"".join(said(WORDS))) and b'"code":"eof"' in cut.value.part.body
    assert p.b.mark() == 0
    assert p.wait_log(lambda line: line.get("seen"))["tries"] == 1


def test_its_state_is_shown_while_it_is_under_way(start, upstreams):
    steps = [threading.Event() for _ in range(3)]

    def goes_on(ex):
        for step, e in zip(steps, ([event(delta("x" * 40))], [CALL], [event(delta(None, "tool_calls")), DONE])):
            assert step.wait(60)
            for one in e:
                ex.chunk(one)
        ex.end()
    p = served(start, upstreams, going(["a few "], goes_on), whole(WORDS), "40")

    def state():
        shown = json.loads(p.admin("/requests/inflight")[1])["requests"]
        return shown and shown[0].get("stream_state")
    with Raw(p.port, timeout=20 * p.slow) as c:
        c.send(request(body=chat("m", stream=True, tools=[{"type": "function", "function": {"name": "f"}}])))
        for step, name in zip(steps, ("held", "committed", "tool_emitted")):
            eventually(lambda: state() == name)
            step.set()
        assert c.response().complete


@pytest.mark.parametrize("value", ["0", "1.5", '"soon"', "65537", "true", "{}"])
def test_what_is_no_commit_is_told(start, upstreams, value):
    p = served(start, upstreams, whole(WORDS), whole(WORDS), value)
    assert ask(p, chat("m", stream=True)).status == 500
    line = p.wait_log(lambda line: "req.upstream.commit" in str(line))
    assert "policies/late.lua:2: req.upstream.commit: must be \"event\", \"token\" or a whole number of characters from 1 to 65536" in str(line.get("error_message") or line)


def test_an_event_hook_may_let_go(start, upstreams):
    """As soon as it has seen enough itself."""
    go = threading.Event()

    def goes_on(ex):
        ex.chunk(event(delta("now")))
        assert go.wait(60)
        ex.close()
    p = served(start, upstreams, going(WORDS, goes_on), whole(WORDS),
               '4000 end, event = function(req, ev) if ev.data:find("now", 1, true) then req.upstream.commit = "event" end')
    with Raw(p.port) as c:
        c.send(request(body=chat("m", stream=True)))
        m = c.head()
        while b"now" not in m.body:
            assert c.chunk(m)
        go.set()
        with pytest.raises(Cut):
            c.reader.rest(m)
    assert m.body.startswith(b"".join(said(WORDS))) and p.b.mark() == 0


def test_what_was_held_until_its_end_is_kept_whole(start, upstreams):
    """With the usage that its client did not ask for: the next one may."""
    usage = event({**delta(None), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}})
    events = [*said(["short"]), event(delta(None, "stop"))]
    p = served(start, upstreams, lambda ex: ex.stream([*events, usage, DONE]), whole(WORDS), "400", caching={"enabled": True})
    asked = [ask(p, chat("m", stream=True, temperature=0, stream_options={"include_usage": told})) for told in (False, True)]
    assert [a.body for a in asked] == [b"".join([*events, DONE]), b"".join([*events, usage, DONE])]
    assert [p.request_line(a)["cache"] for a in asked] == ["miss", "hit"]
