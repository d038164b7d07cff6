local chat = require("claw.protocols.openai_chat")
local context = require("support.context")
local json = require("claw.json")

local function write(r, overrides)
    local cx = context.new(overrides)
    r.system, r.turns = r.system or {}, r.turns or { { role = "user", parts = { { kind = "text", text = "Hi" } } } }
    local body = chat.write_request(r, cx)
    return json.decode(json.encode(body)), context.dropped(cx)
end

local function user(...)
    return { { role = "user", parts = { ... } } }
end

local function refused(r, overrides)
    local ok, raised = pcall(write, r, overrides)
    assert.is_false(ok)
    return raised.param
end

describe("openai_chat.write_request", function()
    it("says the usual", function()
        local body, dropped = write({ model = "asked", stream = true, max_tokens = 9, temperature = 0.5, stop = { "a" },
            system = { { kind = "text", text = "s1" }, { kind = "text", text = "s2" } }, user = "u", reasoning = { effort = "low" } })
        assert.same({ model = "sent-model", stream = true, stream_options = { include_usage = true }, max_tokens = 9, temperature = 0.5,
            stop = { "a" }, user = "u", reasoning_effort = "low",
            messages = { { role = "system", content = "s1\n\ns2" }, { role = "user", content = "Hi" } } }, body)
        assert.equal("", dropped)
    end)

    it("names the most tokens as the model knows them", function()
        assert.equal(9, write({ max_tokens = 9 }, { model = "o3-mini" }).max_completion_tokens)
        assert.equal(9, write({ max_tokens = 9 }, { model = "openai/gpt-5-nano" }).max_completion_tokens)
        assert.equal(9, write({ max_tokens = 9 }, { model = "gpt-4o" }).max_tokens)
        assert.equal(9, write({ max_tokens = 9 }, { model = "x", provider = { max_tokens_field = "max_completion_tokens" } }).max_completion_tokens)
    end)

    it("writes results as tool messages, and their images as the user's", function()
        local body, dropped = write({ turns = { { role = "assistant", parts = { { kind = "call", id = "c1", name = "f",
            input = context.doc("{}") } } },
            { role = "user", parts = { { kind = "result", id = "c1", error = true, parts = { { kind = "text", text = "t" },
                { kind = "image", data = "AAAA", media_type = "image/png" } } }, { kind = "text", text = "and?" } } } } })
        assert.same({ role = "assistant", content = json.null, tool_calls = { { id = "c1", type = "function",
            ["function"] = { name = "f", arguments = "{}" } } } }, body.messages[1])
        assert.same({ role = "tool", tool_call_id = "c1", content = "t" }, body.messages[2])
        assert.same({ role = "user", content = { { type = "image_url", image_url = { url = "data:image/png;base64,AAAA" } },
            { type = "text", text = "and?" } } }, body.messages[3])
        assert.equal("messages.content.is_error", dropped)
    end)

    it("keeps a call's input byte for byte", function()
        local body = write({ turns = { { role = "assistant", parts = { { kind = "call", id = "c", name = "f",
            input = context.doc('{"z":1.0,"a":[ ],"big":12345678901234567890}') }, { kind = "call", id = "d", name = "g", input = "{broken" } } } } })
        assert.equal('{"z":1.0,"a":[ ],"big":12345678901234567890}', body.messages[1].tool_calls[1]["function"].arguments)
        assert.equal("{broken", body.messages[1].tool_calls[2]["function"].arguments)
    end)

    it("cuts ids to what is taken, a result's as its call's", function()
        local turns = { { role = "assistant", parts = { { kind = "call", id = "toolu_014x5X91kx3fvdhpLvwXZWE2", name = "f" } } },
            { role = "user", parts = { { kind = "result", id = "toolu_014x5X91kx3fvdhpLvwXZWE2", parts = {} } } } }
        local body = write({ turns = turns }, { provider = { tool_id_length = 9 } })
        assert.equal("hpLvwXZWE2", "h" .. body.messages[1].tool_calls[1].id)
        assert.equal(body.messages[1].tool_calls[1].id, body.messages[2].tool_call_id)
        turns[1].parts[1].id = ("x"):rep(60)
        assert.equal(40, #write({ turns = turns }).messages[1].tool_calls[1].id)
    end)

    it("writes documents as far as they can be said", function()
        local body = write({ turns = user({ kind = "document", data = "JVBE", media_type = "application/pdf" },
            { kind = "document", text = "words", title = "T", context = "C" }) })
        assert.same({ { type = "file", file = { filename = "document.pdf", file_data = "data:application/pdf;base64,JVBE" } },
            { type = "text", text = "T\n\nC\n\nwords" } }, body.messages[1].content)
        assert.equal("messages.content.document", refused({ turns = user({ kind = "document", url = "https://x/y.pdf" }) }))
        assert.equal("messages.content.document", refused({ turns = user({ kind = "document", file_id = "f", origin = "anthropic" }) }))
        local _, dropped = write({ turns = user({ kind = "document", url = "https://x/y.pdf" }, { kind = "text", text = "t" }) },
            { lossy = "allow" })
        assert.equal("messages.content.document", dropped)
    end)

    it("drops hints by name, and refuses what counts", function()
        local _, dropped = write({ top_k = 5, rest = { inference_geo = "us", cache_control = true }, stop = { "1", "2", "3", "4", "5" },
            turns = user({ kind = "text", text = "t", cache = true }) })
        assert.equal("cache_control,stop_sequences,top_k,inference_geo", dropped)
        assert.equal("tools.web_search_20250305", refused({ tools = { { server = context.doc("{}"), kind = "web_search_20250305",
            origin = "anthropic" } } }))
        assert.equal("container", refused({ rest = { container = "c" } }))
        assert.equal("mcp_servers", refused({ rest = { mcp_servers = context.doc("[1]") } }))
        assert.equal("top_k", refused({ top_k = 5 }, { lossy = "refuse" }))
        assert.equal("messages.content.video", refused({ turns = user({ kind = "video", url = "https://x" }) }))
    end)

    it("gives the client's own fields back to its own dialect", function()
        local body, dropped = write({ dialect = "openai_chat", top_k = 5, rest = { prediction = context.doc('{"a":1}') } })
        assert.same({ a = 1 }, body.prediction)
        assert.equal(5, body.top_k)
        assert.equal("", dropped)
    end)

    it("writes tools, whose turn it is, and formats", function()
        local body = write({ tools = { { name = "f", description = "d", schema = context.doc('{"type":"object"}'), strict = true } },
            tool_choice = { mode = "tool", name = "f" }, parallel = false, format = { kind = "schema", schema = context.doc("{}") } })
        assert.same({ { type = "function", ["function"] = { name = "f", description = "d", parameters = { type = "object" }, strict = true } } },
            body.tools)
        assert.same({ type = "function", ["function"] = { name = "f" } }, body.tool_choice)
        assert.is_false(body.parallel_tool_calls)
        assert.same({ type = "json_schema", json_schema = { name = "answer", schema = {} } }, body.response_format)
        assert.is_nil(write({ tool_choice = { mode = "auto" } }).tool_choice)
    end)

    it("turns budgets into efforts, and leaves thinking to the model where nothing is said", function()
        local function effort(reasoning) return write({ reasoning = reasoning }).reasoning_effort end
        assert.equal("low", effort({ budget = 1024 }))
        assert.equal("medium", effort({ budget = 10000 }))
        assert.equal("high", effort({ budget = 32000 }))
        assert.is_nil(effort({}))
        assert.is_nil(effort({ off = true }))
        assert.equal("none", effort({ off = true, effort = "none" }))
    end)

    it("sends thinking along only in the field that the provider names", function()
        local function message(field)
            return write({ turns = { { role = "assistant", parts = { { kind = "thinking", text = "why", signature = "S", origin = "anthropic" },
                { kind = "text", text = "a" } } }, { role = "user", parts = { { kind = "text", text = "b" } } } } },
                { provider = { reasoning_field = field } }).messages[1]
        end
        assert.same({ role = "assistant", content = "a" }, message(nil))
        assert.equal("why", message("reasoning_content").reasoning_content)
        assert.equal("why", message("reasoning").reasoning)
        assert.is_nil(message("reasoning").reasoning_details)
        assert.same({ { type = "reasoning.text", text = "why", signature = "S", format = "anthropic-claude-v1", index = 0 } },
            message("reasoning_details").reasoning_details)
    end)

    it("says that a prefill is none here", function()
        local _, dropped = write({ turns = { { role = "user", parts = { { kind = "text", text = "a" } } },
            { role = "assistant", parts = { { kind = "text", text = "b" } } } } })
        assert.equal("messages.prefill", dropped)
    end)
end)
