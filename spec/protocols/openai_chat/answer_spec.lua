local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")
local plain = require("support.meaning").plain

local function read(body)
    return chat.read_answer(context.doc(body), context.new())
end

local function one(message, finish, more)
    local body = { id = "x", model = "m", choices = { { index = 0, message = message, finish_reason = finish or "stop" } } }
    for key, v in pairs(more or {}) do body[key] = v end
    return read(body)
end

local function write(answer, overrides)
    overrides = overrides or {}
    overrides.answering = true
    local cx = context.new(overrides)
    return json.decode(json.encode(chat.write_answer(answer, cx))), context.dropped(cx)
end

describe("openai_chat.read_answer", function()
    it("reads reasoning, text, refusal and calls in that order", function()
        local a = one({ content = "t", reasoning_content = "why", refusal = json.null, tool_calls = { { id = "c", type = "function",
            ["function"] = { name = "f", arguments = '{"a":1}' } } } }, "tool_calls")
        assert.same({ { kind = "thinking", text = "why" }, { kind = "text", text = "t" },
            { kind = "call", id = "c", name = "f", input = { a = 1 } } }, plain(a.parts))
        assert.equal("call", a.stop)
        assert.equal("refusal", one({ content = json.null, refusal = "no" }).stop)
    end)

    it("reads reasons to stop", function()
        local cases = { stop = "end", length = "length", content_filter = "filter", model_length = "context", error = "error",
            whatever = "end", insufficient_system_resource = "error" }
        for finish, stop in pairs(cases) do assert.equal(stop, one({ content = "t" }, finish).stop) end
        local call = { content = "", tool_calls = { { id = "c", ["function"] = { name = "f", arguments = "{}" } } } }
        assert.equal("call", one(call, "stop").stop)
        assert.equal("call", one(call, "").stop)
        assert.equal("length", one(call, "length").stop)
    end)

    it("reads Mistral's chunks, Azure's filter, Perplexity's sources, speech", function()
        local a = one({ content = { { type = "thinking", thinking = { { type = "text", text = "a" }, { type = "text", text = "b" } } },
            { type = "text", text = "t" } } })
        assert.same({ { kind = "thinking", text = "ab" }, { kind = "text", text = "t" } }, a.parts)
        a = read({ choices = { { finish_reason = "content_filter", content_filter_results = { hate = { filtered = true } } } } })
        assert.same({}, a.parts)
        assert.equal("filter", a.stop)
        assert.same({ hate = { filtered = true } }, plain(a.filter))
        a = one({ content = "x[1]" }, "stop", { citations = { "https://a" }, search_results = { { title = "A" } } })
        assert.same({ { url = "https://a", title = "A" } }, a.parts[1].citations)
        a = one({ content = json.null, audio = { id = "au", transcript = "hi", data = "AAAA" } })
        assert.equal("hi", a.parts[1].text)
        assert.equal("audio", a.parts[2].kind)
    end)

    it("reads usage, with reasoning that the total alone tells of", function()
        local function usage(u) return one({ content = "t" }, "stop", { usage = u }).usage end
        assert.same({ input = 10, output = 5, cached = 4, reasoning = 2 }, usage({ prompt_tokens = 10, completion_tokens = 5, total_tokens = 15,
            prompt_tokens_details = { cached_tokens = 4 }, completion_tokens_details = { reasoning_tokens = 2 } }))
        assert.same({ input = 32, output = 108, reasoning = 100 }, usage({ prompt_tokens = 32, completion_tokens = 8, total_tokens = 140,
            completion_tokens_details = { reasoning_tokens = 100 } }))
        assert.same({ input = 66, output = 34, reasoning = 28 }, usage({ prompt_tokens = 66, completion_tokens = 6, total_tokens = 100 }))
        assert.equal(7, usage({ prompt_tokens = 9, completion_tokens = 1, prompt_cache_hit_tokens = 7 }).cached)
        assert.is_nil(usage({ prompt_tokens = "9" }))
        assert.is_nil(usage(json.null))
    end)

    it("reads more than one choice", function()
        local a = read({ choices = { { index = 0, message = { content = "a" }, finish_reason = "stop" },
            { index = 1, message = { content = "b" }, finish_reason = "length" } } })
        assert.equal("a", a.parts[1].text)
        assert.equal("b", a.choices[2].parts[1].text)
        assert.equal("length", a.choices[2].stop)
    end)

    it("knows what is none, and what failed with 200", function()
        for _, text in ipairs({ "[]", "{}", '{"choices":[]}', '{"choices":["x"]}', '{"choices":{}}' }) do
            local none, message = read(text)
            assert.is_nil(none)
            assert.is_string(message)
        end
        assert.equal("rate_limit", read('{"error":{"code":429,"message":"slow"}}').error.kind)
        assert.equal("no", read('{"choices":[{"error":{"code":502,"message":"no"},"message":{"content":""}}]}').error.message)
    end)
end)

