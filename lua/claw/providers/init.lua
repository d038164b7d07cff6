-- providers: one table of data per upstream type. A table says
--   auth       { header, prefix } of the key, or false
--   headers    { { name, value }, … } every request to it carries
--   keep_v1    does the /v1 of a client's path stay in front of the rest, below base_url? Not given: it does when
--              base_url has no path of its own (http://host:11434), and does not when it has (https://host/v1)

local suggest = require("claw.suggest")

local M = {}

M.NAMES = {
    "openai", "anthropic", "gemini", "google", "vertex", "azure", "bedrock", "mistral", "cohere", "ollama", "generic",
    "groq", "deepseek", "openrouter", "together", "fireworks", "xai", "perplexity", "huggingface", "vllm", "nvidia",
    "mock",
}

M.tables = {}
for _, name in ipairs(M.NAMES) do M.tables[name] = require("claw.providers." .. name) end

-- The static part of an upstream's head, as the engine hands it out; nil, message for an unknown type.
function M.upstream(kind, base_url)
    local t = M.tables[kind]
    if not t then
        return nil, ('unknown provider type "%s"%s'):format(tostring(kind), suggest.hint(kind, M.NAMES))
    end
    local keep = t.keep_v1
    if keep == nil then keep = base_url ~= nil and base_url:match("^%a+://[^/]+/*$") ~= nil end
    return { auth = t.auth, headers = t.headers or {}, keep_v1 = keep }
end

return M
