"""X: what providers really said, told to clients of every dialect.

Each recorded case of a chat protocol is answered by a scripted upstream of its provider, byte for byte as recorded; clients of the
other dialects ask the same. A table of dialects, providers and behaviours is printed at the end and written to
build/recorded.txt. Without the recordings (see recorded.py) these tests skip.
"""
import collections
import json
import os
import random
import subprocess
import threading
from urllib.parse import quote

import anthropic.types
import ollama
import openai.types.chat
import openai.types.responses
import pydantic
import pytest
from google.genai import types as genai_types

import dialects
import recorded
from client import Raw, request
from conftest import UPSTREAM_KEY
from proxy import ROOT, SLOW, Proxy
from upstream import Upstream

CASES = recorded.cases()
BEHAVIOURS = ["plain", "streamed", "tools", "parallel tools", "streamed tools", "tool results", "system", "multi-turn", "images", "documents",
              "thinking", "schema", "stop reasons", "errors"]

# Types of what a client gets, by the official SDKs.
WHOLE = {"chat": openai.types.chat.ChatCompletion, "responses": openai.types.responses.Response, "messages": anthropic.types.Message,
         "gemini": genai_types.GenerateContentResponse, "ollama": ollama.ChatResponse}
EVENT = {"chat": openai.types.chat.ChatCompletionChunk, "responses": openai.types.responses.ResponseStreamEvent,
         "messages": anthropic.types.RawMessageStreamEvent, "gemini": genai_types.GenerateContentResponse, "ollama": ollama.ChatResponse}
WHOLE, EVENT = ({k: pydantic.TypeAdapter(v) for k, v in kinds.items()} for kinds in (WHOLE, EVENT))

def understood(case):
    """What was asked and said, once."""
    if not hasattr(case, "said"):
        case.said = dialects.said(case.dialect, case.body) if case.status == 200 else dialects.Said(error=error_message(case.body))
        case.asked = dialects.asked(case.dialect, json.loads(case.request), case.streams) if case.dialect != "responses" else None
    return case


def error_message(body):
    try:
        e = json.loads(body)
    except ValueError:
        return None
    e = e[0] if isinstance(e, list) else e
    inner = e.get("error") if isinstance(e.get("error"), (dict, str)) else e
    return inner if isinstance(inner, str) else inner.get("message") if isinstance(inner.get("message"), str) else None


def asks(case, dialect):
    """Can clients of this dialect ask what was asked?"""
    return dialect != "ollama" or case.dialect == "ollama" or understood(case).asked is not None and dialects.ollama_says(case.asked)


# Who speaks Responses is asked in chat's words by all but its own clients; Ollama speaks chat, too.
ASKING = {"responses": ["responses"], "ollama": ["responses", "messages", "gemini", "ollama"], "cohere": [*dialects.DIALECTS, "cohere"]}
PAIRS = [pytest.param(c, d, id=f"{c.name}-{d}") for c in CASES for d in [*dialects.DIALECTS, "cohere"] if d in ASKING.get(c.dialect, dialects.DIALECTS) and asks(c, d)] \
    or [pytest.param(None, None, marks=pytest.mark.skip(reason="no recordings: set CLAW_SHARED"), id="no-recordings")]


class Table:
    """Passed and all, by dialect, provider and behaviour."""

    def __init__(self):
        self.cells = collections.defaultdict(lambda: [0, 0])
        self.owed = []         # (case, dialect, request id, usage): what the log has to say

    def add(self, dialect, case, passed):
        for b in behaviours(case):
            cell = self.cells[dialect, case.meta["provider"], b]
            cell[0] += passed
            cell[1] += 1

    def text(self):
        short = [b if len(b) < 9 else "".join(w[:5] + " " for w in b.split()).strip() for b in BEHAVIOURS]
        lines = [f"{'client':10}{'provider':13}" + "".join(f"{s:>12}" for s in short)]
        for d, p in sorted({k[:2] for k in self.cells}):
            row = [self.cells.get((d, p, b)) for b in BEHAVIOURS]
            lines.append(f"{d:10}{p:13}" + "".join(f"{'%d/%d' % tuple(c) if c else '.':>12}" for c in row))
        return "\n".join(lines) + "\n"


