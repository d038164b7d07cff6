"""U: what policies say to the client: an answer in an upstream's place, and fields of an answer's head."""
import json

import pytest

from client import Raw, ask, chat, data_of, eventually, request
from conftest import UPSTREAM_KEY
from proxy import Proxy, run
from upstream import Upstream, event, stream_events

ANSWERING = """
local P = { name = "answering", api = 1 }
function P.admit(req)
    local what = req.client.headers["x-answer"]
    if what == "say" then return { say = "From here." } end
    if what == "text" then return { answer = "plain\\n", status = 404, content_type = "text/x" } end
    if what == "table" then return { answer = { list = claw.json.array() } } end
    if what == "waited" then claw.time.sleep(1) return { say = "Later." } end
    if what == "bad" then return { answer = { req } } end
end
return P
"""
MARKING = """
local P = { name = "marking", api = 1 }
function P.admit(req) req.answer.headers["x-early"] = "1" end
function P.request(req) req.answer.headers["x-who"] = req.upstream.name end
function P.response(req) req.answer.headers["x-whole"] = "yes" req.answer.headers["x-theirs"] = nil end
function P.event(req)
    local state = claw.state(req)
    if req.model == "late" and state.done then req.answer.headers["x-late"] = "1" end
    if not state.done then req.answer.headers["x-streamed"] = "yes" end
    state.done = true
end
return P
"""


@pytest.fixture(scope="module")
def talking():
    up = Upstream()
    p = Proxy({
        "upstreams": {n: {"type": "openai", "api_key": UPSTREAM_KEY, "base_url": up.url(f"/{n}/v1")} for n in ("a", "b")},
        "routes": [
            {"id": "own", "match": {"path": "/own/*"}, "policies": ["answering"], "strategy": {"type": "failover", "upstreams": ["a"]}},
            {"id": "marked", "match": {"path": "/marked/*"}, "policies": ["marking"], "strategy": {"type": "failover", "upstreams": ["a", "b"]}},
            {"id": "water", "match": {"path": "/water/*"}, "policies": ["watermark_header"], "strategy": {"type": "failover", "upstreams": ["a", "b"]}},
            {"id": "chat", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["a"]}},
        ],
        "logging": {"decisions": "decisions.jsonl"},
        "policies": {"always": ["faq_answer", "first"], "settings": {
            "faq_answer": {"pairs": [{"question": "What are your opening hours?", "answer": "9 to 17."}]},
            "watermark_header": {"value": "{model} by {upstream}"}}},
    }, policies={"answering.lua": ANSWERING, "marking.lua": MARKING, "first.lua": ANSWERING.replace("x-answer", "x-first").replace('"answering"', '"first"')})
    p.up = up
    yield p
    p.stop()
    up.stop()


def said(p, text, **how):
    return ask(p, chat(messages=[{"role": "user", "content": text}], **how.pop("more", {})), **how)


def test_a_stored_answer_asks_nobody(talking):
    mark = talking.up.mark()
    answer = said(talking, "Your opening hours, please?")
    assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == "9 to 17."
    assert answer.get("x-openclaw-attempts") == "0"
    line = talking.request_line(answer)
    assert line["answered_by"] == "faq_answer" and line["status"] == 200 and line["attempts"] == [] and "error" not in line
    answer = said(talking, "Your opening hours, please?", more={"stream": True, "stream_options": {"include_usage": True}})
    assert answer.get("content-type") == "text/event-stream"
    chunks = data_of(answer)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-2]) == "9 to 17."
    assert chunks[-2]["usage"]["total_tokens"] == 0 and chunks[-1] == b"[DONE]"
    answer = said(talking, "opening hours", path="/v1/messages", more={"stream": True})
    assert data_of(answer)[0]["type"] == "message_start" and data_of(answer)[-1] == {"type": "message_stop"}
    answer = said(talking, "opening hours", path="/api/chat")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.get("content-type") == "application/x-ndjson" and [line["done"] for line in lines] == [False, True]
    assert lines[0]["message"]["content"] == "9 to 17."
    assert talking.up.since(mark) == []
    assert said(talking, "What is a proxy?").json()["choices"][0]["message"]["content"] == "Hello."
    assert talking.metric("openclaw_policy_answers_total", policy="faq_answer") >= 3


