-- error: OpenAI's errors, and those of the many who speak like it.
--
--   OpenAI        { error: { message, type, param, code } }; code may be a number (OpenRouter); Gemini: [ { error } ]
--   Hugging Face  { error: "…" }
--   Mistral       { object: "error", message, type, code } { detail: [ { loc, msg } ] }

local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = { unfinished = errors.unfinished }

local word, object, members = fields.word, fields.object, fields.fields

local function code_of(v)
    return word(v) or type(v) == "number" and ("%.14g"):format(v) or nil
end

local function details(detail)
    if word(detail) then return detail end
    local out, all = {}, fields.list(detail)
    for i = 1, math.min(#all, 8) do
        local said, loc = word(members(all[i]).msg), fields.list(members(all[i]).loc)
        local where = {}
        for j = 1, #loc do where[j] = tostring(loc[j]) end
        if said then out[#out + 1] = (where[1] and table.concat(where, ".") .. ": " or "") .. said end
    end
    return out[1] and table.concat(out, "; ")
end

-- The error in a decoded body (plain or of a stream), or nil when there is none.
function M.find(body, status)
    if fields.array(body) then body = body[1] end
    body = object(body)
    if not body then return nil end
    local e = body.error
    if not fields.says(e) then e = (body.object == "error" or body.detail ~= nil or word(body.message)) and body end
    if word(e) then e = { message = e } end
    if not object(e) then return nil end
    local message = word(e.message) or details(e.detail) or details(body.detail) or word(members(e.metadata).raw)
    local raw = word(members(e.metadata).raw) -- OpenRouter: what the provider that it asked said
    if message and raw and not message:find(raw, 1, true) then message = message .. ": " .. raw end
    local code, kind = code_of(e.code), word(e.type) or word(e.status)
    local said = tonumber(e.status_code) or tonumber(code)
    status = status or (said and said >= 400 and said < 600 and said) or nil
    local out = { status = status, code = code, param = word(e.param), kind = errors.kind(status, code, kind, message),
        message = errors.scrub(message or "the upstream answered with an error") }
    out.status = out.status or errors.STATUS[out.kind]
    return out
end

function M.read(status, body, cx)
    local decoded = type(body) == "string" and cx.decode(body) or nil
    return M.find(decoded, status)
        or { status = status, kind = errors.kind(status), message = errors.plain(status, body) }
end

local TYPE = { authentication = "authentication_error", permission = "permission_error", not_found = "not_found_error",
    rate_limit = "rate_limit_error", billing = "insufficient_quota", server = "server_error",
    overloaded = "server_error", timeout = "server_error" }
local CODE = { context_window = "context_length_exceeded", content_policy = "content_policy_violation",
    billing = "insufficient_quota", rate_limit = "rate_limit_exceeded", authentication = "invalid_api_key",
    overloaded = "overloaded", timeout = "timeout" }

-- Others' codes (a number, Google's INVALID_ARGUMENT, Anthropic's types) make way for OpenAI's own, which its clients
-- look for.
function M.write(err)
    local code = err.code
    if not code or code:find("^%d+$") or code:find("_error$") or code:find("^[%u_]+$")
        or err.kind == "context_window" then
        code = CODE[err.kind] or code
    end
    return { error = { message = err.message, type = TYPE[err.kind] or "invalid_request_error",
        param = err.param or json.null, code = code or json.null } }
end

function M.write_event(err)
    return { data = json.encode(M.write(err)) }
end

return M
