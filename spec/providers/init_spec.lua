local dialect = require("claw.dialect")
local providers = require("claw.providers")

local KEYS = { family = "string", auth = true, headers = "table", protocols = "table", version = "string", forms = "table",
    stream_usage = "boolean", api_version = "string", tool_id_length = "number", reasoning_field = "string",
    cache_control = "boolean", document_url = "boolean", top_k = "boolean", call_ids = "boolean", remote_files = "boolean",
    responses_fields = "table", lacks = "table" }
local CLIENTS = { openai_chat = true, openai_completions = true, openai_responses = true, openai_embeddings = true,
    anthropic_messages = true, anthropic_count_tokens = true, gemini_generate = true, gemini_embed = true,
    gemini_embed_batch = true, gemini_count_tokens = true }
local OTHERS = { cohere_chat = true, bedrock_converse = true, ollama_chat = true, cohere_embeddings = true,
    bedrock_embeddings = true, ollama_embeddings = true }

local function check_protocols(list)
    for _, row in ipairs(list or {}) do
        assert.truthy(CLIENTS[row[1]] or OTHERS[row[1]], row[1])
        assert.truthy(row[2]:find("^/"))
        assert.truthy(row.stream == nil or row.stream:find("^/"))
    end
end

describe("claw.providers", function()
    for _, name in ipairs(providers.NAMES) do
        it(name .. " is data of the right shape", function()
            local t = providers.tables[name]
            for key, value in pairs(t) do
                assert.truthy(KEYS[key], key)
                if KEYS[key] ~= true then assert.equal(KEYS[key], type(value), key) end
            end
            if t.auth then
                assert.truthy(t.auth.header:match("^[a-z-]+$"))
                assert.is_string(t.auth.prefix)
            else
                assert.is_false(t.auth)
            end
            for _, header in ipairs(t.headers or {}) do
                assert.equal(2, #header)
                assert.truthy(header[1]:match("^[a-z-]+$"))
            end
            check_protocols(t.protocols)
            for _, form in ipairs(t.forms or {}) do check_protocols(form.protocols) end
        end)
    end

    local function path(kind, base_url, protocol, stream, settings)
        local paths = providers.upstream(kind, base_url, settings).paths[protocol]
        return paths and paths[stream and 2 or 1]
    end

    it("says where each protocol is spoken below a base URL", function()
        for _, row in ipairs({
            { "openai", "https://api.openai.com/v1", "openai_chat", "/chat/completions" },
            { "openai", "http://localhost:9", "openai_chat", "/v1/chat/completions" },
            { "openai", "http://localhost:9/", "openai_responses", "/v1/responses" },
            { "anthropic", "https://api.anthropic.com/v1", "anthropic_messages", "/messages" },
            { "anthropic", "https://api.anthropic.com", "anthropic_messages", "/v1/messages" },
            { "gemini", "https://g/v1beta", "gemini_generate", "/models/{model}:generateContent" },
            { "google", "https://g", "gemini_embed", "/v1beta/models/{model}:embedContent" },
            { "gemini", "https://g/v1beta/openai", "openai_chat", "/chat/completions" },
            { "azure", "https://x.openai.azure.com", "openai_chat",
                "/openai/deployments/{model}/chat/completions?api-version=2024-10-21" },
            { "azure", "https://x.openai.azure.com/openai/v1/", "openai_chat", "/chat/completions" },
            { "azure", "https://x.openai.azure.com/openai/deployments/g", "openai_embeddings",
                "/embeddings?api-version=2024-10-21" },
            { "bedrock", "https://b", "bedrock_converse", "/model/{model}/converse" },
            { "bedrock", "https://b/openai/v1", "openai_chat", "/chat/completions" },
            { "cohere", "https://api.cohere.com/v2", "cohere_chat", "/chat" },
            { "cohere", "https://api.cohere.com", "cohere_chat", "/v2/chat" },
            { "ollama", "http://localhost:11434", "ollama_chat", "/api/chat" },
            { "ollama", "http://localhost:11434", "openai_chat", "/v1/chat/completions" },
            { "ollama", "http://localhost:11434/v1", "openai_chat", "/chat/completions" },
            { "perplexity", "https://api.perplexity.ai", "openai_chat", "/chat/completions" },
        }) do
            assert.equal(row[4], path(row[1], row[2], row[3]), row[1] .. " " .. row[2])
        end
        assert.is_nil(path("ollama", "http://localhost:11434/v1", "ollama_chat"))
        assert.equal("/models/{model}:streamGenerateContent?alt=sse", path("gemini", "https://g/v1", "gemini_generate", true))
        assert.equal("/chat/completions", path("openai", "https://o/v1", "openai_chat", true))
        assert.equal("/openai/deployments/{model}/completions?api-version=%1",
            path("azure", "https://x", "openai_completions", false, { api_version = "%1" }))
        assert.same({}, providers.upstream("generic", "http://localhost:11434").paths)
    end)

    it("asks an upstream in the protocols that it names, in their order", function()
        local head = providers.upstream("openai", "http://x", { protocols = { "openai_responses", "openai_embeddings" } })
        assert.same({ "openai_responses", "openai_embeddings" }, head.protocols)
        assert.is_nil(head.paths.openai_chat)
        assert.equal("/v1/responses", head.paths.openai_responses[1])
        local none, message, key = providers.upstream("anthropic", nil, { protocols = { "openai_chat" } })
        assert.is_nil(none)
        assert.equal('"openai_chat" is none of those it speaks there: anthropic_messages, anthropic_count_tokens', message)
        assert.equal("protocols", key)
        none, message = providers.upstream("generic", "http://x", { protocols = { "openai_chat" } })
        assert.is_nil(none)
        assert.equal("generic speaks whatever its clients do", message)
    end)

    it("is true of OpenAI's and Anthropic's own clients", function()
        assert.equal("openai_chat", dialect.of("/v1" .. path("openai", "https://o/v1", "openai_chat")))
        assert.equal("anthropic_messages", dialect.of("/v1" .. path("anthropic", "https://a/v1", "anthropic_messages")))
    end)

    it("sends each its key where it looks for it", function()
        local expected = { openai = "authorization", anthropic = "x-api-key", gemini = "x-goog-api-key", azure = "api-key" }
        for name, header in pairs(expected) do assert.equal(header, providers.upstream(name).auth.header) end
        assert.is_false(providers.upstream("mock").auth)
    end)

    it("says what is peculiar to each", function()
        for name, quirks in pairs({
            mistral = { tool_id_length = 9, document_url = true },
            openrouter = { cache_control = true, reasoning_field = "reasoning_details", top_k = true },
            deepseek = { reasoning_field = "reasoning_content" }, groq = { reasoning_field = "reasoning" },
            gemini = { call_ids = true, remote_files = true }, vertex = { call_ids = false, remote_files = true },
        }) do
            for key, value in pairs(quirks) do assert.equal(value, providers.upstream(name).table[key], name .. " " .. key) end
        end
    end)

    it("asks Vertex for Claude in Anthropic's words, without the model", function()
        local head = providers.upstream("vertex", "https://x/v1/projects/p/locations/l/publishers/anthropic")
        assert.same({ "anthropic_messages", "anthropic_count_tokens" }, head.protocols)
        assert.equal("/models/count-tokens:rawPredict", head.paths.anthropic_count_tokens[1])
        assert.is_nil(head.fields.anthropic_count_tokens.model)
        assert.is_false(head.fields.anthropic_messages.model)
        assert.equal("/models/{model}:streamRawPredict", head.paths.anthropic_messages[2])
        assert.equal("anthropic", head.table.family)
        assert.same({ a = 1, anthropic_version = "vertex-2023-10-16" }, providers.fill({ model = "m", a = 1 }, head.table.fields))
        assert.same({ anthropic_version = "own" }, providers.fill({ anthropic_version = "own" }, head.table.fields))
    end)

    it("suggests", function()
        local none, message = providers.upstream("antropic")
        assert.is_nil(none)
        assert.equal('unknown provider type "antropic" (did you mean "anthropic"?)', message)
    end)
end)
