-- models: what a model's name says about what may be asked of it.

local M = {}

local function plain(model)
    return ((model or ""):lower():gsub("^.*/", ""))
end

-- Does it reason? Names that do not tell (a deployment's) are taken for those that do.
function M.reasons(model)
    local name = plain(model)
    return not (name:find("^gpt%-[34]") or name:find("^chatgpt%-4") or name:find("^gpt%-5%-chat"))
end

-- Its version when it is a GPT from the fifth on.
function M.version(model)
    local n = tonumber((plain(model):match("^gpt%-(%d+%.?%d?)")))
    return n and n >= 5 and n or nil
end

-- The nearest effort that it knows.
function M.effort(model, effort)
    local n = M.version(model)
    if effort == "none" then return n and n > 5 and "none" or n and "minimal" or "low" end
    if effort == "minimal" then return n == 5 and "minimal" or "low" end
    if effort == "xhigh" then return n and n > 5 and "xhigh" or "high" end
    return effort
end

return M
