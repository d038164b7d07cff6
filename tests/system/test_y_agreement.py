"""Y: logs, ledger, metrics, the admin port and the upstreams' own counts agree, to the request, the token and the micro-dollar.

No figure may be rounded twice: a request's price is rounded once, to the micro-dollar, and all sums are sums of these."""
import collections
import csv
import io
import json
import os
import re
import threading
import time
from decimal import Decimal
from random import Random

import pytest

from client import Raw, chat, eventually, in_parallel, request
from upstream import CHAT, delta, event
from wire import Closed, Cut

SECONDS = float(os.environ.get("CLAW_AGREE_SECONDS", "5"))
KEYS = {name: f"sk-agreement-of-{name}-31c8" for name in ("ann", "bob", "poor")}
# Pico-dollars for each token, input and output; micro-dollars for each request.
PRICES = {"first": (370_001, 1_130_003, 0), "second": (777_777, 3_333_333, 3), "claude": (1_234_567, 7_654_321, 0), "narrow": (500_000, 500_000, 0)}
SAY = "return { name = 'faq', api = 1, admit = function(req) if req.model == 'gpt-said' then return { say = 'As always: yes.' } end end }"


def micros(text):
    """USD as they are written, exactly."""
    n = Decimal(str(text)) * 1_000_000
    assert n == int(n), f"{text} is no whole number of micro-dollars"
    return int(n)


def charge(line):
    """What a log line's tokens cost, by integers: one rounding, half up."""
    i, o, per_request = PRICES[line["upstream"]]
    return ((line["input_tokens"] or 0) * i + (line["output_tokens"] or 0) * o + 500_000) // 1_000_000 + per_request


def config(ups):
    def one(name, kind, up, models):
        i, o, per_request = PRICES[name]
        return {"type": kind, "api_key": "sk-up", "base_url": up.url(), "models": models, "cost_per_million_input_tokens": i / 1e6,
                "cost_per_million_output_tokens": o / 1e6, "cost_per_request": per_request / 1e6}
    return {"server": {"workers": 4}, "admin": {"recent_requests": 2000}, "state": {"path": "spend.db"}, "caching": {"enabled": True}, "retry": {"attempts": 3, "backoff_ms": 1},
            "clients": [{"name": n, "key": k, **({"budget": {"usd": 0.0004, "per": "total"}} if n == "poor" else {})} for n, k in KEYS.items()],
            "upstreams": {"first": one("first", "openai", ups["first"], ["gpt*"]), "second": one("second", "openai", ups["second"], ["gpt*"]),
                          "narrow": one("narrow", "openai", ups["narrow"], ["gpt-narrow"]),
                          "claude": one("claude", "anthropic", ups["claude"], ["claude*"])},
            "rate_limits": [{"id": "narrow", "match": {"upstream_name": "narrow"}, "requests_per_hour": 1, "burst": 0}],
            "routes": [{"id": "narrow", "match": {"json_body": {"model": "gpt-narrow"}}, "strategy": {"type": "failover", "upstreams": ["narrow"]}},
                       {"id": "gpt", "match": {"json_body": {"model": ["gpt-a", "gpt-b", "gpt-said"]}}, "strategy": {"type": "failover", "upstreams": ["first", "second"]}},
                       {"id": "claude", "match": {"json_body": {"model": "claude-1"}}, "strategy": {"type": "failover", "upstreams": ["claude"]}}]}


