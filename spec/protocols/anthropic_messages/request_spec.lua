local messages = require("claw.protocols.anthropic_messages")
local context = require("support.context")
local json = require("claw.json")
local plain = require("support.meaning").plain

local function read(body)
    body.messages = body.messages or { { role = "user", content = "Hi" } }
    return messages.read_request(context.doc(body), context.new())
end

local function blocks(...)
    return plain(read({ messages = { { role = "user", content = { ... } } } }).turns[1].parts)
end

describe("anthropic_messages.read_request", function()
    it("reads the fields it knows and keeps the rest by name", function()
        local r = read({ model = "m", stream = true, max_tokens = 5, temperature = 0.5, top_p = 0.9, top_k = 3, stop_sequences = { "a", "b" },
            metadata = { user_id = "u" }, service_tier = "auto", system = "s", mcp_servers = { { url = "x" } }, container = json.null })
        assert.same({ "m", true, 5, 0.5, 0.9, 3, "u", "auto" }, { r.model, r.stream, r.max_tokens, r.temperature, r.top_p, r.top_k, r.user,
            r.service_tier })
        assert.same({ "a", "b" }, r.stop)
        assert.same({ { kind = "text", text = "s" } }, r.system)
        assert.same({ mcp_servers = { { url = "x" } } }, plain(r.rest))
    end)

    it("reads each kind of block", function()
        local parts = blocks({ type = "text", text = "t", cache_control = { type = "ephemeral" } },
            { type = "image", source = { type = "base64", media_type = "image/png", data = "AAAA" } },
            { type = "image", source = { type = "url", url = "https://x/y.png" } },
            { type = "image", source = { type = "file", file_id = "file_1" } },
            { type = "document", title = "T", context = "C", citations = { enabled = true }, source = { type = "text",
                media_type = "text/plain", data = "words" } },
            { type = "document", source = { type = "content", content = { { type = "text", text = "a" }, { type = "text", text = "b" } } } },
            { type = "document", source = { type = "base64", media_type = "application/pdf", data = "JVBE" },
                cache_control = { type = "ephemeral", ttl = "1h" } },
            { type = "search_result", source = "https://u" }, { type = "server_tool_use", id = "s" }, { type = "web_search_tool_result" },
            { type = "image" })
        assert.same({ kind = "text", text = "t", cache = true }, parts[1])
        assert.same({ kind = "image", media_type = "image/png", data = "AAAA" }, parts[2])
        assert.same({ kind = "image", url = "https://x/y.png" }, parts[3])
        assert.same({ kind = "image", file_id = "file_1", origin = "anthropic" }, parts[4])
        assert.same({ kind = "document", title = "T", context = "C", citations = true, text = "words" }, parts[5])
        assert.equal("a\n\nb", parts[6].text)
        assert.same({ kind = "document", media_type = "application/pdf", data = "JVBE", cache = "1h" }, parts[7])
        assert.same({ "other", "search_result" }, { parts[8].kind, parts[8].what })
        assert.same({ "server_call", "anthropic" }, { parts[9].kind, parts[9].origin })
        assert.equal("server_result", parts[10].kind)
        assert.equal("other", parts[11].kind)
    end)

    it("reads calls and results", function()
        local r = read({ messages = {
            { role = "assistant", content = { { type = "tool_use", id = "c", name = "f", input = { a = 1 } } } },
            { role = "user", content = { { type = "tool_result", tool_use_id = "c", is_error = true, content = "bad" },
                { type = "tool_result", tool_use_id = "d", content = { { type = "text", text = "t" },
                    { type = "image", source = { type = "url", url = "https://i" } } } }, { type = "tool_result", tool_use_id = "e" } } } } })
        assert.same({ a = 1 }, plain(r.turns[1].parts[1].input))
        assert.same({ kind = "result", id = "c", error = true, parts = { { kind = "text", text = "bad" } } }, r.turns[2].parts[1])
        assert.same({ { kind = "text", text = "t" }, { kind = "image", url = "https://i" } }, r.turns[2].parts[2].parts)
        assert.same({}, r.turns[2].parts[3].parts)
    end)

    it("reads thinking and whose it is", function()
        local parts = blocks({ type = "thinking", thinking = "why", signature = "SIG" }, { type = "thinking", thinking = "x",
            signature = "gemini:G" },
            { type = "redacted_thinking", data = "openai:E" }, { type = "thinking", thinking = "", signature = "gemini:CALL" },
            { type = "tool_use", id = "c", name = "f", input = {} }, { type = "thinking", thinking = "y", signature = "" })
        assert.same({ { kind = "thinking", text = "why", signature = "SIG", origin = "anthropic" },
            { kind = "thinking", text = "x", signature = "G", origin = "gemini" }, { kind = "redacted", data = "E", origin = "openai" },
            { kind = "call", id = "c", name = "f", input = {}, signature = "CALL", origin = "gemini" }, { kind = "thinking", text = "y" } }, parts)
    end)

    it("reads tools, and which are its own", function()
        local r = read({ tools = { { name = "f", description = "d", input_schema = { type = "object" }, strict = true,
            cache_control = { type = "ephemeral" } },
            { type = "custom", name = "g", input_schema = {} }, { type = "web_search_20250305", name = "web_search", max_uses = 2 } },
            tool_choice = { type = "any", disable_parallel_tool_use = true } })
        assert.same({ name = "f", description = "d", schema = { type = "object" }, strict = true, cache = true }, plain(r.tools[1]))
        assert.equal("g", r.tools[2].name)
        assert.same({ "web_search_20250305", "anthropic" }, { r.tools[3].kind, r.tools[3].origin })
        assert.same({ mode = "required" }, r.tool_choice)
        assert.is_false(r.parallel)
        assert.same({ mode = "tool", name = "f" }, read({ tool_choice = { type = "tool", name = "f" } }).tool_choice)
        assert.same({ mode = "none" }, read({ tool_choice = { type = "none" } }).tool_choice)
    end)

    it("reads thinking's mode, effort and format", function()
        assert.same({ budget = 2000 }, read({ thinking = { type = "enabled", budget_tokens = 2000 } }).reasoning)
        assert.same({ show = true }, read({ thinking = { type = "adaptive", display = "summarized" } }).reasoning)
        assert.same({ effort = "xhigh" }, read({ thinking = { type = "adaptive" }, output_config = { effort = "max" } }).reasoning)
        assert.same({ off = true }, read({ thinking = { type = "disabled" } }).reasoning)
        assert.is_nil(read({}).reasoning)
        local schema = { type = "json_schema", schema = { type = "object" } }
        local want = { kind = "schema", schema = { type = "object" }, strict = true }
        assert.same(want, plain(read({ output_format = schema }).format))
        assert.same(want, plain(read({ output_config = { format = schema } }).format))
    end)

    it("refuses what is no message request", function()
        for _, body in ipairs({ "[]", "{}", '{"messages":[{"role":"tool"}]}', '{"messages":["x"]}', '{"messages":{}}' }) do
            local ok, raised = pcall(messages.read_request, context.doc(body), context.new())
            assert.is_false(ok)
            assert.equal(400, raised.status)
        end
    end)
end)
