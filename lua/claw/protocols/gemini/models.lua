-- models: what a model's name says about what may be asked of it.

local M = {}

-- Its generation (2.5), nil for a name that does not tell (an alias, a tuned model's number).
function M.generation(model)
    return tonumber(((model or ""):match("gemini%-(%d+%.?%d?)")))
end

-- From the third generation on, thinking is set by a level, calls have ids, and a call in the history needs a
-- signature.
function M.third(model)
    local n = M.generation(model)
    return n ~= nil and n >= 3
end

function M.thinks(model)
    local n = M.generation(model)
    return n == nil or n >= 2.5 or model:find("thinking", 1, true) ~= nil
end

-- The least and the largest thinkingBudget.
function M.budgets(model)
    if (model or ""):find("flash-lite", 1, true) then return 512, 24576 end
    if (model or ""):find("pro", 1, true) then return 128, 32768 end
    return 1, 24576
end

return M
