-- error: Anthropic's errors: { type: "error", error: { type, message } }.

local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = {}

local word, object = fields.word, fields.object

-- The error in a decoded body (plain or of a stream), or nil when there is none.
function M.find(body, status)
    body = object(body)
    local e = body and body.error
    if body and not fields.says(e) then e = word(body.message) and body end -- gateways in front of it
    if word(e) then e = { message = e } end
    e = object(e)
    if not e then return nil end
    local message, kind = word(e.message), word(e.type)
    local out = { status = status, kind = errors.kind(status, word(e.code), kind, message), code = kind,
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
    too_large = "request_too_large", rate_limit = "rate_limit_error", billing = "billing_error",
    overloaded = "overloaded_error", timeout = "timeout_error", server = "api_error" }

-- The word for a prompt that is too long is in the message here, and clients look for it there.
function M.write(err)
    local message = err.message
    if err.kind == "context_window" and not message:lower():find("prompt is too long", 1, true) then
        message = "prompt is too long: " .. message
    end
    return { type = "error", error = { type = TYPE[err.kind] or "invalid_request_error", message = message } }
end

function M.write_event(err)
    return { type = "error", data = json.encode(M.write(err)) }
end

return M
