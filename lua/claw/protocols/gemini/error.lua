-- error: { error: { code, message, status, details } }, or a list with one of these in it (as streams answer that were
-- not asked for as SSE).

local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, count, object, list, members = fields.word, fields.count, fields.object, fields.list, fields.fields

-- google.rpc.Code
local KIND = { INVALID_ARGUMENT = "invalid_request", FAILED_PRECONDITION = "invalid_request",
    OUT_OF_RANGE = "invalid_request", UNAUTHENTICATED = "authentication", PERMISSION_DENIED = "permission",
    NOT_FOUND = "not_found", RESOURCE_EXHAUSTED = "rate_limit", UNAVAILABLE = "overloaded",
    DEADLINE_EXCEEDED = "timeout", CANCELLED = "timeout", INTERNAL = "server", UNKNOWN = "server",
    UNIMPLEMENTED = "invalid_request", ALREADY_EXISTS = "invalid_request", ABORTED = "server", DATA_LOSS = "server" }
-- ErrorInfo's reason: a bad key is an INVALID_ARGUMENT.
local REASON = { API_KEY_INVALID = "authentication", API_KEY_EXPIRED = "authentication",
    ACCESS_TOKEN_EXPIRED = "authentication", BILLING_DISABLED = "billing", SERVICE_DISABLED = "permission" }

local function details(e)
    local reason, delay, field
    local all = list(e.details)
    for i = 1, #all do
        local one = members(all[i])
        local kind = word(one["@type"]) or ""
        if kind:find("ErrorInfo", 1, true) then reason = word(one.reason) end
        local after = kind:find("RetryInfo", 1, true) and (word(one.retryDelay) or ""):match("^([%d.]+)s$")
        delay = delay or tonumber(after or nil)
        if kind:find("BadRequest", 1, true) then field = word(members(list(one.fieldViolations)[1]).field) end
    end
    return reason, delay, field
end

-- What is too long for the model is an INVALID_ARGUMENT; only its words tell.
local function too_long(message)
    local text = message:lower()
    return text:find("token", 1, true) and (text:find("exceed", 1, true) or text:find("too long", 1, true)) ~= nil
        and (text:find("input", 1, true) or text:find("maximum number of tokens", 1, true)) ~= nil
end

-- The error in a decoded body, nil when there is none.
function M.find(body, status)
    if fields.array(body) then body = body[1] end
    local e = object(body) and object(body.error)
    if not e then return nil end
    local message = word(e.message) or "the upstream answered with an error"
    local code, said = word(e.status), count(e.code)
    local reason, delay, field = details(e)
    status = status or (said and said >= 400 and said < 600 and said) or nil
    local kind = REASON[reason] or KIND[code]
    if not kind or kind == "invalid_request" then
        kind = too_long(message) and "context_window" or errors.kind(status, code, nil, message)
    end
    return { status = status or errors.STATUS[kind], kind = kind, code = reason or code, param = field,
        message = errors.scrub(message), retry_after = delay }
end

function M.read(status, body, cx)
    local decoded = type(body) == "string" and cx.decode(body) or nil
    return M.find(decoded, status)
        or { status = status, kind = errors.kind(status), message = errors.plain(status, body) }
end

-- ---- writing

local STATUS = { invalid_request = "INVALID_ARGUMENT", authentication = "UNAUTHENTICATED",
    billing = "FAILED_PRECONDITION",
    permission = "PERMISSION_DENIED", not_found = "NOT_FOUND", too_large = "INVALID_ARGUMENT",
    rate_limit = "RESOURCE_EXHAUSTED", context_window = "INVALID_ARGUMENT", content_policy = "INVALID_ARGUMENT",
    overloaded = "UNAVAILABLE", timeout = "DEADLINE_EXCEEDED", server = "INTERNAL" }

function M.write(err)
    local out = json.array()
    if err.code and err.code ~= STATUS[err.kind] and not KIND[err.code] then
        out[#out + 1] = { ["@type"] = "type.googleapis.com/google.rpc.ErrorInfo", reason = err.code }
    end
    if err.retry_after then
        out[#out + 1] = { ["@type"] = "type.googleapis.com/google.rpc.RetryInfo",
            retryDelay = ("%.14gs"):format(err.retry_after) }
    end
    return { error = { code = err.status or errors.STATUS[err.kind] or 500, message = err.message,
        status = STATUS[err.kind] or "UNKNOWN", details = out[1] and out or nil } }
end

function M.write_event(err)
    return { data = json.encode(M.write(err)) }
end

return M
