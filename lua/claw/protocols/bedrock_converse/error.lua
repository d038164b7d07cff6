-- error: Bedrock's errors: { message }, and in a stream an event whose type names the exception.

local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")

local M = {}

local word, object = fields.word, fields.object

local KIND = { throttling = "rate_limit", servicequotaexceeded = "rate_limit", modelnotready = "overloaded",
    serviceunavailable = "overloaded", accessdenied = "permission", unrecognizedclient = "authentication",
    expiredtoken = "authentication", resourcenotfound = "not_found", modeltimeout = "timeout",
    internalserver = "server", internalfailure = "server", modelstreamerror = "server", modelerror = "server" }

-- The kind of ThrottlingException, throttlingException, com.amazon…#ThrottlingException; nil for the others.
local function kind_of(name)
    local plain = name and name:match("[^#.]+$"):gsub("Exception.*$", ""):lower()
    return plain and KIND[plain]
end

-- The error in a decoded body, or nil when there is none. name: the exception's.
function M.find(body, status, name)
    body = object(body)
    if not body then return nil end
    name = name or word(body.__type)
    local message = word(body.message) or word(body.Message)
    if not message and not name then return nil end
    local kind = kind_of(name)
    if not kind then kind = errors.kind(status or (name and 400) or nil, nil, nil, message) end
    return { status = status or errors.STATUS[kind], kind = kind, code = name,
        message = errors.scrub(message or "the upstream answered with an error") }
end

function M.read(status, body, cx)
    local decoded = type(body) == "string" and cx.decode(body) or nil
    return M.find(decoded, status)
        or { status = status, kind = errors.kind(status), message = errors.plain(status, body) }
end

return M
