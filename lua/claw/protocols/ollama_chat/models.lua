-- models: which of Ollama's models think, by their names. Others refuse a request that asks them to.

local M = {}

-- ollama.com/search?c=thinking
local THINK = { "^qwen3", "^qwq", "^deepseek%-r", "^deepseek%-v3%.%d", "^deepseek%-v4", "^gpt%-oss", "^magistral",
    "^smollm3", "^cogito", "^glm%-4%.[5-9]", "^glm%-5", "^kimi%-k2", "^minimax%-m", "^nemotron%-3", "^gemma4",
    "^gemini%-3", "^granite3%.[23]", "^exaone%-deep", "^openthinker", "^r1", "^ministral%-3%-reasoning",
    "^lfm2%.5%-thinking", "^olmo%-3" }
local NEVER = { "^qwen3%-coder", "^qwen3%-embedding", "^qwen3%-reranker", "instruct" }

-- A model's name without its registry and owner: hf.co/unsloth/Qwen3-4B-GGUF:Q4, user/qwen3.
local function plain(model) return (model or ""):lower():match("[^/]*$") end

function M.thinks(model)
    local name = plain(model)
    for _, pattern in ipairs(NEVER) do
        if name:find(pattern) then return false end
    end
    if name:find("thinking", 1, true) or name:find("reason", 1, true) then return true end
    for _, pattern in ipairs(THINK) do
        if name:find(pattern) then return true end
    end
    return false
end

-- Levels are gpt-oss's; others think or do not.
function M.has_levels(model) return plain(model):find("^gpt%-oss") ~= nil end

return M
