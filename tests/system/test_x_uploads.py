"""X: forms (multipart/form-data): routed by their field `model`, refused when malformed; the other paths of OpenAI's API."""
import email
import email.policy
import json

import openai
import pytest

from client import Raw, ask, form, request

MAP = {"whisper": "whisper-large-v3"}


def fields(m):
    """The parts of a form a proxy sent: name -> (filename, content)."""
    parsed = email.message_from_bytes(b"Content-Type: " + m.get("content-type").encode() + b"\r\n\r\n" + m.body, policy=email.policy.HTTP)
    assert not parsed.defects
    return {p.get_param("name", header="content-disposition"): (p.get_filename(), p.get_payload(decode=True)) for p in parsed.iter_parts()}


TYPE = "multipart/form-data; boundary=b"
FILE = ("file", "a.mp3", bytes(range(256)) * 20)


def post(p, body, path="/v1/audio/transcriptions", type=TYPE, **how):
    return ask(p, body, path=path, type=type, **how)


def error_of(a):
    return json.loads(a.body)["error"]


@pytest.fixture
def two(start, upstreams):
    """Whisper models go to `a`, all else to `b`; `whisper` is sent as another."""
    a, b = upstreams(), upstreams()
    a.default = b.default = lambda ex: ex.reply({"text": "hello", "id": "file-1", "object": "file"})
    p = start({"upstreams": {"a": {"type": "openai", "base_url": a.url(), "api_key": "sk-a", "model_map": MAP}, "b": {"type": "openai", "base_url": b.url(), "api_key": "sk-b"}},
               "routes": [{"id": "whisper", "match": {"model": "whisper*"}, "strategy": {"type": "failover", "upstreams": ["a"]}},
                          {"id": "tts", "match": {"json_body": {"model": "gpt-4o-transcribe"}}, "strategy": {"type": "failover", "upstreams": ["b"]}},
                          {"id": "rest", "match": {"path": "/v1/*"}, "strategy": {"type": "failover", "upstreams": ["b"]}}],
               "retry": {"attempts": 1}})
    p.a, p.b = a, b
    return p


# ---- by its model

@pytest.mark.parametrize("order", [("model", "file"), ("file", "model")])
def test_the_field_model_routes(two, order):
    parts = {"model": ("model", "whisper-1"), "file": FILE}
    body = form(*[parts[name] for name in order])
    got = post(two, body)
    assert got.status == 200 and got.get("x-openclaw-route") == "whisper" and got.get("x-openclaw-model") == "whisper-1"
    sent = two.a.exchanges[-1].request
    assert sent.body == body and sent.framing == "length" and sent.get("content-type") == TYPE and sent.get("authorization") == "Bearer sk-a"
    line = two.request_line(got)
    assert line["model"] == "whisper-1" and line["route"] == "whisper" and line["bytes_in"] == len(body)
    assert post(two, form(("model", "gpt-4o-transcribe"), FILE)).get("x-openclaw-route") == "tts"
    assert post(two, form(FILE)).get("x-openclaw-route") == "rest"
    assert two.b.exchanges[-1].request.body == form(FILE)


def test_the_model_is_written_in_its_place(two):
    got = post(two, form(("language", "de"), ("model", "whisper"), FILE, ("prompt", "whisper")))
    assert got.status == 200 and two.request_line(got)["sent_model"] == MAP["whisper"]
    assert two.a.exchanges[-1].request.body == form(("language", "de"), ("model", MAP["whisper"]), FILE, ("prompt", "whisper"))


