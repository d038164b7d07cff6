"""X: the official SDKs, with all their helpers, at upstreams of every protocol that answer as providers really did."""
import json

import anthropic
import cohere
import ollama
import openai
import pydantic
import pytest
from google import genai

import dialects
import recorded
from conftest import UPSTREAM_KEY
from proxy import SLOW, Proxy
from upstream import Upstream

CASES = {c.name: c for c in recorded.cases()}

# By what is asked, who answers. Responses is spoken to by its own clients only: all who speak it speak chat, too. So does Ollama,
# whose own protocol chat's clients never meet.
ASKED = {
    "plain": ["openai/chat-multi-turn", "anthropic/basic", "gemini/system", "vertex/claude", "openai/responses-instructions-multi-turn", "xai/responses-reasoning",
              "cohere/basic", "ollama/basic", "bedrock/basic", "azure/chat-basic", "groq/basic", "mistral/basic", "perplexity/citations"],
    "stream": ["openai/chat-stream-usage-2", "mistral/stream", "anthropic/stream", "gemini/stream", "openai/responses-stream-2", "cohere/thinking-stream",
               "ollama/stream", "bedrock/stream", "together/stream", "cerebras/stream", "azure/chat-stream-prompt-filter"],
    "tools": ["openai/chat-tool-call-2", "openai/chat-tool-call-parallel", "anthropic/tool-call-parallel", "gemini/tool-call", "vertex/tool-call-parallel",
              "openai/responses-tool-choice", "cohere/tool-call-parallel", "ollama/tool-call", "deepseek/tool-call", "openrouter/tool-call",
              "groq/tool-call"],
    "streamed tools": ["openai/chat-tool-call-parallel-stream", "mistral/tool-call-stream", "anthropic/tool-call-parallel-stream", "vertex/claude-stream",
                       "openai/responses-tool-call-stream", "bedrock/tool-stream-2", "azure/chat-tool-call-stream", "groq/tool-call-stream"],
    "thinking": ["anthropic/thinking-tools", "gemini/thinking-thoughts", "mistral/thinking-chunks", "groq/reasoning", "cohere/thinking", "ollama/tool-call", "bedrock/thinking"],
    "streamed thinking": ["openrouter/stream-comments", "anthropic/thinking-stream-2", "gemini/thinking-stream", "openai/responses-reasoning-summary-stream",
                          "cohere/thinking-stream", "bedrock/thinking-stream", "deepseek/reasoning-content-stream"],
    "schema": ["mistral/json-schema", "gemini/json-schema", "openai/responses-json-schema"],
    "streamed schema": ["anthropic/json-schema-stream", "openai/responses-json-schema-stream"],
}
HI = [{"role": "user", "content": "Hi"}]
MODEL = "m-of-a-recording"


@pytest.fixture(scope="module")
def replay():
    up = Upstream()
    p = Proxy(recorded.config(up, UPSTREAM_KEY))
    p.up = up
    yield p
    p.stop()
    up.stop()


def model_of(value):
    """A class for what was answered, as a user of a schema has one."""
    kinds = {k: model_of(v) if isinstance(v, dict) else list[str] if isinstance(v, list) else type(v) for k, v in value.items()}
    return pydantic.create_model("It", **{k: (kind, ...) for k, kind in kinds.items()})


class Case:
    """What is asked of an SDK, and what it must have understood."""

    def __init__(self, kind, recording):
        self.streams, self.kind = kind.startswith("stream"), kind.removeprefix("streamed ")
        self.said = dialects.said(recording.dialect, recording.body)
        names = {n for n, _ in self.said.calls} if self.kind == "tools" else set()
        self.tools = {n: {"type": "object", "properties": {}, "additionalProperties": True} for n in sorted(names)}
        self.model = model_of(json.loads(self.said.text)) if self.kind == "schema" else None


