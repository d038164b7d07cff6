"""What the chat dialects say, read and written by simple means that share nothing with the proxy's.

asked(dialect, body)            a request's body -> Asked
request(dialect, asked, model)  Asked -> (path, body)
said(dialect, answer)           an answer's body (bytes: JSON, or a stream) -> Said

dialect: chat, responses, messages, gemini, ollama; of upstreams also cohere, bedrock.
"""
import dataclasses
import json
from urllib.parse import quote

DIALECTS = ["chat", "responses", "messages", "gemini", "ollama"]


@dataclasses.dataclass
class Asked:
    system: str = ""
    turns: list = dataclasses.field(default_factory=list)      # (role, [part]); part: ("text", t) ("image", where) ("document", where)
    tools: list = dataclasses.field(default_factory=list)      # ("call", id, name, input) ("result", id, name, text);  tools: (name, description, schema)
    choice: str = "auto"                                       # auto none required, or a tool's name
    max_tokens: int = None
    stop: list = dataclasses.field(default_factory=list)
    schema: dict = None
    thinks: bool = False
    streams: bool = False
    left_out: list = dataclasses.field(default_factory=list)   # what these simple means do not know

    def add(self, role, parts):
        parts = [p for p in parts if p and p != ("text", "")]
        if not parts:
            return
        if self.turns and self.turns[-1][0] == role:
            self.turns[-1][1].extend(parts)
        else:
            self.turns.append((role, list(parts)))

    def named(self):
        """Results know their call's name, and calls have ids."""
        names, last, waiting = {}, 0, []
        for _, parts in self.turns:
            for i, p in enumerate(parts):
                if p[0] == "call":
                    last += 1
                    parts[i] = p = ("call", p[1] or f"call_{last}", p[2], p[3])
                    names[p[1]] = p[2]
                    waiting.append((p[1], p[2]))
                elif p[0] == "result":
                    at = next((w for w in waiting if w[0] == p[1]), None) or next((w for w in waiting if w[1] == p[2]), None) or (p[1] or "call_0", p[2] or "it")
                    waiting = [w for w in waiting if w != at]
                    parts[i] = ("result", at[0], p[2] or names.get(at[0], at[1]), p[3])
        return self

    def meaning(self):
        """What must come through: everything but ids, and the cuts between texts."""
        turns = []
        for role, parts in self.turns:
            text = "".join(p[1] for p in parts if p[0] == "text")
            rest = [p[2:] if p[0] == "call" else p[3:] if p[0] == "result" else p for p in parts if p[0] != "text"]
            turns.append((role, text, rest))
        return {"system": self.system.strip(), "turns": turns, "tools": [(n, d or None, sorted((s or {}).get("properties", {}))) for n, d, s in self.tools],
                "choice": self.choice if self.tools else "auto", "stop": self.stop, "schema": self.schema is not None, "streams": self.streams}


def decoded(text):
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def words(content):
    if isinstance(content, str):
        return content
    return "".join(p.get("text", "") for p in content or [] if isinstance(p, dict))


def inline(url):
    """A URL, or (media type, data) of a data: URL."""
    if url and url.startswith("data:"):
        media, _, data = url[5:].partition(";base64,")
        return media, data
    return url


# ---- chat

def chat_part(p, left_out):
    kind = p.get("type")
    if kind == "text":
        return "text", p["text"]
    if kind == "image_url":
        at = p["image_url"]
        return "image", inline(at if isinstance(at, str) else at["url"])
    if kind == "document_url":
        return "document", inline(p["document_url"])
    if kind == "file" and "file_data" in p["file"]:
        return "document", inline(p["file"]["file_data"])
    left_out.append(kind)


