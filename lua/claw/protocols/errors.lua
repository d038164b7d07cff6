-- errors: what an upstream's error is (`kind` in README.md), by status, code and words; and what is never repeated.

local classify = require("claw.retry.classify")

local M = {}

-- What a kind is as a status, for errors that came without one (inside a stream).
M.STATUS = { invalid_request = 400, authentication = 401, billing = 402, permission = 403, not_found = 404,
    too_large = 413, rate_limit = 429, context_window = 400, content_policy = 400, overloaded = 529, timeout = 504,
    server = 500 }

local BY_STATUS = { [401] = "authentication", [402] = "billing", [403] = "permission", [404] = "not_found",
    [408] = "timeout", [413] = "too_large", [429] = "rate_limit", [503] = "overloaded", [504] = "timeout",
    [529] = "overloaded" }

-- Codes and types of OpenAI, Anthropic and those who speak like them; the more telling word of an error decides.
local BY_WORD = {
    context_length_exceeded = "context_window", string_above_max_length = "context_window",
    content_policy_violation = "content_policy", content_filter = "content_policy",
    insufficient_quota = "billing", billing_error = "billing", billing_hard_limit_reached = "billing",
    invalid_api_key = "authentication", authentication_error = "authentication",
    permission_error = "permission", permission_denied = "permission",
    model_not_found = "not_found", not_found_error = "not_found",
    request_too_large = "too_large",
    rate_limit_exceeded = "rate_limit", rate_limit_error = "rate_limit", rate_limit = "rate_limit",
    overloaded = "overloaded", overloaded_error = "overloaded", engine_overloaded = "overloaded",
    service_unavailable = "overloaded",
    timeout = "timeout", timeout_error = "timeout",
    server_error = "server", api_error = "server", internal_server_error = "server", internal_error = "server",
    invalid_request_error = "invalid_request",
}

-- Any of status, code, kind (the error's own type) and message may be nil.
function M.kind(status, code, kind, message)
    local said = BY_WORD[code] or BY_WORD[kind]
    if said == "server" and BY_STATUS[status] then said = BY_STATUS[status] end
    if said and said ~= "invalid_request" then return said end
    local words = (message or "") .. " " .. (code or "")
    if status == 400 and words:find("credit balance is too low", 1, true) then return "billing" end -- Anthropic
    if said or not status or status == 400 or status == 413 or status == 422 then
        local meant = classify.kind({ status = 400, body = words })
        if meant == "context_window" or meant == "content_policy" then return meant end
    end
    if status and BY_STATUS[status] then return BY_STATUS[status] end
    if said then return said end
    return status and status >= 400 and status < 500 and "invalid_request" or "server"
end

local KEYS = { "sk%-", "rk%-", "gsk_", "xai%-", "hf_", "AIza", "nvapi%-" } -- how providers' keys begin
local SHORT = 12  -- bytes: what begins like a key and is no longer is a word
local LONG = 4000 -- bytes of a message

-- A message as a client may see it: keys that an upstream repeats ("Incorrect API key provided: sk-…") are taken out.
function M.scrub(message)
    message = message:sub(1, LONG)
    for _, begin in ipairs(KEYS) do
        message = message:gsub("%f[%w](" .. begin .. ")([%w_%-%*]+)", function(head, tail)
            return #head + #tail > SHORT and head .. "***" or nil
        end)
    end
    return message
end

-- What a model's answer is that ended with a failure before it said anything. why: the upstream's word for it, or nil.
function M.unfinished(why, message)
    local said = why and (": " .. why .. (message and " (" .. M.scrub(message) .. ")" or "")) or ""
    return { status = 502, kind = "server", message = "the model could not finish its answer" .. said }
end

local PLAIN = 500 -- bytes of an answer that may be a message

-- A message from an error answer that is no JSON: its words when it is plain and short, never a page.
function M.plain(status, body)
    local text = type(body) == "string" and #body <= PLAIN and body:match("^%s*(.-)%s*$") or ""
    if text == "" or text:find("[<%z]") then return "the upstream answered " .. tostring(status) end
    return M.scrub(text)
end

return M
