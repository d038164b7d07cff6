-- Odd but real requests: what they say arrives, or is told by name.

local context = require("support.context")
local json = require("claw.json")
local protocols = require("claw.protocols")
local rules = require("support.stream_rules")

local MODEL = { openai_chat = "gpt-4o", openai_responses = "gpt-5", anthropic_messages = "claude-sonnet-4-5",
    gemini = "gemini-2.5-flash", cohere_chat = "command-a-03-2025", ollama_chat = "llama3",
    bedrock_converse = "anthropic.claude-sonnet-4-5-20250929-v1:0" }

-- The body for `to`, decoded, and what it lost; or nil and the field that it was refused for.
local function sent(from, to, body, lossy)
    local cx = context.new({ model = MODEL[to], lossy = lossy, provider = { remote_files = true } })
    local ok, made = pcall(function()
        local r = protocols.get(from).read_request(context.doc(body), cx)
        return (protocols.get(to).write_request(r, cx))
    end)
    if ok then return json.decode(json.encode(made)), context.dropped(cx) end
    assert(type(made) == "table" and made.status == 400, tostring(made.message or made))
    return nil, made.param
end

local function with_model(model, to, from, body)
    local before = MODEL[to]
    MODEL[to] = model
    local made, dropped = sent(from, to, body)
    MODEL[to] = before
    return made, dropped
end

local function user(content) return { { role = "user", content = content } } end

-- An answer of `from` as clients of `to` get it, decoded, and what it lost.
local function told(from, to, body)
    local cx = context.new({ answering = true })
    local a = assert(protocols.get(from).read_answer(context.doc(body), cx))
    return json.decode(json.encode(protocols.get(to).write_answer(a, cx))), context.dropped(cx)
end

-- Events of `from` as those of `to`, each decoded.
local function streamed(from, to, list)
    local cx, out = context.new({ answering = true }), {}
    for i, event in ipairs(list) do list[i] = { type = event[1], data = json.encode(event[2] or event) } end
    local read = rules.read(protocols.get(from).reader(cx), list)
    for i, event in ipairs(rules.write(protocols.get(to).writer(cx), read)) do out[i] = json.decode(event.data) or event.data end
    return out, context.dropped(cx)
end

local OTHERS = { "openai_responses", "anthropic_messages", "gemini", "cohere_chat", "ollama_chat", "bedrock_converse" }

