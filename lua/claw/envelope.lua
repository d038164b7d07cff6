-- envelope: an error in the shape of the protocol the client speaks. Pure.

local json = require("claw.json")

local M = {}

local TYPES = { [400] = "invalid_request_error", [401] = "authentication_error", [403] = "permission_error",
    [404] = "not_found_error", [413] = "invalid_request_error", [429] = "rate_limit_error" }
local GEMINI = { [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED",
    [404] = "NOT_FOUND", [429] = "RESOURCE_EXHAUSTED", [503] = "UNAVAILABLE" }

function M.body(path, status, code, message)
    local kind = TYPES[status] or (status < 500 and "invalid_request_error" or "api_error")
    if path:find("^/v1/messages") then
        return json.encode({ type = "error", error = { type = kind, message = message } })
    elseif path:find("^/v1beta/") then
        return json.encode({ error = { code = status, message = message, status = GEMINI[status] or "UNKNOWN" } })
    end
    return json.encode({ error = { message = message, type = kind, code = code, param = json.null } })
end

return M
