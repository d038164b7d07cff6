local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")
local plain = require("support.meaning").plain

local null = json.null

local function read(body, cx)
    body.messages = body.messages or { { role = "user", content = "Hi" } }
    return chat.read_request(context.doc(body), cx or context.new())
end

local function refusal(body)
    local ok, raised = pcall(chat.read_request, context.doc(body), context.new())
    assert.is_false(ok)
    assert.equal(400, raised.status)
    return raised.message
end

describe("openai_chat.read_request", function()
    it("reads the fields it knows and keeps the rest by name", function()
        local r = read({ model = "m", stream = true, max_tokens = 5, max_completion_tokens = 7, temperature = 1.5, top_p = 0.5, seed = 3,
            n = 2, stop = "END", presence_penalty = 0.1, frequency_penalty = 0.2, logprobs = true, top_logprobs = 2, user = "u",
            service_tier = "flex", store = false, verbosity = "low", parallel_tool_calls = false, logit_bias = { ["1"] = 2 },
            metadata = { a = "b" }, stream_options = { include_usage = true }, prediction = { x = 1 }, modalities = null, extra = {} })
        assert.equal("m", r.model)
        assert.is_true(r.stream)
        assert.equal(7, r.max_tokens)
        assert.same({ "END" }, r.stop)
        assert.same({ 1.5, 0.5, 3, 2, 0.1, 0.2 }, { r.temperature, r.top_p, r.seed, r.n, r.presence_penalty, r.frequency_penalty })
        assert.same({ true, 2, "u", "flex", false, "low", false }, { r.logprobs, r.top_logprobs, r.user, r.service_tier, r.store,
            r.verbosity, r.parallel })
        assert.same({ ["1"] = 2 }, plain(r.logit_bias))
        assert.same({ a = "b" }, plain(r.metadata))
        assert.is_true(r.include_usage)
        assert.same({ prediction = { x = 1 } }, plain(r.rest))
    end)

    it("takes nulls and wrong types for absent", function()
        local r = read({ model = null, temperature = "hot", stop = null, tools = null, response_format = null, stream = "yes", seed = null,
            stream_options = null, user = 5, logit_bias = {} })
        assert.is_nil(r.model)
        assert.is_nil(r.temperature)
        assert.is_nil(r.stop)
        assert.is_nil(r.tools)
        assert.is_nil(r.format)
        assert.is_false(r.stream)
        assert.is_nil(r.logit_bias)
    end)

    it("gathers system and developer turns before the first other; later ones stay in their place", function()
        local r = read({ messages = { { role = "system", content = "a" }, { role = "developer", content = { { type = "text", text = "b" } } },
            { role = "user", content = "c", name = "ann" }, { role = "system", content = "d" } } })
        assert.same({ { kind = "text", text = "a" }, { kind = "text", text = "b" } }, r.system)
        assert.equal(2, #r.turns)
        assert.equal("ann", r.turns[1].name)
        assert.equal("system", r.turns[2].role)
    end)

    it("reads each kind of part", function()
        local r = read({ messages = { { role = "user", content = {
            { type = "text", text = "t", cache_control = { type = "ephemeral", ttl = "1h" } },
            { type = "image_url", image_url = { url = "https://x/y.png", detail = "low" } },
            { type = "image_url", image_url = "data:image/jpeg;base64,AAAA" },
            { type = "input_audio", input_audio = { data = "BBBB", format = "mp3" } },
            { type = "file", file = { filename = "a.pdf", file_data = "data:application/pdf;base64,CCCC" } },
            { type = "file", file = { file_id = "file-1" } },
            { type = "video_url", video_url = { url = "https://x/v.mp4" } },
            { type = "document_url", document_url = "https://x/d.pdf" },
            { type = "hologram", x = 1 }, { type = "image_url" }, "bare",
            { type = "file", file = { filename = "b.pdf", file_data = "https://x/b.pdf" } },
        } } } })
        local parts = plain(r.turns[1].parts)
        assert.same({ kind = "text", text = "t", cache = "1h" }, parts[1])
        assert.same({ kind = "image", url = "https://x/y.png", detail = "low" }, parts[2])
        assert.same({ kind = "image", media_type = "image/jpeg", data = "AAAA" }, parts[3])
        assert.same({ kind = "audio", data = "BBBB", format = "mp3" }, parts[4])
        assert.same({ kind = "document", title = "a.pdf", media_type = "application/pdf", data = "CCCC" }, parts[5])
        assert.same({ kind = "document", file_id = "file-1", origin = "openai" }, parts[6])
        assert.same({ kind = "video", url = "https://x/v.mp4" }, parts[7])
        assert.same({ kind = "document", url = "https://x/d.pdf" }, parts[8])
        assert.same({ kind = "other", raw = { type = "hologram", x = 1 }, origin = "openai", what = "hologram" }, parts[9])
        assert.equal("image_url", parts[10].what)
        assert.same({ kind = "text", text = "bare" }, parts[11])
        assert.same({ kind = "document", title = "b.pdf", url = "https://x/b.pdf" }, parts[12])
        assert.equal(12, #parts)
    end)

    it("reads calls and their results, keeping the input's bytes", function()
        local r = read({ messages = { { role = "user", content = "go" },
            { role = "assistant", content = null, tool_calls = {
                { id = "c1", type = "function", ["function"] = { name = "f", arguments = '{"b":1.0,"a":[]}' } },
                { id = "c2", type = "function", ["function"] = { name = "g", arguments = "" } },
                { id = "c3", type = "function", ["function"] = { name = "h", arguments = "{not json" },
                    extra_content = { google = { thought_signature = "SIG" } } } } },
            { role = "tool", tool_call_id = "c1", content = "one" },
            { role = "tool", tool_call_id = "c2", content = { { type = "text", text = "two" } } } } })
        local calls = r.turns[2].parts
        assert.equal('{"b":1.0,"a":[]}', tostring(calls[1].input))
        assert.equal("{}", tostring(calls[2].input))
        assert.equal("{not json", calls[3].input)
        assert.same({ "SIG", "gemini" }, { calls[3].signature, calls[3].origin })
        assert.same({ kind = "result", id = "c1", parts = { { kind = "text", text = "one" } } }, r.turns[3].parts[1])
        assert.equal("two", r.turns[4].parts[1].parts[1].text)
    end)

    it("reads the time before tools", function()
        local r = read({ functions = { { name = "f", parameters = { type = "object" } } }, function_call = { name = "f" },
            messages = { { role = "user", content = "go" },
                { role = "assistant", content = null, function_call = { name = "f", arguments = "{}" } },
                { role = "function", name = "f", content = "done" } } })
        assert.equal("f", r.tools[1].name)
        assert.same({ mode = "tool", name = "f" }, r.tool_choice)
        assert.is_true(r.legacy)
        assert.is_false(r.parallel)
        assert.equal(r.turns[2].parts[1].id, r.turns[3].parts[1].id)
    end)

    it("reads tools and whose turn they are", function()
        local r = read({ tools = { { type = "function", ["function"] = { name = "f", description = "d", strict = true,
            parameters = { type = "object" } } }, { type = "custom", custom = { name = "c" } } }, tool_choice = "required" })
        assert.same({ name = "f", description = "d", strict = true, schema = { type = "object" } }, plain(r.tools[1]))
        assert.equal("custom", r.tools[2].kind)
        assert.same({ mode = "required" }, r.tool_choice)
        assert.same({ mode = "tool", name = "f" }, read({ tool_choice = { type = "function", ["function"] = { name = "f" } } }).tool_choice)
        r = read({ tools = { { type = "function", ["function"] = { name = "f" } }, { type = "function", ["function"] = { name = "g" } } },
            tool_choice = { type = "allowed_tools", allowed_tools = { mode = "required", tools = { { type = "function",
                ["function"] = { name = "g" } } } } } })
        assert.equal(1, #r.tools)
        assert.equal("g", r.tools[1].name)
        assert.same({ mode = "required" }, r.tool_choice)
    end)

    it("reads formats and reasoning", function()
        assert.same({ kind = "json" }, read({ response_format = { type = "json_object" } }).format)
        assert.is_nil(read({ response_format = { type = "text" } }).format)
        assert.same({ kind = "schema", name = "n", schema = { type = "object" }, strict = true }, plain(read({ response_format = {
            type = "json_schema", json_schema = { name = "n", schema = { type = "object" }, strict = true } } }).format))
        assert.equal("high", read({ reasoning_effort = "high" }).reasoning.effort)
        assert.is_true(read({ reasoning_effort = "none" }).reasoning.off)
        assert.equal(2000, read({ reasoning = { max_tokens = 2000, exclude = true } }).reasoning.budget)
        assert.is_false(read({ reasoning = { max_tokens = 2000, exclude = true } }).reasoning.show)
        assert.is_true(read({ thinking = { type = "disabled" } }).reasoning.off)
        assert.is_nil(read({}).reasoning)
    end)

    it("reads reasoning that a client hands back", function()
        local r = read({ messages = { { role = "assistant", content = "x", reasoning_content = "why",
            reasoning_details = { { type = "reasoning.text", signature = "S", format = "anthropic-claude-v1", index = 0 },
                { type = "reasoning.encrypted", data = "E", format = "openai-responses-v1", id = "rs_1", index = 1 } } } } })
        assert.same({ { kind = "thinking", text = "why", signature = "S", origin = "anthropic" },
            { kind = "redacted", data = "E", origin = "openai", id = "rs_1" }, { kind = "text", text = "x" } }, r.turns[1].parts)
    end)

    it("refuses what is no chat request, saying where", function()
        assert.truthy(refusal("[]"):find("object"))
        assert.truthy(refusal({ model = "m" }):find("messages"))
        assert.truthy(refusal({ messages = { { role = "user" }, "x" } }):find("messages[1]", 1, true))
        assert.truthy(refusal({ messages = { { role = "robot" } } }):find("messages[0]", 1, true))
    end)
end)
