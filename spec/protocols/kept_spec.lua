-- What users of other proxies lost without a word: it arrives, or is told by name.

local context = require("support.context")
local json = require("claw.json")
local protocols = require("claw.protocols")
local providers = require("claw.providers")

local MODEL = { openai_chat = "gpt-4o", openai_responses = "gpt-5", anthropic_messages = "claude-sonnet-4-5",
    gemini = "gemini-2.5-flash", cohere_chat = "command-a-03-2025", ollama_chat = "qwen3",
    bedrock_converse = "anthropic.claude-sonnet-4-5-20250929-v1:0" }
local TARGETS = { "openai_chat", "openai_responses", "anthropic_messages", "gemini", "cohere_chat", "ollama_chat", "bedrock_converse" }

-- The body for `to`, decoded, and what it lost; or nil and the field that it was refused for.
local function sent(from, to, body, how)
    how = how or {}
    local cx = context.new({ model = how.model or MODEL[to], lossy = how.lossy, provider = how.provider or { remote_files = true } })
    local ok, made = pcall(function()
        local r = protocols.get(from).read_request(context.doc(body), cx)
        return (protocols.get(to).write_request(r, cx))
    end)
    if ok then return json.decode(json.encode(made)), context.dropped(cx) end
    assert(type(made) == "table" and made.status == 400, tostring(made.message or made))
    return nil, made.param
end

local function has(list, name) return ("," .. list .. ","):find("," .. name .. ",", 1, true) ~= nil end

