-- reader: the chunks of an OpenAI chat stream as events of the vocabulary.
--
-- A choice has one part open at a time: reasoning, text and refusal follow each other as they come. Calls come one
-- after the other too, but the protocol lets them interleave (tool_calls[].index). So when another call begins, the
-- open one is closed if its arguments are whole; else the other waits until they are, or until the end.
--
-- Chunks differ by provider: a call's index or id may be missing, or its id come again in each delta; a whole call may
-- be one delta; usage may come with the last choice, behind it, in x_groq, or in each chunk; an error may be a chunk.

local answer = require("claw.protocols.openai_chat.answer")
local content = require("claw.protocols.openai_chat.content")
local spelling = require("claw.protocols.openai_chat.spelling")
local errors = require("claw.protocols.openai_chat.error")
local fields = require("claw.protocols.fields")
local mould = require("claw.protocols.openai_chat.mould")

local M = {}

local word, text_of, count = fields.word, fields.text, fields.count
local list, object, members = fields.list, fields.object, fields.fields

local NOTHING = {}
local UNREADABLE = { status = 502, kind = "server", message = "the upstream sent an event that is no JSON" }
local CUT = { status = 502, kind = "server", message = "the upstream's stream ended before its answer did" }

local function put(out, event, c)
    event.choice = c.named
    out[#out + 1] = event
end

-- ---- parts of a choice c: { choice, parts (begun so far), open (its kind), calls (in order), waiting, … }

local function close(c, out)
    if not c.open then return end
    put(out, { on = "part_end", index = c.parts - 1 }, c)
    c.open = nil
end

local function begin(c, part, out)
    close(c, out)
    put(out, { on = "part", index = c.parts, part = part }, c)
    c.parts = c.parts + 1
    c.open = part.kind
    return c.parts - 1
end

local function more(c, kind, text, out)
    if text == "" then return end
    if c.open ~= kind then begin(c, { kind = kind }, out) end
    put(out, { on = "text", index = c.parts - 1, text = text }, c)
end

-- ---- calls: { id, name, text (pieces of arguments), index (of its part, once it has begun), ended }

-- Are its arguments whole? Asked again only when there are more of them.
local function whole(call, cx)
    if call.asked == #call.text then return false end
    call.asked = #call.text
    local said = table.concat(call.text)
    return said:find("%S") ~= nil and cx.decode(said) ~= nil
end

local function begin_call(c, call, out, cx)
    call.index = begin(c, { kind = "call", id = call.id or cx.id("call_"), name = call.name or "",
        signature = call.signature, origin = call.signature and "gemini" }, out)
    c.call = call
    local said = table.concat(call.text)
    if said ~= "" then put(out, { on = "input", index = call.index, text = said }, c) end
end

-- Calls that wait, in order, as far as the open one's arguments are whole; all of them at the end.
local function begin_waiting(c, out, cx, all)
    while c.waiting[1] and (all or not c.call or whole(c.call, cx)) do
        begin_call(c, table.remove(c.waiting, 1), out, cx)
    end
end

local CALLS = 1024 -- of a choice: more are left out

-- The call a delta belongs to, and whether it is new.
local function find_call(c, delta)
    local at, id = count(delta.index), word(delta.id)
    local call
    if at then
        call = c.by_index[at]
    elseif id then
        call = c.by_id[id]
    else
        call = c.calls[#c.calls]
    end
    -- Another id and a name under an index that was seen: another call, from one who gives all of them index 0.
    local name = word(members(delta["function"]).name)
    if call and id and call.id and id ~= call.id and name then call = c.by_id[id] end
    if call then return call, false end
    if #c.calls >= CALLS then return nil end
    call = { text = {} }
    c.calls[#c.calls + 1] = call
    if at then c.by_index[at] = call end
    return call, true
end

local function call_delta(c, delta, out, cx)
    local call, new = find_call(c, delta)
    if not call then return end
    local named = members(delta["function"])
    local id = word(delta.id)
    if id and not call.id then
        call.id = id
        c.by_id[id] = call
    end
    call.name = call.name or word(named.name)
    call.signature = call.signature or word(members(members(delta.extra_content).google).thought_signature)
    local said = text_of(named.arguments)
    if object(named.arguments) then said = spelling.arguments(named.arguments) end
    said = said or ""
    if call.index and c.call == call and c.open == "call" then
        if said ~= "" then
            call.text[#call.text + 1] = said
            put(out, { on = "input", index = call.index, text = said }, c)
        end
        return
    elseif call.index then
        return -- it was whole, and is over
    end
    call.text[#call.text + 1] = said
    if new then c.waiting[#c.waiting + 1] = call end
    -- A call without a name yet cannot begin.
    if call.name and c.waiting[1] == call then begin_waiting(c, out, cx, c.open ~= "call") end
end

-- ---- reasoning that others cannot read, and signatures

local function details(c, delta, said, out)
    local all = list(delta.reasoning_details)
    for i = 1, #all do
        local detail = members(all[i])
        local origin = content.FAMILY[detail.format]
        local text = detail.type == "reasoning.summary" and text_of(detail.summary) or text_of(detail.text)
        if detail.type == "reasoning.encrypted" and word(detail.data) then
            begin(c, { kind = "redacted", data = detail.data, origin = origin, id = word(detail.id) }, out)
            close(c, out)
        elseif text and not said then
            more(c, "thinking", text, out)
        end
        if word(detail.signature) then
            if c.open ~= "thinking" then begin(c, { kind = "thinking" }, out) end
            put(out, { on = "signature", index = c.parts - 1, signature = detail.signature, origin = origin }, c)
        end
    end
end

local function chunks(c, all, out)
    for i = 1, #all do
        local chunk = members(all[i])
        if chunk.type == "thinking" then
            more(c, "thinking", content.thinking_text(chunk), out)
        elseif text_of(chunk.text) then
            more(c, "text", chunk.text, out)
        end
    end
end

local function notes(c, delta, out)
    local all = list(delta.annotations)
    for i = 1, #all do
        local cited = members(members(all[i]).url_citation)
        if word(cited.url) then
            if c.open ~= "text" then begin(c, { kind = "text" }, out) end
            put(out, { on = "citation", index = c.parts - 1, citation = { url = cited.url, title = word(cited.title),
                start = count(cited.start_index), finish = count(cited.end_index) } }, c)
        end
    end
end

local function read_delta(c, delta, out, cx)
    local thought = word(delta.reasoning_content) or word(delta.reasoning)
    if thought then more(c, "thinking", thought, out) end
    if delta.reasoning_details then details(c, delta, thought, out) end
    if delta.images then
        local images = {}
        content.read_images(delta, images)
        for _, part in ipairs(images) do
            begin(c, part, out)
            close(c, out)
        end
    end
    local said = delta.content
    if type(said) == "string" then
        more(c, "text", said, out)
    elseif said then
        chunks(c, list(said), out)
    end
    if word(delta.refusal) then
        c.refused = true
        more(c, "refusal", delta.refusal, out)
    end
    if delta.annotations then notes(c, delta, out) end
    local calls = list(delta.tool_calls)
    for i = 1, #calls do
        if object(calls[i]) then call_delta(c, calls[i], out, cx) end
    end
    if object(delta.function_call) then -- the time before tools: one call
        call_delta(c, { index = 0, ["function"] = delta.function_call }, out, cx)
    end
    local audio = object(delta.audio)
    if audio and word(audio.transcript) then more(c, "text", audio.transcript, out) end
end

-- Perplexity's sources, which the text names by number: told with each chunk, read at the end.
local function sources(c, chunk, out)
    local urls, found = list(chunk.citations), list(chunk.search_results)
    for i = 1, #urls do
        if word(urls[i]) then
            put(out, { on = "citation", index = c.parts - 1,
                citation = { url = urls[i], title = word(members(found[i]).title) } }, c)
        end
    end
end

local function finish(c, stop, out, cx, chunk)
    if chunk and chunk.citations and c.open == "text" then sources(c, chunk, out) end
    begin_waiting(c, out, cx, true)
    close(c, out)
    c.stopped = true
    put(out, { on = "stop", stop = stop }, c)
end

-- Returns the error of one that failed: what it said before stands in `out`.
local function read_choice(c, choice, out, cx, chunk)
    if c.stopped then return end
    local delta = object(choice.delta)
    if delta then read_delta(c, delta, out, cx) end
    local logprobs = object(choice.logprobs)
    if logprobs and (fields.array(logprobs.content) or fields.array(logprobs.refusal)) then
        put(out, { on = "logprobs", index = math.max(c.parts - 1, 0), logprobs = logprobs }, c)
    end
    local stop = answer.stop(choice.finish_reason, c.calls[1] ~= nil, c.refused)
    if stop == "error" then return errors.unfinished(word(choice.finish_reason)) end
    if stop then finish(c, stop, out, cx, chunk) end
end

-- ---- the stream

local function count_usage(chunk, out)
    local usage = answer.usage_in(chunk)
    if usage then out[#out + 1] = { on = "usage", usage = usage } end
    return out
end

local CHOICES = 128 -- what n may be at most

function M.new(cx)
    local choices, begun, over = {}, false, false
    local kept, of -- the last text chunk's mould, and its choice

    local function choice_at(index)
        local c = choices[index]
        if not c then
            c = { named = index > 0 and index or nil, parts = 0, calls = {}, waiting = {}, by_index = {}, by_id = {} }
            choices[index] = c
        end
        return c
    end

    local function start(chunk, out)
        begun = true
        out[#out + 1] = { on = "start", id = word(chunk.id) or cx.id("chatcmpl-"), model = word(chunk.model),
            created = count(chunk.created) }
    end

    local function fail(err, out)
        over, out = true, out or {}
        out[#out + 1] = { on = "error", err = err }
        return out
    end

    -- The stream's end; `said`: the protocol said so, and what has no finish_reason just ends.
    local function finished(said)
        if over then return NOTHING end
        local out, all = {}, choices[0] ~= nil
        for index = 0, CHOICES do
            local c = choices[index]
            if c and not c.stopped then
                if said then finish(c, c.calls[1] and "call" or "end", out, cx) else all = false end
            end
        end
        if not begun or not all then
            return fail(CUT)
        end
        over = true
        out[#out + 1] = { on = "end" }
        return out
    end

    local function read(chunk)
        local err = (fields.says(chunk.error) or chunk.object == "error") and errors.find(chunk)
        if err then return fail(err) end
        local out, all = {}, list(chunk.choices)
        if not begun then
            if not all[1] then -- Azure's word on the prompt comes before all else, and has no id
                return NOTHING
            end
            start(chunk, out)
        end
        for i = 1, #all do
            local choice = object(all[i])
            if choice and object(choice.error) then return fail(errors.find(choice), out) end -- OpenRouter
            local index = choice and (count(choice.index) or 0)
            local failed = choice and index < CHOICES and read_choice(choice_at(index), choice, out, cx, chunk)
            if failed then return fail(failed, choices[index].parts > 0 and count_usage(chunk, out) or nil) end
        end
        return count_usage(chunk, out)
    end

    return function(event)
        if over then return NOTHING end
        if not event then return finished(false) end
        local data = event.data
        if data == "[DONE]" then return finished(true) end
        if type(data) ~= "string" or data == "" then return NOTHING end
        local text = kept and of.open == "text" and mould.text(kept, data)
        if text then return { { on = "text", index = of.parts - 1, text = text, choice = of.named } } end
        local chunk = cx.decode(data)
        if not object(chunk) then
            if data:find("^%s*%[DONE%]%s*$") then return finished(true) end
            return fail(UNREADABLE)
        end
        local out = read(chunk)
        local only = out[1]
        if only and only.on == "text" and not out[2] then
            local c = choices[only.choice or 0]
            if c.open == "text" then kept, of = mould.make(data, only.text), c end
        end
        return out
    end
end

return M
