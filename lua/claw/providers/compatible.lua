-- compatible: the table of a provider that speaks as OpenAI does. `more` adds to it, or says otherwise.

local CHAT = { "openai_chat", "/chat/completions" }

return function(more)
    local t = {
        family = "openai", auth = { header = "authorization", prefix = "Bearer " }, version = "/v1",
        stream_usage = true,
        protocols = { CHAT, { "openai_completions", "/completions" }, { "openai_embeddings", "/embeddings" } },
    }
    for key, value in pairs(more or {}) do t[key] = value end
    return t
end
