-- answer: a plain answer of Cohere's chat.

local content = require("claw.protocols.cohere_chat.content")
local errors = require("claw.protocols.cohere_chat.error")
local fields = require("claw.protocols.fields")
local unfinished = require("claw.protocols.errors").unfinished

local M = {}

local word, text_of, list, object = fields.word, fields.text, fields.list, fields.object

local function read_content(message, parts)
    if word(message.content) then parts[1] = { kind = "text", text = message.content } end
    local chunks, text = list(message.content), parts[1]
    for i = 1, #chunks do
        local chunk = fields.fields(chunks[i])
        if chunk.type == "thinking" and word(chunk.thinking) then
            parts[#parts + 1] = { kind = "thinking", text = chunk.thinking }
        elseif word(chunk.text) then
            parts[#parts + 1] = { kind = "text", text = text_of(chunk.text) }
            text = text or parts[#parts]
        end
    end
    return text
end

function M.read(body, cx)
    local message = object(fields.fields(body).message)
    if not message then
        local err = errors.find(body)
        if err then return { parts = {}, stop = "error", error = err } end
        return nil, "no message in the upstream's answer"
    end
    local parts, calls = {}, list(message.tool_calls)
    local text = read_content(message, parts)
    if word(message.tool_plan) then parts[#parts + 1] = { kind = "text", text = message.tool_plan } end
    local called = false
    for i = 1, #calls do
        if object(calls[i]) then
            local part, input = content.call(calls[i], cx)
            part.input = input:find("%S") and cx.parse(input) or input
            parts[#parts + 1], called = part, true
        end
    end
    local cited, all = {}, list(message.citations)
    for i = 1, #all do
        if content.of_text(all[i]) then content.citations(all[i], cited) end
    end
    if text and cited[1] then text.citations = cited end
    local stop = content.stop(body.finish_reason, called) or called and "call" or "end"
    return { id = word(body.id), created = cx.now, parts = parts, usage = content.usage(body.usage), stop = stop,
        error = stop == "error" and unfinished(word(body.finish_reason)) or nil }
end

return M
