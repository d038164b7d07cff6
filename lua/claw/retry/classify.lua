-- classify: what kind of failure was it? Pure.
--
-- C names what happened on the wire (connect, eof, http_503 …). Some statuses mean more than they say: a 400 may be
-- a prompt that does not fit the model, which another model can take.

local M = {}

local BY_STATUS = { [401] = "auth", [403] = "auth", [429] = "rate_limited", [529] = "overloaded" }

-- Kinds without a status of their own count as this one where statuses are listed.
M.STATUS = { rate_limited = 429, overloaded = 529, stream_error = 502, bad_response = 502 }

-- Lua patterns over the lower-cased beginning of an error body.
local CONTEXT_WINDOW = {
    "context_length_exceeded", "context_window_exceeded", "maximum context length", "context window",
    "prompt is too long", "input is too long", "input length and `max_tokens` exceed",
    "input token count .- exceeds", "too many input tokens", "maximum prompt length",
}
local CONTENT_POLICY = {
    "content_policy_violation", "content_filter", "content_policy", "responsibleaipolicyviolation",
    "content management policy", "blocked by .- safety", "prohibited_content", "usage policies",
}

local function any(patterns, text)
    for _, pattern in ipairs(patterns) do
        if text:find(pattern) then return true end
    end
    return false
end

-- a: { kind, status, body }. Returns the kind: one of C's, or auth, rate_limited, overloaded, context_window,
-- content_policy.
function M.kind(a)
    local status = a.status
    if a.body and (status == 400 or status == 413 or status == 422 or a.kind == "stream_error") then
        local text = a.body:lower()
        if any(CONTEXT_WINDOW, text) then return "context_window" end
        if any(CONTENT_POLICY, text) then return "content_policy" end
        if a.kind == "stream_error" then
            if text:find("overloaded") then return "overloaded" end
            if text:find("rate_limit") then return "rate_limited" end
        end
    end
    return status and BY_STATUS[status] or a.kind or (status and "http_" .. status) or "connect"
end

return M