class Rules:
    """The specs' judge of streams, in a process of its own."""

    def __init__(self):
        env = {"LUA_PATH": f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;{ROOT}/?.lua;{ROOT}/spec/?.lua;;"}
        self.process = subprocess.Popen(["luajit", str(ROOT / "tests/system/legal.lua")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **env})
        self.lock = threading.Lock()

    def problem(self, dialect, events):
        with self.lock:
            self.process.stdin.write(json.dumps({"dialect": dialect, "events": [[k or False, d] for k, d in events]}) + "\n")
            self.process.stdin.flush()
            return self.process.stdout.readline().strip()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def replay(request):
    up = Upstream()
    p = Proxy(recorded.config(up, UPSTREAM_KEY))
    p.up, p.rules, p.table = up, Rules(), Table()
    yield p
    p.stop()
    p.rules.stop()
    up.stop()
    text = p.table.text()
    (ROOT / "build/recorded.txt").write_text(text)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + text)


def behaviours(case):
    told, asked = case.said, case.asked
    out = set()
    if case.status != 200 or told.error:
        return {"errors"}
    out.add("streamed" if case.streams else "plain")
    if told.calls:
        out.add("streamed tools" if case.streams else "tools")
        if len(told.calls) > 1:
            out.add("parallel tools")
    if told.thinking:
        out.add("thinking")
    if told.stop != "end" or asked and asked.stop:
        out.add("stop reasons")
    parts = [p[0] for _, parts in asked.turns for p in parts] if asked else []
    out |= {b for b, there in [("tool results", "result" in parts), ("images", "image" in parts), ("documents", "document" in parts),
                               ("system", asked and asked.system), ("multi-turn", asked and len(asked.turns) > 1), ("schema", asked and asked.schema)] if there}
    return out


def ask(p, case, dialect, path, body):
    script = random.Random(case.name)
    p.up.default = lambda ex: case.script(ex, script if case.status == 200 and case.streams else None)
    mark = p.up.mark()
    with Raw(p.port, timeout=10 * SLOW) as c:
        answer = c.send(request("POST", path, body=body, headers=[(recorded.ROUTED, case.upstream(dialect))])).response()
    return answer, p.up.since(mark)


def near(message, wanted):
    """The same words: providers' errors may be shortened, and what looks like a key left out."""
    return not wanted or wanted[:40].split("sk-")[0] in message


def judge_error(dialect, body, wanted):
    e = json.loads(body)
    inner = {"message": e["error"]} if dialect == "ollama" else e["error"]
    assert isinstance(inner["message"], str) and near(inner["message"], wanted), inner
    if dialect == "messages":
        assert e["type"] == "error" and isinstance(inner["type"], str), e
    elif dialect == "ollama":
        return
    elif dialect == "gemini":
        assert isinstance(inner["code"], int) and inner["status"].isupper(), e
    else:
        assert {"type", "param", "code"} <= inner.keys(), e


def judge_answer(p, case, dialect, answer):
    told = case.said
    if case.streams:
        found = dialects.events(answer.body)
        problem = p.rules.problem(dialect, found)
        assert not problem, f"{problem}\n{answer.body.decode()}"
        if not told.error:
            for _, data in found:
                if data != "[DONE]":
                    EVENT[dialect].validate_json(data)
    else:
        WHOLE[dialect].validate_json(answer.body)
    got = dialects.said(dialect, answer.body)
    assert (got.text + got.refusal) == told.text + told.refusal
    if told.error:
        assert near(got.error, told.error), got.error
        return got
    assert got.calls == told.calls and got.error is None
    assert "".join(got.thinking.split()) == "".join(told.thinking.split())      # parts of it have a gap between them where they are one text
    assert got.stop == (told.stop or "end") or told.refusal and got.stop in ("end", "filter"), (got.stop, told.stop)
    return got