def asked_chat(b):
    a = Asked(streams=b.get("stream") is True)
    system = []
    for m in b["messages"]:
        content = m.get("content")
        parts = [("text", content)] if isinstance(content, str) else [chat_part(p, a.left_out) for p in content or []]
        if m["role"] in ("system", "developer"):
            system.append(words(content))
        elif m["role"] == "tool":
            a.add("user", [("result", m["tool_call_id"], m.get("name"), words(content))])
        else:
            calls = [("call", c["id"], c["function"]["name"], decoded(c["function"]["arguments"])) for c in m.get("tool_calls") or []]
            a.add(m["role"], parts + calls)
    a.system = "\n\n".join(system)
    a.tools = [(t["function"]["name"], t["function"].get("description"), t["function"].get("parameters")) for t in b.get("tools") or [] if t["type"] == "function"]
    choice = b.get("tool_choice") or "auto"
    a.choice = choice["function"]["name"] if isinstance(choice, dict) else "required" if choice == "any" else choice
    a.max_tokens = b.get("max_completion_tokens") or b.get("max_tokens")
    stop = b.get("stop") or []
    a.stop = [stop] if isinstance(stop, str) else stop
    form = b.get("response_format") or {}
    a.schema = (form.get("json_schema") or {}).get("schema")
    a.thinks = b.get("reasoning_effort") not in (None, "none")
    return a.named()


def request_chat(a, model):
    messages = [{"role": "system", "content": a.system}] if a.system else []
    for role, parts in a.turns:
        content, calls = [], []
        for p in parts:
            if p[0] == "text":
                content.append({"type": "text", "text": p[1]})
            elif p[0] == "image":
                content.append({"type": "image_url", "image_url": {"url": p[1] if isinstance(p[1], str) else f"data:{p[1][0]};base64,{p[1][1]}"}})
            elif p[0] == "document":
                content.append({"type": "file", "file": {"file_data": p[1] if isinstance(p[1], str) else f"data:{p[1][0]};base64,{p[1][1]}", "filename": "it"}})
            elif p[0] == "call":
                calls.append({"id": p[1], "type": "function", "function": {"name": p[2], "arguments": json.dumps(p[3])}})
            else:
                messages.append({"role": "tool", "tool_call_id": p[1], "content": p[3]})
        if content or calls:
            messages.append({"role": role, **({"content": content} if content else {}), **({"tool_calls": calls} if calls else {})})
    b = {"model": model, "messages": messages}
    if a.tools:
        b["tools"] = [{"type": "function", "function": {"name": n, **({"description": d} if d else {}), **({"parameters": s} if s else {})}} for n, d, s in a.tools]
        if a.choice != "auto":
            b["tool_choice"] = a.choice if a.choice in ("none", "required") else {"type": "function", "function": {"name": a.choice}}
    if a.max_tokens:
        b["max_completion_tokens"] = a.max_tokens
    if a.stop:
        b["stop"] = a.stop
    if a.schema:
        b["response_format"] = {"type": "json_schema", "json_schema": {"name": "it", "schema": a.schema}}
    if a.thinks:
        b["reasoning_effort"] = "low"
    if a.streams:
        b.update(stream=True, stream_options={"include_usage": True})
    return "/v1/chat/completions", b


# ---- responses

def request_responses(a, model):
    items = []
    for role, parts in a.turns:
        content = []

        def told(content=content, role=role):
            if content:
                items.append({"role": role, "content": list(content)})
                content.clear()
        for p in parts:
            if p[0] == "text":
                content.append({"type": "output_text" if role == "assistant" else "input_text", "text": p[1]})
            elif p[0] == "image":
                content.append({"type": "input_image", "detail": "auto", "image_url": p[1] if isinstance(p[1], str) else f"data:{p[1][0]};base64,{p[1][1]}"})
            elif p[0] == "document":
                content.append({"type": "input_file", **({"file_url": p[1]} if isinstance(p[1], str) else
                                                         {"filename": "it", "file_data": f"data:{p[1][0]};base64,{p[1][1]}"})})
            else:
                told()
                items.append({"type": "function_call", "call_id": p[1], "name": p[2], "arguments": json.dumps(p[3])} if p[0] == "call"
                             else {"type": "function_call_output", "call_id": p[1], "output": p[3]})
        told()
    b = {"model": model, "input": items}
    if a.system:
        b["instructions"] = a.system
    if a.tools:
        b["tools"] = [{"type": "function", "name": n, **({"description": d} if d else {}), "parameters": s or {"type": "object", "properties": {}}, "strict": False}
                      for n, d, s in a.tools]
        if a.choice != "auto":
            b["tool_choice"] = a.choice if a.choice in ("none", "required") else {"type": "function", "name": a.choice}
    if a.max_tokens:
        b["max_output_tokens"] = a.max_tokens
    if a.schema:
        b["text"] = {"format": {"type": "json_schema", "name": "it", "schema": a.schema}}
    if a.thinks:
        b["reasoning"] = {"effort": "low", "summary": "auto"}
    if a.streams:
        b["stream"] = True
    return "/v1/responses", b


