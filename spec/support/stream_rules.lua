-- Is a stream legal? events(list): one of the vocabulary; openai_chat(list), anthropic_messages(list): a dialect's, as
-- { type, data }. Each gives nil, or what is wrong and where; and for dialects, what the stream says as a whole:
-- { text, thinking, refusal, calls = { { id, name, input } … }, stop, usage, signatures = { … }, redacted = { … } }.

local json = require("claw.json")

local M = {}

local function wrong(at, message, ...)
    return ("event %d: %s"):format(at, message:format(...))
end

local ON_PART = { text = true, input = true, signature = true, citation = true, logprobs = true, part_end = true }
local TEXT = { text = true, thinking = true, refusal = true }

-- Rules of README.md in lua/claw/protocols.
function M.events(list)
    local started, over, choices = false, false, {}
    for at, e in ipairs(list) do
        if over then return wrong(at, "%s behind the end", e.on) end
        local c = choices[e.choice or 0]
        if not c then
            c = { parts = 0, open = {} }
            choices[e.choice or 0] = c
        end
        if e.on == "start" then
            if started then return wrong(at, "a second start") end
            started = true
        elseif e.on == "error" then
            if not (e.err and e.err.kind and e.err.message and e.err.status) then return wrong(at, "an error without words") end
            over = true
        elseif e.on == "end" then
            if not started then return wrong(at, "an end without a start") end
            for n, one in pairs(choices) do
                if not one.stopped then return wrong(at, "choice %d did not stop", n) end
            end
            over = true
        elseif e.on ~= "ping" and not started then
            return wrong(at, "%s before the start", e.on)
        elseif e.on == "part" then
            if c.stopped then return wrong(at, "a part behind the stop") end
            if e.index ~= c.parts then return wrong(at, "part %s, not %d", tostring(e.index), c.parts) end
            c.open[e.index], c.parts = e.part.kind, c.parts + 1
            if e.part.kind == "call" and not (e.part.id and e.part.name) then return wrong(at, "a call without id or name") end
        elseif ON_PART[e.on] then
            local kind = c.open[e.index]
            if not kind and e.on ~= "logprobs" then return wrong(at, "%s of a part that is not open", e.on) end
            if e.on == "text" and not TEXT[kind] then return wrong(at, "text of a %s", kind) end
            if e.on == "text" and (type(e.text) ~= "string" or e.text == "") then return wrong(at, "no text") end
            if e.on == "input" and kind ~= "call" then return wrong(at, "input of a %s", kind) end
            if e.on == "part_end" then c.open[e.index] = nil end
        elseif e.on == "stop" then
            if next(c.open) then return wrong(at, "stop with a part open") end
            if c.stopped then return wrong(at, "a second stop") end
            if type(e.stop) ~= "string" then return wrong(at, "a stop that says nothing") end
            c.stopped = true
        elseif e.on == "usage" then
            if not (e.usage.input and e.usage.output) then return wrong(at, "usage without counts") end
        elseif e.on ~= "ping" then
            return wrong(at, "unknown %s", tostring(e.on))
        end
    end
    if not over then return wrong(#list, "the stream has no end") end
end

local function said()
    return { text = "", thinking = "", refusal = "", calls = {}, signatures = {}, redacted = {}, annotations = {} }
end

-- n: which choice is put together (0).
function M.openai_chat(list, n)
    local out, id, finished, done, by_index = said(), nil, {}, false, {}
    for at, e in ipairs(list) do
        if done then return wrong(at, "behind the end") end
        if e.type then return wrong(at, "has a type") end
        if e.data == "[DONE]" then
            if not next(finished) then return wrong(at, "[DONE] without a finish_reason") end
            done = true
        else
            local chunk = json.decode(e.data)
            if type(chunk) ~= "table" then return wrong(at, "no JSON: %s", e.data) end
            if chunk.error then
                if type(chunk.error.message) ~= "string" then return wrong(at, "an error without a message") end
                out.error, done = chunk.error, true
            elseif chunk.object ~= "chat.completion.chunk" or not json.is_array(chunk.choices) then
                return wrong(at, "no chunk")
            else
                id = id or chunk.id
                if type(id) ~= "string" or chunk.id ~= id then return wrong(at, "another id") end
                if type(chunk.created) ~= "number" or type(chunk.model) ~= "string" then return wrong(at, "no head") end
                if not chunk.choices[1] then
                    if out.usage or type(chunk.usage) ~= "table" then return wrong(at, "usage twice, or none") end
                    if not next(finished) then return wrong(at, "usage before the finish") end
                    out.usage = chunk.usage
                end
                for _, choice in ipairs(chunk.choices) do
                    if finished[choice.index] then return wrong(at, "choice %d is finished", choice.index) end
                    local delta = choice.delta
                    if choice.finish_reason ~= json.null then
                        finished[choice.index] = choice.finish_reason
                        if next(delta) then return wrong(at, "a finish with a delta") end
                    end
                    if choice.index == (n or 0) then
                        if not out.role and delta.role ~= "assistant" then return wrong(at, "no role first") end
                        out.role = "assistant"
                        out.text = out.text .. (delta.content or "")
                        out.thinking = out.thinking .. (delta.reasoning_content or "")
                        out.refusal = out.refusal .. (delta.refusal or "")
                        for _, note in ipairs(delta.annotations or {}) do table.insert(out.annotations, note.url_citation) end
                        for _, detail in ipairs(delta.reasoning_details or {}) do
                            if detail.type == "reasoning.encrypted" then table.insert(out.redacted, detail.data) end
                            if detail.signature then table.insert(out.signatures, detail.signature) end
                        end
                        for _, call in ipairs(delta.tool_calls or {}) do
                            local known = by_index[call.index]
                            if not known then
                                if call.index ~= #out.calls then return wrong(at, "call %d out of order", call.index) end
                                if not call.id or call.type ~= "function" or not call["function"].name then
                                    return wrong(at, "a call that begins without id, type or name")
                                end
                                known = { id = call.id, name = call["function"].name, input = "" }
                                by_index[call.index] = known
                                table.insert(out.calls, known)
                            elseif call.id then
                                return wrong(at, "a call's id again")
                            end
                            if call.extra_content then known.signature = call.extra_content.google.thought_signature end
                            known.input = known.input .. (call["function"] and call["function"].arguments or "")
                        end
                    end
                end
            end
        end
    end
    if not done then return wrong(#list, "no [DONE]") end
    out.stop = finished[n or 0]
    return nil, out
end

local DELTA = { text_delta = "text", thinking_delta = "thinking", signature_delta = "thinking", citations_delta = "text",
    input_json_delta = "tool_use" }

function M.anthropic_messages(list)
    local out, started, open, index, ended, done = said(), false, nil, -1, false, false
    for at, e in ipairs(list) do
        if done then return wrong(at, "behind the end") end
        local event = json.decode(e.data)
        if type(event) ~= "table" or event.type ~= e.type then return wrong(at, "type and data differ") end
        if e.type == "error" then
            if type(event.error) ~= "table" or not event.error.type or type(event.error.message) ~= "string" then
                return wrong(at, "an error without words")
            end
            out.error, done = event.error, true
        elseif e.type == "ping" then
            out.pings = (out.pings or 0) + 1
        elseif e.type == "message_start" then
            if started then return wrong(at, "a second start") end
            started = true
            local m = event.message
            if not (type(m.id) == "string" and m.type == "message" and m.role == "assistant" and type(m.model) == "string"
                and json.is_array(m.content) and m.usage.input_tokens and m.usage.output_tokens) then
                return wrong(at, "no message")
            end
        elseif not started then
            return wrong(at, "before the start")
        elseif ended and e.type ~= "message_stop" then
            return wrong(at, "behind message_delta")
        elseif e.type == "content_block_start" then
            index = index + 1
            if open then return wrong(at, "a block in a block") end
            if event.index ~= index then return wrong(at, "block %d, not %d", event.index, index) end
            open = event.content_block
            if open.type == "tool_use" then
                if not (open.id and open.name and type(open.input) == "table") then return wrong(at, "no call") end
                table.insert(out.calls, { id = open.id, name = open.name, input = "" })
            elseif open.type == "redacted_thinking" then
                table.insert(out.redacted, open.data)
            end
        elseif e.type == "content_block_delta" then
            local delta = event.delta
            if not open or event.index ~= index then return wrong(at, "a delta of no open block") end
            if DELTA[delta.type] ~= open.type then return wrong(at, "%s of a %s", delta.type, open.type) end
            if delta.type == "text_delta" then out.text = out.text .. delta.text end
            if delta.type == "thinking_delta" then out.thinking = out.thinking .. delta.thinking end
            if delta.type == "signature_delta" then table.insert(out.signatures, delta.signature) end
            if delta.type == "citations_delta" then table.insert(out.annotations, delta.citation) end
            if delta.type == "input_json_delta" then
                out.calls[#out.calls].input = out.calls[#out.calls].input .. delta.partial_json
            end
        elseif e.type == "content_block_stop" then
            if not open or event.index ~= index then return wrong(at, "the end of no open block") end
            open = nil
        elseif e.type == "message_delta" then
            if open then return wrong(at, "an open block") end
            if type(event.delta.stop_reason) ~= "string" then return wrong(at, "no stop_reason") end
            if not event.usage.output_tokens then return wrong(at, "no usage") end
            out.stop, out.stop_text, out.usage, ended = event.delta.stop_reason, event.delta.stop_sequence, event.usage, true
        elseif e.type == "message_stop" then
            if not ended then return wrong(at, "no message_delta") end
            done = true
        else
            return wrong(at, "unknown %s", tostring(e.type))
        end
    end
    if not done then return wrong(#list, "no message_stop") end
    return nil, out
end

-- All events that a reader gives for a stream's { type, data }, with the upstream's end.
function M.read(reader, events)
    local out = {}
    for _, event in ipairs(events) do
        for _, e in ipairs(reader(event)) do out[#out + 1] = e end
    end
    for _, e in ipairs(reader(nil)) do out[#out + 1] = e end
    return out
end

-- All a writer gives for events of the vocabulary.
function M.write(writer, events)
    local out = {}
    for _, e in ipairs(events) do
        for _, made in ipairs(writer(e)) do out[#out + 1] = made end
    end
    return out
end

-- Events of the vocabulary as the parts, stop and usage they say (of a choice).
function M.gather(events, choice)
    local out = { parts = {} }
    for _, e in ipairs(events) do
        if (e.choice or 0) == (choice or 0) then
            local part = e.index and out.parts[e.index + 1]
            if e.on == "part" then
                part = {}
                for key, v in pairs(e.part) do part[key] = v end
                if TEXT[part.kind] then part.text = part.text or "" end
                if part.kind == "call" then part.input = "" end
                out.parts[e.index + 1] = part
            elseif e.on == "text" then
                part.text = part.text .. e.text
            elseif e.on == "input" then
                part.input = part.input .. e.text
            elseif e.on == "signature" then
                part.signature, part.origin = e.signature, e.origin
            elseif e.on == "citation" then
                part.citations = part.citations or {}
                table.insert(part.citations, e.citation)
            elseif e.on == "stop" then
                out.stop, out.stop_text = e.stop, e.stop_text
            end
        end
        if e.on == "usage" or e.on == "start" then out.usage = e.usage or out.usage end
        if e.on == "error" then out.err = e.err end
    end
    return out
end

return M
