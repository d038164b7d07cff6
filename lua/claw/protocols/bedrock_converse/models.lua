-- models: what of the protocol a model on Bedrock knows, by its name. Pure.
--
-- us.anthropic.claude-sonnet-4-5-20250929-v1:0 amazon.nova-2-lite-v1:0 openai.gpt-oss-120b-1:0 meta.llama3-2-1b…

local M = {}

local function has(model, text)
    return (model or ""):find(text, 1, true) ~= nil
end

function M.claude(model) return has(model, "claude") end
function M.nova(model) return has(model, "amazon.nova") end
function M.gpt(model) return has(model, "openai.") end

-- Whose secrets it understands: a Claude's signatures are the same on every platform (platform.claude.com, extended
-- thinking).
function M.family(model)
    return M.claude(model) and "anthropic" or "bedrock"
end

-- cachePoint is refused by the others (docs.aws.amazon.com/bedrock, prompt caching).
function M.caches(model)
    return M.claude(model) or M.nova(model)
end

return M