def test_byte_by_byte(two):
    body = form(("model", "whisper"), ("file", "a", "\r\n--\r\r\n-b"))
    with Raw(two.port, timeout=10 * two.slow) as c:
        for byte in request(path="/v1/audio/transcriptions", type=TYPE, body=body):
            c.send(bytes([byte]))
        assert c.response().status == 200
        chunked = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
        c.send(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: " + TYPE.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
        assert c.response().status == 200
    assert [ex.request.body for ex in two.a.exchanges] == [form(("model", MAP["whisper"]), ("file", "a", "\r\n--\r\r\n-b"))] * 2


def test_a_model_of_any_bytes(two):
    """It goes on as it came; logs and metrics stay readable."""
    for name in (b"\xff\xfe\"\\", "gr\u00f6\u00dfer".encode(), b"", b" "):
        got = post(two, form(("model", name), FILE))
        assert got.status == 200 and two.b.exchanges[-1].request.body == form(("model", name), FILE)
        assert two.request_line(got)["route"] == "rest"
    two.metrics()


def test_a_client_may_use_the_models_that_are_its(start, upstreams):
    up = upstreams()
    p = start({"upstreams": {"u": {"type": "generic", "base_url": up.url("")}}, "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["u"]}}],
               "clients": [{"name": "ann", "key": "sk-client-ann-0001", "models": ["whisper-*"]}]})
    mine = [("authorization", "Bearer sk-client-ann-0001")]
    assert post(p, form(("model", "whisper-1"), FILE), headers=mine).status == 200
    for body in (form(("model", "gpt-4o-transcribe"), FILE), form(FILE)):
        got = post(p, body, headers=mine)
        assert got.status == 403 and error_of(got)["code"] == "model_not_allowed"
    twice = post(p, form(("model", "whisper-1"), FILE, ("model", "gpt-4o-transcribe")), headers=mine)
    assert twice.status == 400
    hidden = post(p, form(("model", "whisper-1")), headers=[*mine, ("content-encoding", "gzip")])
    assert hidden.status == 403
    assert len(up.exchanges) == 1


def test_the_next_candidate_gets_its_own_model(start, upstreams):
    a, b = upstreams(), upstreams()
    a.default = lambda ex: ex.reply({"error": {"message": "no"}}, status=503)
    p = start({"upstreams": {"a": {"type": "openai", "base_url": a.url(), "api_key": "k"}, "b": {"type": "openai", "base_url": b.url(), "api_key": "k", "model_map": MAP}},
               "routes": [{"id": "r", "strategy": {"type": "failover", "upstreams": ["a", "b"]}}], "retry": {"attempts": 2, "on": ["http_503"]}})
    assert post(p, form(("model", "whisper"), FILE)).status == 200
    assert fields(a.exchanges[0].request)["model"] == (None, b"whisper")
    assert fields(b.exchanges[0].request)["model"] == (None, MAP["whisper"].encode())


# ---- malformed

MALFORMED = [
    (form(("model", "m"), FILE)[:-6], TYPE, "ends before its last boundary"),
    (b"", TYPE, "ends before its last boundary"),
    (form(FILE), "multipart/form-data", "has no boundary"),
    (form(("model", "m"), ("model", "n")), TYPE, "there twice"),
    (form(("model", "a.txt", "m")), TYPE, "not plain text"),
    (form(("model", "m" * 300)), TYPE, "too long"),
    (form(("model", "m\nn")), TYPE, "control characters"),
    (form(("model", "m")).replace(b"\r\n", b"\n"), TYPE, "follows a boundary in its line"),
    (form(FILE).replace(b"name=", b"nom="), TYPE, "has no name"),
    (b"x" * 20000, TYPE, "does not begin with its boundary"),
]


@pytest.mark.parametrize("body, type, why", MALFORMED, ids=[w[2].replace(" ", "-") + str(i) for i, w in enumerate(MALFORMED)])
def test_a_malformed_form_is_refused(two, body, type, why):
    got = post(two, body, type=type)
    e = error_of(got)
    assert got.status == 400 and e["type"] == "invalid_request_error" and e["code"] == "bad_request" and why in e["message"], e
    assert e["param"] == ("model" if '"model"' in e["message"] else None)
    assert two.request_line(got)["error"] == "bad_request"
    assert two.a.exchanges == two.b.exchanges == []


def test_two_content_types_are_refused(two):
    got = post(two, form(("model", "m")), headers=[("content-type", "multipart/form-data; boundary=c")])
    assert got.status == 400 and "two Content-Types" in error_of(got)["message"]
    assert post(two, form(("model", "m")), type="text/plain", headers=[("content-type", TYPE)]).status == 400


def test_what_is_no_form_goes_on_unread(two):
    for type, headers in (("multipart/mixed; boundary=b", ()), ("audio/mpeg", ()), ("multipart/form-data; boundary=b", [("content-encoding", "gzip")])):
        assert post(two, b"\x00nonsense", type=type, headers=headers).status == 200
        assert two.b.exchanges[-1].request.body == b"\x00nonsense"
    assert two.a.exchanges == []


# ---- the official SDK

@pytest.fixture
def sdk(two):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{two.port}/v1", api_key="sk-x", max_retries=0, timeout=15 * two.slow) as client:
        yield client


def test_sdk_forms(two, sdk):
    sound = ("a.mp3", FILE[2])
    assert sdk.audio.transcriptions.create(model="whisper", file=sound, language="de").text == "hello"
    assert fields(two.a.exchanges[-1].request) == {"model": (None, MAP["whisper"].encode()), "language": (None, b"de"), "file": sound}
    assert sdk.audio.translations.create(model="whisper-1", file=sound).text == "hello"
    assert two.a.exchanges[-1].request.target == "/v1/audio/translations"
    picture = ("p.png", b"\x89PNG\r\n\x1a\n" + bytes(5000))
    sdk.images.edit(model="gpt-image-1", image=[picture, picture], prompt="more")
    sent = two.b.exchanges[-1].request
    assert sent.target == "/v1/images/edits" and fields(sent)["image[]"] == picture and fields(sent)["model"] == (None, b"gpt-image-1")
    sdk.images.create_variation(model="dall-e-2", image=picture)
    assert two.b.exchanges[-1].request.target == "/v1/images/variations"
    assert sdk.files.create(file=("f.jsonl", b'{"a":1}\n'), purpose="batch").id == "file-1"
    assert fields(two.b.exchanges[-1].request) == {"purpose": (None, b"batch"), "file": ("f.jsonl", b'{"a":1}\n')}


def test_sdk_streamed_transcription(two, sdk):
    events = [{"type": "transcript.text.delta", "delta": "he"}, {"type": "transcript.text.done", "text": "hello"}]
    two.a.default = lambda ex: ex.stream([f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events])
    got = list(sdk.audio.transcriptions.create(model="whisper-1", file=("a.mp3", FILE[2]), stream=True))
    assert [e.type for e in got] == ["transcript.text.delta", "transcript.text.done"] and got[1].text == "hello"
    assert fields(two.a.exchanges[-1].request)["stream"] == (None, b"true")
    two.wait_request_lines(1)
    assert two.request_lines()[-1]["stream"] is True


def test_sdk_errors(two, sdk):
    two.a.default = lambda ex: ex.reply({"error": {"message": "no such format", "type": "invalid_request_error", "param": "file", "code": None}}, status=400)
    with pytest.raises(openai.BadRequestError, match="no such format"):
        sdk.audio.transcriptions.create(model="whisper-1", file=("a.xyz", b"x"))


def test_sdk_json_paths(two, sdk):
    """The other paths of OpenAI's API: JSON, or nothing, one way; JSON or bytes the other."""
    b = two.b
    sdk.images.generate(model="gpt-image-1", prompt="a cat")
    assert (b.exchanges[-1].request.target, b.exchanges[-1].body["model"]) == ("/v1/images/generations", "gpt-image-1")
    b.default = lambda ex: ex.reply(bytes(range(256)) * 400, type="audio/mpeg")
    assert sdk.audio.speech.create(model="tts-1", voice="alloy", input="Hi").read() == bytes(range(256)) * 400
    assert b.exchanges[-1].request.target == "/v1/audio/speech"
    b.default = lambda ex: ex.reply({"id": "modr-1", "model": "omni-moderation-latest", "results": []})
    assert sdk.moderations.create(model="omni-moderation-latest", input="Hi").id == "modr-1"
    b.default = lambda ex: ex.reply({"id": "batch_1", "object": "batch", "status": "validating", "endpoint": "/v1/chat/completions",
                                     "completion_window": "24h", "created_at": 1, "input_file_id": "file-1"})
    assert sdk.batches.create(input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h").id == "batch_1"
    assert sdk.batches.retrieve("batch_1").status == "validating" and b.exchanges[-1].request.target == "/v1/batches/batch_1"
    assert sdk.batches.cancel("batch_1").id == "batch_1" and b.exchanges[-1].request.target == "/v1/batches/batch_1/cancel"
    b.default = lambda ex: ex.reply({"object": "list", "data": [{"id": "file-1", "object": "file"}], "has_more": False})
    assert [f.id for f in sdk.files.list(purpose="batch")] == ["file-1"] and b.exchanges[-1].request.target == "/v1/files?purpose=batch"
    b.default = lambda ex: ex.reply({"id": "file-1", "object": "file", "deleted": True})
    assert sdk.files.delete("file-1").deleted and b.exchanges[-1].request.method == "DELETE"
    b.default = lambda ex: ex.reply(b'{"custom_id":"1"}\n', type="application/jsonl")
    assert sdk.files.content("file-1").read() == b'{"custom_id":"1"}\n' and b.exchanges[-1].request.target == "/v1/files/file-1/content"
