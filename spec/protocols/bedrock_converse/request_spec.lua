local json = require("claw.json")
local written = require("support.written")

local CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"

local function to(body, overrides)
    body.messages = body.messages or { { role = "user", content = "hi" } }
    return written.request("openai_chat", "bedrock_converse", body, overrides or { model = CLAUDE })
end

local function from_claude(body, overrides)
    body.max_tokens = body.max_tokens or 9000
    return written.request("anthropic_messages", "bedrock_converse", body, overrides or { model = CLAUDE })
end

local TOOLS = { { type = "function", ["function"] = { name = "f", description = "F", parameters = { type = "object" } } } }

describe("a request for Bedrock", function()
    it("has neither model nor stream in its body", function()
        local body = to({ stream = true, max_tokens = 9, temperature = 0.5, stop = "x" })
        assert.same({ messages = { { role = "user", content = { { text = "hi" } } } },
            additionalModelResponseFieldPaths = { "/stop_sequence" },
            inferenceConfig = { maxTokens = 9, temperature = 0.5, stopSequences = { "x" } } }, body)
    end)

    it("has one turn of a role after the other, results in front", function()
        local body, dropped = to({ messages = { { role = "system", content = "s" }, { role = "user", content = "a" },
            { role = "user", content = " " }, { role = "assistant", tool_calls = { { id = "c.1", type = "function",
                ["function"] = { name = "f", arguments = '{"a":1}' } } } },
            { role = "tool", tool_call_id = "c.1", content = "rain" }, { role = "tool", tool_call_id = "gone", content = "snow" },
            { role = "user", content = "b" } } })
        assert.same({ { text = "s" } }, body.system)
        assert.same({ { text = "a" } }, body.messages[1].content)
        assert.same({ toolUse = { toolUseId = "c_1", name = "f", input = { a = 1 } } }, body.messages[2].content[1])
        assert.same({ { toolResult = { toolUseId = "c_1", content = { { text = "rain" } } } }, { text = "snow" }, { text = "b" } },
            body.messages[3].content)
        assert.equal("f", body.toolConfig.tools[1].toolSpec.name) -- calls need one
        assert.equal("messages.tool_call_id", dropped)
    end)

    it("goes on from a last turn that ends with no white space", function()
        local body = to({ messages = { { role = "user", content = "a" }, { role = "assistant", content = "pre \n" } } })
        assert.same({ { text = "pre" } }, body.messages[2].content)
    end)

    it("has media by content", function()
        local body, dropped = from_claude({ messages = { { role = "user", content = {
            { type = "image", source = { type = "base64", media_type = "image/jpeg", data = "QQ==" } },
            { type = "document", title = "My  file.pdf", source = { type = "base64", media_type = "application/pdf", data = "QQ==" },
                citations = { enabled = true } },
            { type = "document", source = { type = "text", media_type = "text/plain", data = "A" } },
            { type = "image", source = { type = "url", url = "https://x.example/i.png" } } } } } })
        assert.same({ { image = { format = "jpeg", source = { bytes = "QQ==" } } },
            { document = { format = "pdf", name = "My file", source = { bytes = "QQ==" }, citations = { enabled = true } } },
            { document = { format = "txt", name = "document", source = { bytes = "QQ==" } } } }, body.messages[1].content)
        assert.equal("messages.content.image", dropped)
    end)

    it("has cache points, errors of tools, and secrets of its models' family", function()
        local function body_for(model)
            return from_claude({ system = { { type = "text", text = "s", cache_control = { type = "ephemeral", ttl = "1h" } } },
                tools = { { name = "f", input_schema = { type = "object" }, cache_control = { type = "ephemeral" } } },
                messages = { { role = "user", content = "q" }, { role = "assistant", content = {
                    { type = "thinking", thinking = "hm", signature = "SIG" }, { type = "redacted_thinking", data = "RED" },
                    { type = "tool_use", id = "t", name = "f", input = json.array() } } },
                    { role = "user", content = { { type = "tool_result", tool_use_id = "t", is_error = true, content = "no" } } } } },
                { model = model })
        end
        local body = body_for(CLAUDE)
        assert.same({ { text = "s" }, { cachePoint = { type = "default", ttl = "1h" } } }, body.system)
        assert.same({ cachePoint = { type = "default" } }, body.toolConfig.tools[2])
        assert.same({ { reasoningContent = { reasoningText = { text = "hm", signature = "SIG" } } },
            { reasoningContent = { redactedContent = "RED" } } }, { body.messages[2].content[1], body.messages[2].content[2] })
        assert.equal("error", body.messages[3].content[1].toolResult.status)
        local other, dropped = body_for("meta.llama3-3-70b-instruct-v1:0")
        assert.same({ 1, 1, 1, "cache_control" }, { #other.system, #other.toolConfig.tools, #other.messages[2].content, dropped })
    end)

    it("chooses tools", function()
        assert.same({ any = {} }, to({ tools = TOOLS, tool_choice = "required" }).toolConfig.toolChoice)
        assert.same({ auto = {} }, to({ tools = TOOLS, tool_choice = "auto" }).toolConfig.toolChoice)
        assert.same({ tool = { name = "f" } },
            to({ tools = TOOLS, tool_choice = { type = "function", ["function"] = { name = "f" } } }).toolConfig.toolChoice)
        assert.is_nil(to({ tools = TOOLS, tool_choice = "none" }).toolConfig)
        assert.same({ toolSpec = { name = "f", description = "F", inputSchema = { json = { type = "object" } } } },
            to({ tools = TOOLS }).toolConfig.tools[1])
        local _, _, made = to({ tools = TOOLS, tool_choice = "required" })
        assert.truthy(json.encode(made):find('"toolChoice":{"any":{}}', 1, true))
    end)

    it("reasons in the words of each family", function()
        local function more(model, body)
            body.reasoning_effort = "low"
            return to(body, { model = model }).additionalModelRequestFields
        end
        assert.same({ thinking = { type = "enabled", budget_tokens = 2048 } }, more(CLAUDE, { max_tokens = 4096 }))
        assert.same({ thinking = { type = "adaptive" }, output_config = { effort = "low" } }, more("anthropic.claude-opus-4-6-v1", {}))
        assert.same({ reasoning_effort = "low" }, more("openai.gpt-oss-120b-1:0", {}))
        assert.same({ reasoningConfig = { type = "enabled", maxReasoningEffort = "low" } }, more("amazon.nova-2-lite-v1:0", {}))
        assert.is_nil(more("meta.llama3-3-70b-instruct-v1:0", {}))
        local body, dropped = to({ reasoning_effort = "low", temperature = 0.5, top_k = 4 })
        assert.is_nil(body.inferenceConfig)
        assert.equal("temperature,top_k", dropped)
    end)

    it("has schemas as text, top_k by family", function()
        local body = to({ response_format = { type = "json_schema", json_schema = { name = "n", schema = { type = "object" } } }, top_k = 5 })
        assert.same({ textFormat = { type = "json_schema", structure = { jsonSchema = { name = "n", schema = '{"type":"object"}' } } } },
            body.outputConfig)
        assert.same({ top_k = 5 }, body.additionalModelRequestFields)
        assert.same({ inferenceConfig = { topK = 5 } }, to({ top_k = 5 }, { model = "us.amazon.nova-pro-v1:0" }).additionalModelRequestFields)
        local _, dropped = to({ response_format = { type = "json_object" }, top_k = 5, seed = 1 }, { model = "x" })
        assert.equal("top_k,response_format,seed", dropped)
        assert.same({ type = "flex" }, to({ service_tier = "flex" }).serviceTier)
    end)
end)