# ---- messages

def source(p):
    s = p["source"]
    if s["type"] == "base64":
        return s["media_type"], s["data"]
    return s.get("url") or s.get("data")


def asked_messages(b):
    a = Asked(streams=b.get("stream") is True, system=words(b.get("system") or ""))
    for m in b["messages"]:
        parts = []
        for p in [{"type": "text", "text": m["content"]}] if isinstance(m["content"], str) else m["content"]:
            kind = p["type"]
            if kind == "text":
                parts.append(("text", p["text"]))
            elif kind in ("image", "document"):
                parts.append((kind, source(p)) if p["source"]["type"] != "text" else ("text", p["source"]["data"]))
            elif kind == "tool_use":
                parts.append(("call", p["id"], p["name"], p["input"]))
            elif kind == "tool_result":
                parts.append(("result", p["tool_use_id"], None, words(p.get("content"))))
            else:
                a.left_out.append(kind)
        a.add(m["role"], parts)
    a.tools = [(t["name"], t.get("description"), t["input_schema"]) for t in b.get("tools") or [] if "input_schema" in t]
    choice = b.get("tool_choice") or {"type": "auto"}
    a.choice = {"any": "required", "tool": choice.get("name")}.get(choice["type"], choice["type"])
    a.max_tokens, a.stop = b.get("max_tokens"), b.get("stop_sequences") or []
    form = b.get("output_format") or (b.get("output_config") or {}).get("format") or {}
    a.schema = form.get("schema")
    a.thinks = (b.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    return a.named()


def request_messages(a, model):
    def where(at):
        return {"type": "url", "url": at} if isinstance(at, str) else {"type": "base64", "media_type": at[0], "data": at[1]}
    messages = []
    for role, parts in a.turns:
        messages.append({"role": role, "content": [
            {"type": "text", "text": p[1]} if p[0] == "text" else {"type": p[0], "source": where(p[1])} if p[0] in ("image", "document")
            else {"type": "tool_use", "id": p[1], "name": p[2], "input": p[3]} if p[0] == "call"
            else {"type": "tool_result", "tool_use_id": p[1], "content": p[3]} for p in parts]})
    b = {"model": model, "max_tokens": a.max_tokens or 1024, "messages": messages}
    if a.system:
        b["system"] = a.system
    if a.tools:
        b["tools"] = [{"name": n, **({"description": d} if d else {}), "input_schema": s or {"type": "object", "properties": {}}} for n, d, s in a.tools]
        if a.choice != "auto":
            b["tool_choice"] = {"type": {"required": "any"}.get(a.choice, a.choice)} if a.choice in ("none", "required") else {"type": "tool", "name": a.choice}
    if a.stop:
        b["stop_sequences"] = a.stop
    if a.schema:
        b["output_config"] = {"format": {"type": "json_schema", "schema": a.schema}}
    if a.thinks:
        b.update(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=max(b["max_tokens"], 4096))
    if a.streams:
        b["stream"] = True
    return "/v1/messages", b


# ---- gemini

def snake(d, name):
    """Gemini's servers take both spellings."""
    other = "".join("_" + c.lower() if c.isupper() else c for c in name)
    return d.get(name, d.get(other))


def asked_gemini(b, streams):
    config = snake(b, "generationConfig") or {}
    a = Asked(streams=streams, system=words((snake(b, "systemInstruction") or {}).get("parts")))
    for c in b["contents"]:
        parts = []
        for p in c["parts"]:
            blob, file, call, result = (snake(p, n) for n in ("inlineData", "fileData", "functionCall", "functionResponse"))
            if call:
                parts.append(("call", call.get("id"), call["name"], call.get("args") or {}))
            elif result:
                value = result["response"]
                only = next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value
                parts.append(("result", result.get("id"), result["name"], only if isinstance(only, str) else json.dumps(value)))
            elif blob or file:
                media = snake(blob or file, "mimeType") or ""
                kind = "image" if media.startswith("image/") else "document" if not media or media.startswith(("application/pdf", "text/")) else None
                at = (media, blob["data"].replace("-", "+").replace("_", "/")) if blob else snake(file, "fileUri")
                parts.append((kind, at)) if kind else a.left_out.append(media)
            elif p.get("text") and not p.get("thought"):
                parts.append(("text", p["text"]))
        a.add("assistant" if c.get("role") == "model" else "user", parts)
    for group in b.get("tools") or []:
        for t in snake(group, "functionDeclarations") or []:
            a.tools.append((t["name"], t.get("description"), snake(t, "parametersJsonSchema") or t.get("parameters")))
    calling = snake(snake(b, "toolConfig") or {}, "functionCallingConfig") or {}
    names = snake(calling, "allowedFunctionNames") or []
    a.choice = names[0] if len(names) == 1 else {"ANY": "required", "NONE": "none"}.get(calling.get("mode"), "auto")
    a.max_tokens, a.stop = snake(config, "maxOutputTokens"), snake(config, "stopSequences") or []
    a.schema = snake(config, "responseJsonSchema") or snake(config, "responseSchema")
    a.thinks = (snake(config, "thinkingConfig") or {}).get("includeThoughts") is True
    return a.named()


def request_gemini(a, model):
    def where(at):
        return {"fileData": {"fileUri": at}} if isinstance(at, str) else {"inlineData": {"mimeType": at[0], "data": at[1]}}
    contents = []
    for role, parts in a.turns:
        contents.append({"role": "model" if role == "assistant" else "user", "parts": [
            {"text": p[1]} if p[0] == "text" else where(p[1]) if p[0] in ("image", "document")
            else {"functionCall": {"id": p[1], "name": p[2], "args": p[3]}} if p[0] == "call"
            else {"functionResponse": {"id": p[1], "name": p[2], "response": {"output": p[3]}}} for p in parts]})
        for p, made in zip(parts, contents[-1]["parts"]):
            if "fileData" in made:
                made["fileData"]["mimeType"] = "image/png" if p[0] == "image" else "application/pdf"
    b, config = {"contents": contents}, {}
    if a.system:
        b["systemInstruction"] = {"parts": [{"text": a.system}]}
    if a.tools:
        b["tools"] = [{"functionDeclarations": [{"name": n, **({"description": d} if d else {}), **({"parametersJsonSchema": s} if s else {})} for n, d, s in a.tools]}]
        if a.choice != "auto":
            b["toolConfig"] = {"functionCallingConfig": {"mode": "NONE"} if a.choice == "none" else {"mode": "ANY"} if a.choice == "required"
                               else {"mode": "ANY", "allowedFunctionNames": [a.choice]}}
    if a.max_tokens:
        config["maxOutputTokens"] = a.max_tokens
    if a.stop:
        config["stopSequences"] = a.stop
    if a.schema:
        config.update(responseMimeType="application/json", responseJsonSchema=a.schema)
    if a.thinks:
        config["thinkingConfig"] = {"includeThoughts": True}
    if config:
        b["generationConfig"] = config
    return f"/v1beta/models/{quote(model, safe='')}:" + ("streamGenerateContent?alt=sse" if a.streams else "generateContent"), b


def request_ollama(a, model):
    """As its SDK says it: calls and results without ids."""
    messages = [{"role": "system", "content": a.system}] if a.system else []
    for role, parts in a.turns:
        m = {"role": role}
        for p in parts:
            if p[0] == "text":
                m["content"] = m.get("content", "") + p[1]
            elif p[0] == "image":
                m.setdefault("images", []).append(p[1][1])
            elif p[0] == "call":
                m.setdefault("tool_calls", []).append({"function": {"name": p[2], "arguments": p[3]}})
            else:
                messages.append({"role": "tool", "tool_name": p[2], "content": p[3]})
        if len(m) > 1:
            messages.append(m)
    b = {"model": model, "messages": messages, "stream": a.streams}
    if a.tools:
        b["tools"] = [{"type": "function", "function": {"name": n, **({"description": d} if d else {}), **({"parameters": s} if s else {})}} for n, d, s in a.tools]
    options = {**({"num_predict": a.max_tokens} if a.max_tokens else {}), **({"stop": a.stop} if a.stop else {})}
    if options:
        b["options"] = options
    if a.schema:
        b["format"] = a.schema
    if a.thinks:
        b["think"] = True
    return "/api/chat", b


def ollama_says(a):
    """Can its clients ask that? Images go by content, calls' inputs are objects; nothing else is there."""
    parts = [p for _, parts in a.turns for p in parts]
    return not any(p[0] == "document" or p[0] == "image" and isinstance(p[1], str) or p[0] == "call" and not isinstance(p[3], dict) for p in parts) and not a.left_out


# ---- what only upstreams speak

def asked_cohere(b):
    a = asked_chat({**b, "messages": [{**m, "content": m.get("content") or ""} for m in b["messages"]], "response_format": None, "stop": b.get("stop_sequences"),
                    "tool_choice": (b.get("tool_choice") or "auto").lower()})
    a.schema = (b.get("response_format") or {}).get("json_schema") or (b.get("response_format") or {}).get("schema")
    return a


def asked_ollama(b):
    messages = []
    for m in b["messages"]:
        content = [{"type": "text", "text": m.get("content") or ""}]
        content += [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + i}} for i in m.get("images") or []]
        calls = [{"id": c.get("id"), "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"])}} for c in m.get("tool_calls") or []]
        messages.append({**m, "content": content, "tool_calls": calls, "name": m.get("tool_name"), "tool_call_id": m.get("tool_call_id")})
    options = b.get("options") or {}
    a = asked_chat({**b, "messages": messages, "stop": options.get("stop"), "max_tokens": options.get("num_predict"), "tool_choice": None})
    a.schema, a.streams = b.get("format") or None, b.get("stream", True)
    return a


