-- The setup guide's configuration (its section 6), as Lua tables.

return function()
    return {
        upstreams = {
            ["openai-gpt4"] = { type = "openai", api_key = "sk-1", base_url = "https://api.openai.com/v1",
                models = { "gpt-4", "gpt-4o", "gpt-3.5-turbo" } },
            ["anthropic-claude"] = { type = "anthropic", api_key = "sk-2", base_url = "https://api.anthropic.com/v1",
                models = { "claude-3-opus-20240229", "claude-3-sonnet-20240229" } },
            ["local-mistral"] = { type = "generic", api_key = "", base_url = "http://localhost:11434/v1",
                models = { "mistral" } },
        },
        routes = {
            { id = "default_chat_route", match = { path = "/v1/chat/completions" },
                strategy = { type = "round_robin", upstreams = { "openai-gpt4", "anthropic-claude" } } },
            { id = "specific_gpt4_route", match = { path = "/v1/chat/completions", json_body = { model = "gpt-4" } },
                strategy = { type = "weighted_random", upstreams = { { name = "openai-gpt4", weight = 100 } } } },
        },
    }
end