describe("openai_chat.write_answer", function()
    it("says all it can", function()
        local body, dropped = write({ id = "x", model = "m", stop = "call", usage = { input = 10, output = 5, cached = 4, reasoning = 2 },
            parts = { { kind = "thinking", text = "why", signature = "S", origin = "gemini" }, { kind = "redacted", data = "R",
                origin = "anthropic" },
                { kind = "text", text = "é", citations = { { url = "https://u", title = "T" }, { text = "doc" } } },
                { kind = "text", text = "b", citations = { { url = "https://v" } } },
                { kind = "call", id = "c", name = "f", input = context.doc('{"a":1}'), signature = "G", origin = "gemini" },
                { kind = "server_call", raw = context.doc("{}"), origin = "anthropic", what = "server_tool_use" } } })
        local message = body.choices[1].message
        assert.equal("éb", message.content)
        assert.equal("why", message.reasoning_content)
        assert.same({ { type = "reasoning.text", text = "why", signature = "S", format = "google-gemini-v1", index = 0 },
            { type = "reasoning.encrypted", data = "R", format = "anthropic-claude-v1", index = 1 } }, message.reasoning_details)
        assert.same({ { type = "url_citation", url_citation = { url = "https://u", title = "T", start_index = 0, end_index = 1 } },
            { type = "url_citation", url_citation = { url = "https://v", title = "", start_index = 1, end_index = 2 } } }, message.annotations)
        assert.same({ { id = "c", type = "function", ["function"] = { name = "f", arguments = '{"a":1}' },
            extra_content = { google = { thought_signature = "G" } } } }, message.tool_calls)
        assert.equal("tool_calls", body.choices[1].finish_reason)
        assert.equal("chat.completion", body.object)
        assert.equal(1700000000, body.created)
        assert.same({ 10, 5, 15, 4, 2 }, { body.usage.prompt_tokens, body.usage.completion_tokens, body.usage.total_tokens,
            body.usage.prompt_tokens_details.cached_tokens, body.usage.completion_tokens_details.reasoning_tokens })
        assert.equal("citations,content.server_tool_use", dropped)
    end)

    it("has null where nothing is said, and an id always", function()
        local body = write({ parts = {}, stop = "refusal" })
        assert.equal(json.null, body.choices[1].message.content)
        assert.equal("content_filter", body.choices[1].finish_reason)
        assert.truthy(body.id:find("^chatcmpl%-%w+$"))
        body = write({ parts = { { kind = "refusal", text = "no" } }, stop = "refusal" })
        assert.equal("no", body.choices[1].message.refusal)
        assert.equal("stop", body.choices[1].finish_reason)
    end)

    it("speaks as of the time before tools to who does", function()
        local body = write({ parts = { { kind = "call", id = "c", name = "f", input = "{}" } }, stop = "call" }, { request = { legacy = true } })
        assert.same({ name = "f", arguments = "{}" }, body.choices[1].message.function_call)
        assert.is_nil(body.choices[1].message.tool_calls)
        assert.equal("function_call", body.choices[1].finish_reason)
    end)

    it("tells of a failed answer", function()
        assert.equal("no", write({ parts = {}, stop = "error", error = { kind = "server", message = "no" } }).error.message)
    end)
end)
