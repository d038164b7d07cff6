-- reader: the events of a ConverseStream: the frame's :event-type is the event's type, an exception's :exception-type.
--
--   messageStart  contentBlockStart? contentBlockDelta… contentBlockStop  messageStop  metadata (usage)

local content = require("claw.protocols.bedrock_converse.content")
local errors = require("claw.protocols.bedrock_converse.error")
local events = require("claw.protocols.events")
local fields = require("claw.protocols.fields")
local models = require("claw.protocols.bedrock_converse.models")

local M = {}

local word, text_of = fields.word, fields.text
local object, members = fields.object, fields.fields

local DELTAS = { "text", "toolUse", "reasoningContent", "citation" } -- one of them, as a rule

function M.new(cx)
    local s = events.new(cx)
    local family, called = models.family(cx.model), false
    local on, delta_of = {}, {}

    function on.messageStart()
        s:start()
    end

    function on.contentBlockStart(e)
        local call = object(members(e.start).toolUse)
        if not call then return end
        called = true
        s:begin({ kind = "call", id = word(call.toolUseId) or cx.id("tooluse_"), name = text_of(call.name) or "" })
    end

    function delta_of.text(text)
        s:more("text", text_of(text) or "")
    end

    function delta_of.toolUse(given)
        s:input(text_of(members(given).input) or "")
    end

    function delta_of.reasoningContent(given)
        given = members(given)
        s:more("thinking", text_of(given.text) or "")
        if word(given.signature) then s:signature(given.signature, family) end
        if word(given.redactedContent) then
            s:begin({ kind = "redacted", data = given.redactedContent, origin = family })
        end
    end

    function delta_of.citation(given)
        if object(given) then s:cite(content.citation(given)) end
    end

    function on.contentBlockDelta(e)
        local delta = members(e.delta)
        for _, name in ipairs(DELTAS) do
            if delta[name] ~= nil then delta_of[name](delta[name]) end
        end
    end

    function on.contentBlockStop()
        s:close()
    end

    function on.messageStop(e)
        local stop = content.stop(e.stopReason)
        if called and (stop == nil or stop == "end") then stop = "call" end
        s:stop(stop or "end", content.stop_text(e))
    end

    function on.metadata(e)
        s:usage(content.usage(e.usage))
        if s.stopped then s:finish() end
    end

    local read = s:reader(function(e, kind)
        local known = on[kind]
        if known then
            if not s.stopped or kind == "metadata" then known(e) end
        elseif kind and kind:find("Exception$") or word(e.message) then
            s:fail(errors.find(e, nil, kind))
        end
    end)

    -- An error of the framing itself has a code and words, which are no JSON.
    return function(event)
        local kind, data = event and event.type, event and event.data
        if kind and not on[kind] and not s.over and word(data) and type(cx.decode(data)) ~= "table" then
            s:fail(errors.find({ message = data }, nil, kind))
            return s:take()
        end
        return read(event)
    end
end

return M