def asked_bedrock(b, streams):
    config = b.get("inferenceConfig") or {}
    a = Asked(streams=streams, system=words(b.get("system") or []), max_tokens=config.get("maxTokens"), stop=config.get("stopSequences") or [])
    for m in b["messages"]:
        parts = []
        for p in m["content"]:
            if "text" in p:
                parts.append(("text", p["text"]))
            elif "toolUse" in p:
                parts.append(("call", p["toolUse"]["toolUseId"], p["toolUse"]["name"], p["toolUse"]["input"]))
            elif "toolResult" in p:
                parts.append(("result", p["toolResult"]["toolUseId"], None, words(p["toolResult"]["content"])))
            elif "cachePoint" not in p:
                a.left_out.append(next(iter(p)))
        a.add(m["role"], parts)
    tools = b.get("toolConfig") or {}
    for t in tools.get("tools") or []:
        if "toolSpec" in t:
            a.tools.append((t["toolSpec"]["name"], t["toolSpec"].get("description"), t["toolSpec"]["inputSchema"]["json"]))
    choice = tools.get("toolChoice") or {}
    a.choice = "required" if "any" in choice else choice["tool"]["name"] if "tool" in choice else "auto"
    a.schema = ((b.get("outputConfig") or {}).get("textFormat") or {}).get("structure", {}).get("jsonSchema", {}).get("schema")
    a.schema = json.loads(a.schema) if isinstance(a.schema, str) else a.schema
    return a.named()