describe("an odd request", function()
    it("of OpenAI's that asks for more than text or for a search is refused, not answered otherwise", function()
        for _, to in ipairs(OTHERS) do
            for name, value in pairs({ web_search_options = { search_context_size = "low" }, modalities = { "text", "audio" },
                guided_regex = "a+" }) do
                local made, field = sent("openai_chat", to, { messages = user("q"), [name] = value })
                assert.is_nil(made)
                assert.equal(name, field)
            end
            local _, dropped = sent("openai_chat", to, { messages = user("q"), modalities = { "text" } })
            assert.equal("", dropped, to)
        end
    end)

    it("with a schema in its JSON mode keeps the schema; a format that nobody knows is refused", function()
        local schema = { type = "object", properties = { a = { type = "string" } } }
        local body = { messages = user("q"), response_format = { type = "json_object", schema = schema } }
        assert.same(schema, sent("openai_chat", "anthropic_messages", body).output_config.format.schema)
        assert.same(schema, sent("openai_chat", "gemini", body).generationConfig.responseJsonSchema)
        assert.same(schema, sent("openai_chat", "ollama_chat", body).format)
        for _, to in ipairs(OTHERS) do
            local _, field = sent("openai_chat", to, { messages = user("q"), response_format = { type = "grammar", grammar = "x" } })
            assert.equal("response_format", field)
        end
    end)

    it("whose content is a list of bare texts, or one part, says it", function()
        local made = sent("openai_chat", "anthropic_messages", { messages = { { role = "user", content = { "a", { type = "text", text = "b" } } },
            { role = "assistant", content = json.null }, { role = "user", content = { type = "text", text = "c" } } } })
        assert.same({ { role = "user", content = { { type = "text", text = "a" }, { type = "text", text = "b" }, { type = "text", text = "c" } } } },
            made.messages)
    end)

    it("tells that a system turn had to leave its place", function()
        local body = { messages = { { role = "user", content = "a" }, { role = "developer", content = "now" }, { role = "user", content = "b" } } }
        for _, to in ipairs({ "anthropic_messages", "bedrock_converse", "gemini" }) do
            local _, dropped = sent("openai_chat", to, body)
            assert.equal("messages.system", dropped, to)
        end
        for _, to in ipairs({ "openai_responses", "cohere_chat", "ollama_chat" }) do
            local _, dropped = sent("openai_chat", to, body)
            assert.equal("", dropped, to)
        end
    end)

    it("with a custom tool's call in its history is one of functions where the tool is a function", function()
        local made = sent("openai_responses", "openai_chat", { tools = { { type = "custom", name = "run" } }, input = {
            { role = "user", content = "x" }, { type = "custom_tool_call", call_id = "c", name = "run", input = "ls -l" },
            { type = "custom_tool_call_output", call_id = "c", output = "done" } } })
        assert.same({ { id = "c", type = "function", ["function"] = { name = "run", arguments = '{"input":"ls -l"}' } } },
            made.messages[2].tool_calls)
    end)

    it("keeps what stands beside a document's text", function()
        local body = { max_tokens = 99, messages = user({ { type = "document", title = "T", context = "from 1990",
            source = { type = "text", media_type = "text/plain", data = "body" }, citations = { enabled = true } }, { type = "text", text = "q" } }) }
        for _, to in ipairs({ "openai_chat", "openai_responses", "gemini", "ollama_chat", "cohere_chat" }) do
            local made, dropped = sent("anthropic_messages", to, body)
            local text = json.encode(made)
            for _, said in ipairs({ "T", "from 1990", "body" }) do assert.truthy(text:find(said, 1, true), to) end
            if to == "gemini" then assert.equal("messages.content.document.citations", dropped) end
        end
    end)

    it("with settings of a search keeps them where they are known, and is refused where they narrow it", function()
        local body = { max_tokens = 99, messages = user("q"), tools = { { type = "web_search_20250305", name = "web_search", max_uses = 3,
            allowed_domains = { "a.com" }, user_location = { type = "approximate", city = "Bern" } } } }
        local made, dropped = sent("anthropic_messages", "openai_responses", body)
        assert.same({ { type = "web_search", filters = { allowed_domains = { "a.com" } },
            user_location = { type = "approximate", city = "Bern" } } }, made.tools)
        assert.equal("tools.web_search_20250305.max_uses", dropped)
        made, dropped = sent("anthropic_messages", "gemini", body)
        assert.is_nil(made)
        assert.equal("tools.web_search_20250305.allowed_domains", dropped)
        body.tools[1].allowed_domains = nil
        made, dropped = sent("anthropic_messages", "gemini", body)
        assert.same({ { googleSearch = {} } }, made.tools)
        assert.truthy(dropped:find("max_uses", 1, true) and dropped:find("user_location", 1, true))
    end)

    it("lists what a tool says that the others have no word for", function()
        local asked = { gemini = { contents = "q" }, openai_responses = { input = "q" } }
        local function lost(from, tool)
            local body = asked[from] or { messages = user("q") }
            body.tools = { tool }
            local _, dropped = sent(from, "cohere_chat", body)
            return dropped
        end
        assert.equal("tools[0].input_examples", lost("anthropic_messages", { name = "f", input_schema = { type = "object" },
            input_examples = { { a = 1 } }, defer_loading = false }))
        assert.equal("tools[0].defer_loading", lost("openai_responses", { type = "function", name = "f", defer_loading = true }))
        assert.equal("tools[0].function.x", lost("openai_chat", { type = "function", ["function"] = { name = "f", x = 1 } }))
        assert.equal("tools[0].functionDeclarations[0].behavior", lost("gemini",
            { functionDeclarations = { { name = "f", behavior = "NON_BLOCKING" } } }))
    end)

    it("lists what else an output was to be", function()
        local _, dropped = sent("anthropic_messages", "openai_chat", { max_tokens = 9, messages = user("q"),
            output_config = { effort = "low", task_budget = { type = "tokens", total = 9 } } })
        assert.equal("output_config.task_budget,reasoning_effort", dropped) -- gpt-4o does not reason
    end)

    it("with other servers' tools is refused by all who cannot run them", function()
        for _, to in ipairs({ "openai_chat", "openai_responses", "gemini", "cohere_chat", "ollama_chat", "bedrock_converse" }) do
            for name, value in pairs({ mcp_servers = { { type = "url", url = "https://e", name = "x" } }, container = "c_1" }) do
                local made, field = sent("anthropic_messages", to, { max_tokens = 99, messages = user("q"), [name] = value })
                assert.is_nil(made)
                assert.equal(name, field, to)
            end
        end
        local made, dropped = sent("anthropic_messages", "openai_responses", { max_tokens = 99, messages = user("q"),
            context_management = { edits = { { type = "clear_tool_uses_20250919" } } } })
        assert.is_nil(made.context_management) -- OpenAI's has another form
        assert.equal("context_management", dropped)
    end)

    it("of Gemini's keeps null, files of results and nested types", function()
        local made = sent("gemini", "anthropic_messages", { contents = { { role = "user", parts = { { text = "q" } } },
            { role = "model", parts = { { functionCall = { name = "f", args = { a = 1 } } } } },
            { role = "user", parts = { { functionResponse = { name = "f", response = { result = json.null },
                parts = { { fileData = { fileUri = "https://x/y.png", mimeType = "image/png" } } } } } } } },
            tools = { { functionDeclarations = { { name = "f", parameters = { type = "OBJECT", additionalProperties = { type = "STRING" },
                ["$defs"] = { X = { type = "INTEGER" } }, properties = { a = { type = "ARRAY", prefixItems = { { type = "NUMBER" } } } } } } } } } })
        assert.same({ { type = "text", text = "null" }, { type = "image", source = { type = "url", url = "https://x/y.png" } } },
            made.messages[3].content[1].content)
        assert.same({ type = "object", additionalProperties = { type = "string" }, ["$defs"] = { X = { type = "integer" } },
            properties = { a = { type = "array", prefixItems = { { type = "number" } } } } }, made.tools[1].input_schema)
    end)

    it("for Responses says what Responses cannot", function()
        local made, field = sent("openai_chat", "openai_responses", { n = 2, messages = user("q") })
        assert.is_nil(made)
        assert.equal("n", field)
        local _, dropped = sent("anthropic_messages", "openai_responses", { max_tokens = 1, messages = user("q") })
        assert.equal("max_tokens", dropped)
        made, field = sent("openai_responses", "openai_chat", { input = user({ { type = "input_image", detail = "low" } }) })
        assert.is_nil(made)
        assert.equal("messages.content.input_image", field)
    end)

    it("of another dialect leaves alone what OpenAI's models refuse", function()
        local body = { max_tokens = 2000, temperature = 0, top_p = 1, thinking = { type = "enabled", budget_tokens = 1024 }, messages = user("q") }
        for _, to in ipairs({ "openai_chat", "openai_responses" }) do
            local made, dropped = with_model("gpt-5-mini", to, "anthropic_messages", body)
            assert.same({ nil, nil, "temperature" }, { made.temperature, made.top_p, dropped })
            made, dropped = with_model("gpt-5.2", to, "anthropic_messages", body)
            assert.same({ 0, "" }, { made.temperature, dropped })
        end
        local made, dropped = with_model("gpt-4o", "openai_chat", "anthropic_messages", body)
        assert.is_nil(made.reasoning_effort)
        assert.same({ 0, "reasoning_effort" }, { made.temperature, dropped })
        assert.equal("low", with_model("llama-4", "openai_chat", "anthropic_messages", body).reasoning_effort)
    end)

    it("that asks for the most effort gets the most there is; an effort that nobody knows is listed", function()
        for _, from in ipairs({ "openai_chat", "openai_responses" }) do
            local function asked(effort)
                if from == "openai_chat" then return { messages = user("q"), reasoning_effort = effort } end
                return { input = "q", reasoning = { effort = effort } }
            end
            local made, dropped = sent(from, "anthropic_messages", asked("max"))
            assert.same({ { type = "enabled", budget_tokens = 32768 }, "" }, { made.thinking, dropped })
            _, dropped = sent(from, "anthropic_messages", asked("heroic"))
            assert.equal(from == "openai_chat" and "reasoning_effort" or "reasoning.effort", dropped)
        end
    end)

    it("with a mark for the cache within a result has it behind the result at Bedrock", function()
        local made = sent("anthropic_messages", "bedrock_converse", { max_tokens = 9, messages = { { role = "user", content = "q" },
            { role = "assistant", content = { { type = "tool_use", id = "a", name = "f", input = {} } } },
            { role = "user", content = { { type = "tool_result", tool_use_id = "a", content = { { type = "text", text = "r",
                cache_control = { type = "ephemeral" } } } } } } } })
        assert.same({ cachePoint = { type = "default" } }, made.messages[3].content[2])
    end)

    it("with arguments that are no JSON keeps them for Ollama too", function()
        local made = sent("openai_chat", "ollama_chat", { messages = { { role = "user", content = "q" }, { role = "assistant", tool_calls = { {
            id = "c", type = "function", ["function"] = { name = "f", arguments = "{cut" } } } }, { role = "tool", tool_call_id = "c",
            content = "bad" } } })
        assert.same({ input = "{cut" }, made.messages[2].tool_calls[1]["function"].arguments)
    end)
end)

