local written = require("support.written")

local function to(body, overrides)
    body.messages = body.messages or { { role = "user", content = "hi" } }
    return written.request("openai_chat", "cohere_chat", body, overrides)
end

local TOOLS = { { type = "function", ["function"] = { name = "f", strict = true, parameters = { type = "object" } } },
    { type = "function", ["function"] = { name = "g", description = "G" } } }

describe("a request for Cohere", function()
    it("has its own names for sampling, within their bounds", function()
        local body, dropped = to({ max_tokens = 9, temperature = 0.5, top_p = 0.5, seed = 7, stop = { "a", "b" },
            presence_penalty = 0.5, frequency_penalty = 1 })
        assert.same({ 9, 0.5, 0.5, 7, "b", 0.5, 1 }, { body.max_tokens, body.temperature, body.p, body.seed,
            body.stop_sequences[2], body.presence_penalty, body.frequency_penalty })
        assert.equal("", dropped)
        assert.is_false(body.stream)
        body, dropped = to({ top_p = 1, presence_penalty = -1, stop = { "1", "2", "3", "4", "5", "6" }, n = 2, user = "u" })
        assert.same({ 0.99, 0, 5 }, { body.p, body.presence_penalty, #body.stop_sequences })
        assert.equal("top_p,presence_penalty,stop_sequences,n,user", dropped)
    end)

    it("forces to one tool by sending no other", function()
        local body = to({ tools = TOOLS, tool_choice = "required" })
        assert.same({ "REQUIRED", true, 2 }, { body.tool_choice, body.strict_tools, #body.tools })
        assert.same({ type = "object", properties = {} }, body.tools[2]["function"].parameters)
        body = to({ tools = TOOLS, tool_choice = { type = "function", ["function"] = { name = "g" } } })
        assert.same({ "REQUIRED", "g" }, { body.tool_choice, body.tools[1]["function"].name })
        assert.is_nil(body.tools[2])
        assert.equal("NONE", to({ tools = TOOLS, tool_choice = "none" }).tool_choice)
        assert.is_nil(to({ tools = TOOLS, tool_choice = "auto" }).tool_choice)
    end)

    it("has a plan in front of calls, and results as documents", function()
        local body = to({ messages = { { role = "system", content = "s" }, { role = "user", content = "q" },
            { role = "assistant", content = "plan", tool_calls = { { id = "c1", type = "function",
                ["function"] = { name = "f", arguments = '{"z":[]}' } } } },
            { role = "tool", tool_call_id = "c1", content = '{"a":[]}' }, { role = "tool", tool_call_id = "c2", content = "rain" } } })
        assert.same({ role = "assistant", tool_plan = "plan", tool_calls = { { id = "c1", type = "function",
            ["function"] = { name = "f", arguments = '{"z":[]}' } } } }, body.messages[3])
        assert.same({ a = {} }, body.messages[4].content[1].document.data)
        assert.same({ { type = "document", document = { data = { text = "rain" } } } }, body.messages[5].content)
        assert.equal("c2", body.messages[5].tool_call_id)
    end)

    it("has documents beside the messages, and images in them", function()
        local body, dropped = written.request("anthropic_messages", "cohere_chat", { max_tokens = 5, messages = { { role = "user", content = {
            { type = "document", title = "T", source = { type = "text", media_type = "text/plain", data = "words" } },
            { type = "image", source = { type = "base64", media_type = "image/png", data = "QQ==" } },
            { type = "text", text = "what?" } } } } })
        assert.same({ { id = "doc_1", data = { title = "T", snippet = "words" } } }, body.documents)
        assert.same({ { type = "image_url", image_url = { url = "data:image/png;base64,QQ==" } }, { type = "text", text = "what?" } },
            body.messages[1].content)
        assert.equal("", dropped)
        local ok, err = pcall(written.request, "anthropic_messages", "cohere_chat", { max_tokens = 5, messages = { { role = "user", content = {
            { type = "document", source = { type = "base64", media_type = "application/pdf", data = "QQ==" } } } } } }, { lossy = "refuse" })
        assert.is_false(ok)
        assert.equal("messages.content.document", err.param)
    end)

    it("has schemas, thinking and what of its own a client adds", function()
        local body = to({ response_format = { type = "json_schema", json_schema = { schema = { type = "object" } } },
            safety_mode = "STRICT", reasoning_effort = "low" }, { model = "command-a-reasoning-08-2025" })
        assert.same({ type = "json_object", json_schema = { type = "object" } }, body.response_format)
        assert.same({ "STRICT", { type = "enabled", token_budget = 2048 } }, { body.safety_mode, body.thinking })
        local _, dropped = to({ reasoning_effort = "low" }, { model = "command-r-08-2024" })
        assert.equal("reasoning_effort", dropped)
        assert.same({ type = "json_object" }, to({ response_format = { type = "json_object" } }).response_format)
    end)

    it("says something", function()
        assert.has_error(function() to({ messages = require("claw.json").array() }) end)
    end)
end)