def asked(dialect, body, streams=False):
    return {"cohere": asked_cohere, "ollama": asked_ollama, "bedrock": lambda b: asked_bedrock(b, streams), "chat": asked_chat, "messages": asked_messages, "gemini": lambda b: asked_gemini(b, streams)}[dialect](body)


def request(dialect, a, model):
    return {"chat": request_chat, "responses": request_responses, "messages": request_messages, "gemini": request_gemini, "ollama": request_ollama}[dialect](a, model)


# ---- answers

@dataclasses.dataclass
class Said:
    text: str = ""
    thinking: str = ""
    refusal: str = ""
    calls: list = dataclasses.field(default_factory=list)   # [name, input]
    stop: str = None                                        # end length call filter
    usage: dict = None                                      # input, cached, output, reasoning
    error: str = None                                       # its message


STOPS = {
    "stop": "end", "end_turn": "end", "stop_sequence": "end", "STOP": "end", "completed": "end", "pause_turn": "end", "eos": "end",
    "COMPLETE": "end", "STOP_SEQUENCE": "end", "TOOL_CALL": "call", "guardrail_intervened": "filter",
    "length": "length", "max_tokens": "length", "MAX_TOKENS": "length", "max_output_tokens": "length", "model_context_window_exceeded": "length",
    "tool_calls": "call", "function_call": "call", "tool_use": "call",
    "content_filter": "filter", "refusal": "filter", "SAFETY": "filter", "PROHIBITED_CONTENT": "filter", "BLOCKLIST": "filter", "MODEL_ARMOR": "filter",
    "RECITATION": "filter", "OTHER": "filter", "SPII": "filter",
}


