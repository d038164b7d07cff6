-- reader: the lines of an Ollama chat stream. Each is a message with more in it, the last (done) has the counts; calls
-- come whole; an error is a line of its own.

local answer = require("claw.protocols.ollama_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local events = require("claw.protocols.events")
local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, list, object = fields.word, fields.text, fields.list, fields.object

function M.new(cx)
    local s = events.new(cx)
    local called = false

    -- Read once more, as a document: arguments keep their bytes.
    local function calls(data)
        local doc = cx.parse(data)
        local all = list(fields.fields(fields.fields(doc).message).tool_calls)
        for i = 1, #all do
            if object(all[i]) then
                local input = object(fields.fields(all[i]["function"]).arguments)
                s:begin(answer.call(all[i], cx))
                s:input(input and tostring(input) or "{}")
                s:close()
                called = true
            end
        end
    end

    return s:reader(function(e, _, data)
        local err = fields.says(e.error) and errors.find(e)
        if err then return s:fail(err) end
        local message = object(e.message)
        if s.stopped or not message and e.done ~= true then return end
        s:start({ model = word(e.model) })
        message = message or {}
        s:more("thinking", text_of(message.thinking) or "")
        s:more("text", text_of(message.content) or "")
        if s.parts > 0 and answer.logprobs(e) then
            s:put({ on = "logprobs", index = s.parts - 1, logprobs = answer.logprobs(e) })
        end
        if #list(message.tool_calls) > 0 then calls(data) end
        if e.done == true then
            s:usage(answer.usage(e))
            s:stop(answer.stop(e.done_reason, called))
            s:finish()
        end
    end)
end

return M