describe("an unknown field", function()
    local CASES = {
        openai_chat = { { messages = { { role = "system", content = "s", odd = 1 }, { role = "user", content = { { type = "text", text = "q",
            vendor = {
            a = 1 } }, { type = "image_url", image_url = { url = "data:image/png;base64,AAAA", crop = true } } } }, { role = "assistant",
                prefix = true,
            content = "a", tool_calls = { { id = "c", type = "function", extra = 1, ["function"] = { name = "f", arguments = "{}", odd = 1 } } } },
            { role = "tool", tool_call_id = "c", content = "r", odd = "x" }, { role = "user", content = "q", nothing = json.null, empty = "",
                no = false } } },
            { "messages[0].odd", "messages[1].content[0].vendor", "messages[1].content[1].image_url.crop", "messages[2].prefix",
                "messages[2].tool_calls[0].extra", "messages[2].tool_calls[0].function.odd", "messages[3].odd" } },
        anthropic_messages = { { max_tokens = 9, system = { { type = "text", text = "s", odd = 1 } }, messages = { { role = "user", odd = 1,
            content = { {
            type = "text", text = "q", odd = 1 } } }, { role = "assistant", content = { { type = "tool_use", id = "c", name = "f", input = { x = 1 },
                odd = 1 } } },
            { role = "user", content = { { type = "tool_result", tool_use_id = "c", odd = 1, content = { { type = "text", text = "r",
                odd = 1 } } } } } } },
            { "system[0].odd", "messages[0].odd", "messages[0].content[0].odd", "messages[1].content[0].odd", "messages[2].content[0].odd",
                "messages[2].content[0].content[0].odd" } },
        openai_responses = { { input = { { role = "user", odd = 1, content = { { type = "input_text", text = "q", odd = 1 } } },
            { type = "function_call",
            call_id = "c", name = "f", arguments = "{}", odd = 1, status = "completed", id = "fc" }, { type = "function_call_output", call_id = "c",
                odd = 1,
            output = { { type = "input_text", text = "r", odd = 1 } } } } },
            { "input[0].odd", "input[0].content[0].odd", "input[1].odd", "input[2].odd", "input[2].output[0].odd" } },
        gemini = { { contents = { { role = "user", odd = 1, parts = { { text = "q", odd = 1 } } }, { role = "model",
            parts = { { functionCall = { name = "f",
            args = { x = 1 }, odd = 1 } } } }, { role = "user", parts = { { functionResponse = { name = "f", response = { a = 1 },
                scheduling = "SILENT" } } } } } },
            { "contents[0].odd", "contents[0].parts[0].odd", "contents[1].parts[0].functionCall.odd",
                "contents[2].parts[0].functionResponse.scheduling" } },
    }

    for from, case in pairs(CASES) do
        it("of a message or a part of " .. from .. " is told by its path", function()
            for _, to in ipairs(TARGETS) do
                if to ~= from then
                    local made, dropped = sent(from, to, case[1])
                    assert.is_table(made, to .. ": " .. tostring(dropped))
                    for _, name in ipairs(case[2]) do assert.is_true(has(dropped, name), ("%s to %s: %s not in %s"):format(from, to, name,
                        dropped)) end
                    assert.is_nil(dropped:find("nothing", 1, true) or dropped:find("empty", 1, true) or dropped:find("%.no%f[,%z]"))
                    local _, param = sent(from, to, case[1], { lossy = "refuse" })
                    assert.is_string(param)
                end
            end
        end)
    end

    it("is bounded in number and length", function()
        local messages = {}
        for i = 1, 100 do messages[i] = { role = "user", content = "q", [("x"):rep(200)] = i } end
        local _, dropped = sent("openai_chat", "anthropic_messages", { messages = messages })
        local _, commas = dropped:gsub(",", "")
        assert.equal(31, commas)
        assert.is_true(#dropped <= 32 * 65)
    end)

    it("of the cache on a whole message is taken as its last part's", function()
        local body = { messages = { { role = "system", content = "s", cache_control = { type = "ephemeral" } }, { role = "user", content = "q",
            cache_control = { type = "ephemeral", ttl = "1h" } } } }
        local made = sent("openai_chat", "anthropic_messages", body)
        assert.same({ { type = "text", text = "s", cache_control = { type = "ephemeral" } } }, made.system)
        assert.same({ type = "ephemeral", ttl = "1h" }, made.messages[1].content[1].cache_control)
        local _, dropped = sent("openai_chat", "gemini", body)
        assert.equal("cache_control", dropped)
    end)
end)

describe("what other proxies lost", function()
    local TOOLS = { { type = "function", ["function"] = { name = "f", parameters = { type = "object" } } } }

    it("of a tool_choice that is an object without a name arrives", function()
        for said, wanted in pairs({ auto = "auto", any = "any", required = "any", none = "none" }) do
            local made = sent("openai_chat", "anthropic_messages", { messages = { { role = "user", content = "q" } }, tools = TOOLS,
                tool_choice = { type = said } })
            assert.equal(wanted, made.tool_choice.type, said)
        end
        local _, param = sent("openai_chat", "anthropic_messages", { messages = { { role = "user", content = "q" } }, tools = TOOLS,
            tool_choice = { type = "web_search" } })
        assert.equal("tool_choice", param)
        _, param = sent("openai_chat", "gemini", { messages = { { role = "user", content = "q" } }, tools = TOOLS, tool_choice = "sometimes" })
        assert.equal("tool_choice", param)
    end)

    it("of a call whose arguments are null is a call without any", function()
        local chat = { messages = { { role = "user", content = "q" }, { role = "assistant", tool_calls = { { id = "c", type = "function",
            ["function"] = { name = "f", arguments = " null" } } } }, { role = "tool", tool_call_id = "c", content = "r" } } }
        assert.same({}, sent("openai_chat", "anthropic_messages", chat).messages[2].content[1].input)
        assert.same({}, sent("openai_chat", "gemini", chat).contents[2].parts[1].functionCall.args)
        local responses = { input = { { role = "user", content = "q" }, { type = "function_call", call_id = "c", name = "f", arguments = "null" },
            { type = "function_call_output", call_id = "c", output = "r" } } }
        assert.same({}, sent("openai_responses", "anthropic_messages", responses).messages[2].content[1].input)
    end)

    it("of an answer's sources that a client hands back is told", function()
        local cited = { { type = "web_search_result_location", url = "https://a", title = "A", cited_text = "x", encrypted_index = "e" } }
        local _, dropped = sent("anthropic_messages", "openai_chat", { max_tokens = 9, messages = { { role = "user", content = "q" },
            { role = "assistant", content = { { type = "text", text = "a", citations = cited } } }, { role = "user", content = "q" } } })
        assert.equal("messages[1].content[0].citations", dropped)
        _, dropped = sent("openai_responses", "gemini", { input = { { role = "user", content = "q" }, { role = "assistant", type = "message",
            content = { {
            type = "output_text", text = "a", annotations = { { type = "url_citation", url = "https://a" } } } } }, { role = "user",
                content = "q" } } })
        assert.equal("input[1].content[0].annotations", dropped)
    end)
end)

describe("a search result", function()
    local block = { type = "search_result", source = "https://a/b", title = "T", content = { { type = "text", text = "one" }, { type = "text",
        text = "two" } },
        citations = { enabled = true } }

    it("goes as text with its title and source, of the user's and of a tool's", function()
        local asked = { max_tokens = 9, messages = { { role = "user", content = { block, { type = "text", text = "q" } } } } }
        local tool = { max_tokens = 9, messages = { { role = "user", content = "q" }, { role = "assistant", content = { { type = "tool_use",
            id = "c", name = "f",
            input = { x = 1 } } } }, { role = "user", content = { { type = "tool_result", tool_use_id = "c", content = { block } } } } } }
        for _, to in ipairs(TARGETS) do
            for _, body in ipairs({ asked, tool }) do
                local made, dropped = sent("anthropic_messages", to, body)
                assert.is_table(made, to .. ": " .. tostring(dropped))
                local text = json.encode(made):gsub("\\/", "/")
                for _, said in ipairs({ "https://a/b", "T", "one", "two" }) do
                    assert.truthy(text:find(said, 1, true), ("%s lacks %s: %s"):format(to, said, text))
                end
            end
        end
        assert.same(block, sent("anthropic_messages", "anthropic_messages", asked).messages[1].content[1])
        assert.same({ searchResult = { source = "https://a/b", title = "T", content = { { text = "one\n\ntwo" } }, citations = { enabled = true } } },
            sent("anthropic_messages", "bedrock_converse", asked).messages[1].content[1])
    end)
end)

describe("a Responses client at OpenAI's chat", function()
    local body = { input = "q", prompt_cache_key = "k", safety_identifier = "s", user = "u", service_tier = "flex", metadata = { a = "b" },
        store = true,
        text = { verbosity = "low" }, top_logprobs = 2, parallel_tool_calls = false, tools = { { type = "function", name = "f", parameters = {} } } }

    it("is told whole", function()
        local made, dropped = sent("openai_responses", "openai_chat", body, { provider = providers.tables.openai })
        assert.equal("", dropped)
        assert.same({ "k", "s", "u", "flex", "b", true, "low", true, 2, false }, { made.prompt_cache_key, made.safety_identifier, made.user,
            made.service_tier, made.metadata.a, made.store, made.verbosity, made.logprobs, made.top_logprobs, made.parallel_tool_calls })
    end)

    it("loses by name what others refuse", function()
        local made, dropped = sent("openai_responses", "openai_chat", body, { provider = providers.tables.groq })
        assert.equal("safety_identifier,prompt_cache_key", dropped)
        assert.equal("u", made.user)
        body.top_logprobs = nil
        made, dropped = sent("openai_responses", "openai_chat", body, { provider = providers.tables.mistral })
        assert.same({ nil, nil, nil, nil }, { made.user, made.store, made.verbosity, made.service_tier })
        for _, name in ipairs({ "user", "store", "verbosity", "service_tier", "prompt_cache_key" }) do assert.is_true(has(dropped, name), dropped) end
    end)

    it("may keep nothing without anybody being told so", function()
        local made, dropped = sent("openai_responses", "openai_chat", { input = "q", store = false }, { provider = providers.tables.groq })
        assert.is_nil(made.store)
        assert.equal("", dropped)
    end)
end)

describe("thinking at Ollama", function()
    local function think(model, effort, provider)
        local made, dropped = sent("openai_chat", "ollama_chat", { messages = { { role = "user", content = "q" } }, reasoning_effort = effort },
            { model = model, provider = provider })
        return made.think, dropped
    end

    it("is asked of models that think", function()
        for _, model in ipairs({ "qwen3:8b", "deepseek-r1", "library/magistral", "hf.co/x/Phi-4-reasoning-GGUF:Q4", "kimi-k2-thinking:cloud" }) do
            assert.is_true((think(model, "high")), model)
        end
        assert.equal("high", (think("gpt-oss:20b", "high")))
        assert.is_false((think("qwen3", "none")))
    end)

    it("is not asked of those that do not", function()
        for _, model in ipairs({ "llama3.2", "qwen3-coder:30b", "gemma3", "mistral-nemo" }) do
            local said, dropped = think(model, "high")
            assert.is_nil(said)
            assert.equal("reasoning_effort", dropped)
            assert.is_nil((think(model, "none")))
        end
    end)

    it("goes by what is said of the model first", function()
        assert.is_true((think("my-own", "high", { reasons = true })))
        assert.is_nil((think("qwen3", "high", { reasons = false })))
    end)
end)

describe("embeddings", function()
    local function read(data)
        local a, message = protocols.get("openai_embeddings").read_answer(context.doc({ data = data, model = "m" }))
        return a and json.decode(json.encode(a.vectors)), message
    end

    it("are in the order of their indexes", function()
        assert.same({ { 1 }, { 2 } }, read({ { index = 1, embedding = { 2 } }, { index = 0, embedding = { 1 } } }))
        assert.same({ { 1 }, { 2 } }, read({ { embedding = { 1 } }, { embedding = { 2 } } }))
    end)

    it("whose indexes say nothing are none", function()
        for _, indexes in ipairs({ { 0, 0 }, { 0, 5 }, { 1 } }) do
            local data = {}
            for i, index in ipairs(indexes) do data[i] = { index = index, embedding = { i } } end
            local vectors, message = read(data)
            assert.is_nil(vectors)
            assert.truthy(message:find("indexes", 1, true))
        end
    end)
end)