def events(body):
    """(type, data) of a stream's events, or of a stream of lines."""
    if body[:1] == b"{":
        return [(None, line) for line in body.decode().split("\n") if line]
    out = []
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        kind, data = None, []
        for line in block.split("\n"):
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
        if data:
            out.append((kind, "\n".join(data)))
    return out


def usage_of(u):
    """Of any dialect's usage object."""
    if not u:
        return None
    if "promptTokenCount" in u:
        return {"input": u["promptTokenCount"] + u.get("toolUsePromptTokenCount", 0), "cached": u.get("cachedContentTokenCount", 0),
                "output": u.get("candidatesTokenCount", 0) + u.get("thoughtsTokenCount", 0), "reasoning": u.get("thoughtsTokenCount", 0)}
    if "prompt_tokens" in u:
        hidden = max(u.get("total_tokens", 0) - u["prompt_tokens"] - u.get("completion_tokens", 0), 0)      # reasoning that is in the total alone
        return {"input": u["prompt_tokens"], "cached": (u.get("prompt_tokens_details") or {}).get("cached_tokens") or u.get("prompt_cache_hit_tokens") or 0,
                "output": u.get("completion_tokens", 0) + hidden,
                "reasoning": max((u.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0, hidden)}
    if "input_tokens_details" in u:
        return {"input": u["input_tokens"], "cached": u["input_tokens_details"].get("cached_tokens") or 0,
                "output": u["output_tokens"], "reasoning": u["output_tokens_details"].get("reasoning_tokens") or 0}
    if "input_tokens" in u:
        return {"input": u["input_tokens"] + (u.get("cache_read_input_tokens") or 0) + (u.get("cache_creation_input_tokens") or 0),
                "cached": u.get("cache_read_input_tokens") or 0, "output": u.get("output_tokens", 0), "reasoning": (u.get("output_tokens_details") or {}).get("thinking_tokens") or 0}
    return None


def said_chat(pieces):
    s, calls = Said(), {}
    for b in pieces:
        if b.get("error"):
            s.error = b["error"]["message"]
        for c in b.get("choices") or []:
            if c.get("index", 0) != 0:
                continue
            m = c.get("message") or c.get("delta") or {}
            content = m.get("content")
            if isinstance(content, list):
                s.thinking += "".join(words(p["thinking"]) for p in content if p["type"] == "thinking")
            s.text += words([p for p in content if p["type"] == "text"] if isinstance(content, list) else content or "")
            s.thinking += m.get("reasoning_content") or m.get("reasoning") or ""
            s.refusal += m.get("refusal") or ""
            for i, t in enumerate(m.get("tool_calls") or []):
                call = calls.setdefault(t.get("index", i), ["", ""])
                call[0] += t["function"].get("name") or ""
                call[1] += t["function"].get("arguments") or ""
            s.stop = STOPS.get(c.get("finish_reason"), c.get("finish_reason")) or s.stop
        s.usage = usage_of(b.get("usage")) or s.usage
    s.calls = [[n, decoded(i)] for _, (n, i) in sorted(calls.items())]
    return s


def said_messages(pieces):
    s, blocks, usage = Said(), {}, {}
    for b in pieces:
        if b["type"] == "error":
            s.error = b["error"]["message"]
        m = b.get("message") or b
        for i, block in enumerate(m.get("content") or []):
            blocks[i] = dict(block)
        usage |= {k: v for k, v in (m.get("usage") or {}).items() if v is not None}
        s.stop = m.get("stop_reason") or s.stop
        if b["type"] == "content_block_start":
            blocks[b["index"]] = {**b["content_block"], "json": ""}
        elif b["type"] == "content_block_delta":
            d, at = b["delta"], blocks[b["index"]]
            for name in ("text", "thinking"):
                if name in d:
                    at[name] = at.get(name, "") + d[name]
            at["json"] += d.get("partial_json", "")
        elif b["type"] == "message_delta":
            s.stop = b["delta"].get("stop_reason") or s.stop
    for _, at in sorted(blocks.items()):
        if at["type"] == "text":
            s.text += at["text"]
        elif at["type"] == "thinking":
            s.thinking += at["thinking"]
        elif at["type"] == "tool_use":
            s.calls.append([at["name"], decoded(at["json"]) if at.get("json") else at["input"]])
    s.stop, s.usage = STOPS.get(s.stop, s.stop), usage_of(usage)
    return s


def said_gemini(pieces):
    s = Said()
    for b in pieces:
        if b.get("error"):
            s.error = b["error"]["message"]
        for c in (b.get("candidates") or [])[:1]:
            for p in (c.get("content") or {}).get("parts") or []:
                if "functionCall" in p:
                    s.calls.append([p["functionCall"]["name"], p["functionCall"].get("args") or {}])
                elif p.get("thought"):
                    s.thinking += p["text"]
                else:
                    s.text += p.get("text", "")
            s.stop = c.get("finishReason") or s.stop
        feedback = b.get("promptFeedback") or {}
        s.refusal += feedback.get("blockReasonMessage", "")
        s.stop = feedback.get("blockReason") or s.stop
        s.usage = usage_of(b.get("usageMetadata")) or s.usage
    s.stop = STOPS.get(s.stop, s.stop)
    if s.stop == "end" and s.calls:
        s.stop = "call"
    return s


def said_responses(pieces):
    s, last = Said(), None
    for b in pieces:
        if b.get("type") == "error":
            s.error = (b.get("error") or b)["message"]
        if b.get("type") == "response.output_text.delta":
            s.text += b["delta"]
        elif b.get("type") == "response.refusal.delta":
            s.refusal += b["delta"]
        elif b.get("type", "").startswith("response.reasoning_") and b["type"].endswith("_text.delta"):
            s.thinking += b["delta"]
        last = b.get("response") or (b if b.get("object") == "response" else last)
    if not last:
        return s
    streamed, told = len(pieces) > 1, Said()
    for item in last["output"]:
        if item["type"] == "message":
            told.text += words([p for p in item["content"] if p["type"] == "output_text"])
            told.refusal += "".join(p.get("refusal", "") for p in item["content"])
        elif item["type"] == "reasoning":
            told.thinking += words(item.get("summary")) + words(item.get("content"))
        elif item["type"] == "function_call":
            told.calls.append([item["name"], decoded(item["arguments"])])
    if streamed and last["status"] not in ("completed", "incomplete"):
        told.text, told.refusal = s.text, s.refusal
    elif streamed:      # what the pieces said is what the whole says
        assert (s.text, s.refusal) == (told.text, told.refusal), "the pieces differ from the whole"
    told.thinking = s.thinking or told.thinking
    told.error = s.error or (last.get("error") or {}).get("message")
    told.usage = usage_of(last.get("usage"))
    told.stop = STOPS.get((last.get("incomplete_details") or {}).get("reason") or last["status"])
    if told.stop == "end" and told.calls:
        told.stop = "call"
    return told


def said_cohere(pieces):
    s, calls = Said(), {}
    for b in pieces:
        kind, m = b.get("type"), (b.get("delta") or b).get("message") or {}
        content = m.get("content") or []
        for p in content if isinstance(content, list) else [content]:
            s.text += p.get("text") or ""
            s.thinking += p.get("thinking") or ""
        s.text += m.get("tool_plan") or ""
        made = m.get("tool_calls") or []
        for i, t in enumerate(made if isinstance(made, list) else [made]):
            call = calls.setdefault(b.get("index", i), ["", ""])
            call[0] += t["function"].get("name") or ""
            call[1] += t["function"].get("arguments") or ""
        end = b.get("delta") or b
        if kind in (None, "message-end") and end.get("usage"):
            u = end["usage"]
            counted = u.get("billed_units") or u["tokens"]
            s.stop = STOPS.get(end["finish_reason"], end["finish_reason"])
            s.usage = {"input": counted["input_tokens"], "cached": min(u.get("cached_tokens", 0), counted["input_tokens"]), "output": counted["output_tokens"], "reasoning": 0}
    s.calls = [[n, decoded(i)] for _, (n, i) in sorted(calls.items())]
    return s


def said_ollama(pieces):
    s = Said()
    for b in pieces:
        m = b.get("message") or {}
        s.error = b.get("error") or s.error
        s.text += m.get("content") or ""
        s.thinking += m.get("thinking") or ""
        s.calls += [[c["function"]["name"], c["function"]["arguments"]] for c in m.get("tool_calls") or []]
        if b.get("done"):
            s.stop = STOPS.get(b.get("done_reason"))
            s.usage = {"input": b.get("prompt_eval_count", 0), "cached": 0, "output": b.get("eval_count", 0), "reasoning": 0}
    if s.stop == "end" and s.calls:
        s.stop = "call"
    return s


def said_bedrock(pieces):
    s, calls = Said(), {}
    for b in pieces:
        for p in ((b.get("output") or {}).get("message") or {}).get("content") or []:
            s.text += p.get("text") or ""
            s.thinking += ((p.get("reasoningContent") or {}).get("reasoningText") or {}).get("text") or ""
            if "toolUse" in p:
                s.calls.append([p["toolUse"]["name"], p["toolUse"]["input"]])
        at = b.get("contentBlockIndex")
        if "toolUse" in (b.get("start") or {}):
            calls[at] = [b["start"]["toolUse"]["name"], ""]
        d = b.get("delta") or {}
        s.text += d.get("text") or ""
        s.thinking += (d.get("reasoningContent") or {}).get("text") or ""
        if "toolUse" in d:
            calls[at][1] += d["toolUse"]["input"]
        s.stop = STOPS.get(b.get("stopReason"), b.get("stopReason")) or s.stop
        u = b.get("usage")
        if u:
            read, written = u.get("cacheReadInputTokens") or 0, u.get("cacheWriteInputTokens") or 0
            s.usage = {"input": u["inputTokens"] + read + written, "cached": read, "output": u["outputTokens"], "reasoning": 0}
    s.calls += [[n, decoded(i)] for _, (n, i) in sorted(calls.items())]
    return s


def payloads(body):
    """Of AWS's event stream: lengths of the whole and of the headers, a checksum; headers, payload, a checksum."""
    while body:
        whole, heads = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        yield json.loads(body[12 + heads:whole - 4])
        body = body[whole:]


def said(dialect, body):
    if dialect == "bedrock":
        return said_bedrock([json.loads(body)] if body.lstrip()[:1] == b"{" else list(payloads(body)))
    if dialect == "ollama":
        return said_ollama([json.loads(body)] if body.count(b"}\n{") == 0 else [json.loads(line) for line in body.splitlines() if line.strip()])
    if dialect == "cohere":
        whole = body.lstrip()[:1] == b"{"
        return said_cohere([json.loads(body)] if whole else [json.loads(data) for _, data in events(body) if data != "[DONE]"])
    if body.lstrip()[:1] in (b"{", b"["):
        pieces = json.loads(body)
        pieces = pieces if isinstance(pieces, list) else [pieces]
    else:
        pieces = [json.loads(data) for _, data in events(body) if data != "[DONE]"]
    return {"chat": said_chat, "responses": said_responses, "messages": said_messages, "gemini": said_gemini}[dialect](pieces)
