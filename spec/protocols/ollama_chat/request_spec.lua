local written = require("support.written")

local function to(body, overrides)
    body.messages = body.messages or { { role = "user", content = "hi" } }
    return written.request("openai_chat", "ollama_chat", body, overrides)
end

local TOOLS = { { type = "function", ["function"] = { name = "f", parameters = { type = "object" } } },
    { type = "function", ["function"] = { name = "g" } } }

describe("a request for Ollama", function()
    it("has sampling in its options", function()
        local body, dropped = to({ max_tokens = 9, temperature = 0.5, top_p = 0.9, top_k = 4, seed = 7, stop = "x", n = 1,
            options = { num_ctx = 4096, seed = 1 }, keep_alive = "5m" })
        assert.same({ num_predict = 9, temperature = 0.5, top_p = 0.9, top_k = 4, seed = 7, stop = { "x" }, num_ctx = 4096 }, body.options)
        assert.same({ "5m", false, "" }, { body.keep_alive, body.stream, dropped })
        assert.is_nil(to({}).options)
    end)

    it("has texts as one, images beside them, and results by their tool's name", function()
        local body, dropped = to({ messages = { { role = "user", content = { { type = "text", text = "a" }, { type = "text", text = "b" },
                { type = "image_url", image_url = { url = "data:image/png;base64,QQ==" } },
                { type = "image_url", image_url = { url = "https://x.example/i.png" } } } },
            { role = "assistant", content = "", reasoning_content = "hm", tool_calls = { { id = "c1", type = "function",
                ["function"] = { name = "f", arguments = '{"a":1}' } } } },
            { role = "tool", tool_call_id = "c1", content = "rain" } } })
        assert.same({ role = "user", content = "a\nb", images = { "QQ==" } }, body.messages[1])
        assert.same({ role = "assistant", content = "", thinking = "hm",
            tool_calls = { { id = "c1", ["function"] = { index = 0, name = "f", arguments = { a = 1 } } } } }, body.messages[2])
        assert.same({ role = "tool", content = "rain", tool_name = "f", tool_call_id = "c1" }, body.messages[3])
        assert.equal("messages.content.image", dropped)
    end)

    it("has no word for forcing a call", function()
        local body, dropped = to({ tools = TOOLS, tool_choice = { type = "function", ["function"] = { name = "g" } } })
        assert.same({ 1, "g", "tool_choice" }, { #body.tools, body.tools[1]["function"].name, dropped })
        assert.is_nil(to({ tools = TOOLS, tool_choice = "none" }).tools)
        assert.equal(2, #to({ tools = TOOLS, tool_choice = "auto" }).tools)
        local ok, err = pcall(to, { tools = TOOLS, tool_choice = "required" }, { lossy = "refuse" })
        assert.same({ false, "tool_choice" }, { ok, err.param })
    end)

    it("thinks, and writes to a schema", function()
        assert.equal("high", to({ reasoning_effort = "high" }, { model = "gpt-oss:20b" }).think)
        assert.is_true(to({ reasoning_effort = "high" }, { model = "qwen3" }).think)
        assert.is_false(to({ reasoning_effort = "none" }, { model = "qwen3" }).think)
        assert.is_nil(to({}).think)
        assert.same({ type = "object" },
            to({ response_format = { type = "json_schema", json_schema = { schema = { type = "object" } } } }).format)
        assert.equal("json", to({ response_format = { type = "json_object" } }).format)
    end)
end)
