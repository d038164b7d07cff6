"""Z: what hostile clients, upstreams and file systems try, beyond families E, F and G."""
import gzip
import json
import os
import shutil
import signal
import threading
import time

import pytest

from client import Raw, ask, chat, data_of, eventually, form, request
from upstream import CHAT, delta, event
from wire import Closed, Cut, sse_events

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: proxy.test\r\nContent-Type: application/json\r\n"


def config(up, **more):
    return {"upstreams": {"u": {"type": "openai", "base_url": up.url()}}, "retry": {"attempts": 1},
            "routes": [{"id": "all", "match": {"path": "/v1*/*"}, "strategy": {"type": "failover", "upstreams": ["u"]}}], **more}


# -- bodies that cannot be read

@pytest.mark.parametrize("codings", [["gzip"], ["GZIP"], ["br"], ["zstd"], ["x-unheard-of"], ["gzip, identity"], ["identity", "gzip"]])
def test_coded_bodies_are_refused_by_name(proxy, up, model, codings):
    """415, and which codings would do (RFC 9110 15.5.16): whoever compressed a proper body must not hunt for a mistake in its JSON."""
    mark = up.mark()
    a = ask(proxy, gzip.compress(json.dumps(chat(model)).encode()), headers=[("Content-Encoding", c) for c in codings])
    assert a.status == 415 and a.get("accept-encoding") == "identity", a.text
    assert a.json()["error"]["type"] == "invalid_request_error" and "compressed" in a.json()["error"]["message"]
    assert up.since(mark) == [] and proxy.request_line(a)["error"] == "content_coding"


def test_coded_bodies_are_refused_in_the_clients_dialect_and_unread(proxy):
    with Raw(proxy.port) as c:
        c.send(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
        a = c.response()
        assert (a.status, a.interim, a.get("connection")) == (415, [], "close") and a.json()["type"] == "error"
        assert c.ended() == ("fin", b"")


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_no_coding_is_none(proxy, model, coding):
    assert ask(proxy, chat(model), headers=[("Content-Encoding", coding)]).status == 200


def test_what_goes_on_unread_may_be_coded(proxy, up):
    body = gzip.compress(form(("file", "a.mp3", b"abc")))
    mark = up.mark()
    a = ask(proxy, body, path="/v1/files", type="multipart/form-data; boundary=b", headers=[("Content-Encoding", "gzip")])
    assert a.status == 200 and bytes(up.since(mark)[0].request.body) == body


def test_methods_that_are_not_served(proxy):
    with Raw(proxy.port) as c:
        a = c.send(b"TRACE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").response()
        assert a.status == 405 and "POST" in a.get("allow").split(", ") and "TRACE" not in a.get("allow")
        assert c.ended() == ("fin", b"")


def test_names_that_an_upstream_may_take_for_others_stay_here(start, upstreams):
    up = upstreams()
    c = config(up)
    c["upstreams"]["u"].update(api_key="sk-ours-1234", headers={"x-tenant": "ours"})
    p = start(c)
    names = ["Transfer_Encoding", "content_length", "Authorization_", "X_Api_Key", "x-api_key", "X_Forwarded_For", "x_tenant", "x_openclaw_id", "x_hop", "my_own_field"]
    assert ask(p, chat("m"), headers=[("Connection", "x-hop"), *[(n, "1") for n in names]]).status == 200
    got = [n for n, _ in up.exchanges[0].request.headers if "_" in n]
    assert got == ["authorization_", "my_own_field"]


def test_keywords_in_long_texts(start, upstreams):
    """As much text as a body may have is looked through for a word where it lies: none of it is in policies.memory_mb."""
    up = upstreams()
    c = {**config(up), "policies": {"memory_mb": 16}}
    c["routes"].append({"id": "words", "match": {"json_body": {"messages[*].content": {"contains": ["zzz", "needle"]}}}, "strategy": {"type": "failover", "upstreams": ["u"]}})
    p = start(c)
    for text in ("x" * 33_000_000, "x\n" * 11_000_000):         # the other one is decoded
        for end, route in (("NeeDle", "words"), ("needl", "all")):
            a = ask(p, json.dumps({"model": "m", "messages": [{"role": "user", "content": text + end}]}).encode())
            assert a.status == 200 and a.get("x-openclaw-route") == route


@pytest.mark.parametrize("content,found", [
    ("my BILLING question", True), ("my b\u0069LLing question", True), ([{"type": "text", "text": "no"}, {"type": "text", "text": "an Invoice"}], True),
    ([{"type": "image_url", "image_url": {"url": "https://billing.test"}}], False), ({"billing": 1}, False), (5, False), (None, False), ("bill ing", False),
    ("-" * 32767 + "billing", True), ("-" * 32761 + "invoice", True), ("\u0130nvoice", False), ("", False)])
def test_keywords_where_they_may_stand(start, upstreams, content, found):
    up = upstreams()
    c = config(up)
    c["routes"].append({"id": "words", "match": {"json_body": {"messages[*].content": {"contains": ["Billing", "invoice"]}}}, "strategy": {"type": "failover", "upstreams": ["u"]}})
    p = start(c)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "user", "content": content}]}, ensure_ascii=False)
    assert ask(p, body.replace("biLL", "b\\u0069LL").encode()).get("x-openclaw-route") == ("words" if found else "all")