def test_answers_of_every_form_before_and_behind_the_route(talking):
    for header, path in (("x-first", "/v1/chat/completions"), ("x-answer", "/own/chat/completions")):
        with Raw(talking.port) as c: # the connection goes on behind each
            def one(what, **more):
                return c.send(request(path=path, body=json.dumps(chat(**more)).encode(), headers=[(header, what)])).response()
            answer = one("text")
            assert (answer.status, answer.get("content-type"), answer.body) == (404, "text/x", b"plain\n")
            assert one("table").body == b'{"list":[]}'
            assert one("say", stream=True).body.endswith(b"data: [DONE]\n\n")
            assert one("waited").json()["choices"][0]["message"]["content"] == "Later."
            assert one("bad").json()["error"]["code"] == "policy_error"
            assert one("none").json()["choices"][0]["message"]["content"] == "Hello."


def test_who_answered_is_recorded_explained_and_replayed(talking, tmp_path):
    answer = said(talking, "opening hours")
    recording = talking.dir / "decisions.jsonl"

    def recorded():
        return [json.loads(x) for x in recording.read_text().splitlines() if f'"{answer.get("x-openclaw-request-id")}"' in x]
    assert eventually(recorded)
    line = recorded()[0]
    assert line["answered_by"] == "faq_answer" and line["status"] == 200 and line["candidates"] == []
    (tmp_path / "q.json").write_text(json.dumps(chat(messages=[{"role": "user", "content": "opening hours"}])))
    told = run("-config", talking.config_path, "-explain", tmp_path / "q.json").stdout
    assert "admit, faq_answer: answers it: 200: 9 to 17." in told and "decision: answered by faq_answer with status 200" in told
    (tmp_path / "one.jsonl").write_text(json.dumps(line) + "\n")
    assert run("-config", talking.config_path, "-replay", tmp_path / "one.jsonl").stdout.startswith("1 decisions, 0 routes changed, 0 first candidates changed, 0 refusals")
    line["body"]["messages"][0]["content"] = "something else"
    (tmp_path / "one.jsonl").write_text(json.dumps(line) + "\n")
    assert "line 1: answered 200 faq_answer -> no\n" in run("-config", talking.config_path, "-replay", tmp_path / "one.jsonl").stdout


def test_fields_of_the_head_plain_streamed_and_failed_over(talking):
    talking.up.on("second", lambda ex: ex.reply({}, 503) if ex.request.target.startswith("/a/") else ex.reply(headers=[("x-theirs", "1")]))
    talking.up.on("broken", lambda ex: ex.reply({}, 400))
    answer = ask(talking, chat("second"), path="/marked/chat/completions")
    assert [answer.get(f"x-{n}") for n in ("early", "who", "whole", "theirs", "streamed")] == ["1", "b", "yes", None, None]
    answer = ask(talking, chat(stream=True), path="/marked/chat/completions")
    assert [answer.get(f"x-{n}") for n in ("early", "who", "whole", "streamed")] == ["1", "a", None, "yes"]
    assert answer.body == b"".join(stream_events())
    answer = ask(talking, chat("broken"), path="/marked/chat/completions")
    assert answer.status == 400 and answer.get("x-early") == "1" and answer.get("x-whole") is None


def test_too_late_for_the_head(talking):
    talking.up.on("late", lambda ex: ex.stream([event({"n": 1}), event({"n": 2}), b"data: [DONE]\n\n"]))
    with Raw(talking.port) as c:
        m = c.send(request(path="/marked/chat/completions", body=json.dumps(chat("late", stream=True)).encode())).head()
        how, rest = c.ended()
        assert m.status == 200 and m.get("x-streamed") == "yes" and b"policy_error" in rest
    talking.wait_log(lambda entry: entry.get("msg") == "a policy failed" and "the answer's head has left" in entry["error"])


def test_watermark(talking):
    answer = ask(talking, chat("m"), path="/water/chat/completions")
    assert answer.get("x-ai-generated") == "m by a" and answer.json()["choices"][0]["message"]["content"] == "Hello."
    answer = ask(talking, chat("m", stream=True), path="/water/chat/completions")
    assert answer.get("x-ai-generated") == "m by a" and answer.body == b"".join(stream_events())
    answer = ask(talking, chat("we\r\nird"), path="/water/chat/completions")
    assert answer.get("x-ai-generated") == "we??ird by a"
    assert ask(talking, chat("broken"), path="/water/chat/completions").get("x-ai-generated") is None
