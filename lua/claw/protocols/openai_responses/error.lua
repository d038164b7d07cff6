-- error: { error: { message, type, param, code } }, as OpenAI's chat has it; in streams an `error` event, and the error
-- of a response that failed.

local chat = require("claw.protocols.openai_chat.error")
local errors = require("claw.protocols.errors")
local fields = require("claw.protocols.fields")
local json = require("claw.json")

local M = { find = chat.find, read = chat.read, write = chat.write }

local word, object = fields.word, fields.object

local function made(e)
    local code, message = word(e.code), word(e.message) or "the upstream answered with an error"
    local kind = errors.kind(nil, code, word(e.type), message)
    if code == "invalid_prompt" or code and code:find("image", 1, true) then kind = "invalid_request" end
    return { status = errors.STATUS[kind], kind = kind, code = code, param = word(e.param),
        message = errors.scrub(message) }
end

-- The error of a response whose status is failed.
function M.failed(response)
    return made(object(response.error) or {})
end

-- The error of an `error` event: nested in newer streams.
function M.event(event)
    return made(object(event.error) or event)
end

local CODE = { rate_limit = "rate_limit_exceeded", invalid_request = "invalid_prompt",
    context_window = "context_length_exceeded", content_policy = "content_policy_violation" }

-- An error as a failed response has it.
function M.inner(err)
    local code = word(chat.write(err).error.code)
    if code and code:find("^%d+$") then code = nil end
    return { code = code or CODE[err.kind] or "server_error", message = err.message }
end

-- cx.sequence: how many events the client has got (`writer` counts).
function M.write_event(err, cx)
    local inner = M.write(err).error
    return { type = "error", data = json.encode({ type = "error", code = inner.code, message = inner.message,
        param = inner.param, sequence_number = cx and cx.sequence or 0, error = inner }) }
end

return M
