-- reader: the chunks of an OpenAI completions stream. outgoing asks for one choice.

local chat = require("claw.protocols.openai_chat.answer")
local errors = require("claw.protocols.openai_chat.error")
local events = require("claw.protocols.events")
local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, count, members = fields.word, fields.text, fields.count, fields.fields

function M.new(cx)
    local s = events.new(cx)
    return s:reader(function(e)
        local err = fields.says(e.error) and errors.find(e)
        if err then return s:fail(err) end
        local choices = fields.array(e.choices)
        if not choices then return end
        s:start({ id = word(e.id), model = word(e.model), created = count(e.created) })
        for i = 1, #choices do
            local choice = members(choices[i])
            if not s.stopped and (count(choice.index) or 0) == 0 then
                s:more("text", text_of(choice.text) or "")
                local stop = chat.stop(choice.finish_reason)
                if stop then s:stop(stop) end
            end
        end
        s:usage(chat.read_usage(e.usage))
    end)
end

return M
