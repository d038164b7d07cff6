local catalog = require("claw.catalog")

describe("catalog", function()
    local function input(kind, name)
        local facts = catalog.find(kind, name)
        return facts and facts.cost_per_million_input_tokens
    end

    it("says when and where its figures were read", function()
        assert.matches("^%d%d%d%d%-%d%d%-%d%d$", catalog.AS_OF)
        for _, url in pairs(catalog.SOURCES) do assert.matches("^https://", url) end
    end)

    it("finds a model by its name, with or without the date of a release", function()
        assert.equal(2.5, input("openai", "gpt-4o"))
        assert.equal(2.5, input("openai", "gpt-4o-2024-11-20"))
        assert.equal(5, input("openai", "gpt-4o-2024-05-13"))
        assert.equal(3, input("anthropic", "claude-sonnet-4-20250514"))
        assert.equal(3, input("anthropic", "claude-sonnet-4-0"))
        assert.equal(0.8, input("anthropic", "claude-3-5-haiku-latest"))
        assert.equal(15, input("anthropic", "claude-opus-4-1-20250805"))
        assert.equal(0.1, input("mistral", "ministral-3b-2512"))
        assert.equal(1, input("vertex", "claude-haiku-4-5@20251001"))
    end)

    it("does not take one model for another", function()
        assert.equal(30, input("openai", "gpt-4"))
        assert.equal(30, input("openai", "gpt-4-0613"))
        assert.equal(0.4, input("openai", "gpt-4.1-mini"))
        assert.is_nil(input("openai", "gpt-4o-mini-of-ours"))
        assert.is_nil(input("openai", "gpt-40"))
        assert.is_nil(input("anthropic", "claude"))
        assert.is_nil(input("openai", ""))
        assert.is_nil(catalog.find("openai", nil))
    end)

    it("reads what Bedrock, Vertex and OpenRouter put around a name", function()
        assert.equal(3, input("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0"))
        assert.equal(0.25, input("bedrock", "anthropic.claude-3-haiku-20240307-v1:0"))
        assert.equal(0.8, input("bedrock", "eu.amazon.nova-pro-v1:0"))
        assert.is_nil(input("bedrock", "gpt-4o"))
        assert.equal(2, input("openrouter", "openai/gpt-4.1"))
        assert.equal(1.25, input("gemini", "models/gemini-2.5-pro"))
        assert.equal(2.5, input("azure", "gpt-4o"))
    end)

    it("knows nothing of models on one's own machines, and of prices that are another's", function()
        assert.is_nil(input("ollama", "gpt-4o"))
        assert.is_nil(input("generic", "gpt-4o"))
        assert.is_nil(input("groq", "gpt-4o"))
        assert.equal(0.15, input("groq", "openai/gpt-oss-120b"))
    end)

    it("gives facts in the words of the configuration", function()
        assert.same({
            cost_per_million_input_tokens = 1.25, cost_per_million_output_tokens = 10,
            cost_per_million_cached_input_tokens = 0.125, context_window = 1048576, max_output_tokens = 65536,
            capabilities = { "streaming", "tools", "vision", "json_schema", "reasoning", "audio", "documents" },
            long = { above = 200000, cost_per_million_input_tokens = 2.5, cost_per_million_output_tokens = 15,
                cost_per_million_cached_input_tokens = 0.25 },
        }, catalog.find("gemini", "gemini-2.5-pro"))
        assert.equal(3.75, catalog.find("anthropic", "claude-sonnet-4-6").cost_per_million_cache_write_tokens)
    end)
end)
