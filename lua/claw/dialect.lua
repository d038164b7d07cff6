-- dialect: which protocol a client speaks, by the path it calls: core/proxy/dialect.c in Lua. Pure.

local M = {}

local PATHS = {
    { "/chat/completions", "openai_chat" }, { "/completions", "openai_completions" },
    { "/responses", "openai_responses" }, { "/embeddings", "openai_embeddings" },
    { "/messages", "anthropic_messages" }, { "/messages/count_tokens", "anthropic_count_tokens" },
}
local VERSIONED = { ["/v2/chat"] = "cohere_chat", ["/api/chat"] = "ollama_chat",
    ["/api/embed"] = "ollama_embeddings" }
local VERBS = {
    generateContent = "gemini_generate", streamGenerateContent = "gemini_generate", embedContent = "gemini_embed",
    batchEmbedContents = "gemini_embed_batch", countTokens = "gemini_count_tokens",
}

local function decoded(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The dialect of a path without its query (nil: none's); for Gemini's also the model, and whether the verb streams.
function M.of(path)
    for _, row in ipairs(PATHS) do
        if path:sub(-#row[1]) == row[1] then
            local before = path:sub(1, -#row[1] - 1)
            if before == "" or before:sub(-3) == "/v1" then return row[2] end
        end
    end
    local versioned = VERSIONED[path:match("/[^/]+/%l+$")]
    if versioned then return versioned end
    local model, verb = path:match("/v[1-9][^/]*/models/([^/]+):([^/:]+)$")
    local dialect = verb and VERBS[verb]
    if dialect then return dialect, decoded(model), verb == "streamGenerateContent" end
    return nil
end

return M
