-- What is lost is told to the client in the words of its own request.

local context = require("support.context")
local protocols = require("claw.protocols")
local wording = require("claw.protocols.wording")

-- What a client's body loses on its way to `to`, or the field that it is refused for.
local function lost(from, to, body, how)
    how = how or {}
    local doc = context.doc(body)
    local cx = context.new({ lossy = how.lossy or "allow", model = how.model or "m", wording = protocols.get(from).wording, body = doc,
        provider = how.provider })
    local ok, raised = pcall(function() return protocols.get(to).write_request(protocols.get(from).read_request(doc, cx), cx) end)
    if ok then return context.dropped(cx) end
    assert(type(raised) == "table" and raised.status == 400, tostring(raised.message or raised))
    return raised.param, raised.message
end

local function user(content) return { role = "user", content = content } end
local SIX = { "1", "2", "3", "4", "5", "6" }
local Q = { { role = "user", parts = { { text = "q" } } } }

describe("a field that is lost is named", function()
    local CASES = {
        { "openai_chat", "gemini", { messages = { user("q") }, stop = SIX }, "stop" },
        { "openai_chat", "cohere_chat", { messages = { user("q") }, stop = SIX, n = 2 }, "stop,n" },
        { "openai_chat", "openai_completions", { messages = { user("q") }, functions = { { name = "f" } } }, "functions" },
        { "openai_chat", "openai_responses", { messages = { user("q") }, max_completion_tokens = 2 }, "max_completion_tokens" },
        { "openai_chat", "openai_responses", { messages = { user("q") }, max_tokens = 2 }, "max_tokens" },
        { "openai_chat", "ollama_chat", { messages = { user("q") }, thinking = { type = "enabled" } }, "thinking" },
        { "openai_chat", "ollama_chat", { messages = { user("q") }, reasoning = { effort = "low" } }, "reasoning" },
        { "openai_chat", "ollama_chat", { messages = { user({ { type = "image_url", image_url = { url = "https://x/y.png" } } }) } },
            "messages.content.image_url" },
        { "openai_chat", "anthropic_messages", { messages = { user("q"), { role = "system", content = "s" } } }, "messages[1]" },
        { "openai_chat", "gemini", { messages = { user("q") }, tools = { { type = "function", ["function"] = { name = "f", odd = 1 } } } },
            "tools[0].function.odd" },
        { "openai_completions", "cohere_chat", { prompt = "q", stop = SIX }, "stop" },
        { "anthropic_messages", "openai_chat", { max_tokens = 9, messages = { user("q") }, stop_sequences = SIX }, "stop_sequences" },
        { "anthropic_messages", "openai_responses", { max_tokens = 99, messages = { user("q") }, stop_sequences = { "x" } }, "stop_sequences" },
        { "anthropic_messages", "openai_responses", { max_tokens = 99, messages = { user("q") }, stop = "x" }, "stop" },
        { "anthropic_messages", "gemini", { max_tokens = 99, messages = { user("q") }, metadata = { user_id = "u" } }, "metadata.user_id" },
        { "anthropic_messages", "ollama_chat", { max_tokens = 99, messages = { user("q") }, thinking = { type = "enabled", budget_tokens = 2000 } },
            "thinking" },
        { "anthropic_messages", "ollama_chat", { max_tokens = 99, messages = { user("q") }, output_config = { effort = "low" } },
            "output_config.effort" },
        { "anthropic_messages", "openai_chat", { max_tokens = 9, messages = { user("q"), { role = "assistant", content = "a" } } }, "messages[1]" },
        { "openai_responses", "anthropic_messages", { input = "q", text = { verbosity = "low", format = { type = "json_object" } } },
            "text.format,text.verbosity" },
        { "openai_responses", "ollama_chat", { input = "q", reasoning = { effort = "low" } }, "reasoning.effort" },
        { "openai_responses", "openai_chat", { input = { user("q"), { type = "computer_call", id = "x" } }, previous_response_id = "r" },
            "previous_response_id,input.computer_call,input[1]" },
        { "openai_responses", "ollama_chat", { input = { user({ { type = "input_image", image_url = "https://x/y.png" } }) } },
            "input.content.input_image" },
        { "gemini", "anthropic_messages", { contents = Q, generationConfig = { seed = 1, responseMimeType = "application/json" } },
            "generationConfig.responseMimeType,generationConfig.seed" },
        { "gemini", "openai_responses", { contents = Q, generation_config = { top_k = 3, stop_sequences = { "x" }, candidate_count = 2 } },
            "generation_config.stop_sequences,generation_config.candidate_count,generation_config.top_k" },
        { "gemini", "openai_responses", { contents = Q, generationConfig = { thinkingConfig = { thinkingLevel = "low" } } },
            "generationConfig.thinkingConfig" },
        { "gemini", "openai_chat", { contents = Q, safety_settings = { { category = "x" } }, cachedContent = "c" }, "cachedContent,safety_settings" },
        { "gemini", "openai_chat", { contents = Q, tools = { { google_search = { x = 1 } } } }, "tools.google_search" },
        { "gemini", "ollama_chat", { contents = { { role = "user", parts = { { fileData = { fileUri = "https://x/y.png",
            mimeType = "image/png" } } } } } }, "contents.parts.fileData" },
        { "ollama_chat", "openai_chat", { messages = { user("q") }, options = { top_k = 3, stop = SIX } }, "options.stop,options.top_k" },
        { "ollama_chat", "anthropic_messages", { messages = { user("q") }, format = "json", options = { seed = 3 } }, "format,options.seed" },
    }

    for i, case in ipairs(CASES) do
        it(("as it stands in the request of %s for %s (%d)"):format(case[1], case[2], i), function()
            local names = {}
            for name in case[4]:gmatch("[^,]+") do names[#names + 1] = name end
            local said = lost(case[1], case[2], case[3], { model = "gpt-4o" })
            table.sort(names)
            local got = {}
            for name in said:gmatch("[^,]+") do got[#got + 1] = name end
            table.sort(got)
            assert.same(names, got)
        end)
    end

    it("in a refusal, too", function()
        local body = { contents = Q, generationConfig = { candidateCount = 2 } }
        local param, message = lost("gemini", "anthropic_messages", body, { lossy = "refuse" })
        assert.equal("generationConfig.candidateCount", param)
        assert.truthy(message:find('"generationConfig.candidateCount"', 1, true))
        param = lost("gemini", "bedrock_converse", { contents = { { role = "user", parts = {} } } })
        assert.equal("contents", param)
    end)

    it("once, however the target calls it", function()
        local said = lost("anthropic_messages", "bedrock_converse", { max_tokens = 9, messages = { user("q") }, stop_sequences = { " ", "  " } },
            { model = "anthropic.claude-3-5-sonnet-20240620-v1:0" })
        assert.equal("stop_sequences", said)
    end)
end)

describe("claw.protocols.wording", function()
    it("takes the longest name that is known, and leaves the rest behind it", function()
        local words = { a = "A", ["a.b"] = "B" }
        assert.equal("A.c.d", wording.path(words, {}, "a.c.d"))
        assert.equal("B.d", wording.path(words, {}, "a.b.d"))
        assert.equal("ab.d", wording.path(words, {}, "ab.d"))
    end)

    it("tells a name that the client has itself as it is", function()
        assert.equal("a", wording.path({ a = "A" }, { a = 1 }, "a"))
        assert.equal("A", wording.path({ a = "A" }, { a = 1, A = 1 }, "a"))
        assert.equal("y", wording.path({ a = { "x", "y" } }, { y = 1 }, "a"))
        assert.equal("x", wording.path({ a = { "x", "y" } }, {}, "a"))
    end)
end)