# -- the end of the time to drain

def silent(ex):
    ex.until_gone(60)


def begins(ex):
    ex.stream_head()
    ex.chunk(event(delta("one ")))
    ex.until_gone(60)


def begins_plain(ex):
    ex.head(200, [("content-type", "application/json"), ("content-length", "300000")])
    ex.send(b" " * 100000)
    ex.until_gone(60)


ANTHROPIC = {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_what_the_drain_cuts_is_told_why(start, upstreams):
    up = upstreams()
    p = start(config(up, server={"drain_seconds": 1}))
    for model, script in (("begins", begins), ("plain", begins_plain), ("silent", silent)):
        up.on(model, script)
    clients = {}

    def send(name, data):
        clients[name] = Raw(p.port, timeout=20 * p.slow).send(data)
    send("openai", request(body=chat("begins", stream=True)))
    send("anthropic", request(path="/v1/messages", body={**ANTHROPIC, "model": "begins", "stream": True}))
    send("gemini", request(path="/v1beta/models/begins:streamGenerateContent?alt=sse", body=GEMINI))
    send("http/1.0", request(body=chat("begins", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    send("plain", request(body=chat("plain")))
    send("held", request(body=chat("silent", stream=True)))
    send("unanswered", request(path="/v1/messages", body={**ANTHROPIC, "model": "silent"}))
    heads = {name: clients[name].head() for name in ("openai", "anthropic", "gemini", "http/1.0", "plain")}
    for name, head in heads.items():
        while not head.data:
            clients[name].chunk(head)
    send("in its head", HEAD)
    send("in its body", HEAD + b"Content-Length: 100\r\n\r\n{")
    up.wait_seen("silent", 2)
    p.wait_metric("openclaw_requests_in_flight", lambda v: v == 9)
    started = time.monotonic()
    p.signal(signal.SIGTERM)

    def cut(name):
        with pytest.raises(Cut) as e:
            clients[name].reader.rest(heads[name])
        assert e.value.args[0].endswith("fin") or name in ("plain", "http/1.0"), f"{name}: {e.value}"
        return bytes(heads[name].data)
    assert json.loads(sse_events(cut("openai"))[0][-1])["error"]["code"] == "draining"
    assert json.loads(sse_events(cut("anthropic"))[0][-1])["type"] == "error"
    assert json.loads(sse_events(cut("gemini"))[0][-1])["error"]["code"] == 503
    assert b"[DONE]" not in cut("http/1.0")
    cut("plain")
    for name in ("held", "unanswered", "in its head", "in its body"):
        a = clients[name].response()
        assert (a.status, a.get("connection")) == (503, "close"), name
        assert clients[name].ended() == ("fin", b""), name
    assert time.monotonic() - started < 3 * p.slow
    p.stop()
    assert {l["error"] for l in p.request_lines()} == {"draining"} and {l["status"] for l in p.request_lines()} == {200, 503}


def test_who_does_not_read_does_not_hold_up_the_end(start, upstreams):
    """Nor does one that reads and never closes."""
    up = upstreams()
    p = start(config(up, server={"drain_seconds": 1}))

    def floods(ex):
        ex.stream_head()
        while True:
            ex.chunk(event(delta("x" * 5000)))
    up.on("floods", floods)
    up.on("begins", begins)
    stopped = Raw(p.port, rcvbuf=4096).send(request(body=chat("floods", stream=True)))
    open_ = Raw(p.port).send(request(body=chat("begins", stream=True)))
    up.wait_seen("floods")
    open_.head()
    started = time.monotonic()
    p.stop()
    assert time.monotonic() - started < 4 * p.slow
    stopped.close()
    open_.close()


# -- upstreams out of step

def test_an_upstream_out_of_step_answers_nobody_else(start, upstreams):
    """It says something more a while after its answer. Had the next request been written by then, that would be its answer, and each
    client from there on would get the one's before it: so after the first time no connection to it is used twice (R2)."""
    up = upstreams()
    p = start(config(up, server={"workers": 1}))

    def twice(ex):
        ex.reply({**CHAT, "id": "answer"})
        ex.reply({**CHAT, "id": "stray"})
        ex.until_gone()
    up.on("twice", twice)
    assert ask(p, chat("twice")).json()["id"] == "answer"
    assert up.seen("twice")[0].left.wait(10)
    told = p.wait_log(lambda l: "answer nothing" in (l["msg"] or ""))
    assert told["level"] == "warn" and told["upstream"] == "u"
    with Raw(p.port) as c:
        for _ in range(5):
            assert c.send(request(body=chat("m"))).response().status == 200
    assert len({e.conn.serial for e in up.seen("m")}) == 5


def test_a_request_that_was_worked_on_is_not_sent_again(start, upstreams):
    """A kept connection that ends as soon as it is used was closed before; one that ends later had the request, and what it cost."""
    up = upstreams()
    p = start(config(up, server={"workers": 1}))

    def late(ex):
        if ex.conn.requests == 1:
            return ex.reply()
        try:
            ex.until_gone(1.2)
        except Closed:
            pass
        ex.close()
    up.on("late", late)
    with Raw(p.port, timeout=10 * p.slow) as c:
        assert c.send(request(body=chat("late"))).response().status == 200
        assert c.send(request(body=chat("late"))).response().status == 502
    assert len(up.seen("late")) == 2


# -- what lies where a file should

POLICY = 'return { name = "p", api = 1, log = function() return { version = %d } end }'


def test_a_pipe_for_a_file_holds_nothing_up(start, upstreams):
    """Reading it must not stop the thread that also has the admin port and the signals."""
    p = start(config(upstreams()))
    text = p.config_path.read_text()
    p.config_path.unlink()
    os.mkfifo(p.config_path)
    assert p.wait_log(lambda l: l["msg"] == "reload refused")["problem"].endswith("timed out")
    assert p.admin("/healthz")[0] == 200 and ask(p, chat("m")).status == 200
    p.signal(signal.SIGHUP)
    with open(p.config_path, "w") as pipe:            # waits for the reader
        pipe.write(text.replace('"attempts": 1', '"attempts": 2'))
    p.wait_generation(1)


# -- streams of nothing but comments

def pings(until=None):
    def script(ex):
        ex.stream_head()
        while not (until and until.wait(0.05)):
            ex.chunk(b": working on it\n\n")
            threading.Event().wait(0 if until else 0.02)
        ex.chunk(event(delta("at last", "stop")))
        ex.chunk(b"data: [DONE]\n\n")
        ex.end()
    return script


def test_comments_do_not_hold_an_answer_back_for_ever(start, upstreams):
    """They are bytes, so nothing stalls; the client must see them in the end, or hear that it waited in vain (R11)."""
    up = upstreams()
    p = start(config(up, server={"timeout_seconds": 1}))
    seen = threading.Event()
    up.on("patient", pings(seen))
    with Raw(p.port, timeout=10 * p.slow) as c:
        c.send(request(body=chat("patient", stream=True)))
        assert c.quiet(0.5)
        head = c.head()
        assert head.status == 200 and c.chunk(head).startswith(b": working on it\n\n")
        seen.set()
        assert b"at last" in c.reader.rest(head).body and head.complete
    up.on("endless", pings())
    started = time.monotonic()
    a = ask(p, {**ANTHROPIC, "model": "endless"}, path="/v1/messages")
    assert a.status == 504 and p.request_line(a)["error"] == "timeout_first_byte" and time.monotonic() - started < 3 * p.slow
    a = ask(p, GEMINI, path="/v1beta/models/endless:streamGenerateContent")      # an array of JSON has no place for comments
    assert a.status == 504


def test_events_that_say_nothing_are_like_comments(start, upstreams):
    """Anthropic's pings to a client of OpenAI; and where there is an answer already, they are no reason to give it up."""
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "anthropic", "base_url": up.url(), "timeout_seconds": 1}}, "retry": {"attempts": 1},
               "routes": [{"id": "all", "match": {"path": "/v1*/*"}, "strategy": {"type": "failover", "upstreams": ["u"]}}]})
    ping, never = b'event: ping\ndata: {"type": "ping"}\n\n', threading.Event()

    def only_pings(ex):
        ex.stream_head()
        while True:
            ex.chunk(ping)
            never.wait(0.05)

    def between(ex):
        events = [{"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m",
                                                        "usage": {"input_tokens": 1, "output_tokens": 1}}},
                  {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                  {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "slow but whole"}},
                  {"type": "content_block_stop", "index": 0}, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
                  {"type": "message_stop"}]
        ex.stream_head()
        for one in events:
            ex.chunk(f"event: {one['type']}\n".encode() + event(one))
            for _ in range(10):
                ex.chunk(b": and\n\n" + ping)
                never.wait(0.03)
        ex.end()
    up.on("pings", only_pings)
    up.on("between", between)
    with Raw(p.port, timeout=10 * p.slow) as c:
        c.send(request(body=chat("pings", stream=True)))
        assert c.quiet(0.5)
        assert c.head().status == 200         # it is being worked on; the client may leave
    up.seen("pings")[0].left.wait(10)
    for stream in (True, False):
        assert "slow but whole" in ask(p, chat("between", stream=stream)).text
    assert ask(p, GEMINI, path="/v1beta/models/pings:streamGenerateContent").status == 504