def chat_sdk(p, case, headers):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        ask = {"model": MODEL, "messages": HI}
        if case.tools:
            strict = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
            ask["tools"] = [{"type": "function", "function": {"name": n, "parameters": strict, "strict": True}} for n in case.tools]
        if case.model:
            ask["response_format"] = case.model
        if case.kind == "thinking":
            ask["reasoning_effort"] = "low"
        thinking = None
        if case.streams:
            with sdk.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
                events = list(stream)
                done = stream.get_final_completion()
            assert "".join(e.delta for e in events if e.type == "content.delta") == (done.choices[0].message.content or "")
            thinking = "".join(getattr(c.delta, "reasoning_content", None) or "" for e in events if e.type == "chunk" for c in e.chunk.choices)
        else:
            done = (sdk.chat.completions.parse if case.model or case.tools else sdk.chat.completions.create)(**ask)
        m = done.choices[0].message
        calls = [[t.function.name, dialects.decoded(t.function.arguments)] for t in m.tool_calls or []]
        return m.content, calls, thinking or getattr(m, "reasoning_content", None), done.usage and (done.usage.prompt_tokens, done.usage.completion_tokens), getattr(m, "parsed", None)


def responses_sdk(p, case, headers):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{p.port}/v1", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        ask = {"model": MODEL, "input": "Hi"}
        if case.tools:
            strict = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
            ask["tools"] = [{"type": "function", "name": n, "parameters": strict, "strict": True} for n in case.tools]
        if case.model:
            ask["text_format"] = case.model
        if case.kind == "thinking":
            ask["reasoning"] = {"effort": "low", "summary": "auto"}
        if case.streams:
            with sdk.responses.stream(**ask) as stream:
                text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
                done = stream.get_final_response()
            assert text == done.output_text
        else:
            done = (sdk.responses.parse if case.model or case.tools else sdk.responses.create)(**ask)
        calls = [[i.name, dialects.decoded(i.arguments)] for i in done.output if i.type == "function_call"]
        thinking = "".join(s.text for i in done.output if i.type == "reasoning" for s in i.summary)
        return done.output_text, calls, thinking, done.usage and (done.usage.input_tokens, done.usage.output_tokens), getattr(done, "output_parsed", None)


def messages_sdk(p, case, headers):
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{p.port}", api_key="k", max_retries=0, timeout=15 * SLOW, default_headers=headers) as sdk:
        ask = {"model": MODEL, "max_tokens": 4096, "messages": HI}
        if case.tools:
            ask["tools"] = [{"name": n, "input_schema": s} for n, s in case.tools.items()]
        if case.model:
            ask["output_format"] = case.model
        if case.kind == "thinking":
            ask["thinking"] = {"type": "enabled", "budget_tokens": 1024}
        if case.streams:
            with sdk.messages.stream(**ask) as stream:
                text = "".join(stream.text_stream)
                done = stream.get_final_message()
            assert text == "".join(b.text for b in done.content if b.type == "text")
        else:
            done = (sdk.messages.parse if case.model else sdk.messages.create)(**ask)
        calls = [[b.name, b.input] for b in done.content if b.type == "tool_use"]
        thinking = "".join(b.thinking for b in done.content if b.type == "thinking")
        u = done.usage
        total = u.input_tokens + (u.cache_read_input_tokens or 0) + (u.cache_creation_input_tokens or 0)
        return "".join(b.text for b in done.content if b.type == "text"), calls, thinking, (total, u.output_tokens), getattr(done, "parsed_output", None)


def gemini_sdk(p, case, headers):
    sdk = genai.Client(api_key="k", http_options={"base_url": f"http://127.0.0.1:{p.port}", "headers": headers, "timeout": int(15000 * SLOW)})
    t, ask = genai.types, {}
    if case.tools:
        ask["tools"] = [t.Tool(function_declarations=[t.FunctionDeclaration(name=n, description="It.", parameters_json_schema=s) for n, s in case.tools.items()])]
        ask["automatic_function_calling"] = t.AutomaticFunctionCallingConfig(disable=True)
    if case.model:
        ask.update(response_mime_type="application/json", response_schema=case.model)
    if case.kind == "thinking":
        ask["thinking_config"] = t.ThinkingConfig(include_thoughts=True)
    with sdk:
        if case.streams:
            answers = list(sdk.models.generate_content_stream(model=MODEL, contents="Hi", config=ask))
        else:
            answers = [sdk.models.generate_content(model=MODEL, contents="Hi", config=ask)]
    parts = [part for a in answers for c in a.candidates or [] for part in (c.content and c.content.parts or [])]
    text = "".join(part.text or "" for part in parts if not part.thought)
    calls = [[part.function_call.name, part.function_call.args or {}] for part in parts if part.function_call]
    u = next((a.usage_metadata for a in reversed(answers) if a.usage_metadata), None)
    parsed = case.model.model_validate_json(text) if case.model and case.streams else answers[-1].parsed
    return text, calls, "".join(part.text or "" for part in parts if part.thought), \
        u and ((u.prompt_token_count or 0) + (u.tool_use_prompt_token_count or 0), (u.candidates_token_count or 0) + (u.thoughts_token_count or 0)), parsed


