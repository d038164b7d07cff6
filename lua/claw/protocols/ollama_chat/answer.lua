-- answer: a plain answer of Ollama's chat, and what its lines share with it.

local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

local STOP = { stop = "end", length = "length" }

function M.stop(reason, calls)
    local stop = STOP[reason] or "end"
    return stop == "end" and calls and "call" or stop
end

-- Of a prompt that it remembers whole, older versions tell no count.
function M.usage(body)
    local input, output = count(body.prompt_eval_count), count(body.eval_count)
    if not input and not output then return nil end
    return { input = input or 0, output = output or 0 }
end

-- Calls had no ids, and may have none.
function M.call(given, cx)
    local named = members(given["function"])
    return { kind = "call", id = word(given.id) or cx.id("call_"), name = text_of(named.name) or "" }
end

-- { token, logprob, top_logprobs }, as OpenAI says them.
function M.logprobs(body)
    local all = fields.array(body.logprobs)
    return all and #all > 0 and { content = all } or nil
end

function M.read(body, cx)
    body = object(body)
    local message = body and object(body.message)
    if not message then
        local err = body and errors.find(body)
        if err then return { parts = {}, stop = "error", error = err } end
        return nil, "no message in the upstream's answer"
    end
    local parts, calls = {}, list(message.tool_calls)
    if word(message.thinking) then parts[1] = { kind = "thinking", text = message.thinking } end
    if word(message.content) then parts[#parts + 1] = { kind = "text", text = message.content } end
    local called = false
    for i = 1, #calls do
        if object(calls[i]) then
            local part = M.call(calls[i], cx)
            part.input = object(members(calls[i]["function"]).arguments) or "{}"
            parts[#parts + 1], called = part, true
        end
    end
    return { model = word(body.model), created = cx.now, parts = parts, stop = M.stop(body.done_reason, called),
        usage = M.usage(body), logprobs = M.logprobs(body) }
end

return M