def test_comments_of_one_do_not_keep_another_from_answering(start, upstreams):
    """Until then the stream is held: an error behind comments still fails over."""
    up, other = upstreams(), upstreams()
    up.on("m", lambda ex: ex.stream([b": wait\n\n"] * 3 + [event({"error": {"message": "no"}})]))
    other.on("m", lambda ex: ex.stream())
    p = start({"upstreams": {"u": {"type": "openai", "base_url": up.url()}, "v": {"type": "openai", "base_url": other.url()}}, "retry": {"attempts": 2},
               "routes": [{"id": "all", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["u", "v"]}}]})
    assert data_of(ask(p, chat("m", stream=True)))[-1] == b"[DONE]" and len(other.exchanges) == 1


def test_a_folder_of_policies_that_was_replaced_is_watched(start, upstreams):
    """As deployments do it: another folder is moved to its place. What changes there afterwards takes effect within a second, as ever."""
    p = start(config(upstreams()), policies={"p.lua": POLICY % 0})
    assert p.request_line(ask(p, chat("m")))["version"] == 0
    for how in ("moved", "made anew"):
        was = p.generation()
        if how == "moved":
            other = p.dir / "policies.new"
            other.mkdir()
            (other / "p.lua").write_text(POLICY % 1)
            p.policies.rename(p.dir / "policies.old")
            other.rename(p.policies)
        else:
            shutil.rmtree(p.policies)      # and at once: it may have the same number
            p.policies.mkdir()
            (p.policies / "p.lua").write_text(POLICY % 2)
        p.wait_generation(was)
        took = []
        for i in range(4):
            was, began = p.generations()["current"]["id"], time.monotonic()
            p.drop_policy("p.lua", POLICY % (10 + i if how == "moved" else 20 + i))
            eventually(lambda: p.generations()["current"]["id"] > was, timeout=5 * p.slow)
            took.append(time.monotonic() - began)
        assert max(took) < 1 * p.slow, f"{how}: {took}"