class Teller:
    """A script of an upstream, and its books: calls, and the tokens of each answer it told in whole."""

    arrived, door = collections.defaultdict(threading.Event), threading.Lock()      # at whichever upstream it is

    def __init__(self, name):
        self.name, self.lock, self.random = name, threading.Lock(), Random(name)
        self.calls = self.input = self.output = 0
        self.begun = collections.Counter()      # input tokens of streams that began, as far as these tell them then

    def __call__(self, ex):
        text = json.dumps(ex.body)
        word = next((w for w in ("fails-429", "fails-500", "no-usage", "is-cut", "leaves-early", "leaves-late") if w in text), "")
        with self.lock:
            self.calls += 1
            i, o = self.random.randrange(1, 5000), self.random.randrange(1, 900)
            fails = word.startswith("fails") and (self.name == "first" or self.random.random() < 0.3)
        if fails:
            return ex.reply({"error": {"message": "Not now."}}, status=int(word[6:]))
        if word == "leaves-early":
            self.arrival(re.search(r"leaves-early \d+ \d+", text)[0]).set()
            ex.until_gone()
        if "shared" in text:
            ex.left.wait(0.03)                  # a slow answer: others ask the same meanwhile
        usage = word != "no-usage"
        if ex.body.get("stream"):
            events = (self.claude_events if self.name == "claude" else self.events)(i, o, usage)
            ex.stream_head()
            with self.lock:
                self.begun[i] += usage
            for n, one in enumerate(events):
                if n == 3 and word == "is-cut":
                    return ex.reset()
                if n == 3 and word == "leaves-late":
                    ex.until_gone()
                if n == len(events) - 1:
                    self.told(i, o, usage)
                ex.chunk(one)
            return ex.end()
        body = {"id": "msg_1", "type": "message", "role": "assistant", "model": ex.model, "stop_reason": "end_turn", "stop_sequence": None,
                "content": [{"type": "text", "text": "Hello, world."}], "usage": {"input_tokens": i, "output_tokens": o}} if self.name == "claude" \
            else {**CHAT, "usage": {"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o}}
        if not usage:
            del body["usage"]
        self.told(i, o, usage)
        return ex.reply(body)

    @classmethod
    def arrival(cls, text):
        with cls.door:
            return cls.arrived[text]

    def told(self, i, o, usage):
        if usage:
            with self.lock:
                self.input, self.output = self.input + i, self.output + o

    @staticmethod
    def events(i, o, usage):
        last = [event({**delta(None), "choices": [], "usage": {"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o}})] if usage else []
        return [event(delta(f"tok{n} ")) for n in range(5)] + [event(delta(None, "stop")), *last, b"data: [DONE]\n\n"]

    @staticmethod
    def claude_events(i, o, usage):
        def one(kind, **data):
            return b"event: " + kind.encode() + b"\n" + event({"type": kind, **data})
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": [], "stop_reason": None, "stop_sequence": None}
        return [one("message_start", message={**message, **({"usage": {"input_tokens": i, "output_tokens": 1}} if usage else {})}),
                one("content_block_start", index=0, content_block={"type": "text", "text": ""}),
                *(one("content_block_delta", index=0, delta={"type": "text_delta", "text": f"tok{n} "}) for n in range(3)),
                one("content_block_stop", index=0),
                one("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, **({"usage": {"output_tokens": o}} if usage else {})),
                one("message_stop")]


KINDS = ["plain"] * 4 + ["fails-429", "fails-500", "no-usage", "is-cut", "leaves-early", "leaves-late", "cached", "cached", "shared", "shared", "said", "narrow", "401", "400", "poor"]


def load(p, number, end):
    """One client's requests, one after the other, until then. -> how many were asked, of each kind."""
    random, asked = Random(number), collections.Counter()
    turn = 0
    while time.monotonic() < end or turn < 2 * len(KINDS):
        kind = KINDS[turn] if turn < len(KINDS) else random.choice(KINDS)
        turn += 1
        if SECONDS > 30:
            threading.Event().wait(0.05)        # a long run leaves the machine to others
        model = random.choice(["gpt-a", "gpt-b", "claude-1"])
        stream = {"is-cut": True, "leaves-late": True, "leaves-early": False}.get(kind, random.random() < 0.5)
        text = {"cached": f"cached {random.randrange(5)}", "shared": f"shared {time.monotonic() // 0.25}"}.get(kind, f"{kind} {number} {turn}")
        body = chat(f"gpt-{kind}" if kind in ("said", "narrow") else model, stream=stream, messages=[{"role": "user", "content": text}])
        path, key = "/v1/chat/completions", KEYS["poor" if kind == "poor" else random.choice(["ann", "bob"])]
        if random.random() < 0.4 and kind not in ("leaves-early",):
            path, body = "/v1/messages", {"model": body["model"], "stream": stream, "max_tokens": 900, "messages": body["messages"]}
        headers = [("authorization", f"Bearer {'nobody' if kind == '401' else key}")]
        if kind not in ("cached", "shared"):
            headers.append(("cache-control", "no-store"))
        sent = b"{" if kind == "400" else json.dumps(body).encode()
        asked[kind] += 1
        with Raw(p.port, timeout=20 * p.slow) as c:
            c.send(request(path=path, headers=headers, body=sent))
            if kind == "leaves-early":
                assert Teller.arrival(text).wait(10 * p.slow), (text, model, c.quiet(0) or c.response())
            elif kind == "leaves-late":
                m = c.head()
                assert m.status == 200
                c.chunk(m)
            else:
                try:
                    m = c.response()
                    assert m.status == {"401": 401, "400": 400}.get(kind, m.status), (kind, m.status)
                except (Cut, Closed):
                    assert kind == "is-cut", kind
    return asked


def sums(rows):
    """(requests, input, output, micro-dollars) of what has these as the ledger and the log have them."""
    total = [0, 0, 0, 0]
    for row in rows:
        for i, n in enumerate((int(row.get("requests", 1)), int(row.get("input_tokens") or 0), int(row.get("output_tokens") or 0), micros(row.get("cost_usd") or 0))):
            total[i] += n
    return tuple(total)


def grouped(rows, *names):
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(row[n] for n in names)].append(row)
    return {key: sums(its) for key, its in groups.items()}


@pytest.mark.timeout(60 + 1.5 * SECONDS)
def test_all_that_counts_agrees(start, upstreams):
    ups, tellers = {}, {}
    for name in PRICES:
        ups[name], tellers[name] = upstreams(), Teller(name)
        ups[name].default = tellers[name]
    p = start(config(ups), policies={"faq.lua": SAY})
    end = time.monotonic() + SECONDS
    asked = sum(in_parallel(6, lambda i: load(p, i, end)), collections.Counter())
    n = asked.total()
    eventually(lambda: p.metric("openclaw_requests_total") >= n and p.metric("openclaw_requests_in_flight") == 0, timeout=10 * p.slow)
    p.wait_request_lines(n)
    lines = p.request_lines()
    assert len(lines) == len({line["id"] for line in lines}) == n
    for up in ups.values():
        assert up.malformed == []

    refused = collections.Counter(line["limited_by"] or line["status"] for line in lines)
    assert refused["narrow"] == asked["narrow"] - 1 and refused[401] == asked["401"] and refused[400] == asked["400"]
    poor = collections.Counter(line["error"] for line in lines if line["client"] == "poor")
    assert poor["insufficient_quota"] > 0 and poor[None] > 0, poor
    assert all(bool(line["upstream"]) == bool(line["attempts"]) for line in lines)      # who was not asked is not named

    # The log by itself: each price is that of its tokens, rounded once.
    for line in lines:
        line["client"] = line["client"] if line["client"] in KEYS else ""       # else it is the address
        if line["cost_usd"] and micros(line["cost_usd"]):
            assert micros(line["cost_usd"]) == charge(line), line
    whole = sums(lines)

    # The ledger, in both forms, by all it tells apart.
    names = ("client", "route", "upstream")
    rows = json.loads(p.admin("/spend?by=client,route,upstream")[1], parse_float=Decimal)["rows"]
    table = list(csv.DictReader(io.StringIO(p.admin("/spend?by=client,route,upstream&format=csv")[1])))
    assert grouped(rows, *names) == grouped(table, *names) == grouped(lines, *names)
    failed, guessed = sum(r["failed"] for r in rows), sum(r["estimated"] for r in rows)
    assert failed == sum(bool(line["error"]) or line["status"] >= 400 for line in lines)
    assert guessed == sum(bool(line["usage_estimated"]) for line in lines)

    # Metrics.
    samples = p.metrics()

    def metric(name, *labels):
        out = collections.Counter()
        for s in samples:
            if s.name == name:
                out[tuple(s.labels[label] for label in labels)] += micros(s.value) if "_usd_" in name else int(s.value)
        return {key: n for key, n in out.items() if n}

    def of_lines(by, of, which=lambda line: True):
        out = collections.Counter()
        for line in filter(which, lines):
            out[by(line)] += of(line)
        return {key: n for key, n in out.items() if n}

    def cost(line):
        return micros(line["cost_usd"] or 0)
    assert metric("openclaw_requests_total", "route_id", "status") == of_lines(lambda l: (l["route"], f"{l['status']:03}" if l["status"] else ""), lambda l: 1)
    assert metric("openclaw_client_requests_total", "client", "status") == \
        of_lines(lambda l: (l["client"], f"{l['status']:03}" if l["status"] else ""), lambda l: 1, lambda l: l["client"])
    assert metric("openclaw_client_cost_usd_total", "client") == of_lines(lambda l: (l["client"],), cost)
    assert metric("openclaw_estimated_cost_usd_total", "upstream_name", "model_name") == of_lines(lambda l: (l["upstream"], l["sent_model"]), cost)
    for word in ("input", "output"):
        of = f"{word}_tokens"
        assert {k[:1]: v for k, v in metric("openclaw_client_tokens_total", "client", "class").items() if k[1] == word} == of_lines(lambda l: (l["client"],), lambda l: l[of] or 0)
        assert {k[:2]: v for k, v in metric("openclaw_tokens_total", "upstream_name", "model_name", "class").items() if k[2] == word} == \
            of_lines(lambda l: (l["upstream"], l["sent_model"]), lambda l: l[of] or 0, lambda l: l["upstream"])
    assert sum(metric("openclaw_cache_hits_total").values()) == sum(line["cache"] == "hit" for line in lines) > 0
    assert sum(metric("openclaw_coalesced_total").values()) == sum(line["cache"] == "coalesced" for line in lines)
    assert sum(metric("openclaw_policy_answers_total").values()) == asked["said"] == sum(line["answered_by"] == "faq" for line in lines)
    assert sum(metric("openclaw_ledger_requests_written_total").values()) == n

    # What the upstreams know: calls are tries, and what they told in whole is what was charged and not estimated.
    attempts = collections.Counter(a["upstream"] for line in lines for a in line["attempts"])
    assert attempts == {name: t.calls for name, t in tellers.items()}
    by_metric = {key[0]: n for key, n in metric("openclaw_upstream_requests_total", "upstream_name").items()}
    assert by_metric == attempts
    told = {name: (t.input, t.output) for name, t in tellers.items()}
    exact = [line for line in lines if line["upstream"] and not line["usage_estimated"]]
    assert {key[0]: its[1:3] for key, its in grouped([line for line in exact if not line["error"]], "upstream").items()} == told
    # Anthropic's streams tell of input and a first output token as they begin: that is charged of one that ended before it said a word.
    begun = collections.Counter(line["input_tokens"] for line in exact if line["error"] and line["input_tokens"])
    assert begun <= tellers["claude"].begun
    assert all(line["upstream"] == "claude" and line["output_tokens"] == 1 for line in exact if line["error"] and line["input_tokens"])

    # The ring: as the log has it, each once.
    ring = json.loads(p.admin("/requests?limit=1000000")[1], parse_float=Decimal)["requests"]
    by_id = {line["id"]: line for line in lines}
    assert len(ring) == len({r["id"] for r in ring}) and len(ring) >= min(n, 2000) and {r["id"] for r in ring} <= by_id.keys()
    for r in ring:
        line = by_id[r["id"]]
        for name in ("status", "input_tokens", "output_tokens"):
            assert r.get(name) == line[name], (name, r, line)
        assert (r.get("upstream") or "") == line["upstream"] and micros(r.get("cost_usd") or 0) == cost(line), (r, line)
        assert [(a["upstream"], a["status"]) for a in r["attempts"]] == [(a["upstream"], a["status"]) for a in line["attempts"]]
    if n <= 2000:
        assert len(ring) == n and sums(ring) == whole
    print(f"\n{SECONDS:g} s: requests {whole[0]}, failed {failed}, estimated {guessed}, input tokens {whole[1]}, output tokens {whole[2]}, micro-dollars {whole[3]};"
          f" upstreams' calls {dict(attempts)}, told {told}; by kind {dict(asked)}; by cache {dict(collections.Counter(l['cache'] for l in lines))}; by status {dict(sorted(collections.Counter(l['status'] for l in lines).items()))}")