def cohere_sdk(p, case, headers):
    sdk = cohere.ClientV2("k", base_url=f"http://127.0.0.1:{p.port}", timeout=15 * SLOW, max_retries=0)
    ask = {"model": MODEL, "messages": HI, "request_options": {"additional_headers": headers, "max_retries": 0}}
    if case.tools:
        ask["tools"] = [{"type": "function", "function": {"name": n, "parameters": s}} for n, s in case.tools.items()]
    if not case.streams:
        done = sdk.chat(**ask)
        content, usage = done.message.content or [], done.usage
        calls = [[c.function.name, dialects.decoded(c.function.arguments)] for c in done.message.tool_calls or []]
        text, thinking = ("".join(getattr(c, k, None) or "" for c in content) for k in ("text", "thinking"))
        return (done.message.tool_plan or "") + text, calls, thinking, usage and (usage.billed_units.input_tokens, usage.billed_units.output_tokens), None
    events = list(sdk.chat_stream(**ask))
    deltas = [e.delta.message.content for e in events if e.type == "content-delta"]
    text, thinking = ("".join(getattr(d, k, None) or "" for d in deltas) for k in ("text", "thinking"))
    usage = next(e.delta.usage for e in events if e.type == "message-end")
    return text, [], thinking, (usage.billed_units.input_tokens, usage.billed_units.output_tokens), None


def ollama_sdk(p, case, headers):
    sdk = ollama.Client(f"http://127.0.0.1:{p.port}", headers=headers, timeout=15 * SLOW)
    tools = [{"type": "function", "function": {"name": n, "description": "It.", "parameters": s}} for n, s in case.tools.items()]
    got = sdk.chat(MODEL, HI, tools=tools or None, stream=case.streams, think=case.kind == "thinking" or None,
                   format=case.model and case.model.model_json_schema())
    answers = list(got) if case.streams else [got]
    messages = [a.message for a in answers]
    calls = [[c.function.name, dict(c.function.arguments)] for m in messages for c in m.tool_calls or []]
    return "".join(m.content or "" for m in messages), calls, "".join(m.thinking or "" for m in messages), \
        (answers[-1].prompt_eval_count, answers[-1].eval_count), case.model and case.model.model_validate_json("".join(m.content or "" for m in messages))


SDKS = {"chat": chat_sdk, "responses": responses_sdk, "messages": messages_sdk, "gemini": gemini_sdk, "cohere": cohere_sdk, "ollama": ollama_sdk}
OWN_ONLY = {"cohere"}      # its clients are passed on, not translated


def fits(dialect, name):
    """Does a client of this dialect reach who said that?"""
    if dialect in OWN_ONLY:
        return name.startswith(dialect + "/")
    if dialect == "chat" and name.startswith(("mistral/", "ollama/")):       # passed on as they come: Mistral's words are not quite OpenAI's
        return False
    if name in ("cohere/thinking-stream", "deepseek/reasoning-content-stream"):       # cut by max_tokens: OpenAI's helpers raise at that
        return dialect not in ("chat", "responses")
    return dialect == "responses" or "/responses-" not in name


def runs():
    for dialect in SDKS:
        for kind, names in ASKED.items():
            for name in names:
                if fits(dialect, name):
                    yield pytest.param(dialect, name, kind, id=f"{dialect}-{kind}-{name}")


@pytest.mark.parametrize("dialect,name,kind", list(runs()) if CASES else [
    pytest.param(None, None, None, marks=pytest.mark.skip(reason="no recordings: set CLAW_SHARED"), id="no-recordings")])
def test_sdk(replay, dialect, name, kind):
    recording = CASES[name]
    replay.up.default = recording.script
    case = Case(kind, recording)
    text, calls, thinking, usage, parsed = SDKS[dialect](replay, case, {recorded.ROUTED: recording.upstream(dialect)})
    said = case.said
    assert (text or "") == said.text and calls == said.calls
    if recording.dialect != dialect:
        assert "".join((thinking or "").split()) == "".join(said.thinking.split())
    if said.usage:
        assert usage == (said.usage["input"], said.usage["output"])
    if case.model:
        assert isinstance(parsed, case.model) and json.loads(parsed.model_dump_json()) == json.loads(said.text)
