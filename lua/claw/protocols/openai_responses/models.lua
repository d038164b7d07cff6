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

-- Does it refuse any temperature and top_p but 1? (developers.openai.com, reasoning models)
function M.samples_alone(model)
    local name = plain(model)
    return name:find("^o%d") ~= nil or M.version(name) == 5 and not name:find("^gpt%-5%-chat")
end

-- What of another dialect's sampling the model does not take, taken out of a body.
function M.leave_sampling(r, body, cx)
    if r.dialect:find("^openai_") or not M.samples_alone(body.model) then return end
    for _, name in ipairs({ "temperature", "top_p" }) do
        if body[name] and body[name] ~= 1 then cx.drop(name, "hint", "this model leaves it alone") end
        body[name] = nil
    end
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
