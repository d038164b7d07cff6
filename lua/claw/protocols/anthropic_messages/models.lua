-- models: what of the protocol a Claude model knows, by its name. Pure.
--
-- claude-3-7-sonnet-20250219 claude-sonnet-4-20250514 claude-opus-4-6 anthropic.claude-sonnet-4-5-20250929-v1:0
-- claude-sonnet-5 claude-haiku-4-5@20251001. A name that says no version is taken for the newest.

local M = {}

-- 3.7 is 307. A minor version has at most two digits; more are a date.
local function version(model)
    local name = model or ""
    local major, minor = name:match("claude%-(%d+)[-.](%d+)")
    if not major then major, minor = name:match("claude%-%l+%-(%d+)[-.](%d+)") end
    if not major then major = name:match("claude%-%l+%-(%d+)") or name:match("claude%-(%d+)%-%l") end
    if not major or #major > 2 then return math.huge end
    return tonumber(major) * 100 + (minor and #minor <= 2 and tonumber(minor) or 0)
end

-- Does it think as it sees fit (thinking.type "adaptive", output_config.effort)? From 4.6.
function M.adaptive(model)
    return version(model) >= 406
end

-- Does it know the effort "xhigh"? From 4.7.
function M.xhigh(model)
    return version(model) >= 407
end

-- Does it refuse temperature beside top_p? From 4.1 on (Opus), 4.5 (the others): told of the older ones it is harmless.
function M.one_of_both(model)
    return version(model) >= 401
end

return M