describe("an odd answer", function()
    local function failed(reason)
        return { candidates = { { content = {}, finishReason = reason, finishMessage = "print(x)" } }, responseId = "r" }
    end

    it("that failed before it said anything is an error, plain and streamed", function()
        local said = "the model could not finish its answer: MALFORMED_FUNCTION_CALL (print(x))"
        for _, to in ipairs({ "openai_chat", "openai_responses", "anthropic_messages", "gemini" }) do
            assert.equal(said, told("gemini", to, failed("MALFORMED_FUNCTION_CALL")).error.message, to)
            local events = streamed("gemini", to, { failed("MALFORMED_FUNCTION_CALL") })
            assert.equal(said, events[1].error.message, to)
            assert.is_nil(events[2])
        end
        local nothing = { choices = { { index = 0, message = { content = "" }, finish_reason = "insufficient_system_resource" } } }
        assert.truthy(told("openai_chat", "anthropic_messages", nothing).error.message:find("insufficient_system_resource", 1, true))
        local chunk = { choices = { { index = 0, delta = { content = "" }, finish_reason = "insufficient_system_resource" } } }
        assert.equal("error", streamed("openai_chat", "anthropic_messages", { chunk })[1].type)
        assert.truthy(told("bedrock_converse", "openai_chat", { output = { message = { content = json.array() } }, usage = {},
            stopReason = "malformed_model_output" }).error.message:find("malformed_model_output", 1, true))
        assert.truthy(streamed("bedrock_converse", "openai_chat", { { "messageStart", { role = "assistant" } },
            { "messageStop", { stopReason = "malformed_model_output" } } })[2].error)
    end)

    it("that failed after it said something is an error, too", function()
        for _, to in ipairs({ "openai_chat", "openai_responses", "anthropic_messages", "gemini" }) do
            local half = failed("MALFORMED_FUNCTION_CALL")
            half.candidates[1].content = { parts = { { text = "Half" } } }
            assert.truthy(told("gemini", to, half).error.message:find("MALFORMED_FUNCTION_CALL", 1, true), to)
            local events = streamed("gemini", to, { half })
            local last = events[#events]
            if to == "openai_responses" then last = events[#events - 1] end -- response.failed stands behind it
            assert.truthy(last.error.message:find("MALFORMED_FUNCTION_CALL", 1, true), to)
        end
        for _, from in ipairs({ "openai_chat", "openai_completions" }) do
            local choice = { index = 0, text = "Half", message = { content = "Half" }, finish_reason = "error" }
            assert.truthy(told(from, "anthropic_messages", { choices = { choice } }).error, from)
        end
        assert.truthy(told("cohere_chat", "openai_chat", { message = { content = { { type = "text", text = "Half" } } },
            finish_reason = "ERROR" }).error)
    end)

    it("with images has them where the client's protocol has images", function()
        local openai = { choices = { { index = 0, finish_reason = "stop", message = { content = "see", images = { { type = "image_url",
            image_url = { url = "data:image/png;base64,AAAA" } } } } } } }
        local google = { candidates = { { finishReason = "STOP", content = { parts = { { text = "see" }, { inlineData = { mimeType = "image/png",
            data = "AAAA" } } } } } } }
        assert.same(openai.choices[1].message.images, told("gemini", "openai_chat", google).choices[1].message.images)
        assert.same(google.candidates[1].content.parts, told("openai_chat", "gemini", openai).candidates[1].content.parts)
        local _, dropped = told("openai_chat", "anthropic_messages", openai)
        assert.equal("content.image", dropped)
        local delta = { choices = { { index = 0, delta = openai.choices[1].message } } }
        local last = { choices = { { index = 0, delta = {}, finish_reason = "stop" } } }
        assert.equal("AAAA", streamed("openai_chat", "gemini", { delta, last })[1].candidates[1].content.parts[1].inlineData.data)
        assert.same(openai.choices[1].message.images, streamed("gemini", "openai_chat", { google })[3].choices[1].delta.images)
        assert.same({ "TEXT", "IMAGE" }, sent("openai_chat", "gemini", { messages = user("q"), modalities = { "text", "image" } })
            .generationConfig.responseModalities)
    end)

    it("with audio, or blocks of another kind, tells what is lost", function()
        local _, dropped = told("gemini", "openai_chat", { candidates = { { finishReason = "STOP", content = { parts = { { inlineData = {
            mimeType = "audio/pcm", data = "AAAA" } } } } } } })
        assert.equal("content.audio", dropped)
        _, dropped = told("bedrock_converse", "openai_chat", { stopReason = "end_turn",
            output = { message = { content = { { text = "a" }, { video = { format = "mp4" } } } } } })
        assert.equal("content.video", dropped)
    end)

    it("that was refused without a word is not complete for Responses", function()
        local out = told("anthropic_messages", "openai_responses", { type = "message", content = json.array(), stop_reason = "refusal" })
        assert.same({ "incomplete", "content_filter" }, { out.status, out.incomplete_details.reason })
        local events = streamed("anthropic_messages", "openai_responses", { { type = "message_start", message = { id = "m" } },
            { type = "message_delta", delta = { stop_reason = "refusal" } }, { type = "message_stop" } })
        assert.equal("response.incomplete", events[#events].type)
    end)

    it("cites the same characters plain and streamed, also behind another text", function()
        local function google(parts, from, to, index)
            return { candidates = { { content = { parts = parts }, finishReason = "STOP", groundingMetadata = {
                groundingChunks = { { web = { uri = "https://a", title = "A" } } }, groundingSupports = { { groundingChunkIndices = { 0 },
                    segment = { partIndex = index, startIndex = from, endIndex = to, text = "wei" } } } } } } }
        end
        local call = { functionCall = { name = "f", args = { a = 1 } } }
        local note = { type = "url_citation", url_citation = { url = "https://a", title = "A", start_index = 6, end_index = 9 } }
        local body = google({ { text = "\195\169ins " }, call, { text = "zwei" } }, 1, 4, 2)
        assert.same({ note }, told("gemini", "openai_chat", body).choices[1].message.annotations)
        local claude = { { type = "message_start", message = { id = "m" } },
            { type = "content_block_start", index = 0, content_block = { type = "text", text = "one " } }, { type = "content_block_stop", index = 0 },
            { type = "content_block_start", index = 1, content_block = { type = "text", text = "" } },
            { type = "content_block_delta", index = 1, delta = { type = "text_delta", text = "zwei" } },
            { type = "content_block_delta", index = 1, delta = { type = "citations_delta", citation = { type = "web_search_result_location",
                url = "https://a", title = "A" } } }, { type = "content_block_stop", index = 1 },
            { type = "message_delta", delta = { stop_reason = "end_turn" } }, { type = "message_stop" } }
        local found
        for _, chunk in ipairs(streamed("anthropic_messages", "openai_chat", claude)) do
            found = found or chunk.choices and chunk.choices[1] and chunk.choices[1].delta.annotations
        end
        assert.same({ 4, 8 }, { found[1].url_citation.start_index, found[1].url_citation.end_index })
    end)

    it("cites the part it means, though parts before it were left out", function()
        local out = told("openai_responses", "gemini", { status = "completed", output = { { type = "web_search_call", id = "ws_1" },
            { type = "message", content = { { type = "output_text", text = "a", annotations = { { type = "url_citation", url = "https://a",
                title = "A", start_index = 0, end_index = 1 } } } } } } })
        assert.equal(0, out.candidates[1].groundingMetadata.groundingSupports[1].segment.partIndex)
    end)
end)

describe("an odd error", function()
    local function failed(from, to, status, body)
        local err = protocols.get(from).read_error(status, json.encode(body), context.new())
        return protocols.get(to).write_error(err).error, err
    end

    it("has the code that OpenAI's clients look for, whoever says it", function()
        local long = { error = { code = 400, status = "INVALID_ARGUMENT",
            message = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)." } }
        for _, to in ipairs({ "openai_chat", "openai_responses" }) do
            assert.equal("context_length_exceeded", failed("gemini", to, 400, long).code)
            assert.equal("rate_limit_exceeded", failed("gemini", to, 429, { error = { status = "RESOURCE_EXHAUSTED", message = "quota" } }).code)
            assert.equal("context_length_exceeded", failed("anthropic_messages", to, 400, { error = { type = "invalid_request_error",
                message = "prompt is too long: 2 tokens > 1 maximum" } }).code)
        end
        assert.equal("context_length_exceeded", protocols.get("openai_responses").write_answer({ parts = {}, error = { code = "400",
            kind = "context_window", message = "m" } }, context.new()).error.code)
    end)

    it("of a provider behind OpenRouter is told with its words", function()
        local said, err = failed("openai_chat", "anthropic_messages", 400, { error = { message = "Provider returned error", code = 400,
            metadata = { raw = "prompt is too long: 9 tokens", provider_name = "Anthropic" } } })
        assert.equal("context_window", err.kind)
        assert.equal("Provider returned error: prompt is too long: 9 tokens", said.message)
    end)

    it("of an empty purse is one of billing", function()
        local said, err = failed("anthropic_messages", "openai_chat", 400, { type = "error", error = { type = "invalid_request_error",
            message = "Your credit balance is too low to access the Anthropic API." } })
        assert.same({ "billing", "insufficient_quota" }, { err.kind, said.code })
    end)
end)