def judge_usage(p, case, dialect, got, answer):
    wanted = case.said.usage
    if not wanted:
        return
    p.table.owed.append((case, dialect, answer.get("x-openclaw-request-id"), wanted))
    shown = got.usage
    if dialect == "ollama" and case.dialect != "ollama":        # its clients are told two counts
        wanted = {**wanted, "cached": 0, "reasoning": 0}
    if dialect == "gemini" and wanted["reasoning"] > wanted["output"]:      # thoughts are counted beside the answer: there is no less than none
        wanted = {**wanted, "reasoning": wanted["output"]}
    assert shown == wanted, f"the client sees {shown}, the recording says {wanted}"


def as_recorded(p, case):
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages", "cohere": "/v2/chat", "ollama": "/api/chat"}.get(case.dialect)
    if case.dialect == "gemini":
        path = f"/v1beta/models/{quote(case.model, safe='')}:{case.api}" + ("?alt=sse" if case.answer_file.suffix == ".sse" else "")
    answer, sent = ask(p, case, case.dialect, path, case.request)
    assert len(sent) == 1, answer.body
    assert recorded.unasked(sent[0].request.body) == recorded.unasked(case.request)
    if case.said.error and case.status == 200 and answer.status >= 400:
        return                      # an error at the head of a stream is held like a status
    assert answer.status == case.status and answer.complete
    if case.api == "streamGenerateContent" and not path.endswith("alt=sse") and case.status == 200:
        assert json.loads(answer.body) == json.loads(case.body)     # asked for as events, given back as the array that was asked for
    else:
        assert answer.body == case.body
    if case.status == 200 and not case.said.error:
        judge_usage(p, case, case.dialect, case.said, answer)


def translated(p, case, dialect):
    path, body = dialects.request(dialect, case.asked, case.model)
    answer, sent = ask(p, case, dialect, path, json.dumps(body).encode())
    assert len(sent) == 1, answer.body
    ours = dialects.asked(case.dialect, json.loads(sent[0].request.body), "stream" in sent[0].request.target).meaning()
    wanted = case.asked.meaning()
    dropped = answer.get("x-openclaw-dropped") or ""
    if dialect == "ollama":         # its clients cannot force a call
        wanted["choice"] = ours["choice"] = None
    if "stop" in dropped or dialect == "responses":     # Responses has no stop sequences
        wanted["stop"] = ours["stop"] = None
    assert ours == wanted, f"what was asked came as something else (dropped: {dropped})"
    if case.status != 200 or answer.status != 200:
        assert case.status != 200 or case.said.error, answer.body
        assert answer.status == case.status or case.status == 200, answer.body
        return judge_error(dialect, answer.body, case.said.error)
    got = judge_answer(p, case, dialect, answer)
    if not case.said.error:
        judge_usage(p, case, dialect, got, answer)


@pytest.mark.parametrize("case,dialect", PAIRS)
def test_recorded(replay, case, dialect):
    understood(case)
    passed = False
    try:
        if dialect == case.dialect:
            as_recorded(replay, case)
        else:
            translated(replay, case, dialect)
        passed = True
    finally:
        replay.table.add(dialect, case, passed)


@pytest.mark.skipif(not CASES, reason="no recordings: set CLAW_SHARED")
def test_the_log_and_the_metrics_have_counted_all_of_it(replay):
    """Once and behind the others: the log is written some time after an answer."""
    wrong, counted = [], collections.Counter()
    for case, dialect, rid, wanted in replay.table.owed:
        line = replay.request_line(rid)
        logged = {k: line[f"{k}_tokens"] or 0 for k in wanted}
        if logged != wanted:
            wrong.append(f"{case.name} for {dialect}: the log says {logged}, the recording {wanted}")
        counted.update({(case.upstream(dialect), k): n for k, n in wanted.items()})
    assert not wrong, "\n".join(wrong)
    kinds = {"input": "input", "cached": "cached_input", "output": "output", "reasoning": "reasoning"}
    for (upstream, kind), n in counted.items():     # streams that ended with an error have cost some, too
        replay.wait_metric("openclaw_tokens_total", lambda v, n=n: v >= n, upstream_name=upstream, **{"class": kinds[kind]})
