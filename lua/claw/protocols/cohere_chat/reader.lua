-- reader: the events of a Cohere chat stream.
--
--   message-start  content-start content-delta… (citation-start citation-end)… content-end
--   tool-plan-delta…  tool-call-start tool-call-delta… tool-call-end  message-end

local content = require("claw.protocols.cohere_chat.content")
local errors = require("claw.protocols.cohere_chat.error")
local events = require("claw.protocols.events")
local fields = require("claw.protocols.fields")

local M = {}

local word, text_of, members = fields.word, fields.text, fields.fields

function M.new(cx)
    local s = events.new(cx)
    local called = false
    local on = {}

    local function said(e)
        return members(members(e.delta).message)
    end

    on["message-start"] = function(e)
        s:start({ id = word(e.id) })
    end

    -- The type is told once; what a delta holds says it too.
    local function piece(e)
        local given = said(e).content
        local chunk = members(given)
        s:more("thinking", text_of(chunk.thinking) or "")
        s:more("text", text_of(chunk.text) or text_of(given) or "")
    end
    on["content-delta"] = piece

    on["content-start"] = function(e)
        s:close()
        piece(e)
    end

    on["tool-plan-delta"] = function(e)
        s:more("text", text_of(said(e).tool_plan) or "")
    end

    -- One call; older answers have it in a list.
    local function call_in(e)
        local calls = said(e).tool_calls
        return members(fields.array(calls) and calls[1] or calls)
    end

    on["tool-call-start"] = function(e)
        local part, input = content.call(call_in(e), cx)
        called = true
        s:begin(part)
        s:input(input)
    end

    on["tool-call-delta"] = function(e)
        s:input(text_of(members(call_in(e)["function"]).arguments) or "")
    end

    on["citation-start"] = function(e)
        local c = said(e).citations
        if fields.array(c) then c = c[1] end
        if not content.of_text(c) then return end
        local cited = {}
        content.citations(c, cited)
        for _, one in ipairs(cited) do s:cite(one) end
    end

    on["message-end"] = function(e)
        local delta = members(e.delta)
        local stop = content.stop(delta.finish_reason, called) or called and "call" or "end"
        if stop == "error" and word(delta.error) then
            return s:fail(errors.find({ message = delta.error }))
        end
        s:usage(content.usage(delta.usage))
        s:stop(stop)
        s:finish()
    end

    return s:reader(function(e, kind)
        local read = on[word(e.type) or kind]
        if read then
            if not s.stopped then read(e) end
        elseif e.type == nil or e.type == "error" then
            local err = errors.find(e)
            if err then s:fail(err) end
        end
    end)
end

return M
