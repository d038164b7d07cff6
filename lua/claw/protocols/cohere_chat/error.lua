-- error: Cohere's errors: { id, message, error_type }; gateways' { error }.

local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")

local M = {}

local word, object = fields.word, fields.object

local KIND = { TOO_MANY_TOKENS = "context_window" }

-- The error in a decoded body, or nil when there is none.
function M.find(body, status)
    body = object(body)
    if not body then return nil end
    local e = object(body.error)
    local message = word(body.message) or word(body.error) or e and word(e.message)
    local code = word(body.error_type) or e and (word(e.type) or word(e.code))
    if not message and not code then return nil end
    local kind = code and KIND[code] or message and message:find("^too many tokens") and "context_window"
        or errors.kind(status, code and code:lower(), nil, message)
    -- For the kind that has a code of its own, that is the one clients know.
    return { status = status or errors.STATUS[kind], kind = kind, code = kind ~= "context_window" and code or nil,
        message = errors.scrub(message or "the upstream answered with an error") }
end

function M.read(status, body, cx)
    local decoded = type(body) == "string" and cx.decode(body) or nil
    return M.find(decoded, status)
        or { status = status, kind = errors.kind(status), message = errors.plain(status, body) }
end

return M
