local dialect = require("claw.dialect")

describe("claw.dialect", function()
    it("knows the paths of five providers, whatever stands in front", function()
        for path, name in pairs({
            ["/v1/chat/completions"] = "openai_chat", ["/chat/completions"] = "openai_chat",
            ["/team-a/v1/chat/completions"] = "openai_chat", ["/v1/completions"] = "openai_completions",
            ["/v1/responses"] = "openai_responses", ["/v1/embeddings"] = "openai_embeddings",
            ["/v1/messages"] = "anthropic_messages", ["/v1/messages/count_tokens"] = "anthropic_count_tokens",
            ["/v2/chat"] = "cohere_chat", ["/team-a/v2/chat"] = "cohere_chat", ["/api/chat"] = "ollama_chat", ["/api/embed"] = "ollama_embeddings",
        }) do
            assert.equal(name, dialect.of(path))
        end
        for _, path in ipairs({ "/v1/threads/t/messages", "/v1/messages/batches", "/v1/models", "/", "", "/chat", "/v1/chat", "/v1beta/models/g",
            "/v1beta/models/g:predict", "/models/g:generateContent", "/v1beta/models/:generateContent" }) do
            assert.is_nil(dialect.of(path))
        end
    end)

    it("finds Gemini's model and verb in the path", function()
        assert.same({ "gemini_generate", "g-2.5", false }, { dialect.of("/v1beta/models/g-2.5:generateContent") })
        assert.same({ "gemini_generate", "a/b:c", true }, { dialect.of("/v1/models/a%2Fb:c:streamGenerateContent") })
        assert.same({ "gemini_count_tokens", "g", false }, { dialect.of("/x/v1alpha/models/g:countTokens") })
    end)
end)
