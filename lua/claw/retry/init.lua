-- retry: the built-in decision after a failed try, before anything was sent to the client. Pure.
--
-- Another candidate is tried at once; when none is left, the same one after a wait, while tries are left.
-- 400, 404 and 422 are the client's to mend: never. 401, 403 and 429 are that upstream's key's: another key of it, or
-- access token, at once, while it has one; then, of the first two, only another candidate.
-- Who cannot be trusted (tls) or understood (bad_response) is not asked again: only another candidate.
-- A prompt that does not fit, or is refused, goes only to a candidate that says it can take it.

local backoff = require("claw.retry.backoff")
local classify = require("claw.retry.classify")
local suggest = require("claw.suggest")

local M = {}

local DEFAULTS = {
    on = { "connect", "timeout_first_byte", "eof", 429, 500, 502, 503, 504, 529 },
    backoff_ms = 250, max_backoff_ms = 8000, jitter = 0.2,
}

M.KINDS = {
    "connect", "tls", "timeout_first_byte", "stall", "eof", "stream_error", "rate_limited", "overloaded", "auth",
    "context_window", "content_policy", "bad_response",
}
local NAMED = { ["429"] = "rate_limited", ["529"] = "overloaded" }
local IS_KIND = {}
for _, kind in ipairs(M.KINDS) do IS_KIND[kind] = true end

local KEYS = { "attempts", "on", "backoff_ms", "max_backoff_ms", "jitter", "total_timeout_seconds" }
local NEVER = { [400] = true, [404] = true, [422] = true }
local MAX_TRIES = 32 -- whatever is configured

-- `on` as a set of kinds, statuses ("503") and classes ("5xx").
local function compile_on(on, where, problems)
    local set = {}
    for i, entry in ipairs(type(on) == "table" and on or { on }) do
        local word = type(entry) == "number" and ("%d"):format(entry) or tostring(entry)
        word = word:match("^http_(%d%d%d)$") or word
        if IS_KIND[word] or word:match("^[1-5]%d%d$") or word:match("^[45]xx$") then
            set[word] = true
            if NAMED[word] then set[NAMED[word]] = true end
        else
            problems[#problems + 1] = {
                path = ("%s.on[%d]"):format(where, i - 1),
                message = ('"%s" is no failure kind, status or class such as 5xx%s'):format(word,
                    suggest.hint(word, M.KINDS)),
            }
        end
    end
    return set
end

-- The rules of a route: its own `retry` over the global one, key by key.
-- wait_ms: the longest wait for a Retry-After, when retry.total_timeout_seconds sets no bound.
function M.compile(global, own, wait_ms, where, problems)
    global, own = global or {}, own or {}
    local rules = {}
    for _, key in ipairs(KEYS) do
        local value = own[key]
        if value == nil then value = global[key] end
        if value == nil then value = DEFAULTS[key] end
        rules[key] = value
    end
    rules.on = compile_on(rules.on, own.on ~= nil and where .. ".retry" or "retry", problems)
    local total = rules.total_timeout_seconds
    rules.total_ms = total and total > 0 and total * 1000 or nil
    rules.wait_ms = rules.total_ms or wait_ms
    return rules
end

local function listed(rules, kind, status)
    local on = rules.on
    status = classify.STATUS[kind] or status
    if on[kind] or kind == "tls" and on.connect then return true end
    if not status then return false end
    return on[tostring(status)] or on[math.floor(status / 100) .. "xx"] or false
end

-- Can the next candidate take what this one could not? It must say so.
local function can_take(kind, tried, next_one)
    if not tried or not next_one then return false end
    if kind == "context_window" then
        return tried.context_window and next_one.context_window
            and next_one.context_window > tried.context_window or false
    end
    return next_one.capabilities and next_one.capabilities.content_policy or false
end

-- a: the failed try (kind, status, n, left, retry_after_ms, elapsed_ms, body, attempts_max); tried and next_one: its
-- candidate and the one that would follow; known: how many candidates the request had; random() in [0,1).
-- Returns "next" | "same" | "stop", after_ms, kind.
function M.decide(rules, a, tried, next_one, known, random)
    local kind = classify.kind(a)
    local rotates = (a.other_keys or 0) > 0 and (kind == "auth" or kind == "rate_limited")
    -- A try with another key is no failing over: where nobody set a bound it takes no candidate's place.
    local limit = rules.attempts or a.attempts_max
        or math.max(2, known or 0) + (a.rotations or 0) + (rotates and 1 or 0)
    if a.n >= math.min(limit, MAX_TRIES) then return "stop", 0, kind end
    if rules.total_ms and (a.elapsed_ms or 0) >= rules.total_ms then return "stop", 0, kind end

    local left = (a.left or 0) > 0
    if kind == "context_window" or kind == "content_policy" then
        return left and can_take(kind, tried, next_one) and "next" or "stop", 0, kind
    end
    if NEVER[a.status] then return "stop", 0, kind end
    if rotates and (kind == "auth" or listed(rules, kind, a.status)) then return "same", 0, kind end
    if kind == "auth" then return left and "next" or "stop", 0, kind end
    if not listed(rules, kind, a.status) then return "stop", 0, kind end
    if left then return "next", 0, kind end
    if kind == "tls" or kind == "bad_response" then return "stop", 0, kind end

    local wait = a.retry_after_ms or backoff.wait_ms(rules, math.max(0, a.n - (known or 1)), random)
    local spent = rules.total_ms and a.elapsed_ms or 0
    if rules.wait_ms and spent + wait >= rules.wait_ms then return "stop", 0, kind end
    return "same", wait, kind
end

return M
