"""B: the official OpenAI SDK through the proxy: results as the right types, errors as the right classes."""
import openai
import pytest

from upstream import CHAT, delta, event


@pytest.fixture(scope="module")
def sdk(proxy):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.port}/v1", api_key="sk-client-of-the-sdk", max_retries=0, timeout=15 * proxy.slow) as client:
        yield client


HI = [{"role": "user", "content": "Hi"}]


def test_chat(sdk, model):
    done = sdk.chat.completions.create(model=model, messages=HI)
    assert done.choices[0].message.content == "Hello." and done.usage.total_tokens == 18


def test_chat_stream(sdk, model):
    chunks = list(sdk.chat.completions.create(model=model, messages=HI, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "tok0 tok1 tok2 tok3 tok4 "
    assert chunks[-1].usage.completion_tokens == 7


def test_stream_comments_are_no_data(sdk, up, model):
    up.on(model, lambda ex: ex.stream([b": ping\n\n", event(delta("a")), b": ping\n\n", event(delta("b")), b"data: [DONE]\n\n"]))
    chunks = list(sdk.chat.completions.create(model=model, messages=HI, stream=True))
    assert "".join(c.choices[0].delta.content for c in chunks) == "ab"


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}, "required": []}}}


def test_tools(sdk, up, model):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Z\u00fcrich\"}"}}
    up.on(model, lambda ex: ex.reply({**CHAT, "choices": [{"index": 0, "finish_reason": "tool_calls", "message":
                                                            {"role": "assistant", "content": None, "tool_calls": [call]}}]}))
    done = sdk.chat.completions.create(model=model, messages=HI, tools=[TOOL])
    assert done.choices[0].message.tool_calls[0].function.arguments == call["function"]["arguments"]
    sent = up.seen(model)[0].body["tools"]
    assert sent == [TOOL]
    sdk.chat.completions.create(model=model, messages=[*HI, {"role": "assistant", "tool_calls": [call]},
                                                       {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}], tools=[TOOL])
    assert up.seen(model)[1].body["messages"][2]["tool_call_id"] == "call_1"


def test_streamed_tools(sdk, up, model):
    parts = ["{\"ci", "ty\":", "\"Z\u00fc", "rich\"}"]

    def chunk(fn, **more):
        return event({**delta(None), "choices": [{"index": 0, "finish_reason": None,
                                                  "delta": {"tool_calls": [{"index": 0, "function": fn, **more}]}}]})
    up.on(model, lambda ex: ex.stream([chunk({"name": "get_weather", "arguments": ""}, id="call_1", type="function"),
                                       *[chunk({"arguments": p}) for p in parts], event(delta(None, "tool_calls")), b"data: [DONE]\n\n"]))
    got = ""
    for c in sdk.chat.completions.create(model=model, messages=HI, tools=[TOOL], stream=True):
        for t in c.choices[0].delta.tool_calls or []:
            got += t.function.arguments or ""
    assert got == "".join(parts)


def test_embeddings(sdk, model):
    done = sdk.embeddings.create(model=model, input=["a"], encoding_format="float")
    assert done.data[0].embedding == [0.25, -0.5]


def test_models_list(sdk):
    assert {"mock-small", "mock-large"} <= {m.id for m in sdk.models.list()}
    assert sdk.models.retrieve("mock-large").id == "mock-large"


def test_mock(sdk):
    assert sdk.chat.completions.create(model="mock-small", messages=HI).choices[0].message.content
    chunks = list(sdk.chat.completions.create(model="mock-small", messages=HI, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize("status,kind", [
    (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError), (404, openai.NotFoundError),
    (409, openai.ConflictError), (422, openai.UnprocessableEntityError), (429, openai.RateLimitError), (500, openai.InternalServerError),
    (503, openai.InternalServerError), (529, openai.InternalServerError)])
@pytest.mark.parametrize("stream", [False, True])
def test_upstream_errors(sdk, up, model, status, kind, stream):
    message = f"The upstream says {status}."
    up.on(model, lambda ex: ex.reply({"error": {"message": message, "type": "some_type", "param": "p", "code": "some_code"}}, status))
    with pytest.raises(kind) as caught:
        sdk.chat.completions.create(model=model, messages=HI, stream=stream)
    assert caught.value.status_code == status
    assert message in caught.value.message and caught.value.code == "some_code"


def test_error_inside_a_stream(sdk, up, model):
    def script(ex):
        ex.stream([event(delta("one ")), event({"error": {"message": "overloaded mid-stream", "type": "server_error", "code": 503}}),
                   b"data: [DONE]\n\n"])
    up.on(model, script)
    with pytest.raises(openai.APIError, match="overloaded mid-stream"):
        list(sdk.chat.completions.create(model=model, messages=HI, stream=True))


def test_cut_stream_raises(sdk, up, model):
    def script(ex):
        ex.stream_head()
        ex.chunk(event(delta("one ")))
        assert up  # the first event is on its way before the reset
        ex.half_close()
    up.on(model, script)
    with pytest.raises((openai.APIError, openai.APIConnectionError, Exception)) as caught:
        got = list(sdk.chat.completions.create(model=model, messages=HI, stream=True))
        pytest.fail(f"a cut stream passed for a complete one: {got}")
    assert not isinstance(caught.value, AssertionError)


def test_own_errors(sdk, proxy, start):
    """The proxy's own refusals speak the same envelope."""
    p = start({"upstreams": {"u": {"type": "mock", "models": ["only-this"]}},
               "routes": [{"id": "r", "match": {"path": "/v1/chat/completions"}, "strategy": {"type": "round_robin", "upstreams": ["u"]}}]})
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="sk-x1234567", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="something-else", messages=HI)
        assert caught.value.code == "model_not_found" and "only-this" in caught.value.message
        with pytest.raises(openai.NotFoundError) as caught:
            client.embeddings.create(model="only-this", input="x")
        assert caught.value.code == "no_route"
    with pytest.raises(openai.BadRequestError):
        sdk.post("/chat/completions", cast_to=object, body=[1])  # a body that is no object
